// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hhwatchd/hhwatchd/journal"
)

// TestExpireJournal lets a daemon run for days of a clock of its own.
func TestExpireJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	synctest.Test(t, func(t *testing.T) {
		j, err := journal.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		var log lockedBuffer
		b := &book{j: j, log: slog.New(slog.NewTextHandler(&log, nil))}
		var keep atomic.Pointer[JournalConfig]
		keep.Store(&JournalConfig{MaxAge: 8760 * time.Hour, MaxSize: gibibyte})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			b.expire(ctx, func() JournalConfig { return *keep.Load() })
		}()
		write := func() {
			for range 20 {
				if err := b.append(journal.Record{Step: journal.StepReload}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
			}
		}
		write()
		if r, err := journal.Verify(dir, nil); err != nil || r.First != 1 || len(r.Damage) > 0 {
			t.Errorf("within the bounds: %+v, %v", r, err)
		}
		keep.Store(&JournalConfig{MaxAge: 8 * time.Hour, MaxSize: gibibyte}) // reread
		write()
		r, err := journal.Verify(dir, nil)
		if err != nil || r.First < 20 || r.Expired != r.First-1 || len(r.Damage) > 0 || time.Since(r.Oldest) > 16*time.Hour {
			t.Errorf("past the bounds: %+v, %v", r, err)
		}
		if !strings.Contains(log.String(), "removed the oldest part of the journal, records 1 to ") {
			t.Errorf("the log does not tell:\n%s", log.String())
		}
		time.Sleep(48 * time.Hour)
		before, _ := j.Head()
		time.Sleep(480 * time.Hour)
		if after, _ := j.Head(); after != before {
			t.Errorf("an idle daemon wrote records %d to %d", before+1, after)
		}
		cancel()
		<-ended
	})
}

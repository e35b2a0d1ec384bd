// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLocks: others' locks are waited for and never broken, our own are.
func TestLocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	h, err := c.WriteCommit(w.head(c), []Change{put("a", "2")}, us, us, "x")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"index", "refs/heads/main"} {
		lock := filepath.Join(w.dir, ".git", name+".lock")
		save(t, w.dir, map[string]string{".git/" + name + ".lock": "git's"})
		ctx, cancel := context.WithTimeout(w.ctx(), 60*time.Millisecond)
		if _, err := c.Advance(ctx, h); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with %s: %v", lock, err)
		}
		cancel()
		if _, err := os.Lstat(lock); err != nil {
			t.Errorf("the lock of another was broken: %v", err)
		}
		// It goes while we wait.
		gone := time.AfterFunc(50*time.Millisecond, func() { os.Remove(lock) })
		defer gone.Stop()
		w.head(c)
		w.advance(c, h)
		w.clean()
		if h, err = c.WriteCommit(h, []Change{put("a", name)}, us, us, "x"); err != nil {
			t.Fatal(err)
		}
	}
	// One that stays is told of, with its age.
	index := c.indexPath() + ".lock"
	save(t, w.dir, map[string]string{".git/index.lock": "git's"})
	made := time.Date(2026, 11, 16, 9, 12, 33, 0, time.UTC)
	if err := os.Chtimes(index, made, made); err != nil {
		t.Fatal(err)
	}
	var locked *LockedError
	if _, err := c.Advance(w.ctx(), h); !errors.As(err, &locked) || locked.File != index || !locked.Since.Equal(made) ||
		!strings.Contains(err.Error(), "since 2026-11-16 09:12 UTC") {
		t.Errorf("Advance with a lock of last week: %v", err)
	}
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	// git honours ours.
	unlock, err := lock(w.ctx(), c.indexPath())
	if err != nil {
		t.Fatal(err)
	}
	if out, err := tryGit(w.dir, "update-index", "--force-remove", "a"); err == nil || !strings.Contains(out, "index.lock") {
		t.Errorf("git update-index: %v, %s", err, out)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	for mark, want := range map[string]bool{
		lockMark(): false, "hhwatchd:1:0:" + bootID(): true, "hhwatchd:1:" + started(1) + ":" + bootID(): false,
		"hhwatchd:1:" + started(1) + ":x": true, "": false, "somebody": false, "git:1:0:x": false, "hhwatchd:one:0:x": false,
	} {
		if got := stale(mark); got != want {
			t.Errorf("stale(%q) = %v", mark, got)
		}
	}
}

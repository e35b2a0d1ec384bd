// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hhwatchd/hhwatchd/journal"
)

// TestHealth: the probes follow the work. (Those of a real daemon are in
// test/e2e, where none hangs.)
func TestHealth(t *testing.T) {
	j, err := journal.Open(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	t.Setenv("WATCHDOG_USEC", "") // of no systemd
	synctest.Test(t, func(t *testing.T) {
		s := aService(slog.New(slog.DiscardHandler))
		r := s.repos[0]
		defer r.fabrics[0].cluster.retry.Stop()
		s.book = &book{j: j, log: s.log}
		s.book.metrics = newMetrics(s)
		h := s.httpHandler()
		want := func(path string, code int, text string) {
			t.Helper()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if w.Code != code || w.Body.String() != text+"\n" {
				t.Errorf("%s: %d %q, want %d %q", path, w.Code, w.Body, code, text)
			}
		}
		r.pulse.start("start")
		time.Sleep(2 * time.Minute)
		want("/healthz", 200, "ok")
		want("/readyz", 503, "repository site-a has not been looked at yet")
		time.Sleep(time.Second)
		want("/healthz", 503, `the cycle of repository site-a hangs in "start" for 2m1s`)
		if got := gathered(t, s.book.metrics, "hhwatchd_hung"); !slices.Equal(got, []float64{1}) {
			t.Errorf("hhwatchd_hung is %v", got)
		}
		r.pulse.stop()
		close(r.looked)
		want("/healthz", 200, "ok")
		want("/readyz", 200, "ok")
		if got := gathered(t, s.book.metrics, "hhwatchd_hung"); !slices.Equal(got, []float64{0}) {
			t.Errorf("hhwatchd_hung is %v", got)
		}
	})
}

// gathered returns the values of a gauge or counter.
func gathered(t *testing.T, m *metrics, name string) (values []float64) {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, v := range f.Metric {
			if f.GetName() == name {
				values = append(values, v.GetGauge().GetValue()+v.GetCounter().GetValue())
			}
		}
	}
	return values
}

// TestHeedCalls: one call is one trigger at once, many are few.
func TestHeedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &repository{requests: make(chan trigger), calls: make(chan struct{}, 1)}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r.heedCalls(ctx)
		}()
		start := time.Now()
		pulled := make(chan time.Duration, 100)
		cycle := time.Duration(0) // how long a cycle takes
		go func() {
			for {
				select {
				case tr := <-r.requests:
					if tr.why != "webhook" || !tr.ask || tr.noPull || tr.full {
						t.Errorf("trigger %+v", tr)
					}
					pulled <- time.Since(start)
					time.Sleep(cycle)
				case <-ctx.Done():
					return
				}
			}
		}()
		flood := func(n int, every time.Duration) {
			for range n {
				r.call()
				time.Sleep(every)
			}
			time.Sleep(time.Minute)
		}
		want := func(seconds ...float64) {
			t.Helper()
			synctest.Wait()
			var got []float64
			for len(pulled) > 0 {
				got = append(got, (<-pulled).Seconds())
			}
			if !slices.Equal(got, seconds) {
				t.Errorf("pulls after %v s, want %v", got, seconds)
			}
			start = time.Now()
		}
		flood(1, 0)
		want(0)
		flood(2, time.Millisecond)
		want(0, 1)
		flood(10_000, time.Millisecond)
		want(0, 1, 3, 7, 15)
		flood(5, 2*time.Second) // slow enough for one each
		want(0, 2, 4, 6, 8)
		flood(600, 100*time.Millisecond)
		want(0, 1, 3, 7, 15, 23, 31, 39, 47, 55, 63)

		// Calls during a pull lead to one more, after it.
		cycle = 20 * time.Second
		flood(100, 100*time.Millisecond)
		want(0, 20, 40)
		stop()
		<-ended
	})
}

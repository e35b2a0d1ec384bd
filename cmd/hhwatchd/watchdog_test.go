// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// aService has one repository with one fabric in a cluster, none of it running.
func aService(log *slog.Logger) *service {
	r := &repository{cfg: &RepositoryConfig{Name: "site-a"}}
	f := &fabric{cfg: &FabricConfig{Name: "fabric-1"}}
	f.cluster = newCluster(r, f)
	r.fabrics = []*fabric{f}
	return &service{log: log, repos: []*running{{repository: r, looked: make(chan struct{})}}}
}

func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := aService(slog.New(slog.DiscardHandler))
		r := s.repos[0].repository
		defer r.fabrics[0].cluster.retry.Stop()
		want := func(text string) {
			t.Helper()
			if got := s.hangs(time.Minute); got != text {
				t.Errorf("hangs says %q, want %q", got, text)
			}
		}
		time.Sleep(time.Hour)
		want("") // at rest

		r.pulse.start("start")
		progress := r.pulse.through(nil)
		for range 100 { // long, but it goes on
			time.Sleep(50 * time.Second)
			progress("download", 1, 2)
			want("")
		}
		time.Sleep(61 * time.Second)
		want(`the cycle of repository site-a hangs in "download" for 1m1s`)
		progress("index", 0, 0)
		want("")
		for range 100 { // no progress, but the remote says something
			time.Sleep(50 * time.Second)
			r.pulse.beat()
			want("")
		}
		r.pulse.stop()
		r.pulse.beat()
		progress("apply", 1, 2) // of a cluster, which goes on after the cycle
		time.Sleep(time.Hour)
		want("")

		r.fabrics[0].cluster.pulse.start("apply")
		time.Sleep(2 * time.Minute)
		want(`the work on the cluster of fabric-1 hangs in "apply" for 2m0s`)
	})
}

// notifySocket is systemd's end of sd_notify(3).
func notifySocket(t *testing.T) *net.UnixConn {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return c
}

// next returns the next message, "" when none comes within d.
func next(t *testing.T, c *net.UnixConn, d time.Duration) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(d))
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil && !os.IsTimeout(err) {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestWatchdog(t *testing.T) {
	const interval = 200 * time.Millisecond
	c := notifySocket(t)
	var log lockedBuffer
	s := aService(slog.New(slog.NewTextHandler(&log, nil)))
	r := s.repos[0].repository
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.watchdog(ctx, interval)
	}()
	defer func() { stop(); <-done }()
	const patience = 10 * time.Second
	for range 3 {
		if m := next(t, c, patience); m != "WATCHDOG=1" {
			t.Fatalf("at rest the watchdog says %q", m)
		}
	}
	r.pulse.start("drop")
	for deadline := time.Now().Add(patience); !strings.Contains(log.String(), "site-a hangs"); {
		if time.Now().After(deadline) {
			t.Fatalf("nothing is said of the hang; the log has %q", log.String())
		}
		next(t, c, 10*time.Millisecond)
	}
	for next(t, c, time.Millisecond) != "" { // from before
	}
	if m := next(t, c, 3*interval); m != "" {
		t.Errorf("while a cycle hangs the watchdog says %q", m)
	}
	if n := strings.Count(log.String(), "hangs"); n != 1 {
		t.Errorf("the hang is logged %d times", n)
	}
	r.pulse.stop()
	if m := next(t, c, patience); m != "WATCHDOG=1" {
		t.Errorf("when it is over the watchdog says %q", m)
	}
}

// While a first clone makes progress, start-up is extended; when it makes
// none, start-up does not wait for it.
func TestAwaitFirstLook(t *testing.T) {
	c := notifySocket(t)
	told := make(chan map[string]int)
	go func() { // a socket that nobody reads would be full soon
		got := map[string]int{}
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil || string(buf[:n]) == "END=1" {
				told <- got
				return
			}
			got[string(buf[:n])]++
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		s := aService(slog.New(slog.DiscardHandler))
		defer s.repos[0].fabrics[0].cluster.retry.Stop()
		r := s.repos[0].repository
		r.pulse.start("start")
		progress := r.pulse.through(nil)
		start := time.Now()
		go func() {
			for time.Since(start) < 3*time.Minute {
				progress("download", 1, 0)
				time.Sleep(time.Second)
			}
			close(s.repos[0].looked)
		}()
		s.awaitFirstLook(t.Context())
		if d := time.Since(start); d < 3*time.Minute || d > 3*time.Minute+2*time.Second {
			t.Errorf("a first look that goes on for 3m is waited for %v", d)
		}

		s.repos[0].looked = make(chan struct{})
		start = time.Now()
		s.awaitFirstLook(t.Context())
		if d := time.Since(start); d < readyWait || d > readyWait+readyTick {
			t.Errorf("a first look without progress is waited for %v", d)
		}
	})
	c.SetReadDeadline(time.Now().Add(time.Minute))
	notify("END=1") // after all that was told before
	if got := <-told; len(got) != 1 || got["EXTEND_TIMEOUT_USEC=30000000"] < 30 {
		t.Errorf("systemd is told %v", got)
	}
}

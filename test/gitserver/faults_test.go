// SPDX-License-Identifier: Apache-2.0

package gitserver

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestFaults(t *testing.T) {
	srv, work := newRepo(t, Options{})
	for _, tt := range []struct {
		name  string
		fault func()
		errs  []string
	}{
		{"503", func() { srv.Fail(http.StatusServiceUnavailable) }, []string{"503"}},
		{"404", func() { srv.Fail(http.StatusNotFound) }, []string{"not found"}},
		{"401", func() { srv.Fail(http.StatusUnauthorized) }, []string{"terminal prompts disabled"}},
		{"garbage", srv.Garbage, []string{"protocol error", "invalid server response", "bad line length"}},
		{"truncated at once", func() { srv.Truncate(0) }, []string{"empty reply", "Empty reply", "transfer closed", "hung up"}},
		{"truncated", func() { srv.Truncate(100) }, []string{"transfer closed", "hung up", "early EOF"}},
		{"down", srv.Down, []string{"Connection refused", "Failed to connect"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.fault()
			_, err := work.TryGit("fetch", "origin")
			wantError(t, err, tt.errs...)
			srv.Clear()
			srv.Up()
			work.Git("fetch", "origin")
		})
	}
}

func TestRejectPush(t *testing.T) {
	srv, work := newRepo(t, Options{})
	work.Commit("To be refused")
	srv.RejectPush("main is protected: ask $HOME and `ops`")
	_, err := work.TryGit("push", "origin", "HEAD")
	wantError(t, err, "[remote rejected] HEAD -> main (pre-receive hook declined)")
	wantError(t, err, "remote: main is protected: ask $HOME and `ops`")
	work.Git("fetch", "origin")
	srv.Clear()
	work.Push()
}

func TestBeforePush(t *testing.T) {
	srv, loser := newRepo(t, Options{})
	winner := srv.Clone(t, "fabrics")
	winner.Write("winner", "1\n")
	won := winner.Commit("Won")
	loser.Write("loser", "2\n")
	loser.Commit("Lost")

	ran := make(chan error, 2)
	srv.BeforePush(func() {
		_, err := winner.TryGit("push", "origin", "HEAD")
		ran <- err
	})
	_, err := loser.TryGit("push", "origin", "HEAD")
	wantError(t, err, "[remote rejected]", "[rejected]")
	if err := <-ran; err != nil {
		t.Fatalf("the winner's push: %v", err)
	}
	if got := strings.TrimSpace(Open(t, srv.Create("fabrics")).Git("rev-parse", "main")); got != won {
		t.Errorf("main is %s, want the winner's %s", got, won)
	}
	loser.Pull()
	loser.Push()
	if len(ran) != 0 {
		t.Error("the function ran again with a later push")
	}

	srv.BeforePush(func() { t.Error("the function ran after Clear") })
	srv.Clear()
	loser.Commit("More")
	loser.Push()
}

// A request that hangs is answered when the fault is cleared.
func TestHangThenClear(t *testing.T) {
	srv, work := newRepo(t, Options{})
	srv.Hang()
	before := srv.Requests()
	done := make(chan error, 1)
	go func() {
		_, err := work.TryGit("fetch", "origin")
		done <- err
	}()
	if err := srv.WaitRequests(t.Context(), func(n Requests) bool { return n != before }); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Fatalf("the fetch was answered while the server hangs: %v", err)
	default:
	}
	srv.Clear()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A request that hangs ends with its client, with Down, or with Close.
func TestHangEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(srv *Server, cancel context.CancelFunc)
	}{
		{"client gone", func(_ *Server, cancel context.CancelFunc) { cancel() }},
		{"Down", func(srv *Server, _ context.CancelFunc) { srv.Down() }},
		{"Close", func(srv *Server, _ context.CancelFunc) { srv.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := Start(t, Options{})
			srv.Hang()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			failed := make(chan error, 1)
			go func() {
				req, err := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
				if err == nil {
					_, err = http.DefaultClient.Do(req)
				}
				failed <- err
			}()
			if err := srv.WaitRequests(t.Context(), func(n Requests) bool { return n.Other == 1 }); err != nil {
				t.Fatal(err)
			}
			tt.end(srv, cancel)
			if err := <-failed; err == nil {
				t.Error("the client got an answer")
			}
			srv.handlers.Wait()
		})
	}
}

func TestWaitRequestsObeysContext(t *testing.T) {
	srv := Start(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := srv.WaitRequests(ctx, func(Requests) bool { return false })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestDelay(t *testing.T) {
	srv := Start(t, Options{})
	const delay = 50 * time.Millisecond
	srv.Delay(delay)
	srv.Fail(http.StatusTeapot) // combines with the delay
	start := time.Now()
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusTeapot {
		t.Errorf("status %d, want %d", resp.StatusCode, http.StatusTeapot)
	}
	if took := time.Since(start); took < delay {
		t.Errorf("answered after %v, want at least %v", took, delay)
	}
}

// While the server is down nobody else gets its port, and it comes back with
// what it had.
func TestDownAndUp(t *testing.T) {
	srv, work := newRepo(t, Options{TLS: true, Username: "u", Password: "p"})
	for range 3 {
		srv.Down()
		srv.Down() // nothing
		_, err := work.TryGit("fetch", "origin")
		wantError(t, err, "Connection refused", "Failed to connect")
		srv.Up()
		srv.Up() // nothing
		work.Git("fetch", "origin")
	}
}

// Down in the middle of a push takes git with it.
func TestDownDuringPush(t *testing.T) {
	srv, work := newRepo(t, Options{})
	work.Commit("More")
	srv.BeforePush(srv.Down)
	_, err := work.TryGit("push", "origin", "HEAD")
	wantError(t, err, "Empty reply", "hung up", "Recv failure", "Connection reset")
	srv.Up()
	work.Push()
}

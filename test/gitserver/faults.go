// SPDX-License-Identifier: Apache-2.0

package gitserver

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// fault is how the server misbehaves. At most one of status, garbage and hang
// is set; the others combine with it and with each other.
type fault struct {
	status   int // HTTP status to answer with
	garbage  bool
	hang     bool
	hangAt   service // hang only there
	delay    time.Duration
	cut      bool
	cutAfter int    // bytes of body, if cut
	reject   string // what the pre-receive hook says; "" lets pushes pass
}

// Fail answers every request with that HTTP status. It replaces Garbage and
// Hang.
func (s *Server) Fail(status int) {
	s.set(func(f *fault) { f.status, f.garbage, f.hang = status, false, false })
}

// Garbage answers every request with status 200 and the content type that the
// client expects, and a body that is an HTML page, as a captive portal or a
// proxy might. It replaces Fail and Hang.
func (s *Server) Garbage() {
	s.set(func(f *fault) { f.status, f.garbage, f.hang = 0, true, false })
}

// Hang accepts connections and requests and says nothing. A request hangs
// until its client goes away, or until the fault is cleared or replaced: then
// it is answered. It replaces Fail and Garbage.
func (s *Server) Hang() {
	s.set(func(f *fault) { f.status, f.garbage, f.hang = 0, false, true })
}

// HangFetch hangs, as Hang does, only where a pack is asked for: clients hear
// what the refs are at.
func (s *Server) HangFetch() {
	s.set(func(f *fault) { f.hangAt = fetching })
}

// HangPush hangs, as Hang does, only where a pack is pushed: clients hear what
// the refs are at.
func (s *Server) HangPush() {
	s.set(func(f *fault) { f.hangAt = pushing })
}

// Delay holds every request back for d before it is dealt with.
func (s *Server) Delay(d time.Duration) {
	s.set(func(f *fault) { f.delay = d })
}

// Truncate sends the first n bytes of the body of every answer and then
// breaks the connection, in the middle of a pack for example.
func (s *Server) Truncate(n int) {
	s.set(func(f *fault) { f.cut, f.cutAfter = true, n })
}

// RejectPush refuses every push through a pre-receive hook (githooks(5)) that
// says message, which must not be empty: the client sees "remote: <message>"
// and "[remote rejected] ... (pre-receive hook declined)". The hooks of the
// repository itself do not run meanwhile.
func (s *Server) RejectPush(message string) {
	s.set(func(f *fault) { f.reject = message })
}

// BeforePush runs fn once, just before the next push is received: the pushing
// client has seen the refs and has sent its request, git has not looked at
// it. What fn pushes itself is received first, so that the client loses the
// race. fn runs in a goroutine of the server: what the rest of the test is to
// see of it goes through the test's own synchronisation, and a failing test
// is reported by Errorf there, since FailNow belongs to the test's goroutine.
func (s *Server) BeforePush(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beforePush = fn
}

// Clear ends all faults but Down, and forgets a BeforePush that has not run.
func (s *Server) Clear() {
	s.mu.Lock()
	s.beforePush = nil
	s.mu.Unlock()
	s.set(func(f *fault) { *f = fault{} })
}

// Down breaks all connections and stops listening: clients see "connection
// refused". The port stays reserved. It does nothing when the server is down.
func (s *Server) Down() {
	s.mu.Lock()
	up := s.up
	s.up = nil
	s.mu.Unlock()
	if up == nil {
		return
	}
	up.cancel()
	up.http.Close()
	<-up.done
}

// Up listens again, on the same port, after Down. It does nothing when the
// server is up or closed.
func (s *Server) Up() {
	if err := s.listen(); err != nil {
		s.fail(err)
	}
}

// Renew serves another certificate from now on, which CAFile then holds: valid
// until notAfter, which may be over. Connections are broken. The server must
// have been made with TLS.
func (s *Server) Renew(notAfter time.Time) {
	s.Down()
	err := s.certify(notAfter)
	s.Up()
	if err != nil {
		s.fail(err)
	}
}

func (s *Server) set(change func(*fault)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.fault)
	s.wake()
}

// wake tells those who wait for s.changed. The caller holds s.mu.
func (s *Server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// misbehave waits as long as the faults say and returns those that are then
// left to act on. It reports false when the request's context ended first.
func (s *Server) misbehave(ctx context.Context, at service) (fault, bool) {
	s.mu.Lock()
	delay := s.fault.delay
	s.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return fault{}, false
		}
	}
	for {
		s.mu.Lock()
		f, changed := s.fault, s.changed
		s.mu.Unlock()
		if !f.hang && (f.hangAt != at || at == other) {
			return f, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fault{}, false
		}
	}
}

// takeBeforePush returns what BeforePush left, once, or nil.
func (s *Server) takeBeforePush() func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn := s.beforePush
	s.beforePush = nil
	return fn
}

// cutWriter passes on the first left bytes of a body and then breaks the
// connection.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if len(p) < w.left {
		w.left -= len(p)
		return w.ResponseWriter.Write(p)
	}
	w.ResponseWriter.Write(p[:w.left])
	// What is still buffered would be dropped with the connection.
	http.NewResponseController(w.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

// rejectMessage is the environment variable in which the hook of RejectPush
// gets its message.
const rejectMessage = "GITSERVER_REJECT"

// writeRejectHook makes a directory of hooks in which pre-receive refuses
// everything.
func writeRejectHook(dir string) (hooks string, err error) {
	hooks = filepath.Join(dir, "reject")
	if err := os.Mkdir(hooks, 0o755); err != nil {
		return "", err
	}
	const script = "#!/bin/sh\nprintf '%s\\n' \"$" + rejectMessage + "\" >&2\nexit 1\n"
	return hooks, os.WriteFile(filepath.Join(hooks, "pre-receive"), []byte(script), 0o755)
}

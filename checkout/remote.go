// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// A remote is a repository elsewhere. There are three kinds: over HTTP, over
// SSH, and in a directory of this machine. Its methods are called one at a
// time. They keep to the context and to time limits of their own.
type remote interface {
	// list returns the refs that begin with one of the prefixes, or more.
	list(ctx context.Context, prefixes ...string) (listing, error)

	// fetch asks for the commit want, which list just found, and what it
	// needs besides what can be reached from the haves, and hands the pack to
	// sink.
	fetch(ctx context.Context, want oid, haves []oid, sink func(pack io.Reader) error) error

	// push asks what the ref is at, lets decide say what is to be done about
	// it, and does it. Nothing is done if decide returns nil.
	push(ctx context.Context, ref string, decide func(old oid) (*update, error)) error

	// close ends the connections that are kept.
	close()
}

// A listing is what a remote has.
type listing struct {
	refs map[string]oid
	head string // the ref that HEAD points to, if it is known
}

// An update moves a ref of a remote.
type update struct {
	new  oid
	pack func(w io.Writer, thin bool) error // writes the pack that goes with it
}

// How long a remote may be silent in the middle of a request. git sends
// something every 5 s while it works or has a hook work (uploadpack.keepAlive,
// receive.keepAlive in git-config(1)); a proxy before it may hold that back.
const (
	stallLimit   = time.Minute
	hurriedLimit = 10 * time.Second // while other work waits
)

// dialLimit is for a TCP connection, and for TLS or SSH on it.
const dialLimit = 15 * time.Second

// dialer makes connections that are kept between polls. One that has gone without
// a word, as where a firewall forgets it, is found out before the next poll.
var dialer = net.Dialer{
	Timeout:         dialLimit,
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4},
}

// talkLimit is how long a request may take in all: a remote that says just
// enough not to be silent is given up, too.
const talkLimit = time.Hour

// patience is how long a remote may be silent, and what is done meanwhile.
type patience struct {
	limit   time.Duration
	hurried time.Duration // the limit while waiting, if that is set, says so
	waiting func() bool
	alive   func() // if it is set, called when the remote does something, once a second
}

// newRemote returns the remote that o names. Of o only URL, Proxy and Auth are
// used.
func newRemote(o Options, stall patience) (remote, error) {
	loc, err := parseURL(o.URL)
	if err != nil {
		return nil, fmt.Errorf("the URL of the remote: %w", err)
	}
	switch loc.scheme {
	case "http", "https":
		return newHTTPRemote(loc, o, stall)
	case "ssh":
		return newSSHRemote(loc, o.Auth, stall), nil
	}
	return &localRemote{path: loc.path}, nil
}

// A stalledError says that the other side was silent for too long. It does not
// say for how long, so that it reads the same each time.
type stalledError struct{}

func (stalledError) Error() string { return "it takes requests and then says nothing" }
func (stalledError) Timeout() bool { return true }

// An endlessError says that a request was not done within talkLimit.
type endlessError struct{}

func (endlessError) Error() string { return "it is not done after " + talkLimit.String() }
func (endlessError) Timeout() bool { return true }

// A watch cancels a context when nothing has happened for a while.
type watch struct {
	patience
	last  atomic.Int64 // when something happened, in Unix nanoseconds
	told  atomic.Int64 // when alive was called last
	timer *time.Timer
	stop  func()
}

// newWatch returns a context that ends, besides when ctx does, when touch has
// not been called for as long as p allows, and after talkLimit.
func newWatch(ctx context.Context, p patience) (context.Context, *watch) {
	ctx, release := context.WithTimeoutCause(ctx, talkLimit, endlessError{})
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{patience: p}
	w.touch()
	ready := make(chan struct{}) // w.timer is set
	w.timer = time.AfterFunc(w.step(), func() {
		<-ready
		limit := w.limit
		if w.waiting != nil && w.waiting() {
			limit = w.hurried
		}
		if time.Since(time.Unix(0, w.last.Load())) >= limit {
			cancel(stalledError{})
		} else if ctx.Err() == nil {
			w.timer.Reset(w.step())
		}
	})
	close(ready)
	w.stop = func() {
		w.timer.Stop()
		cancel(context.Canceled)
		release()
	}
	return ctx, w
}

// step is when to look again.
func (w *watch) step() time.Duration {
	left := w.limit - time.Since(time.Unix(0, w.last.Load()))
	if w.waiting != nil {
		left = min(left, w.hurried/10)
	}
	return max(left, time.Millisecond)
}

func (w *watch) touch() {
	now := time.Now().UnixNano()
	w.last.Store(now)
	if told := w.told.Load(); w.alive != nil && now-told >= int64(time.Second) && w.told.CompareAndSwap(told, now) {
		w.alive()
	}
}

// cause returns why ctx ended, if it did, else err: whoever ends a connection
// gets to see an error of the connection.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// touching is a stream whose traffic a watch sees.
type touching struct {
	io.Reader
	io.Writer
	w *watch
}

func (t touching) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.w.touch()
	return n, err
}

func (t touching) Write(p []byte) (int, error) {
	n, err := t.Writer.Write(p)
	t.w.touch()
	return n, err
}

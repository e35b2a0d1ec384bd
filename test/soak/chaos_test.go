// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"context"
	"math/rand/v2"
	"syscall"
	"time"
)

// killer ends daemons at random moments and starts them again at once.
type killer struct {
	*world
	rng   *rand.Rand
	kills int
	other int // signals other than SIGKILL
}

// run kills so many times, or until the context is done.
func (k *killer) run(ctx context.Context, kills int) {
	for n := 0; n < kills && ctx.Err() == nil; {
		h := k.hosts[0]
		if k.rng.IntN(25) == 0 {
			h = k.hosts[1]
		}
		switch p := k.rng.IntN(100); {
		case p < 55: // anywhere in its life, also where the machine is slow
			h.awaitCycle(ctx, 2*time.Second)
			pause(ctx, time.Duration(k.rng.IntN(1500))*time.Millisecond)
		case p < 85: // when it has something to do
			select {
			case <-k.stirred:
			default:
			}
			select {
			case <-k.stirred:
			case <-ctx.Done():
			}
			pause(ctx, time.Duration(k.rng.IntN(300))*time.Millisecond)
		default: // while it recovers
			pause(ctx, time.Until(h.started.Add(time.Duration(k.rng.IntN(400))*time.Millisecond)))
		}
		sig := syscall.SIGKILL
		switch p := k.rng.IntN(40); p {
		case 0:
			sig = syscall.SIGTERM
		case 1:
			sig = syscall.SIGHUP
		}
		k.note("signal", ": %v to %s, %.3fs after its start", sig, h.name, time.Since(h.started).Seconds())
		if sig == syscall.SIGHUP {
			k.other++
			k.hangup(h)
			continue
		}
		h.end(sig)
		h.start()
		if sig == syscall.SIGKILL {
			k.kills++
			n++
		} else {
			k.other++
		}
	}
}

// hangup lets the daemon reload, if it has got as far as to answer: one that
// has just begun to start would end.
func (k *killer) hangup(h *host) {
	if _, err := h.status(); err == nil {
		h.cmd.Process.Signal(syscall.SIGHUP)
	}
}

// outages troubles the remote and the API server.
type outages struct {
	*world
	rng         *rand.Rand
	remote, api int
}

// trouble lets the git server misbehave in all of its ways, until the context
// is done; then all is well.
func (o *outages) trouble(ctx context.Context) {
	defer o.git.Up()
	defer o.git.Clear()
	for {
		pause(ctx, time.Duration(500+o.rng.IntN(5000))*time.Millisecond)
		if ctx.Err() != nil {
			return
		}
		o.remote++
		faults := []struct {
			name string
			set  func()
		}{
			{"down", o.git.Down},
			{"down", o.git.Down},
			{"hanging", o.git.Hang},
			{"failing with 503", func() { o.git.Fail(503) }},
			{"refusing credentials", func() { o.git.Fail(401) }},
			{"answering garbage", o.git.Garbage},
			{"breaking off", func() { o.git.Truncate(o.rng.IntN(3000)) }},
			{"refusing pushes", func() { o.git.RejectPush("main is protected") }},
			{"slow", func() { o.git.Delay(time.Duration(o.rng.IntN(500)) * time.Millisecond) }},
		}
		f := faults[o.rng.IntN(len(faults))]
		o.note("outage", " of the remote: %s", f.name)
		f.set()
		pause(ctx, time.Duration(100+o.rng.IntN(3000))*time.Millisecond)
		o.git.Clear()
		o.git.Up()
		o.note("outage over", "")
	}
}

// restart restarts the API server now and then, in an orderly way or not,
// until the context is done; then it is up.
func (o *outages) restart(ctx context.Context) {
	for {
		pause(ctx, time.Duration(4000+o.rng.IntN(20000))*time.Millisecond)
		if ctx.Err() != nil {
			return
		}
		o.api++
		if o.rng.IntN(2) == 0 {
			o.note("API server", ": killed")
			o.world.api.Kill()
			pause(ctx, time.Duration(o.rng.IntN(2000))*time.Millisecond)
		} else {
			o.note("API server", ": restarted")
		}
		if err := o.world.api.Restart(); err != nil {
			o.t.Errorf("restarting the API server: %v", err)
			return
		}
		o.note("API server", ": up again")
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// A pulse tells whether a piece of work goes on. Whoever works beats it at
// each step that it makes; what takes long by its nature (a clone, a slow
// remote) beats with its progress, and is bounded by time limits of its own
// where there is none. Its zero value is at rest.
type pulse struct {
	mu    sync.Mutex
	last  time.Time // of the last beat; zero at rest
	phase string
}

// start ends the rest.
func (p *pulse) start(phase string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.phase = time.Now(), phase
}

// stop begins the rest.
func (p *pulse) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Time{}
}

// through returns a progressFunc that beats p, and tells to.
func (p *pulse) through(to progressFunc) progressFunc {
	return func(phase string, done, total int) {
		p.mu.Lock()
		if !p.last.IsZero() {
			p.last, p.phase = time.Now(), phase
		}
		p.mu.Unlock()
		to.report(phase, done, total)
	}
}

// beat is a sign of life from within a step.
func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.last.IsZero() {
		p.last = time.Now()
	}
}

// silent returns how long ago the last beat was, and in what; 0 at rest.
func (p *pulse) silent() (d time.Duration, phase string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last.IsZero() {
		return 0, ""
	}
	return time.Since(p.last), p.phase
}

// hangs says which work of the service has made no step for longer than
// limit, "" where all goes on.
func (s *service) hangs(limit time.Duration) string {
	for _, r := range s.running() {
		if d, phase := r.pulse.silent(); d > limit {
			return fmt.Sprintf("the cycle of repository %s hangs in %q for %s", r.cfg.Name, phase, d.Round(time.Second))
		}
		for _, f := range r.fabrics {
			if f.cluster == nil {
				continue
			}
			if d, phase := f.cluster.pulse.silent(); d > limit {
				return fmt.Sprintf("the work on the cluster of %s hangs in %q for %s", f.cfg.Name, phase, d.Round(time.Second))
			}
		}
	}
	return ""
}

// watchdog tells systemd's watchdog (WatchdogSec= in systemd.service(5)) that
// all work goes on, until ctx is done. When some does not for half of that
// time it falls silent, and systemd kills and restarts the service: what hung
// is then found as after any crash. interval is WatchdogSec.
func (s *service) watchdog(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval / 4)
	defer tick.Stop()
	said := ""
	for {
		hung := s.hangs(interval / 2)
		if hung == "" {
			said = ""
			notify(daemon.SdNotifyWatchdog)
		} else if said == "" {
			said = hung
			s.log.Error("systemd is about to restart hhwatchd: " + hung)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// The first look at a repository may be a clone of many minutes. While it
// makes progress, start-up waits for it, and has systemd wait, too.
const (
	// readyWait bounds how long start-up waits for a first look that makes no
	// progress before systemd is told that the service is ready: a remote that
	// is away must not make the service fail to start.
	readyWait = 20 * time.Second
	// readyLimit bounds the wait in any case.
	readyLimit = 10 * time.Minute
	// readyTick is how often the wait looks for progress.
	readyTick = 5 * time.Second
)

// awaitFirstLook waits until every repository was looked at, within bounds.
func (s *service) awaitFirstLook(ctx context.Context) {
	start := time.Now()
	going := start // when there was progress last
	tick := time.NewTicker(readyTick)
	defer tick.Stop()
	for _, r := range s.running() {
		for looked := false; !looked; {
			select {
			case <-r.looked:
				looked = true
			case <-ctx.Done():
				return
			case <-tick.C:
				if d, _ := r.pulse.silent(); d < readyTick {
					going = time.Now()
				}
				if time.Since(going) >= readyWait || time.Since(start) >= readyLimit {
					s.log.Warn("not every repository could be looked at yet; going on", "waited", time.Since(start).Round(time.Second))
					return
				}
				// sd_notify(3): the time, in microseconds, within which the
				// next message will come.
				notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (readyWait + 2*readyTick).Microseconds()))
			}
		}
	}
}

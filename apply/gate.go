// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// inFlight is how many requests are on their way at once to a server that
	// we know nothing of yet. Eight reach nearly all of what an API server on
	// two cores can do; more only wait in its queues.
	inFlight = 8
	// mostInFlight is how many there may be to a server that does more by them.
	mostInFlight = 32

	// gateStep is by how many more is tried, and gateGain how much faster it
	// has to go then to be worth it.
	gateStep = 4
	gateGain = 1.1

	// longestPause bounds how long a server that asks for it is left alone; who
	// asks for more fails the operation, and that is tried again later.
	longestPause = 10 * time.Second
)

// A gate bounds how many objects are seen to at once, by what the API server
// takes. It begins with inFlight. As long as that is the bound (somebody waits)
// it tries more, and stays there if the server gets more done by it. When the
// server answers 429 the bound is halved, and nothing passes for as long as it
// asks for (Retry-After); then the bound grows again, by one a round.
type gate struct {
	mu      sync.Mutex
	limit   int
	busy    int
	freed   chan struct{} // closed and replaced when something may pass
	until   time.Time     // nothing passes before
	ceiling int           // what the limit grows to without being a trial

	// The present round, which is a few times limit long.
	began  time.Time
	passed int
	waited bool    // the limit was the bound
	rate   float64 // of the last round, per second; 0: not known
	done   bool    // more was tried, and is of no use
}

func newGate() *gate {
	return &gate{limit: inFlight, ceiling: inFlight, freed: make(chan struct{})}
}

// enter waits until one more may pass; leave is to be called then. After an
// error it is not: no place was taken.
func (g *gate) enter(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		g.mu.Lock()
		pause := time.Until(g.until)
		if pause <= 0 && g.busy < g.limit {
			if g.busy++; g.passed == 0 {
				g.began = time.Now()
			}
			g.mu.Unlock()
			return nil
		}
		freed := g.freed
		g.waited = true
		g.mu.Unlock()
		if pause <= 0 {
			pause = longestPause // what is awaited is a place
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done(): // told above
		case <-freed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy--
	if g.passed++; g.passed >= 8*g.limit {
		g.round(float64(g.passed) / time.Since(g.began).Seconds())
	}
	close(g.freed)
	g.freed = make(chan struct{})
}

// round ends a round in which so many passed per second.
func (g *gate) round(rate float64) {
	waited := g.waited
	g.passed, g.waited = 0, false
	switch {
	case !waited:
		g.rate = 0 // the limit was not what bounded it
	case g.limit < g.ceiling:
		g.limit++ // after a 429
	case g.done:
	case g.rate == 0:
		g.rate = rate
		g.limit = min(g.limit+gateStep, mostInFlight)
		g.done = g.limit == g.ceiling
	case rate > gateGain*g.rate:
		g.rate, g.ceiling = rate, g.limit
		g.limit = min(g.limit+gateStep, mostInFlight)
		g.done = g.limit == g.ceiling
	default:
		g.limit, g.done = g.ceiling, true
	}
}

// refused notes that the server has answered 429, and asked for a pause.
func (g *gate) refused(pause time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	until := now.Add(min(pause, longestPause))
	if until.Before(g.until) {
		return
	}
	if now.After(g.until) { // else it is an answer to what was on its way
		g.limit = max(1, g.limit/2)
		g.ceiling = min(g.ceiling, inFlight)
		g.rate, g.done, g.passed = 0, true, 0
	}
	g.until = until
}

// retryAfter is how long an answer asks to be left alone for, in seconds; one
// second where it does not say.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	if err != nil {
		return time.Second
	}
	return time.Duration(n) * time.Second
}

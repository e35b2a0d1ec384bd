// SPDX-License-Identifier: Apache-2.0

// Package poller says when to look at something remote again.
//
// A [Schedule] made with [New] is for polling: while looks succeed they are
// one interval apart, give or take a tenth, so that many hosts with the same
// configuration do not look in step. A Schedule made with [NewRetry] is for
// work that is only repeated while it fails: after a success nothing is due.
//
// When a look fails, both back off in the same way: the n-th failure in a row
// sets a ceiling of 2 s × 2ⁿ⁻¹, up to a maximum, and the next look is due at
// a random moment between 1 s and that ceiling. The randomness covers the
// whole span ("full jitter"), because a server that comes back is met best by
// clients that are spread evenly. The maximum is one minute, also where the
// interval is longer: what waits for the remote goes on within a minute of its
// return, and a request a minute is no burden to it.
//
// The owner waits on [Schedule.C], looks, and says how it went:
//
//	s := poller.New(time.Minute)
//	defer s.Stop()
//	for {
//		select {
//		case <-ctx.Done():
//			return
//		case <-s.C():
//		case <-wake: // other reasons to look
//		}
//		if err := look(ctx); err != nil {
//			s.Failed()
//		} else {
//			s.Succeeded()
//		}
//	}
//
// Any look counts, whatever the reason for it was: a success just now moves
// the next look one interval away.
package poller

import (
	"math/rand/v2"
	"time"
)

const (
	backoffFloor = 1 * time.Second // no look comes sooner than this after a failure
	backoffFirst = 2 * time.Second // the ceiling after the first failure
	backoffMax   = 1 * time.Minute // the highest ceiling
)

// A Schedule knows when the next look is due. It is not safe for concurrent
// use: the goroutine that does the looking owns it.
type Schedule struct {
	interval time.Duration // between successful looks; 0: only failures are followed by a look
	failures int           // in a row
	due      time.Time     // zero: nothing is due

	// A ticker rather than a timer: a look that came due but was not taken,
	// or whose outcome was not reported, comes due again by itself.
	ticker *time.Ticker
}

// New returns a schedule for looks that are interval apart, the first of them
// one interval from now. The interval must be positive.
func New(interval time.Duration) *Schedule {
	if interval <= 0 {
		panic("poller: interval is not positive")
	}
	s := NewRetry()
	s.interval = interval
	s.Succeeded()
	return s
}

// NewRetry returns a schedule on which nothing is due until something failed.
func NewRetry() *Schedule {
	s := &Schedule{ticker: time.NewTicker(backoffMax)}
	s.ticker.Stop()
	return s
}

// C returns the channel on which the time is sent when the next look is due.
// Until an outcome is reported it is sent again and again, as far apart as
// the look was away when it was scheduled.
func (s *Schedule) C() <-chan time.Time { return s.ticker.C }

// Succeeded notes that a look went well: backing off is over, and the next
// look is one interval away.
func (s *Schedule) Succeeded() {
	s.failures = 0
	if s.interval == 0 {
		s.due = time.Time{}
		s.ticker.Stop()
		return
	}
	tenth := s.interval / 10
	s.in(s.interval - tenth + rand.N(2*tenth+1))
}

// Failed notes that a look failed, and backs off further.
func (s *Schedule) Failed() {
	ceiling := backoffFirst
	for range s.failures {
		if ceiling *= 2; ceiling >= backoffMax {
			ceiling = backoffMax
			break
		}
	}
	s.failures++
	s.in(backoffFloor + rand.N(ceiling-backoffFloor+1))
}

func (s *Schedule) in(d time.Duration) {
	s.due = time.Now().Add(d)
	s.ticker.Reset(d)
}

// Due returns when the next look is due; a time in the past means now. It is
// zero when none is due until something fails.
func (s *Schedule) Due() time.Time { return s.due }

// Failing reports whether the last look failed. Until Due the remote is then
// better left alone, unless a person asks.
func (s *Schedule) Failing() bool { return s.failures > 0 }

// Stop ends the schedule: C receives nothing any more.
func (s *Schedule) Stop() { s.ticker.Stop() }

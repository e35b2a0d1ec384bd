// SPDX-License-Identifier: Apache-2.0

package watcher

import "time"

// Settle says when a burst of file events is over: when no event came for
// Quiet, at the latest Max after the first one.
type Settle struct {
	Quiet time.Duration
	Max   time.Duration
}

// A burst is a run of events that belong together. One goroutine owns it.
type burst struct {
	settle Settle
	latest time.Time   // when the burst is over, whatever comes; zero between bursts
	timer  *time.Timer // fires when it is over
}

func newBurst(s Settle) *burst {
	b := &burst{settle: s, timer: time.NewTimer(time.Hour)}
	b.timer.Stop()
	return b
}

// add notes an event now.
func (b *burst) add() {
	now := time.Now()
	if b.latest.IsZero() {
		b.latest = now.Add(b.settle.Max)
	}
	b.timer.Reset(min(b.settle.Quiet, b.latest.Sub(now)))
}

// over returns the channel that receives when the burst is over; the owner
// then calls end.
func (b *burst) over() <-chan time.Time { return b.timer.C }

// end makes the next event the first one of a new burst.
func (b *burst) end() {
	b.latest = time.Time{}
	b.timer.Stop()
}

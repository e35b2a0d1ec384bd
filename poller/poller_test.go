// SPDX-License-Identifier: Apache-2.0

package poller

import (
	"testing"
	"testing/synctest"
	"time"
)

// wait returns how long it takes until the schedule's next look is due.
func wait(s *Schedule) time.Duration {
	start := time.Now()
	<-s.C()
	return time.Since(start)
}

func TestInterval(t *testing.T) {
	for _, interval := range []time.Duration{time.Nanosecond, time.Second, time.Minute, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := New(interval)
			defer s.Stop()
			lowest, highest := interval-interval/10, interval+interval/10
			var sum time.Duration
			const n = 200
			for range n {
				want := time.Until(s.Due())
				got := wait(s)
				if got != want {
					t.Fatalf("interval %v: fired after %v, Due said %v", interval, got, want)
				}
				if got < lowest || got > highest {
					t.Fatalf("interval %v: fired after %v, want within a tenth", interval, got)
				}
				sum += got
				s.Succeeded()
			}
			// 200 draws out of ±10 % stay within ±2 % on average, by five
			// standard deviations.
			if mean := sum / n; mean < interval-interval/50 || mean > interval+interval/50 {
				t.Errorf("interval %v: mean %v", interval, mean)
			}
			if s.Failing() {
				t.Error("failing without a failure")
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	for _, tc := range []struct {
		name     string
		make     func() *Schedule
		ceilings []time.Duration // after the first, second, … failure; the last one stays
	}{
		{"polling", func() *Schedule { return New(10 * time.Second) }, []time.Duration{2e9, 4e9, 8e9, 16e9, 32e9, 60e9, 60e9}},
		{"long interval", func() *Schedule { return New(3 * time.Hour) }, []time.Duration{2e9, 4e9, 8e9, 16e9, 32e9, 60e9, 60e9, 60e9, 60e9}},
		{"retrying", NewRetry, []time.Duration{2e9, 4e9, 8e9, 16e9, 32e9, 60e9, 60e9}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := tc.make()
				defer s.Stop()
				longest := make([]time.Duration, len(tc.ceilings))
				for range 200 {
					for i, ceiling := range tc.ceilings {
						s.Failed()
						if !s.Failing() {
							t.Fatal("not failing after a failure")
						}
						want := time.Until(s.Due())
						got := wait(s)
						if got != want || got < backoffFloor || got > ceiling {
							t.Fatalf("failure %d: fired after %v, Due said %v, want %v to %v", i+1, got, want, backoffFloor, ceiling)
						}
						longest[i] = max(longest[i], got)
					}
					s.Succeeded()
					if s.Failing() {
						t.Fatal("failing after a success")
					}
				}
				// The jitter is full: of 200 draws one comes near the ceiling.
				for i, got := range longest {
					if span := tc.ceilings[i] - backoffFloor; got < backoffFloor+span*8/10 {
						t.Errorf("failure %d: never later than %v, ceiling %v", i+1, got, tc.ceilings[i])
					}
				}
			})
		})
	}
}

// TestManyFailures: a remote that is down for a year neither overflows the
// ceiling nor stops being looked at.
func TestManyFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(time.Second)
		defer s.Stop()
		for range 100_000 {
			s.Failed()
			if in := time.Until(s.Due()); in < backoffFloor || in > backoffMax {
				t.Fatalf("due in %v", in)
			}
		}
	})
}

func TestRetryIsQuietUntilFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewRetry()
		defer s.Stop()
		quiet := func(when string) {
			t.Helper()
			select {
			case <-s.C():
				t.Errorf("%s: fired", when)
			case <-time.After(48 * time.Hour):
			}
			if !s.Due().IsZero() || s.Failing() {
				t.Errorf("%s: due %v, failing %v", when, s.Due(), s.Failing())
			}
		}
		quiet("new")
		s.Failed()
		wait(s)
		s.Succeeded()
		quiet("succeeded")
		s.Failed()
		time.Sleep(time.Hour) // fired long ago, not received
		s.Succeeded()
		quiet("succeeded before the retry was taken")
	})
}

// TestUnreportedLook: an owner that takes a look but gets no further than
// that, because something else stopped it, is reminded.
func TestUnreportedLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(time.Minute)
		defer s.Stop()
		first := wait(s)
		if again := wait(s); again != first {
			t.Errorf("reminded after %v, want %v", again, first)
		}
		if time.Now().Before(s.Due()) {
			t.Error("an overdue look is not due")
		}
	})
}

// TestOtherLooksCount: a look for another reason moves the next one, and no
// tick of the former schedule is left behind.
func TestOtherLooksCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(time.Minute)
		defer s.Stop()
		for _, pause := range []time.Duration{30 * time.Second, 10 * time.Minute} {
			time.Sleep(pause)
			s.Succeeded()
			if got := wait(s); got < 54*time.Second || got > 66*time.Second {
				t.Errorf("%v after the last look: fired after %v", pause, got)
			}
			s.Succeeded()
		}
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(time.Second)
		s.Stop()
		select {
		case <-s.C():
			t.Error("fired after Stop")
		case <-time.After(time.Hour):
		}
	})
}

func TestNewRefusesInterval(t *testing.T) {
	for _, d := range []time.Duration{0, -time.Second} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("New(%v) did not panic", d)
				}
			}()
			New(d)
		}()
	}
}

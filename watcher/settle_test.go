// SPDX-License-Identifier: Apache-2.0

package watcher

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestBurst(t *testing.T) {
	const ms = time.Millisecond
	every := func(n int, d time.Duration) (at []time.Duration) {
		for i := range n {
			at = append(at, time.Duration(i)*d)
		}
		return at
	}
	for _, tc := range []struct {
		name   string
		settle Settle
		events []time.Duration // since the start
		want   []time.Duration // when bursts are over
	}{
		{"one", Settle{500 * ms, 5000 * ms}, []time.Duration{0}, []time.Duration{500 * ms}},
		{"two close", Settle{500 * ms, 5000 * ms}, []time.Duration{0, 499 * ms}, []time.Duration{999 * ms}},
		{"two apart", Settle{500 * ms, 5000 * ms}, []time.Duration{0, 501 * ms}, []time.Duration{500 * ms, 1001 * ms}},
		{"never quiet", Settle{500 * ms, 4950 * ms}, every(120, 100*ms), []time.Duration{4950 * ms, 9950 * ms, 12400 * ms}},
		{"a thousand at once", Settle{500 * ms, 5000 * ms}, every(1000, 0), []time.Duration{500 * ms}},
		{"maximum below quiet", Settle{500 * ms, 200 * ms}, []time.Duration{0, 100 * ms}, []time.Duration{200 * ms}},
		{"no settling", Settle{}, []time.Duration{10 * ms, 20 * ms}, []time.Duration{10 * ms, 20 * ms}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				events := make(chan struct{})
				go func() {
					for _, at := range tc.events {
						time.Sleep(time.Until(start.Add(at)))
						events <- struct{}{}
					}
				}()
				b := newBurst(tc.settle)
				idle := time.After(time.Hour)
				var got []time.Duration
				for {
					select {
					case <-events:
						b.add()
					case <-b.over():
						b.end()
						got = append(got, time.Since(start))
					case <-idle:
						if !slices.Equal(got, tc.want) {
							t.Errorf("over at %v, want %v", got, tc.want)
						}
						return
					}
				}
			})
		})
	}
}

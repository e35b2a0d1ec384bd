// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestGate has many objects pass to a server that sees to some at a time.
func TestGate(t *testing.T) {
	tests := []struct {
		name     string
		parallel int // what the server does at once; more wait
		want     int // the limit that comes of it
	}{
		{"little", 4, inFlight},
		{"as much as we ask for", inFlight, inFlight},
		{"more", 16, 16},
		{"very much", 1000, mostInFlight},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := &connection{gate: newGate()}
				server := make(chan bool, tt.parallel)
				var now, most atomic.Int32
				err := each(t.Context(), conn, make([]int, 5000), func(_ context.Context, _ int) error {
					most.Store(max(most.Load(), now.Add(1)))
					defer now.Add(-1)
					server <- true
					time.Sleep(10 * time.Millisecond)
					<-server
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if conn.gate.limit != tt.want || int(most.Load()) > tt.want+gateStep {
					t.Errorf("limit %d, and %d at once at most, want %d", conn.gate.limit, most.Load(), tt.want)
				}
			})
		})
	}
}

// TestGateCancelled has calls end early: what did not pass holds no place.
func TestGateCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := &connection{gate: newGate()}
		down := errors.New("down")
		for range 2 * mostInFlight {
			err := each(t.Context(), conn, make([]int, 50), func(context.Context, int) error {
				time.Sleep(time.Millisecond)
				return down
			})
			if err != down {
				t.Fatal(err)
			}
		}
		if conn.gate.busy != 0 {
			t.Errorf("%d places are taken, and nobody is there", conn.gate.busy)
		}
	})
}

// TestGateRefused has a server ask for a pause, and then take all again.
func TestGateRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		ctx := t.Context()
		if err := g.enter(ctx); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for range 3 { // answers to what was on its way count once
			g.refused(2 * time.Second)
		}
		if g.limit != inFlight/2 {
			t.Errorf("limit %d after one refusal", g.limit)
		}
		if err := g.enter(ctx); err != nil || time.Since(start) != 2*time.Second {
			t.Errorf("something passes after %v: %v", time.Since(start), err)
		}
		g.leave()
		g.leave()
		for range 10 {
			time.Sleep(time.Minute)
			g.refused(time.Second)
		}
		if g.limit != 1 {
			t.Errorf("limit %d after many refusals", g.limit)
		}
		time.Sleep(time.Minute)
		err := each(ctx, &connection{gate: g}, make([]int, 2000), func(context.Context, int) error {
			time.Sleep(time.Millisecond)
			return nil
		})
		if err != nil || g.limit != inFlight {
			t.Errorf("limit %d after the server has recovered: %v", g.limit, err)
		}
	})
}

// TestOverloadPasses has a server that refuses more than two requests at once
// for a while: all is applied, and it is not asked while it wants to be left
// alone.
func TestOverloadPasses(t *testing.T) {
	s := testServer(t)
	var mu sync.Mutex
	var last time.Time // when it asked to be left alone for a second
	busy, refused, early := 0, 0, 0
	c := behind(t, s, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		busy++
		answered := r.Context()
		go func() {
			<-answered.Done() // the answer is through
			mu.Lock()
			defer mu.Unlock()
			busy--
		}()
		if since := time.Since(last); since > 100*time.Millisecond && since < 900*time.Millisecond {
			early++
		}
		if busy <= 2 || refused >= 12 {
			return false
		}
		refused++
		last = time.Now()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
		json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 429, "reason": "TooManyRequests", "message": "too many requests"})
		return true
	})
	for _, r := range applied(t, c, switchGroups(t, "overload", 300), true) {
		if r.Outcome != Created {
			t.Errorf("%s: %s %v", r.Name, r.Outcome, r.Err)
		}
	}
	// Those that were on their way already may be late.
	if refused == 0 || early > 2*inFlight {
		t.Errorf("%d requests were refused, and %d came while it wanted none", refused, early)
	}
	if limit := c.conn.gate.limit; limit > inFlight {
		t.Errorf("limit %d", limit)
	}
}

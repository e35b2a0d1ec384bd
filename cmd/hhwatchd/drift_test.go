// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/apply"
	"github.com/hhwatchd/hhwatchd/journal"
)

// TestFights plays changes of one object, each of which is put right unless the
// fight rests then.
func TestFights(t *testing.T) {
	type change struct {
		after          time.Duration // since the change before
		field, manager string
		left           bool // it is to be left
	}
	const s, m = time.Second, time.Minute
	many := func(n int, c change) []change {
		var all []change
		for range n {
			all = append(all, c)
		}
		return all
	}
	tests := []struct {
		name    string
		changes []change
	}{
		{"now and then", many(20, change{3 * m, ".spec.vlan", "operator", false})},
		{"other fields", []change{
			{s, ".spec.a", "operator", false}, {s, ".spec.b", "operator", false}, {s, ".spec.a", "operator", false},
			{s, ".spec.b", "operator", false}, {s, ".spec.a", "operator", false}, {s, ".spec.b", "operator", false},
		}},
		{"other managers", []change{
			{s, ".spec.a", "x", false}, {s, ".spec.a", "y", false}, {s, ".spec.a", "x", false},
			{s, ".spec.a", "y", false}, {s, ".spec.a", "x", false}, {s, ".spec.a", "y", false},
		}},
		{"a fight", append(many(fightRounds, change{s, ".spec.a", "x", false}), change{s, ".spec.a", "x", true}, change{m, ".spec.a", "x", true},
			change{4 * m, ".spec.a", "x", false}, change{s, ".spec.a", "x", true}, change{8 * m, ".spec.a", "x", true}, // twice as long
			change{2 * m, ".spec.a", "x", false}, change{s, ".spec.a", "x", true})},
		{"deleted again and again", append(many(fightRounds, change{s, "", "", false}), change{s, "", "", true})},
		{"over, and a new one", append(append(many(fightRounds, change{s, ".spec.a", "x", false}), change{s, ".spec.a", "x", true},
			change{5 * m, ".spec.a", "x", false}, change{21 * m, ".spec.a", "x", false}), many(fightRounds-1, change{s, ".spec.a", "x", false})...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := apply.Key{Kind: "VPC", Name: "vpc-1"}
			f, now := fights{}, time.Now()
			for i, c := range tt.changes {
				now = now.Add(c.after)
				_, left := f.rests(now)[k]
				if left != c.left {
					t.Fatalf("change %d is left: %t, want %t", i, left, c.left)
				}
				if !left {
					f.repaired(k, c.field, c.manager, now)
					continue
				}
				why := f.left(k, &journal.Drift{Field: c.field, Manager: c.manager})
				if !strings.Contains(why, "each time that it was put right") || !strings.Contains(why, c.field) {
					t.Errorf("change %d is left because: %s", i, why)
				}
				over, next := f.due(now)
				if len(over) != 0 || !next.After(now) {
					t.Errorf("change %d: %v are due, the next at %v", i, over, next)
				}
				if over, _ := f.due(next); len(over) != 1 {
					t.Errorf("change %d: %v are due when the rest is over", i, over)
				}
			}
		})
	}
}

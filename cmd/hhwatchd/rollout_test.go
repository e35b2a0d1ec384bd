// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/apply"
)

// TestRollout has agents get new generations and apply them, or not, and looks
// at them at the seconds that are given, counted from the end of a change that
// took one second.
func TestRollout(t *testing.T) {
	agents := func(of ...int64) (list []apply.Agent) { // generation and applied, in turn
		for i := 0; i < len(of); i += 2 {
			list = append(list, apply.Agent{Name: fmt.Sprintf("leaf-%02d", i/2+1), Generation: of[i], Applied: of[i+1]})
		}
		return list
	}
	type step struct {
		second int
		agents []apply.Agent
	}
	tests := []struct {
		name   string
		before map[string]int64
		steps  []step // the rollout is under way up to the last one
		state  rolloutState
		says   string
	}{
		{"one after the other", map[string]int64{"leaf-01": 1, "leaf-02": 7}, []step{
			{0, agents(1, 1, 7, 7)},
			{1, agents(2, 1, 7, 7)},
			{2, agents(2, 2, 7, 7)}, // applied, but there may be more to come
			{5, agents(2, 2, 8, 7)},
			{11, agents(2, 2, 8, 7)},
			{14, agents(2, 2, 8, 8)},
		}, rolledOut, "rolled out 3f2a91c to the switches; leaf-01, leaf-02 applied what it led to (15s)"},
		{"the time is that of the switch, not of the pause after it", map[string]int64{"leaf-01": 1, "leaf-02": 7}, []step{
			{1, agents(2, 1, 7, 7)},
			{3, agents(2, 2, 7, 7)},
			{7, agents(2, 2, 7, 7)},
		}, rolledOut, "rolled out 3f2a91c to the switches; leaf-01 applied what it led to (4s)"},
		{"what comes later is no part of it", map[string]int64{"leaf-01": 1, "leaf-02": 7}, []step{
			{1, agents(2, 1, 7, 7)},
			{6, agents(2, 1, 7, 7)},
			{20, agents(2, 1, 8, 7)},
			{21, agents(3, 2, 8, 7)},
		}, rolledOut, "rolled out 3f2a91c to the switches; leaf-01 applied what it led to (22s)"},
		{"it never rests", map[string]int64{"leaf-01": 1}, []step{
			{1, agents(2, 1)}, {20, agents(3, 2)}, {23, agents(4, 3)}, {27, agents(5, 4)}, {31, agents(6, 5)}, {35, agents(7, 6)},
			{39, agents(8, 7)}, {43, agents(9, 8)}, {47, agents(10, 9)}, {51, agents(11, 10)}, {55, agents(12, 11)}, {59, agents(13, 12)},
			{61, agents(14, 13)}, {63, agents(15, 14)},
		}, rolledOut, "rolled out 3f2a91c to the switches; leaf-01 applied what it led to (1m4s)"},
		{"it concerns no switch", map[string]int64{"leaf-01": 1}, []step{
			{0, agents(1, 1)}, {30, agents(1, 1)}, {60, agents(1, 1)},
		}, needless, ""},
		{"it concerns no switch, and one lagged before", map[string]int64{"leaf-01": 2}, []step{
			{0, agents(2, 1)}, {60, agents(2, 1)},
		}, needless, ""},
		{"the agents were not known before", nil, []step{
			{0, agents(1, 1)}, {2, agents(2, 1)}, {8, agents(2, 2)},
		}, rolledOut, "rolled out 3f2a91c to the switches; leaf-01 applied what it led to (9s)"},
		{"new switch", map[string]int64{"leaf-01": 1}, []step{
			{2, agents(1, 1, 1, 0)}, {8, agents(1, 1, 1, 0)}, {90, agents(1, 1, 1, 1)},
		}, rolledOut, "rolled out 3f2a91c to the switches; leaf-02 applied what it led to (1m31s)"},
		{"a switch is taken away", map[string]int64{"leaf-01": 1, "leaf-02": 1}, []step{
			{2, agents(2, 1, 2, 1)}, {8, agents(2, 2, 2, 1)}, {90, agents(2, 2)},
		}, rolledOut, "rolled out 3f2a91c to the switches; leaf-01 applied what it led to (1m31s)"},
		{"a switch is down", map[string]int64{"leaf-01": 1, "leaf-02": 1}, []step{
			{2, agents(2, 1, 2, 1)}, {8, agents(2, 2, 2, 1)}, {1799, agents(2, 2, 2, 1)}, {1800, agents(2, 2, 2, 1)},
		}, lags, "rollout of 3f2a91c is not through: leaf-02 has applied generation 1 of 2 (30m1s)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			end := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
			r := &rollout{commit: "3f2a91c0", began: end.Add(-time.Second), ended: end, before: tt.before}
			for i, s := range tt.steps {
				now := end.Add(time.Duration(s.second) * time.Second)
				state := r.look(s.agents, now)
				if i < len(tt.steps)-1 {
					if state != underWay {
						t.Fatalf("at second %d it is %d already", s.second, state)
					}
					continue
				}
				if state != tt.state {
					t.Fatalf("in the end it is %d, want %d", state, tt.state)
				}
				if tt.says == "" {
					continue
				}
				if got := r.record(state, s.agents, now).String(); got != tt.says {
					t.Errorf("it says\n%s\nwant\n%s", got, tt.says)
				}
			}
		})
	}
}

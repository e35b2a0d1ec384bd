// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hhwatchd/hhwatchd/apply"
	"github.com/hhwatchd/hhwatchd/journal"
)

// A rollout is a change of the cluster on its way to the switches: Hedgehog's
// controller makes new generations of the switches' agents of it, in its own
// time, and each agent applies its own. Nothing says which generation came of
// which change; what the agents come to soon after a change is taken to have
// come of it. Rollouts are kept in memory only: one that is under way when the
// daemon stops is dropped, and has no record.
type rollout struct {
	cycle, commit string
	began, ended  time.Time        // the change of the cluster
	before        map[string]int64 // generations of the agents when it began; nil for not known

	want    map[string]int64 // generations that it led to, as far as is known
	stirred time.Time        // when they were last seen to change
	fixed   bool             // want is all that it led to
	met     time.Time        // when all were seen to have applied want; zero before that
}

const (
	// A change has led to all the generations that it leads to when none has
	// been added for takeUp. It has led to none if there is none by takeUpLimit,
	// and to no more even if they keep coming.
	takeUp      = 5 * time.Second
	takeUpLimit = time.Minute
	// rolloutLimit is how long switches are waited for.
	rolloutLimit = 30 * time.Minute
	// rolloutPause is the longest pause between two looks at them.
	rolloutPause = 15 * time.Second
)

// What has become of a rollout.
type rolloutState int

const (
	underWay rolloutState = iota
	rolledOut
	needless // it concerns no switch
	lags     // it has taken too long
)

// look brings the rollout forward by how the agents are at now.
func (r *rollout) look(agents []apply.Agent, now time.Time) rolloutState {
	if r.before == nil {
		r.before = generations(agents)
	}
	waited := now.Sub(r.ended)
	if !r.fixed {
		if r.want == nil {
			r.want, r.stirred = r.before, r.ended
		}
		if g := generations(agents); !maps.Equal(g, r.want) {
			r.want, r.stirred, r.met = g, now, time.Time{}
		}
		concerned := len(r.concerned(agents)) > 0
		if waited >= takeUpLimit && !concerned {
			return needless
		}
		r.fixed = concerned && now.Sub(r.stirred) >= takeUp || waited >= takeUpLimit
	}
	if r.met.IsZero() && len(r.lagging(agents)) == 0 {
		r.met = now
	}
	switch {
	case r.fixed && !r.met.IsZero():
		return rolledOut
	case waited >= rolloutLimit:
		return lags
	}
	return underWay
}

// concerned names the switches that the change led to a new generation of.
func (r *rollout) concerned(agents []apply.Agent) []string {
	var names []string
	for _, a := range agents {
		if r.want[a.Name] != r.before[a.Name] {
			names = append(names, a.Name)
		}
	}
	return names
}

// lagging lists the agents that have not applied what the change led to.
func (r *rollout) lagging(agents []apply.Agent) []apply.Agent {
	return slices.DeleteFunc(slices.Clone(agents), func(a apply.Agent) bool { return a.Applied >= r.want[a.Name] })
}

// record tells of a rollout that is over.
func (r *rollout) record(state rolloutState, agents []apply.Agent, now time.Time) journal.Record {
	rec := journal.Record{Cycle: r.cycle, Step: journal.StepRollout, To: r.commit}
	if state == rolledOut {
		rec.Took = r.met.Sub(r.began)
		rec.Note = listed(r.concerned(agents)) + " applied what it led to"
		return rec
	}
	var lines []string
	for _, a := range r.lagging(agents) {
		lines = append(lines, fmt.Sprintf("%s has applied generation %d of %d", a.Name, a.Applied, r.want[a.Name]))
	}
	rec.Took, rec.Error = now.Sub(r.began), listed(lines)
	return rec
}

// listed tells a few of many.
func listed(what []string) string {
	const most = 5
	if len(what) <= most {
		return strings.Join(what, ", ")
	}
	return strings.Join(what[:most], ", ") + fmt.Sprintf(" and %d more", len(what)-most)
}

// again is how long to wait until the next look, so that the time that is told
// in the end is true to a tenth.
func (r *rollout) again(now time.Time) time.Duration {
	return min(max(now.Sub(r.ended)/10, time.Second), rolloutPause)
}

func generations(agents []apply.Agent) map[string]int64 {
	g := make(map[string]int64, len(agents))
	for _, a := range agents {
		g[a.Name] = a.Generation
	}
	return g
}

// await has the switches waited for, unless there are none.
func (c *cluster) await(r *rollout) {
	if r.before != nil && len(r.before) == 0 {
		return
	}
	c.mu.Lock()
	c.rollouts = append(c.rollouts, r)
	c.mu.Unlock()
	select {
	case c.rolling <- struct{}{}:
	default:
	}
}

// follow brings all rollouts forward by what the agents said when they were
// asked, and records those that are over. It returns how long to wait until
// they are asked again; 0 if nothing is waited for.
func (c *cluster) follow(agents []apply.Agent, asked time.Time) (again time.Duration) {
	c.mu.Lock()
	rollouts := slices.Clone(c.rollouts)
	c.mu.Unlock()
	now := time.Now()
	over := map[*rollout]bool{}
	for _, r := range rollouts {
		state := underWay
		if len(agents) == 0 {
			state = needless // nor will it ever concern one
		} else if asked.After(r.ended) {
			state = r.look(agents, now)
		}
		if state == underWay {
			if next := r.again(now); again == 0 || next < again {
				again = next
			}
			continue
		}
		over[r] = true
		if state == needless {
			continue
		}
		rec := r.record(state, agents, now)
		rec.Repository, rec.Fabric = c.repo.cfg.Name, c.fabric.cfg.Name
		if err := c.repo.book.append(rec); err != nil {
			c.repo.log.Error("recording", "fabric", c.fabric.cfg.Name, "err", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rollouts = slices.DeleteFunc(c.rollouts, func(r *rollout) bool { return over[r] })
	return again
}

// waiting is how long to wait until the agents are asked again that could not
// be; 0 if nothing is waited for.
func (c *cluster) waiting() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.rollouts) == 0 {
		return 0
	}
	return rolloutPause
}

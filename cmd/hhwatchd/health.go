// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hhwatchd/hhwatchd/apply"
)

// checkEvery is how often a cluster is looked at without a reason.
const checkEvery = 2 * time.Minute

// clusterHealth is what the last check of a cluster found.
type clusterHealth struct {
	Checked time.Time           `json:"checked"`
	Error   string              `json:"error,omitempty"` // why it could not be checked; then the rest is from before
	Version string              `json:"version,omitempty"`
	Served  map[string][]string `json:"served,omitempty"` // versions in which each kind is served
	Absent  []string            `json:"absent,omitempty"` // kinds whose definitions are not installed
	Lacks   []string            `json:"lacks,omitempty"`  // what is needed for the others and is not there, a line each

	Agents  int            `json:"agents,omitempty"`  // of switches
	Lagging []laggingAgent `json:"lagging,omitempty"` // those that are not configured as they should be
}

// A laggingAgent is the agent of a switch that has not applied the newest
// generation of its configuration.
type laggingAgent struct {
	Switch     string    `json:"switch"`
	Generation int64     `json:"generation"`
	Applied    int64     `json:"applied"`
	Since      time.Time `json:"since"` // when it was first seen to lag
}

// lagsSince is since when an agent that lags at now has done so without
// applying anything.
func (h *clusterHealth) lagsSince(a apply.Agent, now time.Time) time.Time {
	for _, l := range h.Lagging {
		if l.Switch == a.Name && l.Applied == a.Applied {
			return l.Since
		}
	}
	return now
}

// stayHealthy checks the cluster every two minutes, and when something went
// wrong with it or was put right, and follows rollouts, until ctx is done. It
// has a connection and a goroutine of its own: applying does not wait for it.
func (c *cluster) stayHealthy(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	var api *apply.Cluster
	defer func() {
		if api != nil {
			api.Close()
		}
	}()
	for check := true; ; {
		var err error
		if api == nil {
			api, err = c.fabric.cfg.Cluster.connect()
		}
		var found apply.Health
		if err == nil && check {
			found, err = api.Check(ctx, kindsOf(c.fabric.cfg.kinds()), c.fabric.cfg.Prune)
		}
		var agents []apply.Agent
		asked := time.Now()
		if err == nil {
			agents, err = api.Agents(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if check {
			c.noteHealth(found, err)
		}
		again := c.waiting()
		if err == nil {
			c.noteAgents(agents)
			again = c.follow(agents, asked)
		}
		var look <-chan time.Time
		if again > 0 {
			look = time.After(again)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			check = true
		case <-c.ailing:
			check = true
		case <-c.rolling:
			check = false
		case <-look:
			check = false
		}
	}
}

// noteHealth enters what a check found, and logs it when that is news.
func (c *cluster) noteHealth(found apply.Health, err error) {
	c.mu.Lock()
	was := c.health
	h := clusterHealth{Checked: time.Now(), Agents: was.Agents, Lagging: was.Lagging}
	if err != nil {
		h = was
		h.Checked, h.Error = time.Now(), err.Error()
	} else {
		h.Version, h.Served = found.Version, map[string][]string{}
		for _, k := range found.Kinds {
			if len(k.Served) == 0 {
				h.Absent = append(h.Absent, k.Resource())
				continue
			}
			h.Served[k.Resource()] = k.Served
			h.Lacks = append(h.Lacks, k.Problems()...)
		}
		slices.Sort(h.Absent)
	}
	c.health = h
	c.mu.Unlock()
	if !slices.Equal(was.Lacks, h.Lacks) && len(h.Lacks) > 0 {
		c.repo.log.Warn(c.fabric.cfg.Name + "  the cluster lacks " + strings.Join(few(h.Lacks), "; "))
	}
}

// noteAgents enters how far the switches are.
func (c *cluster) noteAgents(agents []apply.Agent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generations = generations(agents)
	var lagging []laggingAgent
	for _, a := range agents {
		if a.Applied < a.Generation {
			lagging = append(lagging, laggingAgent{a.Name, a.Generation, a.Applied, c.health.lagsSince(a, time.Now())})
		}
	}
	c.health.Agents, c.health.Lagging = len(agents), lagging
}

// ail asks for a check soon.
func (c *cluster) ail() {
	select {
	case c.ailing <- struct{}{}:
	default:
	}
}

// print shows a check to a person; of one that failed because the cluster is
// down, which is told already, only what is known from before.
func (h *clusterHealth) print(w io.Writer, down bool, ago func(time.Time) string) {
	if h == nil {
		return
	}
	if h.Error != "" && !down {
		fmt.Fprintf(w, "            CHECK of the cluster FAILED %s: %s\n", ago(h.Checked), strings.TrimPrefix(h.Error, "cluster "))
	}
	for _, l := range few(h.Lacks) {
		fmt.Fprintf(w, "            cluster LACKS %s\n", l)
	}
	for _, l := range h.Lagging {
		fmt.Fprintf(w, "            switch %s LAGS: it has applied generation %d of %d; first seen %s\n", l.Switch, l.Applied, l.Generation, ago(l.Since))
	}
	if h.Error == "" {
		absent := ""
		if len(h.Absent) > 0 {
			absent = "; it does not know " + strings.Join(h.Absent, ", ")
		}
		fmt.Fprintf(w, "            Kubernetes %s with %s%s; checked %s\n", h.Version, plural(len(h.Served), "kind"), absent, ago(h.Checked))
	}
}

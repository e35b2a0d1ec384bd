// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hhwatchd/hhwatchd/apply"
	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/journal"
)

// What becomes of objects that others change in a cluster.
const (
	driftRepair = "repair" // they are put right
	driftReport = "report" // they are told of, and left
)

// A managedFile is what is known of a managed file that was read.
type managedFile struct {
	blob checkout.Hash
	key  apply.Key
}

// heed takes up what the watch tells, and reports whether there is anything to
// do about it.
func (c *cluster) heed() bool {
	changed, stirred := c.watch.Take()
	c.noteTrouble()
	inv := c.repo.book.inventory()
	for _, k := range changed {
		if e, ok := inv.Get(c.fabric.cfg.Name, journal.Key(k)); !ok {
			continue
		} else if e.Desired.Path != "" {
			c.suspects[below(e.Desired.Path, c.fabric.cfg.Path)] = true
		} else {
			stirred = true // perhaps the one that a prune waits for
		}
	}
	return len(c.suspects) > 0 || stirred && c.awaitsOthers()
}

// restlessness bounds how often what others do has refused objects tried again.
const restlessness = time.Second

// awaitsOthers reports whether something may do better now that other objects
// came or went, and was not tried just now.
func (c *cluster) awaitsOthers() bool {
	if len(c.pending) == 0 && !c.deleting || time.Since(c.tried) < restlessness {
		return false
	}
	c.tried = time.Now()
	return true
}

// noteTrouble says in the log, once, why kinds cannot be watched.
func (c *cluster) noteTrouble() {
	trouble := c.watch.Trouble()
	if trouble != "" {
		trouble += fmt.Sprintf("; what others change is noticed every %v only (rescan)", c.repo.rescan)
	}
	c.mu.Lock()
	was := c.status.Unwatched
	c.status.Unwatched = trouble
	c.mu.Unlock()
	if trouble != "" && trouble != was {
		c.repo.log.Warn(c.fabric.cfg.Name + "  drift: " + trouble)
	}
}

// resume looks again at what is left to others once its rest is over.
func (c *cluster) resume() bool {
	over, _ := c.fights.due(time.Now())
	for _, k := range over {
		if e, ok := c.repo.book.inventory().Get(c.fabric.cfg.Name, journal.Key(k)); ok && e.Desired.Path != "" {
			c.suspects[below(e.Desired.Path, c.fabric.cfg.Path)] = true
		}
	}
	return len(c.suspects) > 0
}

// known splits off the files whose objects the watch knows to be in the cluster
// as they should be: of these nothing is read or asked. They are in held, with
// their blobs.
func (c *cluster) known(files []checkout.Entry) (others []checkout.Entry, held map[apply.Key]string) {
	held = map[apply.Key]string{}
	if c.watch.Renew() != nil {
		return files, held // applying will say so
	}
	read := make(map[string]managedFile, len(files)) // without those that are gone
	for _, e := range files {
		p := below(e.Path, c.fabric.cfg.Path)
		if r, ok := c.read[p]; ok && r.blob == e.Blob {
			read[p] = r
			if _, ok := c.watch.Holds(r.key, string(e.Blob)); ok {
				held[r.key] = string(e.Blob)
				continue
			}
		}
		others = append(others, e)
	}
	c.read = read
	return others, held
}

// leave has objects only reported where they are not as they were applied: with
// drift: report, and while a fight rests (resting). A new text of an object is
// applied in any case.
func leave(objs []apply.Object, f *FabricConfig, inv *journal.Inventory, resting map[apply.Key]time.Time, now time.Time) {
	for i := range objs {
		o := &objs[i]
		e, ok := inv.Get(f.Name, journal.Key(o.Key()))
		o.ReportOnly = ok && e.Applied.Blob == o.Digest && (f.Drift == driftReport || now.Before(resting[o.Key()]))
	}
}

// drifted notes in o what others had done to an object that had been applied as
// it is: it was put right, or left.
func (c *cluster) drifted(res apply.Result, o *journal.Object) bool {
	e, known := c.repo.book.inventory().Get(c.fabric.cfg.Name, o.Key())
	if !known || e.Applied.Blob != o.Blob {
		return false
	}
	switch res.Outcome {
	case apply.Created, apply.Configured:
		o.Drift = &journal.Drift{Field: res.Field, Manager: res.Manager, Time: res.Changed}
		c.fights.repaired(res.Key(), res.Field, res.Manager, time.Now())
		return true
	case apply.Drifted:
		o.Drift = &journal.Drift{Field: res.Field, Manager: res.Manager, Time: res.Changed}
		o.Error = c.fights.left(res.Key(), o.Drift)
		if o.Error == "" {
			o.Error = o.Drift.String() + "; it is left so (drift: report)"
		}
		return true
	}
	return false
}

// noteRepairs has status tell of what was put right last.
func (c *cluster) noteRepairs(objs []journal.Object) {
	objs = slices.DeleteFunc(slices.Clone(objs), func(o journal.Object) bool { return o.Error != "" })
	if len(objs) == 0 {
		return
	}
	line := objs[0].Key().String() + ": " + objs[0].Drift.String()
	if more := len(objs) - 1; more > 0 {
		line += fmt.Sprintf(" (and %d more)", more)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Repaired, c.status.RepairAt = line, time.Now()
}

// driftLines tells of the objects that others changed and that are left so.
func (c *cluster) driftLines() []string {
	var lines []string
	for _, p := range slices.Sorted(maps.Keys(c.drifts)) {
		lines = append(lines, p+": "+c.drifts[p])
	}
	return lines
}

// A fight is with somebody who changes a field each time that it is put right.
// After [fightRounds] repairs within [fightWindow] the object is left as they
// have it, for longer each time that one more repair is answered in the same
// way. It is over when what was put right stays so for the window.
type fight struct {
	field, manager string
	repairs        []time.Time // since the last rest
	rounds         int         // of all repairs
	since          time.Time
	took           time.Duration // all repairs, until the rest
	rests          int
	until          time.Time // changes are left until then
	left           bool      // there was one
}

const (
	fightRounds    = 5
	fightWindow    = 10 * time.Minute
	fightRest      = 5 * time.Minute // the first one; it doubles
	fightRestLimit = time.Hour
)

// fights are those over the objects of a fabric.
type fights map[apply.Key]*fight

// repaired notes a repair, and whether the next change is to be left.
func (f fights) repaired(k apply.Key, field, manager string, now time.Time) {
	g := f[k]
	if g == nil || g.field != field || g.manager != manager || now.Sub(g.until) > fightWindow && g.rests > 0 {
		g = &fight{field: field, manager: manager, since: now}
		f[k] = g
	}
	g.repairs = slices.DeleteFunc(append(g.repairs, now), func(t time.Time) bool { return now.Sub(t) > fightWindow })
	g.rounds++
	g.left = false
	if g.rests == 0 {
		g.rounds, g.since = len(g.repairs), g.repairs[0]
	}
	if len(g.repairs) < fightRounds && g.rests == 0 {
		return
	}
	g.took = now.Sub(g.since)
	g.until = now.Add(min(fightRest<<g.rests, fightRestLimit))
	g.rests = min(g.rests+1, 8)
	g.repairs = nil
}

// rests returns the objects whose changes are left as they are for now, and
// until when.
func (f fights) rests(now time.Time) map[apply.Key]time.Time {
	until := map[apply.Key]time.Time{}
	for k, g := range f {
		if now.Before(g.until) {
			until[k] = g.until
		}
	}
	return until
}

// left notes that a change was left, and says why; "" if it is not because of a
// fight.
func (f fights) left(k apply.Key, d *journal.Drift) string {
	g := f[k]
	if g == nil {
		return ""
	}
	g.left = true
	who := g.manager
	if who == "" {
		who = "somebody who leaves no name"
	}
	what := g.field + " was changed"
	if g.field == "" {
		what = "it was deleted"
	}
	return fmt.Sprintf("%s each time that it was put right, %d times within %v, by %s; it is left so until %s",
		what, g.rounds, max(g.took.Round(time.Second), time.Second), who, g.until.Local().Format(time.TimeOnly))
}

// agreed notes that the object is as it should be.
func (f fights) agreed(k apply.Key) {
	if g := f[k]; g != nil {
		g.left = false
	}
}

// due returns the objects whose rest is over, and when the next one is; zero
// for none.
func (f fights) due(now time.Time) (over []apply.Key, next time.Time) {
	for k, g := range f {
		switch {
		case !g.left && g.rests > 0 && now.Sub(g.until) > fightWindow:
			delete(f, k)
		case !g.left:
		case !now.Before(g.until):
			over = append(over, k)
		case next.IsZero() || g.until.Before(next):
			next = g.until
		}
	}
	return over, next
}

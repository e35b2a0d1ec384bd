// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"time"

	"github.com/hhwatchd/hhwatchd/apply"
	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/journal"
)

const (
	// askLimit bounds how long a batch waits for its cluster's answers, and
	// askMost about how many of its objects it is asked. What is beyond that is
	// told when it is applied.
	askLimit = 5 * time.Second
	askMost  = 200
	// askAgain is how long a cluster that gave no answer is not asked, unless it
	// does all that it should before.
	askAgain = 2 * time.Minute
)

// An inquiry asks a fabric's cluster what it would refuse of a batch, before
// that is committed. A cluster that does not say holds up nothing.
type inquiry struct {
	r       *repository
	fabric  *fabric
	batch   batch
	tip     checkout.Hash
	overlay map[string][]byte // what the batches before it leave, see plan

	asked answers
	sent  int
	until time.Time // zero until something is asked
}

// A question is a text of an object that a cluster was asked about.
type question struct {
	path string // of its managed file
	blob checkout.Hash
}

// answers are the refusals by question; nil where there was none.
type answers map[question]*ingest.Refusal

func (r *repository) inquire(b batch, tip checkout.Hash, overlay map[string][]byte) *inquiry {
	b.refused = ingest.Refusals{}
	in := &inquiry{r: r, fabric: b.fabric, batch: b, tip: tip, overlay: overlay, asked: answers{}}
	for _, input := range b.inputs {
		for q, refusal := range b.fabric.answers[b.fabric.leftover(input)] {
			in.note(q, refusal)
		}
	}
	return in
}

func (in *inquiry) note(q question, refusal *ingest.Refusal) {
	if in.asked[q] != nil {
		return
	}
	if in.asked[q] = refusal; refusal != nil {
		in.batch.refused[q.path] = append(in.batch.refused[q.path], *refusal)
	}
}

// more asks about those objects of a planned batch that were not asked about
// yet. It reports whether some are refused, so that the batch is to be planned
// anew; what that changes may have to be asked about in turn.
func (in *inquiry) more(ctx context.Context, p *planned) bool {
	f := in.fabric
	if f.cluster == nil || in.batch.judged || f.cfg.Admission == ingest.IgnoreAdmission || !f.cluster.askable(time.Now(), in.r.book.inventory().Applied(f.cfg.Name) != "") {
		return false
	}
	late, err := in.late()
	if err != nil {
		in.r.log.Debug(f.cfg.Name+"  what its cluster lacks is not known; it is not asked", "err", err)
		return false
	}
	policy := f.policy()
	objs, questions := []apply.Object{}, map[apply.Key]ingest.Question{}
	for _, q := range p.plan.Questions(f.known.fabric, late) {
		blob := checkout.BlobHash(q.Text)
		if _, known := in.asked[question{q.Path, blob}]; known {
			continue
		}
		e, _ := in.r.book.inventory().Get(f.cfg.Name, journal.Key{Group: q.Group, Kind: q.Kind, Namespace: q.Namespace, Name: q.Name})
		o, problems := policy.ReadManaged(q.Path, q.Text)
		if e.State() == journal.StatePending || len(problems) > 0 {
			continue // it is being changed, into something else
		}
		if in.sent == askMost {
			in.r.log.Debug(f.cfg.Name + "  there is more to ask its cluster about than one delivery may")
			break
		}
		in.sent++
		obj := toApply(o, q.Path, blob)
		objs = append(objs, obj)
		questions[obj.Key()] = q
	}
	if len(objs) == 0 {
		return false
	}
	if in.until.IsZero() {
		in.until = time.Now().Add(askLimit)
	}
	refusals, err := in.ask(ctx, objs)
	if err == nil {
		for i := range objs {
			in.remember(questions[objs[i].Key()], objs[i], nil)
		}
	}
	again := false
	for _, r := range refusals {
		q := questions[r.Key()]
		if r.Webhook && (!q.Settled || q.Names(r.Err.Error())) {
			in.r.log.Debug(f.cfg.Name+"  what its cluster says against "+q.ID.String()+" may be for what comes with it", "err", r.Err)
			continue
		}
		in.remember(q, r.Object, &ingest.Refusal{Text: bytes.Clone(q.Text), Field: r.Field, Message: r.Err.Error()})
		again = true
	}
	return again
}

// remember keeps an answer, for as long as the file that it is about lies in
// raw/: see forgetAnswers.
func (in *inquiry) remember(q ingest.Question, o apply.Object, refusal *ingest.Refusal) {
	this := question{q.Path, checkout.Hash(o.Digest)}
	in.note(this, refusal)
	file := in.fabric.leftover(in.batch.inputs[q.Input])
	if in.fabric.answers[file] == nil {
		in.fabric.answers[file] = answers{}
	}
	in.fabric.answers[file][this] = refusal
}

// ask asks the cluster, on a connection of its own: applying may be busy.
func (in *inquiry) ask(ctx context.Context, objs []apply.Object) ([]apply.Refusal, error) {
	c := in.fabric.cluster
	limited, cancel := context.WithDeadlineCause(ctx, in.until, fmt.Errorf("no answer within %v", askLimit))
	defer cancel()
	api, err := in.fabric.cfg.Cluster.connect()
	if err != nil {
		c.unheard(err, true)
		return nil, err
	}
	defer api.Close()
	refusals, mute, err := api.Rehearse(limited, objs)
	if ctx.Err() == nil {
		c.unheard(cmp.Or(err, mute), err != nil)
	}
	return refusals, err
}

// late lists the changes that the fabric's cluster does not have yet, of what
// is managed at the tip and with the batches before this one.
func (in *inquiry) late() ([]ingest.Change, error) {
	f, inv := in.fabric, in.r.book.inventory()
	var late []ingest.Change
	for _, e := range inv.Unapplied(f.cfg.Name) {
		switch e.State() {
		case journal.StatePrune:
			if f.cfg.Prune {
				late = append(late, ingest.Change{Path: below(e.Left, f.cfg.Path), Live: true})
			}
		default:
			live := e.Applied.Blob != "" && e.Applied.Blob != e.Desired.Blob // else it is left as others have it
			late = append(late, ingest.Change{Path: below(cmp.Or(e.Desired.Path, e.Left), f.cfg.Path), Live: live})
		}
	}
	for p := range in.overlay {
		_, live, err := in.r.clone.Lookup(in.tip, path.Join(f.cfg.Path, p))
		if err != nil {
			return nil, err
		}
		late = append(late, ingest.Change{Path: p, Live: live})
	}
	// What the journal was not told of yet.
	recorded := checkout.Hash(inv.Recorded(in.r.cfg.Name))
	diff, err := in.r.clone.Diff(recorded, in.tip, f.cfg.managed())
	if err != nil {
		return nil, err
	}
	for _, d := range diff {
		late = append(late, ingest.Change{Path: below(d.Path, f.cfg.Path), Live: d.Old != ""})
	}
	return late, nil
}

// forgetAnswers forgets what was asked about files that lie in raw/ no more:
// the same file, delivered once more, is asked about anew.
func (r *repository) forgetAnswers(work []planned) {
	for i := range work {
		p := &work[i]
		for _, in := range p.inputs {
			if this := p.fabric.leftover(in); p.origin == journal.Pulled || !r.told[this] {
				delete(p.fabric.answers, this)
			}
		}
	}
}

// keepAnswers keeps only what was asked about files that are there.
func (f *fabric) keepAnswers(batches []batch) {
	there := map[leftover]bool{}
	for _, b := range batches {
		for _, in := range b.inputs {
			there[f.leftover(in)] = true
		}
	}
	maps.DeleteFunc(f.answers, func(l leftover, _ answers) bool { return !there[l] })
}

// askable reports whether the cluster is expected to answer a question, and to
// have what the journal says. Where something was applied, by an earlier run, it
// has to have been gone through since the start: it may be another one by now.
func (c *cluster) askable(now time.Time, applied bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.status.Down != "", applied && c.met.IsZero():
		return false
	case c.health.Error != "" && !c.health.Checked.Before(c.met):
		return false
	}
	return c.silent.IsZero() || c.status.Succeeded.After(c.silent) || now.Sub(c.silent) > askAgain
}

// unheard notes why the cluster gave no verdict on all that it was asked; nil
// if it did. Where it did not answer at all, it is left alone for a while.
func (c *cluster) unheard(err error, silent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Unheard, c.status.UnheardAt = "", time.Time{}
	if c.silent = (time.Time{}); silent {
		c.silent = time.Now()
		c.ail()
	}
	if err != nil {
		c.status.Unheard, c.status.UnheardAt = err.Error(), time.Now()
		c.repo.log.Debug(c.fabric.cfg.Name+"  its cluster gives no verdict before it is applied", "err", err)
	}
}

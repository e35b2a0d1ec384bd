// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hhwatchd/hhwatchd/checkout"
)

// maxRaces is how often one cycle plans anew because somebody else pushed
// first; after that the repository's schedule decides when to try again.
const maxRaces = 5

// A trigger is what woke the cycle. It does no work of its own: it only says
// how thoroughly the cycle is to look.
type trigger struct {
	why    string // interval, drop, rescan, retry, webhook, reload, sync, ingest, init, import, start
	ask    bool   // ask the remote even while it is failing
	noPull bool   // do not ask the remote
	full   bool   // look at everything: local edits, the whole cluster
	dryRun bool   // plan, and write nothing
	prune  bool   // a person said that a held prune may go on
	fabric string // who asks is interested in this fabric; empty means all
	layout bool   // first lay the fabric out (hhwatchd init)

	imports   bool // first drop what lives in the fabric's cluster (hhwatchd import)
	overwrite bool // also where managed/ says something else

	progress progressFunc   // may be nil
	done     chan<- *report // may be nil; capacity 1
}

// cycle is the one path that everything takes, from wherever it came: pull →
// ingest → commit → push → apply. It looks at what is there (the remote, the
// clone, the raw directories, the journal) and brings it forward; running it
// again changes nothing. Being run at start-up is the whole of recovery, so
// at each comment that says "crash here" it says what the next cycle finds.
func (r *repository) cycle(ctx context.Context, t trigger) *report {
	start := time.Now()
	r.pulse.start(t.why)
	defer r.pulse.stop()
	t.progress = r.pulse.through(t.progress)
	r.progress = t.progress
	rep := r.newReport(t)
	err := r.suspect(r.steps(ctx, t, rep))
	if isBroken(err) && !t.dryRun {
		if err = r.giveUp(ctx, rep, err); err == nil {
			t.full = true // also what the cycle left half done
			r.left = nil
			again := r.newReport(t)
			again.Cycle = rep.Cycle
			*rep = *again
			err = r.suspect(r.steps(ctx, t, rep))
		}
	}
	if r.clone != nil && !isBroken(err) {
		r.remade = ""
	}
	if err != nil {
		rep.Error = r.inWords(err)
		r.left = nil // where it stopped, the refs tell
	}
	rep.Took = time.Since(start)
	return rep
}

func (r *repository) steps(ctx context.Context, t trigger, rep *report) error {
	// The working clone. A first clone can fail as any pull can.
	if err := r.noticeMissing(rep); err != nil {
		return err
	}
	if err := r.open(ctx, t); r.isLocal(err) {
		return err
	} else if err != nil {
		rep.Pull.Error = r.cloneWaits(err)
		return r.remoteWent(ctx, rep)
	}
	if err := r.tellRebuilt(rep); err != nil {
		return err
	}
	for _, f := range r.fabrics {
		if err := r.layRaw(f); err != nil {
			rep.fabric(f.cfg.Name).Error = r.inWords(err) // the other fabrics go on
		}
	}

	// What a crash, a person or another program left: commits that the journal
	// does not know of yet, and with a full look also an inventory that does
	// not agree with git, and edited files. Not before a clone that was made
	// again has taken in what it has to, or that would be missed in the one
	// place and be too much in the other.
	if !t.dryRun && !r.resaid {
		up, err := r.clone.Upstream()
		if err != nil {
			return err
		}
		had, err := r.pulledBefore(up)
		if err != nil {
			return err
		}
		if err := r.account(rep, had); err != nil {
			return err
		}
		if had != up {
			if err := r.clone.SaveRef(baseRef, up); err != nil {
				return err
			}
		}
	}
	if err := r.findLeft(); err != nil {
		return err
	}
	if t.full && !t.dryRun && !r.resaid {
		if err := r.mend(t, rep); err != nil {
			return err
		}
		if err := r.restore(ctx, rep); err != nil {
			return err
		}
	}
	r.resaid = false

	for race := 0; ; race++ {
		// Pull: one small request, and a fetch only when the branch moved.
		// Without the remote the work goes on with what is here.
		if err := r.pull(ctx, t, rep); err != nil {
			return err
		}
		if (t.layout || t.imports) && rep.Pull.Error != "" {
			return errors.New("this needs the remote: what it has may be more than what is here")
		}

		// Where does new work stand? On the remote's tip, or on our own
		// commits that the remote does not have yet. When the remote has
		// moved, those are planned anew from their own raw bytes.
		base, err := r.findBase()
		if err != nil {
			return err
		}

		if t.layout {
			if base.tip, err = r.commitLayout(base.tip, r.fabricNamed(t.fabric), rep); err != nil {
				return err
			}
		}

		for _, f := range r.fabrics {
			if why, err := r.misplaced(f, base.tip); err != nil {
				return err
			} else if why != "" {
				rep.fabric(f.cfg.Name).Error = why // the other fabrics go on
			}
		}

		if t.imports && race == 0 {
			if err := r.bringIn(ctx, t, r.fabricNamed(t.fabric), base.tip, rep); err != nil {
				return err
			}
		}

		// Discover, validate, classify, process: nothing is written. All of it
		// is pure but for asking the clusters what they would refuse.
		planned := rep.Steps.begin("ingest")
		work, left, err := r.plan(ctx, t, base, rep)
		if len(work) > 0 {
			planned()
		}
		if err != nil {
			return err
		}
		if t.dryRun {
			r.forgetAnswers(work)
			rep.Push.Skipped = "a dry run"
			return nil
		}

		// Commit. Crash here: at most there are objects that nothing refers
		// to; the raw files are where they were.
		committed := rep.Steps.begin("commit")
		tip, work, err := r.commit(base, work, t, rep)
		if err != nil {
			return err
		}
		// The commit point: from here on the raw bytes are durable in git.
		// Crash here: the next cycle begins by telling the journal what the
		// new commits did; then it recognises the raw files as archived, and
		// removes them.
		asides, err := r.clone.Advance(ctx, tip)
		if err := errors.Join(err, r.recordAsides(rep, asides)); err != nil {
			return err
		}
		if err := r.clone.SaveRef(baseRef, base.upstream); err != nil {
			return err
		}

		// Archive: the raw files leave raw/, in the order of their arrival, so
		// that a crash here leaves the later word to be said again, never an
		// earlier one. Rejected drops go to unmanaged/.
		work = r.prepareRejects(work, rep)
		// The journal knows of those that were left from their commits.
		if err := r.recordRefused(work, rep); err != nil {
			return err
		}
		r.archive(work, left, rep)
		if tip != base.head {
			committed()
		}
		// Crash here: the next cycle archives again.
		if len(r.left) == 0 {
			if err := r.clone.SaveRef(archivedRef, tip); err != nil {
				return err
			}
		}

		// Push. Crash here, or no remote: the commits wait for the next cycle.
		err = r.push(ctx, t, rep)
		if errors.Is(err, checkout.ErrRaced) && race < maxRaces {
			t.noPull, t.ask = false, true
			continue
		}
		if errors.Is(err, checkout.ErrRaced) {
			err = fmt.Errorf("others pushed to %s first, %s in a row", r.cfg.Branch, plural(race+1, "time"))
		}
		err = r.suspect(err)
		if r.isLocal(err) {
			return err
		} else if err != nil {
			rep.Push.Error = err.Error()
		}
		r.forgetAnswers(work)
		break
	}
	if err := r.remoteWent(ctx, rep); err != nil {
		return err
	}

	// Tell the journal what all of this did. Crash here: the next cycle does.
	if err := r.account(rep, checkout.Hash(rep.Pull.To)); err != nil {
		return err
	}
	if rep.Push.Head != "" {
		// Not earlier: by this ref the next cycle knows whose commits they are.
		if err := r.clone.SaveRef(baseRef, checkout.Hash(rep.Push.Head)); err != nil {
			return err
		}
	}
	unburied := r.bury()

	// Apply what the remote has. Each cluster has a goroutine of its own, so
	// that a slow one holds up neither the others nor the next cycle.
	return errors.Join(unburied, r.apply(t, rep))
}

// baseRef names the ref below refs/hhwatchd/ that holds the remote's commit
// on which the local branch stands. What the branch has beyond it was not
// pushed yet, or the journal was not told that it was; what the remote has lost
// of it was taken back there.
const baseRef = "base"

// archivedRef names the ref that holds the commit up to which every raw file
// has left raw/. What a later commit holds may still lie there; where there is
// no such ref, what any commit holds.
const archivedRef = "archived"

// asideRef is before the names of the refs that hold local commits which the
// remote went on without.
const asideRef = "aside/"

// A base is where a cycle's new commits go, and what has to be said again
// there.
type base struct {
	head     checkout.Hash // the local branch as it was found
	tip      checkout.Hash // the parent of the next commit
	upstream checkout.Hash // the remote branch
	again    []batch       // deliveries in unpushed commits that tip does not have
	foreign  []checkout.Commit
}

// lookLimit bounds the one small request that precedes local work: a remote
// that hangs must not keep what was dropped from being committed.
const lookLimit = 10 * time.Second

// pull asks the remote for its head and fetches if it moved. Failures of the
// remote are recorded, not returned: a cycle does its local work without it.
func (r *repository) pull(ctx context.Context, t trigger, rep *report) error {
	from, err := r.clone.Upstream()
	if rep.Pull.From == "" { // else a race, which began elsewhere
		rep.Pull.From = string(from)
	}
	rep.Pull.To = string(from)
	switch {
	case err != nil:
		return err
	case t.noPull:
		rep.Pull.Skipped = "not asked for"
		return nil
	case r.spared(t):
		rep.Pull.Skipped = "the remote is failing; next try at " + r.remote.Due().Format(time.TimeOnly)
		return nil
	}
	t.progress.report("pull", 0, 0)
	defer rep.Steps.begin("pull")()
	r.hurried.Store(t.why == "drop")
	defer r.hurried.Store(false)
	answered := r.asking("telling its branch")
	defer func() { answered() }()
	look, cancel := context.WithTimeoutCause(ctx, lookLimit, fmt.Errorf("no answer within %v", lookLimit))
	head, err := r.clone.RemoteHead(look)
	cancel()
	switch {
	case err != nil || head == from:
	case head == "":
		// Not fetched: what the branch was stays known, so that it is not
		// taken for a new one to be pushed to.
		err = fmt.Errorf("branch %s is gone from %s; nothing is pulled or pushed until it is back", r.cfg.Branch, r.cfg.URL)
	case !t.dryRun:
		answered = r.asking("sending new commits")
		head, err = r.clone.Fetch(ctx)
	}
	err = r.suspect(err)
	if r.isLocal(err) {
		return err
	} else if err != nil {
		rep.Pull.Error = err.Error()
		return nil
	}
	rep.Pull.To = string(head)
	return nil
}

// findBase finds out where new work stands.
func (r *repository) findBase() (base, error) {
	head, err := r.clone.Head()
	if err != nil {
		return base{}, err
	}
	up, err := r.clone.Upstream()
	if err != nil {
		return base{}, err
	}
	old, err := r.clone.Ref(baseRef)
	if err != nil {
		return base{}, err
	}
	if head == up {
		return base{head: head, tip: up, upstream: up}, nil
	}
	unpushed, err := r.unpushed(head, up, old)
	if err != nil {
		return base{}, err
	}
	if len(unpushed) == 0 {
		return base{head: head, tip: up, upstream: up}, nil
	}
	if up == old || up == "" {
		// With another branch in the config, the remote's may not be known yet.
		return base{head: head, tip: head, upstream: old}, nil
	}
	// A crash can have come before the ref was moved on.
	if built, err := r.builtOn(up, head, old); err != nil {
		return base{}, err
	} else if built {
		return base{head: head, tip: head, upstream: up}, nil
	}
	b := base{head: head, tip: up, upstream: up}
	b.again, b.foreign, err = r.deliveries(unpushed)
	return b, err
}

// builtOn reports whether head stands on up, where old, the remote's commit
// that head is known to have been built on, is not behind a rewrite.
func (r *repository) builtOn(up, head, old checkout.Hash) (bool, error) {
	ok, err := r.clone.IsAncestor(up, head)
	if err == nil && ok && old != "" {
		ok, err = r.clone.IsAncestor(old, up)
	}
	return ok, err
}

// unpushed lists the commits of head that neither the remote branch has nor
// the remote commit that head was built on, oldest first.
func (r *repository) unpushed(head, up, old checkout.Hash) ([]checkout.Commit, error) {
	beyond, err := r.clone.Log(up, head)
	if err != nil || old == "" || old == up || len(beyond) == 0 {
		return beyond, err
	}
	ours, err := r.clone.Log(old, head)
	if err != nil {
		return nil, err
	}
	in := make(map[checkout.Hash]bool, len(ours))
	for _, c := range ours {
		in[c.Hash] = true
	}
	var both []checkout.Commit
	for _, c := range beyond {
		if in[c.Hash] {
			both = append(both, c)
		}
	}
	return both, nil
}

// newCycleID makes an identifier that sorts by time and can be read at a
// glance: the start of the cycle, and four random digits.
func newCycleID() string {
	var b [2]byte
	rand.Read(b[:]) // never fails
	return time.Now().UTC().Format("20060102T150405.000Z") + "-" + hex.EncodeToString(b[:])
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/journal"
)

// recordRefused tells the journal of the files that leave no trace in git:
// rejected drops, and files that brought nothing new. It does so before they
// are moved, so that a crash cannot swallow it; a file that it came before is
// known by its arrival, so that it is not told twice. One that cannot be moved
// is known by r.told: trying to gives it a new arrival.
func (r *repository) recordRefused(work []planned, rep *report) error {
	var recs []journal.Record
	told := map[leftover]bool{}
	for i := range work {
		p := &work[i]
		for j, in := range p.inputs {
			outcome := p.outcome(j)
			if p.origin != journal.Dropped || outcome == journal.Ingested || r.told[p.fabric.leftover(in)] {
				continue
			}
			rec := journal.Record{
				Cycle: rep.Cycle, Fabric: p.fabric.cfg.Name, Step: journal.StepIngest,
				File: &journal.File{
					Path: p.fabric.rawPath(in.Path), Blob: string(in.blob), Origin: journal.Dropped,
					Owner: in.author.Name, Size: in.size(), Outcome: outcome, PartOf: string(in.whole),
				},
				Problems: problems(p.plan.Files[j].Problems),
			}
			if outcome == journal.Rejected {
				rec.Step = journal.StepReject
				rec.File.Kept = p.kept[j]
			} else {
				rec.File.Commit, _ = r.book.inventory().Archived(p.fabric.cfg.Name, string(in.blob))
			}
			if in.disk != nil {
				rec.File.Arrived = in.disk.Time.UTC()
				if r.book.inventory().Told(rec.Fabric, *rec.File) {
					continue
				}
			}
			recs = append(recs, rec)
			told[p.fabric.leftover(in)] = true
		}
	}
	err := r.record(recs...)
	if err == nil {
		maps.Copy(r.told, told)
	}
	return err
}

// account brings the journal from the last commit that it knows to the local
// branch.
//
// What a commit did is read from the commit itself, whoever made it: this
// host a moment ago, this host before a crash, another host, or a person. So
// nothing is known that a restart could lose, and two hosts tell one story.
//
// pulled is what the remote had before this cycle pushed to it.
func (r *repository) account(rep *report, pulled checkout.Hash) error {
	tip, err := r.clone.Head()
	if err != nil {
		return err
	}
	up, err := r.clone.Upstream()
	if err != nil {
		return err
	}
	inv := r.book.inventory()
	known := checkout.Hash(inv.Recorded(r.cfg.Name))
	if tip == "" && known != "" {
		// A ref that was lost since the cycle looked at the clone must not
		// pass for a branch that holds nothing.
		if err := r.clone.Check(false); isBroken(err) {
			return err
		}
	}

	// Fabrics whose inventory is good at the commit that is accounted for are
	// brought forward commit by commit. The others are compared as well: those
	// of a new journal, of one that was damaged, and where the accounted commit
	// is not in history any more, because its work was planned anew after a
	// lost race, or because the remote was rewritten or merged.
	made, err := r.clone.Log(pulled, tip) // our own; the remote may have them by now
	if err != nil {
		return err
	}
	commits, linear, related, err := r.since(known, tip)
	var before map[*fabric]checkout.Hash
	if err == nil {
		before, err = r.managedTrees(known)
	}
	if err = r.suspect(err); errors.Is(err, checkout.ErrNotFound) {
		// It was never pushed, and went with a clone that was lost, or the
		// remote has lost it: nothing keeps it, nor what it came from.
		known, commits, linear, related, before, err = "", nil, tip == "", tip == "", nil, nil
	}
	if err != nil {
		return err
	}
	var recs []journal.Record
	for _, f := range r.fabrics {
		tree, err := r.clone.TreeHash(tip, f.cfg.managed())
		if err != nil {
			return err
		}
		walk := commits
		if !related {
			walk = made
		}
		var did []journal.Record
		for _, c := range walk {
			more, err := r.commitDid(rep.Cycle, f, c, nil)
			if err != nil {
				return err
			}
			did = append(did, more...)
		}
		accounted := inv.Tree(f.cfg.Name)
		if accounted == noTree {
			accounted = ""
		}
		if !linear || string(before[f]) != accounted {
			other, err := r.compare(rep.Cycle, f, tip, walk, did)
			if err != nil {
				return err
			}
			did = append(other, did...)
		}
		if string(tree) != accounted {
			did = r.accountsFor(did, f, rep.Cycle, tip, tree)
		}
		recs = append(recs, did...)
	}
	m := moves{known: known, pulled: pulled, tip: tip, up: up, made: hashes(made), recent: hashes(made)}
	if related {
		m.recent = nil
		walked := map[checkout.Hash]bool{}
		for _, c := range commits {
			walked[c.Hash] = true
		}
		for _, c := range made {
			if walked[c.Hash] {
				m.recent = append(m.recent, string(c.Hash))
			}
		}
	}
	if recs, err = r.accountMoves(recs, rep, m); err != nil {
		return err
	}
	// One append: a crash leaves all of it to be said again, or nothing.
	return r.record(recs...)
}

// managedTrees returns what the fabrics' managed/ are in the commit h.
func (r *repository) managedTrees(h checkout.Hash) (map[*fabric]checkout.Hash, error) {
	trees := make(map[*fabric]checkout.Hash, len(r.fabrics))
	for _, f := range r.fabrics {
		tree, err := r.clone.TreeHash(h, f.cfg.managed())
		if err != nil {
			return nil, err
		}
		trees[f] = tree
	}
	return trees, nil
}

// since lists the commits from known to tip, or, where known is not in the
// history of tip, from where the two part. It is linear if these are all that
// there is to say of how one became the other. They are related if the commits
// can be told one by one: there is such a place, and nobody merged.
func (r *repository) since(known, tip checkout.Hash) (commits []checkout.Commit, linear, related bool, err error) {
	switch {
	case known == tip:
		return nil, true, true, nil
	case known == "" || tip == "":
		return nil, false, false, nil
	}
	if linear, err = r.clone.IsAncestor(known, tip); err != nil {
		return nil, false, false, err
	}
	if commits, err = r.clone.Log(known, tip); err != nil {
		return nil, false, false, err
	}
	for _, c := range commits {
		if len(c.Parents) != 1 { // a merge, or the first commit of another history
			return nil, false, false, nil
		}
	}
	return commits, linear, true, nil
}

// noTree stands in the journal for a fabric that has no managed/ (any more):
// it is git's empty tree.
const noTree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

// accountsFor lets the last of a fabric's records say which managed tree they
// account for.
func (r *repository) accountsFor(recs []journal.Record, f *fabric, cycle string, tip, tree checkout.Hash) []journal.Record {
	if tree == "" {
		tree = noTree
	}
	for i := len(recs) - 1; i >= 0; i-- {
		if recs[i].Step != journal.StepReject {
			recs[i].Tree = string(tree)
			return recs
		}
	}
	return append(recs, journal.Record{Cycle: cycle, Fabric: f.cfg.Name, Step: journal.StepManaged, To: string(tip), Tree: string(tree)})
}

// commitDid tells what one commit did to a fabric: raw files that became
// managed ones or were rejected, and managed files that somebody edited. only
// restricts it to some managed paths; nil means all.
func (r *repository) commitDid(cycle string, f *fabric, c checkout.Commit, only map[string]bool) ([]journal.Record, error) {
	var recs []journal.Record
	parent := first(c.Parents)
	diff, err := r.clone.Diff(parent, c.Hash, f.cfg.Path)
	if err != nil {
		return nil, err
	}
	var raw []checkout.Diff
	managed := map[string]checkout.Diff{} // by path in the repository
	for _, d := range diff {
		switch {
		case strings.HasPrefix(d.Path, f.cfg.raw()+"/"):
			if d.New == "" && ingest.IsInput(below(d.Path, f.cfg.raw())) {
				raw = append(raw, d)
			}
		case strings.HasPrefix(d.Path, f.cfg.managed()+"/"):
			if isManaged(d.Path) && (only == nil || only[d.Path]) {
				managed[d.Path] = d
			}
		}
	}
	explained := map[string]bool{}
	if stepOf(c) == stepIngest && len(raw) > 0 {
		for _, d := range raw {
			became, err := r.rawBecame(cycle, f, c, parent, d, managed, only)
			if err != nil {
				return nil, err
			}
			for _, rec := range became {
				for _, o := range rec.Objects {
					explained[o.Path] = true
				}
				if only == nil || len(rec.Objects) > 0 {
					recs = append(recs, rec)
				}
			}
		}
	}
	edit := journal.Record{Cycle: cycle, Fabric: f.cfg.Name, Step: journal.StepManaged, To: string(c.Hash), Note: "by " + c.Author.Name}
	for _, d := range diff {
		if _, ok := managed[d.Path]; ok && !explained[d.Path] {
			if o, ok := r.objectAt(f, d); ok {
				edit.Objects = append(edit.Objects, o)
			}
		}
	}
	if len(edit.Objects) > 0 {
		recs = append(recs, edit)
	}
	return recs, nil
}

// A refusal is what a commit says of a raw file that it rejected, or of what is
// left of one.
type refusal struct {
	kept string        // where it is; "" for none
	blob checkout.Hash // that of the raw file, or of what is left of it
	why  []ingest.Problem
}

// keptAt returns where commit c put a rejected raw file, and the problems that
// the reason beside it lists.
func (r *repository) keptAt(f *fabric, c checkout.Commit, raw checkout.Hash) (kept refusal, err error) {
	entries := c.Trailer(trailerKept)
	if len(entries) == 0 {
		return refusal{}, nil
	}
	files, err := r.clone.Files(c.Hash, f.cfg.unmanaged())
	if err != nil {
		return refusal{}, err
	}
	blobs := map[string]checkout.Hash{}
	for _, e := range files {
		blobs[e.Path] = e.Blob
	}
	parts := partsIn(c)
	for p := range blobs {
		if blobs[p] != raw && parts[p] != raw || !slices.Contains(entries, quotePath(p)) || kept.kept != "" && kept.kept < p {
			continue
		}
		reason, err := r.clone.Blob(blobs[p+reasonSuffix])
		if err != nil {
			return refusal{}, err
		}
		kept = refusal{p, blobs[p], ingest.ParseReason(reason)}
	}
	return kept, nil
}

// rawBecame tells what became of the raw file that commit c took out of raw/,
// in one record, or in one for each of its two parts. The commit says whether it
// was rejected, and why; what it holds is read again by the same rules.
func (r *repository) rawBecame(cycle string, f *fabric, c checkout.Commit, parent checkout.Hash, d checkout.Diff, managed map[string]checkout.Diff, only map[string]bool) ([]journal.Record, error) {
	size, err := r.clone.BlobSize(d.Old)
	if err != nil {
		return nil, err
	}
	brought, err := r.clone.Introduced(parent, []string{d.Path})
	if err != nil {
		return nil, err
	}
	by := brought[d.Path]
	rec := journal.Record{
		Cycle: cycle, Fabric: f.cfg.Name, Step: journal.StepIngest, To: string(c.Hash),
		File: &journal.File{
			Path: d.Path, Blob: string(d.Old), Origin: journal.Pulled, Owner: by.Author.Name,
			Commit: string(by.Hash), Size: size, Outcome: journal.Ingested, PartOf: string(partsIn(c)[d.Path]),
		},
	}
	if stepOf(by) == stepDrop {
		rec.File.Origin = journal.Dropped
		rec.File.PartOf = cmp.Or(rec.File.PartOf, string(partsIn(by)[d.Path]))
	}
	rejected := func(blob checkout.Hash, size int64, kept string, why []ingest.Problem) journal.Record {
		left, file := rec, *rec.File
		left.Step, left.File, left.Problems = journal.StepReject, &file, problems(why)
		file.Outcome, file.Kept = journal.Rejected, kept
		if blob != d.Old {
			file.Blob, file.Size, file.PartOf = string(blob), size, string(d.Old)
		}
		return left
	}
	kept, err := r.keptAt(f, c, d.Old)
	if err != nil {
		return nil, err
	}
	if kept.kept != "" && kept.blob == d.Old {
		return []journal.Record{rejected(d.Old, size, kept.kept, kept.why)}, nil // it may be too large to be read
	}
	raw, err := r.clone.Blob(d.Old)
	if err != nil {
		return nil, err
	}
	var rest []byte
	var recs []journal.Record
	if kept.kept != "" {
		if rest, err = r.clone.Blob(kept.blob); err != nil {
			return nil, err
		}
		recs = append(recs, rejected(kept.blob, int64(len(rest)), kept.kept, kept.why))
	}
	v := f.policy().ReadTaken(ingest.File{Path: below(d.Path, f.cfg.raw()), Data: raw}, rest)
	if len(v.Problems) > 0 {
		// Only commits of hhwatchd before 0.2 do not name what they rejected.
		return []journal.Record{rejected(d.Old, size, path.Join(f.cfg.unmanaged(), v.File), v.Problems)}, nil
	}
	for _, o := range v.Objects {
		p := path.Join(f.cfg.Path, o.Path)
		if only != nil && !only[p] {
			continue
		}
		now, _, err := r.clone.Lookup(c.Hash, p)
		if err != nil {
			return nil, err
		}
		outcome := ingest.Unchanged
		m, changed := managed[p]
		switch {
		case o.Absent && now == "":
			if !changed {
				continue // it was not there
			}
			outcome = ingest.Removed
		case o.Absent || checkout.BlobHash(o.Text) != now:
			outcome = superseded
		case changed && m.Old == "":
			outcome = ingest.Created
		case changed:
			outcome = ingest.Updated
		}
		rec.Objects = append(rec.Objects, journal.Object{
			Group: o.Group, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name,
			Document: o.Document, Line: o.Line, Path: p, Blob: string(now), Outcome: string(outcome),
		})
	}
	return append([]journal.Record{rec}, recs...), nil
}

// objectAt names the object of a managed file that was changed by hand.
// A file that cannot be read says nothing here; applying reports it.
func (r *repository) objectAt(f *fabric, d checkout.Diff) (journal.Object, bool) {
	blob, outcome := d.New, ingest.Updated
	switch {
	case d.New == "":
		blob, outcome = d.Old, ingest.Removed
	case d.Old == "":
		outcome = ingest.Created
	}
	data, err := r.clone.Blob(blob)
	if err != nil {
		return journal.Object{}, false
	}
	o, problems := f.policy().ReadManaged(below(d.Path, f.cfg.Path), data)
	if len(problems) > 0 {
		return journal.Object{}, false
	}
	return journal.Object{
		Group: o.Group, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name,
		Path: d.Path, Blob: string(d.New), Outcome: string(outcome),
	}, true
}

// superseded is what only a look back at a commit finds of an object: another
// file of the same delivery had the last word.
const superseded ingest.Outcome = "superseded"

// compare tells how what a fabric holds at tip differs from the inventory,
// with the commits that made it so, except for what the commits in walk did,
// which told has.
func (r *repository) compare(cycle string, f *fabric, tip checkout.Hash, walk []checkout.Commit, told []journal.Record) ([]journal.Record, error) {
	entries, err := r.clone.Files(tip, f.cfg.managed())
	if err != nil {
		return nil, err
	}
	known := map[string]journal.Entry{}
	for _, e := range r.book.inventory().Objects(f.cfg.Name) {
		if e.Desired.Blob != "" {
			known[e.Desired.Path] = e
		}
	}
	var changed []string
	for _, e := range entries {
		if k, ok := known[e.Path]; (!ok || k.Desired.Blob != string(e.Blob)) && isManaged(e.Path) {
			changed = append(changed, e.Path)
		}
		delete(known, e.Path)
	}
	var recs []journal.Record
	if len(changed) > 0 {
		by, err := r.clone.Introduced(tip, changed)
		if err != nil {
			return nil, err
		}
		paths := map[checkout.Hash]map[string]bool{}
		var order []checkout.Commit
		for _, p := range changed {
			c := by[p]
			if paths[c.Hash] == nil {
				paths[c.Hash] = map[string]bool{}
				order = append(order, c)
			}
			paths[c.Hash][p] = true
		}
		for _, c := range order {
			if slices.ContainsFunc(walk, func(w checkout.Commit) bool { return w.Hash == c.Hash }) {
				continue
			}
			did, err := r.commitDid(cycle, f, c, paths[c.Hash])
			if err != nil {
				return nil, err
			}
			recs = append(recs, did...)
		}
	}
	for _, rec := range told {
		for _, o := range rec.Objects {
			delete(known, o.Path) // what is gone went with one of walk
		}
	}
	gone := journal.Record{Cycle: cycle, Fabric: f.cfg.Name, Step: journal.StepManaged, To: string(tip)}
	for _, e := range known {
		gone.Objects = append(gone.Objects, journal.Object{
			Group: e.Group, Kind: e.Kind, Namespace: e.Namespace, Name: e.Name, Path: e.Desired.Path, Outcome: string(ingest.Removed),
		})
	}
	slices.SortFunc(gone.Objects, func(a, b journal.Object) int { return a.Key().Compare(b.Key()) })
	if len(gone.Objects) > 0 {
		recs = append(recs, gone)
	}
	return recs, nil
}

// isManaged reports whether a path below managed/ is one of an object; the
// others (.gitkeep, a README) are nobody's business.
func isManaged(p string) bool { return path.Ext(p) == ".yaml" }

func problems(ps []ingest.Problem) []journal.Problem {
	var out []journal.Problem
	for _, p := range ps {
		out = append(out, journal.Problem{
			Document: p.Document, Line: p.Line, Column: p.Column, Code: p.Code, Message: p.Message, Hint: p.Hint,
		})
	}
	return out
}

// recordAsides tells the journal and the report about local edits that were
// undone.
func (r *repository) recordAsides(rep *report, asides []checkout.Aside) error {
	var recs []journal.Record
	for _, a := range asides {
		rep.Aside = append(rep.Aside, asideReport{Path: a.Path, Kept: a.Kept})
		rec := journal.Record{
			Cycle: rep.Cycle, Fabric: r.fabricOf(a.Path), Step: journal.StepAside,
			File: &journal.File{Path: a.Path, Kept: a.Kept},
			Note: "restored from git; to change an object, drop a file into raw/",
		}
		if a.Deleted {
			rec.Note = "it was deleted; restored from git: to remove an object, delete its file with git and push"
		}
		recs = append(recs, rec)
	}
	return r.record(recs...)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/journal"
)

// A tree is where managed files are read from: the clone that a cycle works
// on, or one that is only looked at beside a daemon.
type tree interface {
	Files(checkout.Hash, string) ([]checkout.Entry, error)
	TreeHash(checkout.Hash, string) (checkout.Hash, error)
	Blob(checkout.Hash) ([]byte, error)
}

// A disagreement is an object of which the inventory says something else than
// managed/ in git.
type disagreement struct {
	Object    string `json:"object"` // Kind/name
	Path      string `json:"path"`
	Git       string `json:"git,omitempty"`       // blob of the managed file, "" where there is none
	Inventory string `json:"inventory,omitempty"` // blob that the inventory has for it

	key journal.Key
}

// disagreements compares what the inventory says that a fabric should hold
// with what the commit at has in managed/. A file there that is no object says
// nothing; applying reports it.
func disagreements(t tree, at checkout.Hash, f *FabricConfig, policy ingest.Policy, inv *journal.Inventory) ([]disagreement, error) {
	files, err := t.Files(at, f.managed())
	if err != nil {
		return nil, err
	}
	inGit := make(map[string]checkout.Hash, len(files))
	for _, e := range files {
		if isManaged(e.Path) {
			inGit[e.Path] = e.Blob
		}
	}
	var out []disagreement
	for _, e := range inv.Objects(f.Name) {
		if e.Desired.Blob == "" {
			continue
		}
		blob := inGit[e.Desired.Path]
		if blob == checkout.Hash(e.Desired.Blob) {
			delete(inGit, e.Desired.Path)
		} else if blob == "" {
			out = append(out, disagreement{e.Key.String(), e.Desired.Path, "", e.Desired.Blob, e.Key})
		}
	}
	for p, blob := range inGit {
		data, err := t.Blob(blob)
		if err != nil {
			return nil, err
		}
		o, problems := policy.ReadManaged(below(p, f.Path), data)
		if len(problems) > 0 {
			continue
		}
		k := journal.Key{Group: o.Group, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}
		e, _ := inv.Get(f.Name, k)
		out = append(out, disagreement{k.String(), p, string(blob), e.Desired.Blob, k})
	}
	slices.SortFunc(out, func(a, b disagreement) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// mend compares the inventory of each fabric with managed/ in git, object by
// object, and records what did not agree. It follows account, so that what is
// found is no news from a commit: something was wrong with the journal that
// its hashes do not show. Without being asked, a tree that was found to agree
// is not compared again.
func (r *repository) mend(t trigger, rep *report) error {
	tip, err := r.clone.Head()
	if err != nil || tip == "" {
		return err
	}
	for _, f := range r.fabrics {
		managed, err := r.clone.TreeHash(tip, f.cfg.managed())
		if err != nil {
			return err
		}
		if !t.ask && f.agreed != nil && *f.agreed == managed {
			continue
		}
		wrong, err := disagreements(r.clone, tip, f.cfg, f.policy(), r.book.inventory())
		if err != nil {
			return err
		}
		if len(wrong) > 0 {
			if err := r.recover(rep, f, tip, wrong); err != nil {
				return err
			}
		}
		f.agreed = &managed
	}
	return nil
}

// recover records what git says of the objects that did not agree, with the
// file and the commit that they are from, as far as compare can tell.
func (r *repository) recover(rep *report, f *fabric, tip checkout.Hash, wrong []disagreement) error {
	told := map[journal.Key]disagreement{}
	for _, d := range wrong {
		if old, ok := told[d.key]; !ok || old.Git == "" {
			told[d.key] = d
		}
	}
	recs, err := r.compare(rep.Cycle, f, tip, nil, nil)
	if err != nil {
		return err
	}
	for i := range recs {
		recs[i].Step, recs[i].Note = journal.StepRecovered, ""
		recs[i].Objects = slices.DeleteFunc(recs[i].Objects, func(o journal.Object) bool {
			d, ok := told[o.Key()]
			return !ok || d.Path != o.Path || d.Git != o.Blob
		})
	}
	recs = slices.DeleteFunc(recs, func(rec journal.Record) bool { return len(rec.Objects) == 0 })
	return r.record(recs...)
}

// treeOf is the hash under which the journal accounts for a fabric's managed
// tree.
func treeOf(t tree, at checkout.Hash, f *FabricConfig) (string, error) {
	h, err := t.TreeHash(at, f.managed())
	if err == nil && h == "" {
		h = noTree
	}
	return string(h), err
}

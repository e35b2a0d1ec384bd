// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/journal"
	"github.com/hhwatchd/hhwatchd/watcher"
)

// A batch is one delivery to one fabric: the files that came together.
type batch struct {
	fabric *fabric
	origin string // journal.Dropped or journal.Pulled
	inputs []input
}

// An input is one raw file, wherever it came from.
type input struct {
	ingest.File
	blob   checkout.Hash
	author checkout.Signature // who dropped it, and when
	disk   *watcher.File      // nil when it does not lie in raw/
}

// deliveries reads the batches back from commits that were never pushed: the
// raw files are in those that record them as dropped. Files that were pulled
// need no such care, the remote has them. A commit that is not hhwatchd's is
// returned as foreign.
func (r *repository) deliveries(commits []checkout.Commit) (batches []batch, foreign []checkout.Commit, err error) {
	var open *batch
	for _, c := range commits {
		switch stepOf(c) {
		case stepDrop:
			f := r.fabricNamed(first(c.Trailer(trailerFabric)))
			if f == nil {
				foreign = append(foreign, c) // of a fabric that is configured no more
				continue
			}
			if open == nil || open.fabric != f {
				batches = append(batches, batch{fabric: f, origin: journal.Dropped})
				open = &batches[len(batches)-1]
			}
			diff, err := r.clone.Diff(first(c.Parents), c.Hash, f.cfg.raw())
			if err != nil {
				return nil, nil, err
			}
			for _, d := range diff {
				if d.New == "" {
					continue
				}
				data, err := r.clone.Blob(d.New)
				if err != nil {
					return nil, nil, err
				}
				open.inputs = append(open.inputs, input{
					File:   ingest.File{Path: below(d.Path, f.cfg.raw()), Data: data},
					blob:   d.New,
					author: c.Author,
				})
			}
		case stepIngest, stepLayout:
			open = nil
		default:
			foreign = append(foreign, c)
		}
	}
	return batches, foreign, nil
}

// planned is a batch with what is to become of it.
type planned struct {
	batch
	plan    ingest.Plan
	already []bool // per file: git history has these bytes, and no object changes
}

// plan discovers what there is to ingest and decides what becomes of it: the
// raw files that the remote's tree holds, what has to be said again, and what
// lies in raw/ on disk, in this order.
func (r *repository) plan(ctx context.Context, t trigger, b base, rep *report) ([]planned, error) {
	var out []planned
	for _, f := range r.fabrics {
		t.report("discover "+f.cfg.Name, 0, 0)
		fr := rep.fabric(f.cfg.Name)
		*fr = fabricReport{Name: f.cfg.Name, Apply: fr.Apply}
		var batches []batch
		pulled, err := r.discoverTree(f, b.tip)
		if err != nil {
			return nil, err
		}
		batches = append(batches, pulled)
		for _, again := range b.again {
			if again.fabric == f {
				batches = append(batches, again)
			}
		}
		dropped, err := r.discoverDisk(f, fr, pulled)
		if err != nil {
			return nil, err
		}
		batches = append(batches, dropped)

		// Each batch is planned on what the ones before it leave behind.
		overlay := map[string][]byte{}
		managed := func(p string) ([]byte, bool, error) {
			if data, ok := overlay[p]; ok {
				return data, true, nil
			}
			blob, ok, err := r.clone.Lookup(b.tip, path.Join(f.cfg.Path, p))
			if err != nil || !ok {
				return nil, false, err
			}
			data, err := r.clone.Blob(blob)
			return data, true, err
		}
		for _, batch := range batches {
			if len(batch.inputs) == 0 {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			files := make([]ingest.File, len(batch.inputs))
			for i, in := range batch.inputs {
				files[i] = in.File
			}
			t.report("ingest "+f.cfg.Name, 0, len(files))
			plan, err := f.policy.Plan(files, managed)
			if err != nil {
				return nil, fmt.Errorf("planning fabric %s: %w", f.cfg.Name, err)
			}
			for p, data := range plan.Writes {
				overlay[p] = data
			}
			p := planned{batch: batch, plan: plan, already: make([]bool, len(files))}
			for i, step := range plan.Files {
				if len(step.Problems) == 0 && !changes(step) && batch.inputs[i].disk != nil {
					if p.already[i], err = r.archived(f, batch.inputs[i].blob, b.tip); err != nil {
						return nil, err
					}
				}
				fr.Files = append(fr.Files, p.report(i, t.dryRun))
			}
			out = append(out, p)
		}
	}
	return out, nil
}

// archived reports whether the history of tip holds a raw file's exact bytes.
func (r *repository) archived(f *fabric, blob, tip checkout.Hash) (bool, error) {
	commit, ok := r.book.inventory().Archived(f.cfg.Name, string(blob))
	if !ok {
		return false, nil
	}
	// The remote may have been rewritten since.
	return r.clone.IsAncestor(checkout.Hash(commit), tip)
}

// changes reports whether any object of a file is new or different.
func changes(s ingest.Step) bool {
	for _, o := range s.Outcomes {
		if o != ingest.Unchanged {
			return true
		}
	}
	return false
}

func (p *planned) outcome(i int) string {
	switch {
	case len(p.plan.Files[i].Problems) > 0:
		return journal.Rejected
	case p.already[i]:
		return journal.Already
	}
	return journal.Ingested
}

func (p *planned) report(i int, dryRun bool) fileReport {
	in, step := p.inputs[i], p.plan.Files[i]
	fr := fileReport{
		Path: in.Path, Origin: p.origin, Owner: in.author.Name, Outcome: p.outcome(i),
		Problems: problems(step.Problems),
	}
	if len(step.Problems) > 0 {
		return fr
	}
	fr.Objects = map[string]int{}
	for j, o := range step.Outcomes {
		fr.Objects[string(o)]++
		if dryRun {
			fr.Plan = append(fr.Plan, objectReport{step.Objects[j].ID.String(), step.Objects[j].Path, string(o)})
		}
	}
	return fr
}

// discoverTree lists the raw files of a fabric that the tip's tree holds, in
// the order in which their commits brought them.
func (r *repository) discoverTree(f *fabric, tip checkout.Hash) (batch, error) {
	b := batch{fabric: f, origin: journal.Pulled}
	entries, err := r.clone.Files(tip, f.cfg.raw())
	if err != nil {
		return b, err
	}
	var paths []string
	blobs := map[string]checkout.Hash{}
	for _, e := range entries {
		if ingest.IsInput(below(e.Path, f.cfg.raw())) {
			paths = append(paths, e.Path)
			blobs[e.Path] = e.Blob
		}
	}
	if len(paths) == 0 {
		return b, nil
	}
	commits, err := r.inOrder(tip, paths)
	if err != nil {
		return b, err
	}
	for _, p := range paths {
		data, err := r.clone.Blob(blobs[p])
		if err != nil {
			return b, err
		}
		b.inputs = append(b.inputs, input{
			File:   ingest.File{Path: below(p, f.cfg.raw()), Data: data},
			blob:   blobs[p],
			author: commits[p].Author,
		})
	}
	return b, nil
}

// discoverDisk lists the raw files of a fabric that lie on disk, in the order
// of their arrival. Those that are still being written wait. One that is the
// very file that the tree has was put there by git, not by a person.
func (r *repository) discoverDisk(f *fabric, fr *fabricReport, pulled batch) (batch, error) {
	b := batch{fabric: f, origin: journal.Dropped}
	inTree := map[string]checkout.Hash{}
	for _, in := range pulled.inputs {
		inTree[in.Path] = in.blob
	}
	dir := r.onDisk(f.cfg.raw())
	found, skipped, err := watcher.List(dir, ingest.IsInput)
	if err != nil {
		return b, fmt.Errorf("listing %s: %w", dir, err)
	}
	for _, s := range skipped {
		fr.Skipped = append(fr.Skipped, fmt.Sprintf("%s: %s", s.Path, s.Why))
	}
	for _, e := range found {
		file, err := watcher.Read(dir, e.Path, r.settle.Quiet, ingest.MaxFile)
		switch {
		case errors.Is(err, watcher.ErrBusy):
			fr.Waiting = append(fr.Waiting, e.Path)
			r.watch.Await(dir, e.Path)
			continue
		case errors.Is(err, watcher.ErrGone):
			continue
		case errors.Is(err, fs.ErrPermission):
			fr.Skipped = append(fr.Skipped, e.Path+": it may not be read; chmod it, or drop it anew")
			continue
		case err != nil && !errors.Is(err, watcher.ErrTooBig):
			return b, err
		}
		blob := checkout.BlobHash(file.Data)
		if inTree[file.Path] == blob {
			continue
		}
		b.inputs = append(b.inputs, input{
			File:   ingest.File{Path: file.Path, Data: file.Data, Size: file.Size},
			blob:   blob,
			author: r.owner(file),
			disk:   file,
		})
	}
	return b, nil
}

// below returns p relative to the directory dir that holds it.
func below(p, dir string) string { return strings.TrimPrefix(p, dir+"/") }

func first[T any](s []T) T {
	var zero T
	if len(s) == 0 {
		return zero
	}
	return s[0]
}

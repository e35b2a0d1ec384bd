// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/journal"
	"github.com/hhwatchd/hhwatchd/watcher"
)

// A batch is one delivery to one fabric: the files that came together.
type batch struct {
	fabric *fabric
	origin string // journal.Dropped or journal.Pulled
	judged bool   // its cluster is not asked about it: it was when it came, or it is from there
	inputs []input

	refused ingest.Refusals // what its fabric's cluster is known to refuse of it
}

// An input is one raw file, wherever it came from.
type input struct {
	ingest.File
	blob   checkout.Hash
	author checkout.Signature // who dropped it, and when
	disk   *watcher.File      // nil when it does not lie in raw/

	// whole is the blob of the file as it came, where Data is only a part of
	// it: the documents that were taken in, or the others. Else it is "".
	whole checkout.Hash
}

// part is the input with some of its documents only.
func (in input) part(data []byte) input {
	in.whole = cmp.Or(in.whole, in.blob)
	in.File.Data, in.File.Size, in.blob = data, 0, checkout.BlobHash(data)
	return in
}

// size is how many bytes the file has, whether they were read or not.
func (in input) size() int64 { return max(in.Size, int64(len(in.Data))) }

// rawFile reads a raw file that git has, unless it has more bytes than
// limits.file.
func (r *repository) rawFile(name string, blob checkout.Hash) (ingest.File, error) {
	f := ingest.File{Path: name}
	var err error
	if f.Size, err = r.clone.BlobSize(blob); err == nil && f.Size <= int64(r.limits.File) {
		f.Data, err = r.clone.Blob(blob)
	}
	return f, err
}

// content returns what a rejected drop holds, also where it was not read
// because it is too large.
func (r *repository) content(in input) ([]byte, error) {
	if in.disk == nil && in.size() > int64(len(in.Data)) {
		return r.clone.Blob(in.blob)
	}
	return in.Data, nil
}

// deliveries reads the batches back from commits that were never pushed: the
// raw files are in those that record them as dropped. Each batch has no more of
// them than limits.cycle lets one cycle take. Files that were pulled
// need no such care, the remote has them. A commit that is not hhwatchd's is
// returned as foreign.
func (r *repository) deliveries(commits []checkout.Commit) (batches []batch, foreign []checkout.Commit, err error) {
	var open *batch
	total := 0 // bytes in it
	for _, c := range commits {
		switch stepOf(c) {
		case stepDrop:
			f := r.fabricNamed(first(c.Trailer(trailerFabric)))
			if f == nil {
				foreign = append(foreign, c) // of a fabric that is configured no more
				continue
			}
			if open == nil || open.fabric != f {
				batches = append(batches, batch{fabric: f, origin: journal.Dropped, judged: true})
				open, total = &batches[len(batches)-1], 0
			}
			diff, err := r.clone.Diff(first(c.Parents), c.Hash, "")
			if err != nil {
				return nil, nil, err
			}
			// In the order of their arrival, which the trailers keep: of two
			// files that say something of the same object, the later one counts.
			arrival := c.Trailer(trailerFile)
			slices.SortStableFunc(diff, func(a, b checkout.Diff) int {
				return cmp.Compare(slices.Index(arrival, quotePath(a.Path)), slices.Index(arrival, quotePath(b.Path)))
			})
			for _, d := range diff {
				if d.New == "" {
					continue
				}
				file, err := r.rawFile(belowRaw(d.Path, f.cfg.raw()), d.New)
				if err != nil {
					return nil, nil, err
				}
				if total += len(file.Data); len(open.inputs) > 0 && total > int(r.limits.Cycle) {
					batches = append(batches, batch{fabric: f, origin: journal.Dropped, judged: true})
					open, total = &batches[len(batches)-1], len(file.Data)
				}
				open.inputs = append(open.inputs, input{
					File:   file,
					blob:   d.New,
					author: c.Author,
					whole:  partsIn(c)[d.Path],
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

// planned is a batch with what is to become of it. Its inputs are what the
// steps of the plan are about: a file of which only a part is taken in is there
// twice, as that part and as the rest.
type planned struct {
	batch
	came    batch // as it was
	plan    ingest.Plan
	already []bool         // per input: git history has these bytes, and no object changes
	kept    map[int]string // by input: where a rejected drop goes, in the repository

	// stay are the files in raw/ that have to stay there although a part of
	// them is committed, because the rest could not be put into unmanaged/.
	stay map[*watcher.File]bool
}

// plan discovers what there is to ingest and decides what becomes of it: the
// raw files that the remote's tree holds, what has to be said again, and what
// lies in raw/ on disk, in this order. What is left in raw/ by a crash after
// it was committed is returned apart: it only has to be archived.
func (r *repository) plan(ctx context.Context, t trigger, b base, rep *report) (out, left []planned, err error) {
	for _, f := range r.fabrics {
		t.progress.report("discover "+f.cfg.Name, 0, 0)
		fr := rep.fabric(f.cfg.Name)
		*fr = fabricReport{Name: f.cfg.Name, Error: fr.Error}
		if t.full && !f.schemas.cached {
			f.schemas.load()
		}
		var batches []batch
		pulled, err := r.discoverTree(f, b.tip, fr)
		if err != nil {
			return nil, nil, err
		}
		batches = append(batches, pulled)
		for _, again := range b.again {
			if again.fabric == f {
				batches = append(batches, again)
			}
		}
		dropped := batch{fabric: f, origin: journal.Dropped}
		if fr.Error == "" && fr.Deferred == 0 {
			if dropped, err = r.discoverDisk(f, fr, pulled); err != nil {
				fr.Error = r.inWords(err)
			}
		}
		dropped, done, err := r.splitLeft(f, dropped, b, fr)
		if err != nil {
			return nil, nil, err
		}
		dropped.judged = t.imports
		batches = append(batches, dropped)
		left = append(left, done)
		if fr.Deferred > 0 && !t.dryRun {
			r.lookAgain()
		}

		f.keepAnswers(batches)

		// Each batch is planned on what the ones before it leave behind.
		overlay := map[string][]byte{}
		for _, batch := range batches {
			if len(batch.inputs) == 0 {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil, nil, err
			}
			t.progress.report("ingest "+f.cfg.Name, 0, len(batch.inputs))
			f.schemas.followFirst(ctx, f.cfg)
			// What the cluster refuses, as far as it can tell already, is
			// refused here: a plan from which that is left out is another one.
			in := r.inquire(batch, b.tip, overlay)
			p, err := r.planBatch(in.batch, b.tip, overlay)
			for err == nil && in.more(ctx, &p) {
				p, err = r.planBatch(in.batch, b.tip, overlay)
			}
			if err != nil {
				return nil, nil, err
			}
			for name, data := range p.plan.Writes {
				overlay[name] = data
			}
			for i := range p.inputs {
				fr.Files = append(fr.Files, p.report(i, t.dryRun))
			}
			out = append(out, p)
		}
	}
	return out, left, nil
}

// planBatch plans one batch on top of what is managed at tip, and the files in
// overlay.
func (r *repository) planBatch(b batch, tip checkout.Hash, overlay map[string][]byte) (planned, error) {
	files := make([]ingest.File, len(b.inputs))
	for i, in := range b.inputs {
		files[i] = in.File
	}
	known, err := r.knownAt(b.fabric, tip, overlay)
	if err != nil {
		return planned{}, err
	}
	atTip := r.managedAt(b.fabric, tip)
	policy := b.fabric.policy()
	policy.Refused = b.refused
	plan, err := policy.Plan(files, func(p string) ([]byte, bool, error) {
		if data, ok := overlay[p]; ok {
			return data, data != nil, nil
		}
		return atTip(p)
	}, known)
	if err != nil {
		return planned{}, fmt.Errorf("planning fabric %s: %w", b.fabric.cfg.Name, err)
	}
	p := planned{batch: batch{fabric: b.fabric, origin: b.origin}, came: b, plan: plan,
		already: make([]bool, len(plan.Files)), stay: map[*watcher.File]bool{}}
	for i, step := range plan.Files {
		in := b.inputs[step.Input]
		if step.Part != nil {
			in = in.part(step.Part)
		}
		p.inputs = append(p.inputs, in)
		if len(step.Problems) == 0 && !changes(step) && in.disk != nil {
			commit, err := r.archived(b.fabric, in.blob, tip)
			if err != nil {
				return planned{}, err
			}
			p.already[i] = commit != ""
		}
	}
	return p, nil
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
		Problems: problems(step.Problems), Warnings: problems(step.Warnings),
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
// the order in which their commits brought them, as many as limits.cycle lets
// one cycle take. What is left waits, and all drops, which came later, with it.
func (r *repository) discoverTree(f *fabric, tip checkout.Hash, fr *fabricReport) (batch, error) {
	b := batch{fabric: f, origin: journal.Pulled}
	links, err := r.clone.Irregular(tip, f.cfg.raw())
	if err != nil {
		return b, err
	}
	for _, l := range links {
		if p := below(l.Path, f.cfg.raw()); ingest.IsInput(p) {
			fr.Skipped = append(fr.Skipped, p+": it was pushed as a link, which is not followed; push a file")
		}
	}
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
	total := 0
	for i, p := range paths {
		file, err := r.rawFile(below(p, f.cfg.raw()), blobs[p])
		if err != nil {
			return b, err
		}
		if total += len(file.Data); i > 0 && total > int(r.limits.Cycle) {
			fr.Deferred = len(paths) - i
			break
		}
		b.inputs = append(b.inputs, input{
			File:   file,
			blob:   blobs[p],
			author: commits[p].Author,
		})
	}
	return b, nil
}

// discoverDisk lists the raw files of a fabric that lie on disk, in the order
// of their arrival, as many as limits.cycle lets one cycle take. Those that are
// still being written wait. One that is the very file that the tree has was put
// there by git, not by a person.
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
		if slices.ContainsFunc(fr.Skipped, func(told string) bool { return strings.HasPrefix(told, s.Path+": ") }) {
			continue // it was pushed
		}
		fr.Skipped = append(fr.Skipped, fmt.Sprintf("%s: %s", s.Path, s.Why))
	}
	total := 0
	for i, e := range found {
		file, err := watcher.Read(dir, e.Path, r.settle.Quiet, int64(r.limits.File))
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
			if _, ok := machineTrouble(err, dir); ok && !errors.Is(err, unix.EIO) {
				return b, err
			}
			// A name that is too long, a bad sector: this file's alone.
			fr.Skipped = append(fr.Skipped, fmt.Sprintf("%s: %v", e.Path, err))
			continue
		}
		if total += len(file.Data); len(b.inputs) > 0 && total > int(r.limits.Cycle) {
			fr.Deferred = len(found) - i
			break
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

// belowRaw is below for a path that may be of a time when the fabric's
// directory was another one.
func belowRaw(p, dir string) string {
	if rest, ok := strings.CutPrefix(p, dir+"/"); ok {
		return rest
	}
	if _, rest, ok := strings.Cut(p, "/raw/"); ok {
		return rest
	}
	return p
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

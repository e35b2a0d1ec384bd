// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/internal/durable"
	"github.com/hhwatchd/hhwatchd/journal"
	"github.com/hhwatchd/hhwatchd/watcher"
)

// reasonSuffix is appended to the name of a rejected file to name the file
// that says why.
const reasonSuffix = ".reason"

// archive takes the files of a cycle out of raw/: archived ones are retired
// (their bytes are in a durable commit), to be unlinked for good once the
// cycle is through; rejected ones move to unmanaged/ of the work tree, which
// git is told to ignore. left are archived ones that an earlier cycle could
// not take out, or a crash left.
//
// What cannot be taken out stays, remembered in r.left, and holds up neither
// the other fabrics nor the push.
func (r *repository) archive(work, left []planned, rep *report) {
	for _, f := range r.fabrics {
		fr := rep.fabric(f.cfg.Name)
		var done []input
		for i := range work {
			p := &work[i]
			if p.fabric != f || p.origin != journal.Dropped {
				continue
			}
			for j, in := range p.inputs {
				if p.outcome(j) == journal.Rejected && (!r.reject(p, j, fr) || in.whole == "") {
					continue
				}
				if in.disk != nil && !slices.ContainsFunc(done, func(d input) bool { return d.disk == in.disk }) {
					done = append(done, in)
				}
			}
			// Of a file in two parts both have to be somewhere.
			done = slices.DeleteFunc(done, func(in input) bool {
				if p.stay[in.disk] {
					r.stays(f, in)
				}
				return p.stay[in.disk]
			})
		}
		// The new ones together, in the order of their arrival; those that
		// were left one by one, so that none stands in the way of the others.
		r.retire(f, done, fr)
		for _, p := range left {
			for _, in := range p.inputs {
				if p.fabric == f {
					r.retire(f, []input{in}, fr)
				}
			}
		}
	}
}

// retire takes files of a fabric out of raw/, whose bytes are in a durable
// commit.
func (r *repository) retire(f *fabric, done []input, fr *fabricReport) {
	files := make([]*watcher.File, len(done))
	for i, in := range done {
		files[i] = in.disk
	}
	spent, changed, err := watcher.Retire(files)
	r.spent = append(r.spent, spent...)
	if len(changed) > 0 {
		r.lookAgain() // written to meanwhile: new input
	}
	stay := 0
	for _, in := range done {
		this := f.leftover(in)
		if err == nil || slices.Contains(spent, in.disk) || slices.Contains(changed, in.disk) {
			delete(r.left, this)
			delete(r.parts, this)
			delete(r.told, this)
			continue
		}
		r.stays(f, in)
		stay++
	}
	if err != nil {
		fr.Error = fmt.Sprintf("%s ingested, but cannot be taken out of raw/: %s", plural(stay, "file"), r.inWords(err))
	}
}

// stays remembers a file whose bytes are committed, or a part of them, and
// which is in raw/ still.
func (r *repository) stays(f *fabric, in input) {
	this := f.leftover(in)
	r.left[this], r.told[this] = 1, true
	if in.whole != "" && !slices.Contains(r.parts[this], in.blob) {
		r.parts[this] = append(r.parts[this], in.blob)
	}
}

// bury unlinks the retired files for good. Those for which that fails are
// tried again by the next cycle.
func (r *repository) bury() error {
	back, err := watcher.Bury(r.spent)
	if len(back) > 0 {
		r.lookAgain() // written to after all: new input again
	}
	if err == nil {
		r.spent = nil
	}
	return err
}

// sweep deals with the retired files of a fabric that a crash kept from being
// buried. Those that are among what may have been left in raw/ were not left
// there: a file of that name and content is another delivery. That has to stay
// known until archivedRef says it, so these are buried as usual, at the end of
// the cycle.
func (r *repository) sweep(f *fabric) error {
	head, err := r.clone.Head()
	if err != nil {
		return err
	}
	spent, _, err := watcher.Sweep(r.onDisk(f.cfg.raw()), int64(largestFile), func(_ string, data []byte) bool {
		// In doubt it goes back into raw/.
		// What was taken in in part was put away in both parts before.
		commit, err := r.archived(f, checkout.BlobHash(data), head)
		if err == nil && commit == "" {
			commit, err = r.archivedPart(f, checkout.BlobHash(data), head)
		}
		return err == nil && commit != ""
	})
	var old []*watcher.File
	for _, s := range spent {
		this := leftover{quotePath(f.rawPath(s.Path)), checkout.BlobHash(s.Data)}
		switch n := r.left[this]; n {
		case 0:
			old = append(old, s)
			continue
		case 1:
			delete(r.left, this)
		default:
			r.left[this] = n - 1
		}
		r.spent = append(r.spent, s)
	}
	_, berr := watcher.Bury(old)
	return errors.Join(err, berr)
}

// prepareRejects makes room in unmanaged/ for the rejected drops, and puts the
// reason there. It leaves out those for which that fails: they stay in raw/.
//
// The reason comes first: a crash before the file itself is moved leaves a
// reason without a file, and the file, still in raw/, is rejected again.
func (r *repository) prepareRejects(work []planned, rep *report) []planned {
	for i := range work {
		p := &work[i]
		p.kept = map[int]string{}
		for j := 0; j < len(p.inputs); j++ {
			if p.origin != journal.Dropped || p.outcome(j) != journal.Rejected {
				continue
			}
			in := p.inputs[j]
			kept, err := r.freeUnmanaged(p.fabric, in)
			if err == nil {
				err = durable.WriteFile(r.onDisk(kept)+reasonSuffix, ingest.Reason(p.plan.Files[j].Verdict), 0o664)
			}
			fr := rep.fabric(p.fabric.cfg.Name)
			if err != nil {
				fr.Files = slices.DeleteFunc(fr.Files, func(f fileReport) bool {
					return f.Path == in.Path && f.Origin == p.origin && f.Outcome == journal.Rejected
				})
				r.cannotReject(fr, in, p.plan.Files[j].Problems[0].Code, err)
				if in.whole != "" {
					p.stay[in.disk] = true
				}
				p.inputs = slices.Delete(p.inputs, j, j+1)
				p.already = slices.Delete(p.already, j, j+1)
				p.plan.Files = slices.Delete(p.plan.Files, j, j+1)
				j--
				continue
			}
			p.kept[j] = kept
			for k := range fr.Files {
				if fr.Files[k].Path == in.Path && fr.Files[k].Origin == p.origin && fr.Files[k].Outcome == journal.Rejected {
					fr.Files[k].Kept = kept
				}
			}
		}
	}
	return work
}

// cannotReject reports a file that is to be rejected and has to stay in raw/.
// What is wrong with the machine concerns the fabric, all else this file.
func (r *repository) cannotReject(fr *fabricReport, in input, code string, err error) {
	if text, ok := machineTrouble(err, r.stateDir); ok {
		fr.Error = "rejected files cannot be moved to unmanaged/: " + text
		return
	}
	fr.Skipped = append(fr.Skipped, fmt.Sprintf("%s: it is rejected (%s), but cannot be moved to unmanaged/: %v", in.Path, code, err))
}

// reject moves a dropped file to its reason in unmanaged/, or writes there what
// is left of it. It reports whether it is there now.
func (r *repository) reject(p *planned, j int, fr *fabricReport) bool {
	in := p.inputs[j]
	dst := r.onDisk(p.kept[j])
	var err error
	if in.disk == nil || in.whole != "" {
		var data []byte
		if data, err = r.content(in); err == nil {
			err = durable.WriteFile(dst, data, 0o664)
		}
	} else {
		err = in.disk.Move(dst)
	}
	if errors.Is(err, watcher.ErrChanged) || errors.Is(err, watcher.ErrGone) {
		// The journal has it as rejected by now, and so it was; what lies
		// there instead is another file.
		r.lookAgain()
		err = os.Remove(dst + reasonSuffix)
	}
	if err != nil {
		r.cannotReject(fr, in, p.plan.Files[j].Problems[0].Code, err)
		p.stay[in.disk] = in.whole != ""
		return false
	}
	if in.whole == "" {
		delete(r.told, p.fabric.leftover(in))
	}
	return true
}

// unmanagedNames are the names below unmanaged/ that a rejected file may get:
// its own, or, where that clashes, is too long or could be taken for a reason,
// one of its content.
func unmanagedNames(f *fabric, in input) []string {
	base := path.Base(in.Path)
	flat := string(in.blob[:12]) + "-" + base[max(0, len(base)-100):]
	names := []string{in.Path, strings.ToValidUTF8(flat, "_")}
	if len(base)+len(reasonSuffix) > nameMax || strings.HasSuffix(base, reasonSuffix) {
		names = names[1:]
	}
	for i, n := range names {
		names[i] = path.Join(f.cfg.unmanaged(), n)
	}
	return names
}

// nameMax is the longest file name in bytes (NAME_MAX of limits.h).
const nameMax = 255

// freeUnmanaged makes room on disk for a rejected drop: it returns a path
// whose directory is there and which is free. The newest rejected file of a
// name has that name; an older one with other bytes is renamed.
func (r *repository) freeUnmanaged(f *fabric, in input) (kept string, err error) {
	head, err := r.clone.Head()
	if err != nil {
		return "", err
	}
	for _, name := range unmanagedNames(f, in) {
		// A file that git tracks there was pushed and rejected: that one stays.
		kept = name
		for n := 1; ; n++ {
			if _, tracked, err := r.clone.Lookup(head, kept); err != nil {
				return "", err
			} else if !tracked {
				break
			}
			kept = numbered(name, n)
		}
		if err = r.noLinks(path.Dir(kept)); err != nil {
			return "", err
		}
		if err = r.makeRoom(r.onDisk(kept), in); err == nil {
			return kept, nil
		}
	}
	return "", err
}

func (r *repository) makeRoom(dst string, in input) error {
	if err := durable.MkdirAll(filepath.Dir(dst), 0o775); err != nil {
		return err
	}
	info, err := os.Lstat(dst)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is there already, and is no file", dst)
	case in.disk == nil && in.whole == "" || info.Size() != int64(len(in.Data)):
		return rotate(dst) // one that was too big to be read is never the same
	}
	old, err := os.ReadFile(dst)
	if err != nil {
		return err
	}
	if bytes.Equal(old, in.Data) {
		return os.Remove(dst) // the same again, and it is about to come
	}
	return rotate(dst)
}

// unmanagedInTree is where a commit on tip puts a rejected file that was
// pushed; taken are the paths that the commit uses already.
func (r *repository) unmanagedInTree(tip checkout.Hash, f *fabric, in input, taken map[string]bool) (string, error) {
	for _, name := range unmanagedNames(f, in) {
		ok, err := r.fits(tip, f.cfg.unmanaged(), name, taken)
		if err != nil {
			return "", err
		}
		if ok {
			taken[name], taken[name+reasonSuffix] = true, true
			return name, nil
		}
	}
	return "", errors.New("there is no place for it in unmanaged/")
}

// fits reports whether a file and its reason can be put at p, below dir, in
// the tree of tip: neither is taken or a directory, and nothing on the way is
// a file. What a rejected file of that name left there is replaced.
func (r *repository) fits(tip checkout.Hash, dir, p string, taken map[string]bool) (bool, error) {
	for _, q := range []string{p, p + reasonSuffix} {
		if tree, err := r.clone.TreeHash(tip, q); err != nil || tree != "" || taken[q] {
			return false, err
		}
	}
	for q := path.Dir(p); q != dir; q = path.Dir(q) {
		if _, file, err := r.clone.Lookup(tip, q); err != nil || file || taken[q] {
			return false, err
		}
	}
	return true, nil
}

// numbered returns x.1.yaml for x.yaml and 1.
func numbered(file string, n int) string {
	ext := path.Ext(file)
	return fmt.Sprintf("%s.%d%s", strings.TrimSuffix(file, ext), n, ext)
}

// rotate renames x.yaml to x.1.yaml, or the first number that is free, and
// its reason with it.
func rotate(file string) error {
	for n := 1; ; n++ {
		to := numbered(file, n)
		if _, err := os.Lstat(to); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := durable.Rename(file+reasonSuffix, to+reasonSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return durable.Rename(file, to)
	}
}

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
	"strings"

	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/internal/durable"
	"github.com/hhwatchd/hhwatchd/journal"
	"github.com/hhwatchd/hhwatchd/watcher"
)

// reasonSuffix is appended to the name of a rejected file to name the file
// that says why.
const reasonSuffix = ".reason"

// archive takes the files of a cycle out of raw/: archived ones are retired
// (their bytes are in a durable commit), rejected ones move to unmanaged/ of
// the work tree, which git is told to ignore. It returns the retired files:
// they are unlinked for good once the cycle is through.
func (r *repository) archive(work []planned, rep *report) (spent []*watcher.File, err error) {
	var done []*watcher.File
	for i := range work {
		p := &work[i]
		if p.origin != journal.Dropped {
			continue
		}
		for j, in := range p.inputs {
			if p.outcome(j) != journal.Rejected {
				if in.disk != nil {
					done = append(done, in.disk)
				}
				continue
			}
			kept, err := r.reject(p.fabric, in, p.plan.Files[j].Verdict)
			if err != nil {
				return nil, fmt.Errorf("rejecting %s: %w", in.Path, err)
			}
			fr := rep.fabric(p.fabric.cfg.Name)
			for k := range fr.Files {
				if fr.Files[k].Path == in.Path && fr.Files[k].Outcome == journal.Rejected {
					fr.Files[k].Kept = kept
				}
			}
		}
	}
	spent, changed, err := watcher.Retire(done)
	if len(changed) > 0 {
		r.lookAgain() // written to meanwhile: new input
	}
	return spent, err
}

// reject puts a dropped file beside its reason in unmanaged/, and returns
// where, relative to the repository. The newest rejected file of a name has
// that name; an older one with other bytes is renamed, never overwritten.
func (r *repository) reject(f *fabric, in input, v ingest.Verdict) (string, error) {
	kept, err := r.freeUnmanaged(f, in)
	if err != nil {
		return "", err
	}
	dst := r.onDisk(kept)
	// The reason first: a crash in between leaves a reason without a file,
	// and the file, still in raw/, is rejected again.
	if err := durable.WriteFile(dst+reasonSuffix, ingest.Reason(v), 0o664); err != nil {
		return "", err
	}
	if in.disk == nil {
		return kept, durable.WriteFile(dst, in.Data, 0o664)
	}
	err = in.disk.Move(dst)
	switch {
	case errors.Is(err, watcher.ErrChanged):
		r.lookAgain()
		return kept, os.Remove(dst + reasonSuffix)
	case errors.Is(err, watcher.ErrGone):
		return kept, os.Remove(dst + reasonSuffix)
	}
	return kept, err
}

// freeUnmanaged makes room in unmanaged/ for a rejected drop.
func (r *repository) freeUnmanaged(f *fabric, in input) (string, error) {
	kept := path.Join(f.cfg.unmanaged(), in.Path)
	head, err := r.clone.Head()
	if err != nil {
		return "", err
	}
	// A file that git tracks there was pushed and rejected: that one stays.
	for n := 1; ; n++ {
		_, tracked, err := r.clone.Lookup(head, kept)
		if err != nil {
			return "", err
		}
		if !tracked {
			break
		}
		kept = numbered(path.Join(f.cfg.unmanaged(), in.Path), n)
	}
	dst := r.onDisk(kept)
	if err := durable.MkdirAll(filepath.Dir(dst), 0o775); err != nil {
		return "", err
	}
	old, err := os.ReadFile(dst)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return kept, nil
	case err != nil:
		return "", err
	case bytes.Equal(old, in.Data) && in.disk != nil:
		return kept, os.Remove(dst) // the same again, and it is about to come
	}
	return kept, rotate(dst)
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

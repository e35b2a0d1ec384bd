// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"
)

// bring changes one path of the work tree and notes what becomes of its entry
// in the index. A path that fails is noted, too, and the others go on.
func (j *job) bring(ctx context.Context, ch change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ch.left && !j.leftBehind(ch) {
		return nil
	}
	var entry *indexEntry
	var err error
	for range 10 {
		if entry, err = j.place(ch); !errors.Is(err, errChanged) {
			break
		}
	}
	if errors.Is(err, errChanged) && j.c.isInput(ch.path) {
		// Somebody is writing to it: it is about to become new input.
		if entry, err = nil, nil; ch.mode != 0 {
			entry = &indexEntry{path: ch.path, mode: ch.mode, id: ch.id}
		}
	}
	if err != nil {
		j.tree.invalidate(ch.path)
		if len(j.failed) < 10 {
			j.failed = append(j.failed, fmt.Errorf("%s in the work tree: %w", ch.path, err))
		}
		return nil
	}
	if ch.lo == ch.hi && entry != nil {
		j.added[ch.path] = true
	}
	j.splices = append(j.splices, splice{ch.lo, ch.hi, entry})
	return nil
}

// place does the work of bring. errChanged says that the path changed while
// it was looked at.
func (j *job) place(ch change) (*indexEntry, error) {
	w, ix := j.c.work, j.ix
	input := j.c.isInput(ch.path)
	has := ch.hi-ch.lo == 1 && ix.stage(ch.lo) == 0
	entry := &indexEntry{path: ch.path, mode: ch.mode, id: ch.id, stat: ch.made}
	if ch.dir != "" {
		return entry, nil
	}
	if j.skips(ch) {
		entry.extended = extSkip
		if ch.mode == 0 {
			entry = nil
		}
		return entry, nil
	}
	if ch.mode == ModeModule {
		st, err := w.mkdir(ch.path, j.clear)
		entry.stat = st
		return entry, err
	}
	st, exists, err := w.lstat(ch.path)
	if err != nil {
		return nil, err
	}
	isDir := exists && fileMode(st) == modeDir

	// Is what is there just what git knows?
	clean := false
	if exists && !isDir {
		if has && !ch.staged && ix.unchanged(ch.lo, st) {
			clean = true
		} else {
			id, err := w.hash(ch.path)
			if err != nil {
				return nil, err
			}
			if ch.mode != 0 && id == ch.id && fileMode(st) == ch.mode {
				entry.stat = st
				return entry, nil
			}
			clean = id == ch.id || ch.known != oid{} && id == ch.known || j.passing(ch.path, id)
		}
	}

	if ch.mode == 0 {
		switch {
		case !exists:
		case isDir:
			// A submodule that was never filled goes; anything else has come
			// into the place of the file, and is nobody's business here.
			if has && ix.mode(ch.lo) == ModeModule {
				w.prune(ch.path, j.c.coversInput)
			}
			return nil, nil
		case clean:
			if err := w.take(ch.path, &st, input); err != nil {
				return nil, err
			}
		case input:
			return nil, nil
		default:
			if err := j.setAside(ch.path); err != nil {
				return nil, err
			}
		}
		dir, _ := split(ch.path)
		w.prune(dir, j.c.coversInput)
		return nil, nil
	}

	var data []byte
	if w.staged[ch.path] == "" {
		if data, err = j.c.repo.typed(ch.id, plumbing.BlobObject); err != nil {
			return nil, err
		}
	}
	var old *fileStat
	switch {
	case clean:
		old = &st
	case !exists:
	case input, isDir && j.c.coversInput(ch.path):
		// New input, or the directory for it, in the place of a tracked file:
		// what git shows for the path is that it was modified, and so it was.
		return entry, nil
	default:
		if err := j.clear(ch.path); err != nil {
			return nil, err
		}
	}
	clear := j.clear
	if input {
		clear = func(path string) error { return fmt.Errorf("%s is not a directory: %w", path, errInput) }
	}
	entry.stat, err = w.put(ch.path, ch.mode, data, old, input, clear)
	if errors.Is(err, errInput) {
		entry.stat, err = fileStat{}, nil
	}
	if err == nil && has && !exists && !j.passing(ch.path, oid{}) && !input {
		j.asides = append(j.asides, Aside{Path: ch.path, Deleted: true})
	}
	return entry, err
}

// skips reports whether the path is not wanted in the work tree: the index has
// it marked so, or it is new and outside of what is checked out.
func (j *job) skips(ch change) bool {
	if ch.hi-ch.lo == 1 && j.ix.stage(ch.lo) == 0 {
		return j.ix.extendedFlags(ch.lo)&extSkip != 0
	}
	if ch.mode == 0 || ch.hi > ch.lo || j.cone.has(ch.path) {
		return false
	}
	_, exists, err := j.c.work.lstat(ch.path)
	return err == nil && !exists
}

// errInput says that a raw directory is not a directory, but maybe a link to
// one elsewhere: nothing is written there.
var errInput = errors.New("left alone")

// clear makes room at path: an empty directory is removed, everything else set
// aside.
func (j *job) clear(path string) error {
	w := j.c.work
	if j.c.coversInput(path) {
		return fmt.Errorf("%s is in the way, and holds input", path)
	}
	dir, name := split(path)
	if fd, err := w.walk(dir, nil); err == nil {
		err = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
		unix.Close(fd)
		if err == nil {
			return nil
		}
	}
	return j.setAside(path)
}

func (j *job) setAside(path string) error {
	kept, err := j.c.work.setAside(path)
	if err != nil {
		return err
	}
	j.asides = append(j.asides, Aside{Path: path, Kept: kept})
	return nil
}

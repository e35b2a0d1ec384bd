// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"
)

// A first checkout makes every file there is. One by one, a file is made in the
// staging directory and then renamed into its place, and the second takes as
// long as the first. So a directory that is not in the work tree yet is made as
// a whole, in the staging directory, and comes into its place by one rename.
//
// Everything else stays as it is: what is prepared is flushed before the branch
// moves, what a crash leaves in the staging directory goes, and a directory that
// somebody made in the meantime is not replaced: then its files go the ordinary
// way.
//
// A clone that was just made is mostly brought in order before it is brought
// anywhere: a first checkout is what Restore does as well as Advance.

// seedbed is the directory in the staging directory in which such directories
// are made.
const seedbed = newFile + "dirs"

// sow prepares the files of a first checkout that lie in directories which are
// not in the work tree, as plant will bring them there.
func (j *job) sow(ctx context.Context, want func(change) bool) error {
	var files []*change
	there := make(map[string]bool)
	for i := range j.changes {
		ch := &j.changes[i]
		if ch.mode == 0 || ch.mode == ModeModule || ch.left || !want(*ch) || !j.cone.has(ch.path) {
			continue
		}
		// What cannot be looked at is for place to report. Below Inputs a
		// directory has to inherit the rights that its parent gives to those who
		// drop files (a default ACL, acl(5)), so it is made where it belongs.
		if dir, err := j.lacks(ch.path, there); err == nil && dir != "" && !j.c.isInput(dir) {
			ch.dir = dir
			files = append(files, ch)
		}
	}
	if len(files) == 0 {
		return nil
	}
	bed := filepath.Join(j.c.work.stage, seedbed)
	if err := os.Mkdir(bed, 0o777); err != nil {
		return err
	}
	defer j.c.repo.readOnce()()
	// Each works on a run of neighbours, which are in the same directories.
	const run = 256
	workers := runtime.GOMAXPROCS(0)
	trees := make([]*worktree, workers)
	for w := range trees {
		trees[w] = &worktree{root: bed, fd: -1}
		defer trees[w].forget()
	}
	errs := make([]error, workers)
	for done := 0; done < len(files); {
		if err := ctx.Err(); err != nil {
			return err
		}
		var wg sync.WaitGroup
		for w := range workers {
			part := files[done:min(done+run, len(files))]
			done += len(part)
			wg.Go(func() { errs[w] = j.c.sowFiles(trees[w], part) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		j.c.progress("checkout", done, len(j.changes))
	}
	j.sown = len(files)
	return nil
}

// lacks returns the topmost directory of path that is not in the work tree; ""
// if all of them are. there remembers which are.
func (j *job) lacks(path string, there map[string]bool) (string, error) {
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		dir := path[:i]
		is, known := there[dir]
		if !known {
			var err error
			if _, is, err = j.c.work.lstat(dir); err != nil {
				return "", err
			}
			there[dir] = is
		}
		if !is {
			return dir, nil
		}
	}
	return "", nil
}

// sowFiles makes the files below the root of w. What cannot be read or made is
// for place to report.
func (c *Clone) sowFiles(w *worktree, files []*change) error {
	for _, ch := range files {
		data, err := c.repo.typed(ch.id, plumbing.BlobObject)
		if err != nil {
			ch.dir = ""
			continue
		}
		if ch.made, err = w.sow(ch.path, ch.mode, data); noLink(ch.mode, err) {
			ch.dir, ch.made = "", fileStat{}
		} else if err != nil {
			return fmt.Errorf("preparing %s: %w", ch.path, err)
		}
	}
	return nil
}

// sow makes a file or link at path, and the directories that it lacks.
func (w *worktree) sow(path string, mode Mode, data []byte) (fileStat, error) {
	dir, name := split(path)
	// What comes in the way is the same directory, made by another goroutine.
	fd, err := w.open(dir, func(string) error { return nil })
	if err != nil {
		return fileStat{}, err
	}
	var st unix.Stat_t
	if mode == ModeLink {
		if err = unix.Symlinkat(string(data), fd, name); err == nil {
			err = unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		}
		return statOf(&st), named("symlink", path, err)
	}
	perm := uint32(0o666)
	if mode == ModeExecutable {
		perm = 0o777
	}
	file, err := unix.Openat(fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
	if err != nil {
		return fileStat{}, named("open", path, err)
	}
	for len(data) > 0 && err == nil {
		var n int
		if n, err = unix.Write(file, data); err == nil {
			data = data[n:]
		} else if err == unix.EINTR {
			err = nil
		}
	}
	if err == nil {
		err = unix.Fstat(file, &st)
	}
	if cerr := unix.Close(file); err == nil {
		err = cerr
	}
	return statOf(&st), named("write", path, err)
}

// plant brings the directories that sow made into their places. The files of
// those that cannot be brought so are left to put.
func (j *job) plant() {
	if j.sown == 0 {
		return
	}
	w := j.c.work
	placed := make(map[string]bool)
	for i := range j.changes {
		ch := &j.changes[i]
		if ch.dir == "" {
			continue
		}
		ok, tried := placed[ch.dir]
		if !tried {
			ok = w.plant(ch.dir) == nil
			placed[ch.dir] = ok
		}
		if !ok {
			ch.dir, ch.made = "", fileStat{}
			w.staged[ch.path] = filepath.Join(w.stage, seedbed, ch.path)
		}
	}
}

func (w *worktree) plant(dir string) error {
	parent, name := split(dir)
	fd, err := w.open(parent, nil)
	if err != nil {
		return err
	}
	return unix.Renameat2(unix.AT_FDCWD, filepath.Join(w.stage, seedbed, dir), fd, name, unix.RENAME_NOREPLACE)
}

// clearBed removes what was sown and not planted.
func (w *worktree) clearBed() error {
	return os.RemoveAll(filepath.Join(w.stage, seedbed))
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// An Aside is a local edit that stood where git has something else.
type Aside struct {
	Path string // in the work tree
	Kept string // where the edit was moved to; empty if Deleted
	// Deleted says that the edit was a deletion: the file was restored.
	Deleted bool
}

// Advance is the commit point: it makes everything that was written durable
// (one syncfs(2) of the clone's file system), moves the local branch to the
// commit to under the ref's lock, and brings the index and the work tree there
// by the difference. It returns the local edits that it set aside, also with
// an error.
//
// The branch must be where [Clone.Head] last said that it was, else the error
// is ErrMoved and nothing is done. When Advance returns nil, or fails after
// the branch was moved, the commit and all that it needs survive a power loss.
//
// It is idempotent: called again it finishes what a crash or an error left,
// and if there is nothing to do it costs next to nothing. An *UnsafePathError
// is returned before anything is changed.
//
// Files that were changed locally are set aside where the commit has something
// else for them. Files below Options.Inputs are not: one that differs from
// what git knows is new input and stays as it is; one that is as the index has
// it goes and changes with git. Nor is a directory that is one of the Inputs or
// holds one: what the commit has in its place is not checked out, see
// [Clone.NoDirectory]. What a person staged in the index stays staged
// unless the commit changes that path; then it is a local edit.
func (c *Clone) Advance(ctx context.Context, to Hash) ([]Aside, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	asides, err := c.advance(ctx, to.id())
	if err != nil {
		err = fmt.Errorf("advancing %s to %s: %w", c.opts.Branch, cmp.Or(string(to), "nothing"), err)
	}
	return asides, err
}

func (c *Clone) advance(ctx context.Context, to oid) (_ []Aside, err error) {
	head, err := c.repo.ref(branchRef(c.opts.Branch))
	if err != nil {
		return nil, err
	}
	if told := c.told.Load(); told != nil && *told != head {
		return nil, ErrMoved
	}
	if to == (oid{}) {
		if head == to {
			return nil, nil
		}
		return nil, errors.New("a branch cannot become unborn")
	}
	if head == to && c.settled(to) {
		return nil, nil
	}
	commit, err := c.repo.commit(to)
	if err != nil {
		return nil, err
	}
	j, err := c.begin(ctx, commit.TreeHash)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.end()) }()

	// The new files are prepared before, so that the one flush is for them, too.
	wanted := func(ch change) bool { return !ch.staged || ch.wanted }
	if err := j.prepare(ctx, wanted); err != nil {
		return nil, err
	}
	if err := j.depart(to); err != nil {
		return nil, err
	}
	// Crash before here: nothing has happened.
	if head != to || len(c.work.staged) > 0 || j.sown > 0 {
		if err := c.repo.sync(); err != nil {
			return nil, err
		}
	}
	if head != to {
		if err := c.repo.setRef(ctx, branchRef(c.opts.Branch), head, to); err != nil {
			if errors.Is(err, errStale) {
				err = ErrMoved
			}
			return nil, err
		}
		c.told.Store(&to)
	}
	// Crash from here on: the branch is at to, the index and the work tree may
	// not be. The next Advance finds in the index what is missing; files that
	// are in place already it recognises by their content, even if it goes
	// elsewhere.
	if err := c.attach(ctx); err != nil {
		return nil, err
	}
	if err := j.bringAll(ctx, wanted); err != nil {
		return j.asides, err
	}
	if err := j.finish(to); err != nil {
		return j.asides, err
	}
	return j.asides, errors.Join(j.failed...)
}

// A job is one change of the index and the work tree.
type job struct {
	c       *Clone
	unlock  func() error
	ix      *index
	changes []change
	tree    *cacheTree // of the index that comes out
	splices []splice
	added   map[string]bool // paths that were not in the index
	cone    *cone           // what is to be in the work tree
	fresh   bool            // there was no index that could be read
	passed  []oid           // trees that unfinished moves were to
	asides  []Aside
	failed  []error
	sown    int // how many files come with their directory, see sow
}

// A change is a path at which the index is not as the tree that is wanted.
type change struct {
	path   string
	lo, hi int  // the entries that it has in the index
	mode   Mode // what the tree has; 0 for nothing
	id     oid
	known  oid // what the file holds if nobody edited it, as far as is known
	// staged says that the index is not as the commit that it was brought to:
	// somebody staged something. Wanted then says that the tree is not as
	// that commit, either.
	staged, wanted bool
	// left says that only an unfinished move may have left something there.
	left bool
	// dir is the directory with which the file comes into its place, made is
	// how lstat(2) saw it; empty for one that comes by itself, see sow.
	dir  string
	made fileStat
}

// begin locks the index and compares it with the tree.
func (c *Clone) begin(ctx context.Context, tree oid) (*job, error) {
	unlock, err := lock(ctx, c.indexPath())
	if err != nil {
		return nil, err
	}
	j := &job{c: c, unlock: unlock, added: make(map[string]bool)}
	if j.cone, err = c.readCone(); err == nil {
		err = j.compare(tree)
	}
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	return j, nil
}

func (j *job) end() error {
	j.c.work.discard()
	j.c.work.forget()
	var err error
	if j.fresh {
		err = j.c.work.clearBed()
	}
	return errors.Join(err, j.unlock())
}

func (c *Clone) indexPath() string { return filepath.Join(c.repo.dir, "index") }

// prepare makes the files of the changes that want chooses, without putting
// them into their places. What cannot be read or made is for place to report.
func (j *job) prepare(ctx context.Context, want func(change) bool) error {
	if j.fresh {
		if err := j.sow(ctx, want); err != nil {
			return err
		}
	}
	if len(j.changes) > 1000 {
		defer j.c.repo.readOnce()()
	}
	for i, ch := range j.changes {
		if ch.dir != "" || ch.mode == 0 || ch.mode == ModeModule || !want(ch) || j.skips(ch) {
			continue
		}
		if i%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		data, err := j.c.repo.typed(ch.id, plumbing.BlobObject)
		if err != nil {
			continue
		}
		if err := j.c.work.prepare(ch.path, ch.mode, data); err != nil && !noLink(ch.mode, err) {
			return fmt.Errorf("preparing %s: %w", ch.path, err)
		}
	}
	return nil
}

// bringAll brings the changes that want chooses; the others stay as they are in
// the index and the work tree. What is deleted goes first, so that it is not in
// the way of what comes.
func (j *job) bringAll(ctx context.Context, want func(change) bool) error {
	if len(j.changes) > 1000 {
		defer j.c.repo.readOnce()()
	}
	j.plant()
	done := 0
	for _, deleting := range []bool{true, false} {
		for _, ch := range j.changes {
			if (ch.mode == 0) != deleting {
				continue
			}
			if want(ch) {
				if err := j.bring(ctx, ch); err != nil {
					return err
				}
			} else {
				j.tree.invalidate(ch.path)
			}
			if done++; done > j.sown && (done%256 == 0 || done == len(j.changes)) {
				j.c.progress("checkout", done, len(j.changes))
			}
		}
	}
	return nil
}

// finish writes the index. to is the commit that index and work tree are at
// then; the zero oid if they are not at one.
func (j *job) finish(to oid) error {
	c := j.c
	if len(j.splices) > 0 || j.ix.tree != j.tree {
		slices.SortStableFunc(j.splices, func(a, b splice) int {
			if a.lo != b.lo {
				return a.lo - b.lo
			}
			return a.hi - b.hi // what is put in before an entry comes first
		})
		j.ix.smudge()
		if err := c.writeIndex(j); err != nil {
			return err
		}
	}
	if to == (oid{}) || len(j.failed) > 0 {
		return nil
	}
	if err := c.repo.writeWorktree(to); err != nil {
		return err
	}
	if err := c.follow(); err != nil {
		return err
	}
	c.settle(to)
	return nil
}

func (c *Clone) writeIndex(j *job) error {
	tmp := filepath.Join(c.repo.dir, stateDir, "index.tmp")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	err = j.ix.write(f, j.splices, j.tree)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, c.indexPath())
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("writing the index: %w", err)
	}
	return nil
}

// settle notes that the index and the work tree are at the commit to, and
// settled whether they still are, as far as the index file tells.
func (c *Clone) settle(to oid) {
	c.at, c.atIndex = to, fileStat{}
	var st unix.Stat_t
	if unix.Stat(c.indexPath(), &st) == nil {
		c.atIndex = statOf(&st)
	}
}

func (c *Clone) settled(to oid) bool {
	var st unix.Stat_t
	return c.at == to && unix.Stat(c.indexPath(), &st) == nil && c.atIndex == statOf(&st)
}

// attach makes HEAD point to the branch, if a person made it point elsewhere.
// A commit that only HEAD was at stays reachable.
func (c *Clone) attach(ctx context.Context) (err error) {
	want := branchRef(c.opts.Branch)
	head, err := c.repo.symbolic()
	if err != nil || head == want {
		return err
	}
	path := filepath.Join(c.repo.dir, "HEAD")
	unlock, err := lock(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if head == "" {
		if id, err := c.repo.ref("HEAD"); err == nil && c.repo.has(id) {
			name := "refs/hhwatchd/detached/" + id.String()
			if err := c.repo.setRef(ctx, name, oid{}, id); err != nil && !errors.Is(err, errStale) {
				return err
			}
		}
	}
	return durable.WriteFile(path, []byte("ref: "+want+"\n"), 0o644)
}

// isInput reports whether path lies below one of the Inputs.
func (c *Clone) isInput(path string) bool {
	return slices.ContainsFunc(c.opts.Inputs, func(in string) bool { return below(path, in) })
}

// coversInput reports whether the directory dir is one of the Inputs, or
// holds one. Such a directory is never removed or set aside.
func (c *Clone) coversInput(dir string) bool {
	return slices.ContainsFunc(c.opts.Inputs, func(in string) bool { return in == dir || below(in, dir) })
}

func below(path, dir string) bool {
	return dir == "" || len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// Restore brings the work tree below the directories dirs back to what the
// local branch has: files that were changed, added or staged there by hand are
// set aside, and what was changed or deleted is restored. It returns what it
// found, also with an error. After a restart of the machine, what a power loss
// did to the work tree is repaired on the way and not told of.
//
// Every file is looked at by lstat(2) and compared with the index; its content
// is read only where that does not tell. Files below Options.Inputs, files
// that git ignores (.gitignore and .git/info/exclude), and what a person's
// sparse checkout leaves out are not looked at.
func (c *Clone) Restore(ctx context.Context, dirs []string) ([]Aside, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	asides, err := c.restore(ctx, dirs)
	if err != nil {
		err = fmt.Errorf("looking for local edits in the work tree: %w", err)
	}
	return asides, err
}

func (c *Clone) restore(ctx context.Context, dirs []string) (_ []Aside, err error) {
	head, err := c.repo.ref(branchRef(c.opts.Branch))
	if err != nil || head == (oid{}) {
		return nil, err
	}
	commit, err := c.repo.commit(head)
	if err != nil {
		return nil, err
	}
	j, err := c.begin(ctx, commit.TreeHash)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.end()) }()

	inside := func(path string) bool {
		return slices.ContainsFunc(dirs, func(dir string) bool { return below(path, dir) })
	}
	// First where the index itself is not as the branch. A fresh index has to
	// have all of it: what it lacked would be taken for staged deletions later.
	wanted := func(ch change) bool { return j.fresh || inside(ch.path) || c.rebooted && j.undone(ch.path) }
	if j.fresh {
		// A first checkout, or one that a crash stopped: see sow. The other
		// files may be there already, and are not prepared.
		if err := j.sow(ctx, wanted); err != nil {
			return nil, err
		}
	}
	if err := j.depart(head); err != nil {
		return nil, err
	}
	if j.sown > 0 {
		if err := c.repo.sync(); err != nil {
			return nil, err
		}
	}
	if err := j.bringAll(ctx, wanted); err != nil {
		return j.asides, err
	}
	seen := make(map[int]bool)
	for _, s := range j.splices {
		for i := s.lo; i < s.hi; i++ {
			seen[i] = true
		}
	}
	for _, dir := range dirs {
		lo, hi := j.ix.below(dir)
		for i := lo; i < hi; i++ {
			if !seen[i] {
				seen[i] = true
				if err := j.check(ctx, i); err != nil {
					return j.asides, err
				}
			}
		}
	}
	for i := 0; c.rebooted && i < j.ix.len(); i++ {
		path := string(j.ix.path(i))
		if st, exists, err := c.work.lstat(path); seen[i] || err != nil || exists && j.ix.unchanged(i, st) || !j.undone(path) {
			continue
		}
		if err := j.check(ctx, i); err != nil {
			return j.asides, err
		}
	}
	ignored, err := c.excludes()
	if err != nil {
		return j.asides, err
	}
	for _, dir := range dirs {
		ignored := slices.Clip(ignored)
		for i := range len(dir) + 1 {
			if i == len(dir) || dir[i] == '/' {
				here, err := c.ignores(dir[:i])
				if err != nil {
					return j.asides, err
				}
				ignored = append(ignored, here...)
			}
		}
		if err := j.strays(ctx, dir, ignored); err != nil {
			return j.asides, err
		}
	}
	if err = errors.Join(append(j.failed, j.finish(oid{}))...); err == nil && c.rebooted {
		err = c.inOrder()
	}
	return j.asides, err
}

// check compares the file of entry i with it.
func (j *job) check(ctx context.Context, i int) error {
	ix := j.ix
	path := string(ix.path(i))
	if ix.stage(i) != 0 || ix.extendedFlags(i)&(extSkip|extIntent) != 0 || ix.mode(i) == ModeModule || j.c.isInput(path) {
		return nil
	}
	st, exists, err := j.c.work.lstat(path)
	if err != nil || exists && ix.unchanged(i, st) {
		return err
	}
	if exists && fileMode(st) == ix.mode(i) {
		id, err := j.c.work.hash(path)
		if err != nil {
			return err
		}
		if id == ix.id(i) {
			if st != ix.stat(i) {
				// Only touched: note how it looks now.
				j.splices = append(j.splices, splice{i, i + 1, &indexEntry{
					path: path, mode: ix.mode(i), id: id, stat: st, extended: ix.extendedFlags(i),
				}})
			}
			return nil
		}
	}
	return j.bring(ctx, change{path: path, lo: i, hi: i + 1, mode: ix.mode(i), id: ix.id(i), known: ix.id(i)})
}

// strays sets aside the files in the directory dir and below that git does
// not have and does not ignore.
func (j *job) strays(ctx context.Context, dir string, ignored []gitignore.Pattern) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, w := j.c, j.c.work
	names, err := w.names(dir)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		path := path.Join(dir, name)
		if name == ".git" || c.isInput(path) || j.added[path] {
			continue
		}
		if _, tracked := j.ix.find(path); tracked {
			continue
		}
		st, exists, err := w.lstat(path)
		if err != nil {
			return err
		}
		isDir := fileMode(st) == modeDir
		if !exists || gitignore.NewMatcher(ignored).Match(strings.Split(path, "/"), isDir) {
			continue
		}
		if isDir && !j.nested(path) {
			if slices.Contains(c.opts.Inputs, path) {
				continue
			}
			here, err := c.ignores(path)
			if err != nil {
				return err
			}
			if err := j.strays(ctx, path, append(slices.Clip(ignored), here...)); err != nil {
				return err
			}
			continue
		}
		if c.rebooted && !isDir {
			// Its removal was lost, if it was ours.
			if id, err := w.hash(path); err == nil && c.earlier(path, id) {
				if err := w.take(path, &st, false); err == nil {
					continue
				}
			}
		}
		if err := j.setAside(path); err != nil {
			return err
		}
	}
	return nil
}

// nested reports whether the directory at path is another repository.
func (j *job) nested(path string) bool {
	_, exists, err := j.c.work.lstat(path + "/.git")
	return err == nil && exists && !j.c.coversInput(path)
}

// excludes returns the patterns that hold in the whole work tree: those of
// .git/info/exclude, then those of .gitignore at its root.
func (c *Clone) excludes() ([]gitignore.Pattern, error) {
	data, err := readOptional(c.excludePath())
	if err != nil {
		return nil, err
	}
	patterns := parsePatterns(data, nil)
	root, err := c.ignores("")
	return append(patterns, root...), err
}

// ignores returns the patterns of the .gitignore file in the directory dir.
func (c *Clone) ignores(dir string) ([]gitignore.Pattern, error) {
	data, err := c.work.read(path.Join(dir, ".gitignore"))
	if err != nil {
		return nil, err
	}
	var domain []string
	if dir != "" {
		domain = strings.Split(dir, "/")
	}
	return parsePatterns(data, domain), nil
}

func parsePatterns(data []byte, domain []string) []gitignore.Pattern {
	var out []gitignore.Pattern
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) != "" && line[0] != '#' {
			out = append(out, gitignore.ParsePattern(line, domain))
		}
	}
	return out
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"
)

// Check looks whether the git directory is still the one that was opened and
// is sound as far as every operation relies on it: its parts are there, the
// refs that this package keeps can be read, and the commits that they point to
// can, with their root trees, from the disk and not from memory. The packs are
// looked at where their files have changed. It takes some 50 system calls.
//
// With full, the objects of the commits that the remote does not have are read
// too: there is no other copy of them.
//
// The error is a *BrokenError if the git directory is damaged.
func (c *Clone) Check(full bool) error {
	if err := c.repo.check(c.opts.Branch, full); err != nil {
		return fmt.Errorf("checking the clone: %w", err)
	}
	return nil
}

func (r *repository) check(branch string, full bool) error {
	if err := r.layout(); err != nil {
		return err
	}
	if err := r.checkPacks(); err != nil {
		return err
	}
	refs, err := r.refs([]string{branchRef(branch), upstreamRef(branch), "refs/hhwatchd/"})
	if err != nil {
		return err
	}
	head, upstream := refs[branchRef(branch)], refs[upstreamRef(branch)]
	seen := make(map[oid]bool)
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		if id := refs[name]; !seen[id] {
			seen[id] = true
			if err := r.readable(id); err != nil {
				return r.lacks(name, err)
			}
		}
	}
	if r.followed() != branch {
		return nil // what follows is of another branch
	}
	// A branch that is gone leaves traces of what it was.
	base := refs["refs/hhwatchd/base"]
	at, _ := r.readWorktree()
	switch {
	case head == (oid{}) && (base != (oid{}) || at != (oid{})):
		return r.broken("%s is gone", branchRef(branch))
	case upstream == (oid{}) && base != (oid{}):
		return r.broken("%s is gone", upstreamRef(branch))
	}
	if !full || head == upstream {
		return nil
	}
	objects, err := r.newObjects(upstream, head)
	if err != nil {
		return r.lacks(branchRef(branch), err)
	}
	for _, o := range objects {
		if _, err := r.fromDisk(o.id); err != nil {
			return r.lacks(branchRef(branch), err)
		}
	}
	return nil
}

// CheckConnectivity looks whether everything is there that the refs need which
// this package keeps: every commit, tree and blob, as git fsck
// --connectivity-only does. It reads all commits and trees. That an operation
// missed an object is no damage by itself: nothing keeps a commit that the
// remote rewrote away.
//
// The error is a *BrokenError if an object is missing or damaged.
func (c *Clone) CheckConnectivity() error {
	if err := c.repo.connectivity(c.opts.Branch); err != nil {
		return fmt.Errorf("checking the clone: %w", err)
	}
	return nil
}

func (r *repository) connectivity(branch string) error {
	refs, err := r.refs([]string{branchRef(branch), upstreamRef(branch), "refs/hhwatchd/"})
	if err != nil {
		return err
	}
	var have oid // the ref that was looked at last, with all that it needs
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		objects, err := r.newObjects(have, refs[name])
		if err != nil {
			return r.lacks(name, err)
		}
		for _, o := range objects {
			if !r.has(o.id) {
				return r.broken("%s needs the object %s, which is gone", name, o.id)
			}
		}
		have = refs[name]
	}
	return nil
}

// layout checks that what makes a directory a git directory is there
// (gitrepository-layout(5)).
func (r *repository) layout() error {
	var st unix.Stat_t
	err := unix.Stat(r.dir, &st)
	switch {
	case err == nil && st.Ino != r.ino:
		return r.broken("another directory was put into its place")
	case err != nil && !ofTheMachine(err):
		return r.broken("it is gone")
	case err != nil:
		return named("stat", r.dir, err)
	}
	for _, name := range []string{"objects", "objects/pack", "refs"} {
		switch err := unix.Stat(filepath.Join(r.dir, name), &st); {
		case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		case err == nil || !ofTheMachine(err):
			if name == "objects/pack" && err == unix.ENOENT {
				continue // git makes it when it is needed
			}
			return r.broken("%s is not there", name)
		default:
			return named("stat", filepath.Join(r.dir, name), err)
		}
	}
	head, err := os.ReadFile(filepath.Join(r.dir, "HEAD"))
	if err != nil {
		return r.unreadable("HEAD", err)
	}
	target, symbolic := strings.CutPrefix(strings.TrimSpace(string(head)), "ref:")
	if _, ok := parseOID(target); symbolic && !strings.HasPrefix(strings.TrimSpace(target), "refs/") || !symbolic && !ok {
		return r.broken("HEAD holds %q, neither a ref nor a commit", cut(string(head), 60))
	}
	if _, err := readConfig(filepath.Join(r.dir, "config")); err != nil {
		return r.unreadable("config", err)
	}
	return nil
}

// unreadable tells what err, of reading the file name, says of the repository.
func (r *repository) unreadable(name string, err error) error {
	switch {
	case ofTheMachine(err):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return r.broken("%s is gone", name)
	}
	return r.broken("%s cannot be read: %v", name, err)
}

// lacks makes err, of reading what the ref name needs, an error of the
// repository: what can be reached is there, or the repository is broken.
func (r *repository) lacks(name string, err error) error {
	if errors.Is(err, ErrNotFound) {
		return r.broken("%s needs an object that is gone: %v", name, err)
	}
	return err
}

// checkPacks looks for packs that changed, though no pack ever does.
func (r *repository) checkPacks() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fs.ErrClosed
	}
	if _, err := r.list(); err != nil {
		return err
	}
	for _, p := range r.packs {
		err := p.check()
		if _, gone := os.Stat(p.idxName); errors.Is(gone, fs.ErrNotExist) {
			continue // removed by git, which begins with the index
		}
		if err != nil && !ofTheMachine(err) {
			err = r.broken("%v", err)
		}
		if err != nil {
			return err
		}
	}
	if len(r.torn) > 0 {
		return r.broken("%v", r.torn[0])
	}
	return nil
}

// fromDisk reads an object past what is kept in memory.
func (s *store) fromDisk(id oid) (object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load(id)
}

// readable reads a commit and its root tree from the disk.
func (s *store) readable(id oid) error {
	o, err := s.fromDisk(id)
	if err != nil {
		return err
	}
	if o.typ != plumbing.CommitObject {
		return fmt.Errorf("object %s is a %s, not a commit", id, o.typ)
	}
	c, err := s.commit(id)
	if err != nil {
		return err
	}
	_, err = s.fromDisk(c.TreeHash)
	return err
}

// Lost reports whether err, of reading something, says that it is gone or
// damaged, for good. An input/output error counts as that: of a sector that
// cannot be read there is nothing to wait for.
func Lost(err error) bool {
	var broken *BrokenError
	return err != nil && (errors.Is(err, ErrNotFound) || errors.As(err, &broken) || errors.Is(err, unix.EIO))
}

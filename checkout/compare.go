// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// compare reads the index and finds out what is to be changed in it.
func (j *job) compare(tree oid) error {
	ix, err := readIndex(j.c.indexPath(), j.c.atIndex)
	// An index that is not there, is damaged, or of a kind that is not
	// understood, is built anew: what the files hold then decides.
	j.fresh = errors.Is(err, errIndex) || errors.Is(err, fs.ErrNotExist)
	if err != nil && !j.fresh {
		return err
	}
	j.ix = ix
	d := differ{s: j.c.repo.store, ix: ix}
	if j.tree, err = d.dir("", 0, ix.len(), ix.tree, tree); err != nil {
		return err
	}
	j.changes = d.changes
	j.unfinished(tree)
	if len(j.changes) == 0 && !j.fresh {
		return nil
	}
	for i := range j.changes {
		if ch := &j.changes[i]; ch.hi-ch.lo == 1 && ix.stage(ch.lo) == 0 {
			ch.known = ix.id(ch.lo)
		}
	}
	// What the index was brought to last. Without it, nothing is taken to be
	// staged.
	base, err := j.c.base()
	if err != nil || ix.tree != nil && ix.tree.count >= 0 && ix.tree.id == base {
		return nil
	}
	was := make(map[string]treeEntry)
	err = j.c.repo.diff(base, tree, "", func(path string, old, new treeEntry) (bool, error) {
		if old.mode != modeDir && new.mode != modeDir {
			was[path] = old
			if j.fresh && new.mode == 0 {
				// Nothing else tells that it is to go.
				j.changes = append(j.changes, change{path: path})
			}
		}
		return true, nil
	})
	if err != nil {
		return nil
	}
	j.attribute(was)
	return nil
}

// attribute finds out which changes are between the tree and what a person
// staged: where the index is not as it was left, it was staged, unless it is
// what HEAD has; then the person moved the branch, or switched to another one;
// or what an unfinished move was to, which wrote the index and ended there.
// was has what differs between the commit that the index was brought to and
// the tree that is wanted. A fresh index has nothing to tell; then was is what
// the files should hold.
func (j *job) attribute(was map[string]treeEntry) {
	ix := j.ix
	var headTree oid
	if id, err := j.c.repo.ref("HEAD"); err == nil && id != (oid{}) {
		if head, err := j.c.repo.commit(id); err == nil {
			headTree = head.TreeHash
		}
	}
	for i := range j.changes {
		ch := &j.changes[i]
		old, wanted := was[ch.path]
		if !wanted {
			old = treeEntry{mode: ch.mode, id: ch.id}
		}
		if j.fresh {
			ch.known = old.id
			continue
		}
		if ch.hi-ch.lo > 1 {
			ch.staged, ch.wanted = true, true // a conflict of a merge
			continue
		}
		var now treeEntry
		if ch.hi > ch.lo {
			now = treeEntry{mode: ix.mode(ch.lo), id: ix.id(ch.lo)}
		}
		if now.mode == old.mode && now.id == old.id {
			continue
		}
		head, err := j.c.repo.lookup(headTree, ch.path)
		if ch.staged = (err != nil || head.mode != now.mode || head.id != now.id) && !j.onTheWay(ch.path, now.id); ch.staged {
			ch.wanted, ch.known = wanted, oid{}
		}
	}
}

// base returns the tree of the commit that index and work tree were brought
// to last.
func (c *Clone) base() (oid, error) {
	id, _ := c.repo.readWorktree()
	commit, err := c.repo.commit(id)
	if err != nil {
		return oid{}, err
	}
	return commit.TreeHash, nil
}

// readIndex reads the index file. If it still is the file of ours that stat
// saw, it is not checked again. With an error, the index is empty.
func readIndex(path string, ours fileStat) (*index, error) {
	f, err := os.Open(path)
	if err != nil {
		return &index{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &index{}, err
	}
	data := make([]byte, st.Size)
	if _, err := io.ReadFull(f, data); err != nil {
		return &index{}, err
	}
	ix, err := parseIndex(data, ours == statOf(&st))
	if err != nil {
		return &index{}, fmt.Errorf("%s: %w", path, err)
	}
	ix.mtime = uint32(st.Mtim.Sec)
	return ix, nil
}

// A differ compares an index with a tree, directory by directory.
type differ struct {
	s       *store
	ix      *index
	changes []change
}

// dir compares the entries from lo to hi, which are those below the directory
// prefix (empty or with a slash at its end), with the tree id. cached is what
// the index knows of it. It returns what there is to know once the index is
// as the tree.
func (d *differ) dir(prefix string, lo, hi int, cached *cacheTree, id oid) (*cacheTree, error) {
	if cached != nil && cached.count == hi-lo && cached.id == id {
		return cached, nil
	}
	entries, err := d.s.tree(id)
	if err != nil {
		return nil, err
	}
	subs := make(map[string]*cacheTree)
	if cached != nil {
		for _, s := range cached.subs {
			subs[s.name] = s
		}
	}
	_, name := split(strings.TrimSuffix(prefix, "/"))
	out := &cacheTree{name: name, id: id}
	i := lo
	for _, e := range entries {
		path, key := prefix+e.name, prefix+e.key()
		// What sorts before it is not in the tree.
		for i < hi && d.before(i, len(prefix), key) {
			i = d.gone(i, hi)
		}
		end := i
		if e.mode == modeDir {
			if i < hi && strings.HasPrefix(string(d.ix.path(i)), key) {
				_, end = d.ix.below(path)
			}
			before := len(d.changes)
			sub, err := d.dir(key, i, end, subs[e.name], e.id)
			if err != nil {
				return nil, err
			}
			if len(d.changes) > before {
				if why := checkName(e.name); why != "" {
					return nil, &UnsafePathError{path, why}
				}
			}
			out.subs = append(out.subs, sub)
			out.count += sub.count
		} else {
			for end < hi && string(d.ix.path(end)) == path {
				end++
			}
			if end-i != 1 || d.ix.stage(i) != 0 || d.ix.mode(i) != e.mode || d.ix.id(i) != e.id {
				if why := checkName(e.name); why != "" || len(path) > maxPath {
					return nil, &UnsafePathError{path, cmp.Or(why, "it is too long")}
				}
				d.changes = append(d.changes, change{path: path, lo: i, hi: end, mode: e.mode, id: e.id})
			}
			out.count++
		}
		i = end
	}
	for i < hi {
		i = d.gone(i, hi)
	}
	return out, nil
}

// before reports whether entry i lies before key in the order of the tree;
// skip is the length of what their paths have in common.
func (d *differ) before(i, skip int, key string) bool {
	path := string(d.ix.path(i)[skip:])
	key = key[skip:]
	if j := strings.IndexByte(path, '/'); j >= 0 {
		path = path[:j+1]
	}
	return path < key
}

// gone notes that the path of entry i is not in the tree, and returns the next
// entry of another path.
func (d *differ) gone(i, hi int) int {
	path := string(d.ix.path(i))
	end := i + 1
	for end < hi && string(d.ix.path(end)) == path {
		end++
	}
	d.changes = append(d.changes, change{path: path, lo: i, hi: end})
	return end
}

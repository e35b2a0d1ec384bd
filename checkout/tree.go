// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// A Hash is the name of a git object: 40 hexadecimal digits. The empty Hash
// stands for no object: an unborn branch, an absent file.
type Hash string

// id returns the binary form of h; what is no hash at all names no object.
func (h Hash) id() oid {
	id, _ := parseOID(string(h))
	return id
}

func hashOf(id oid) Hash {
	if id == (oid{}) {
		return ""
	}
	return Hash(id.String())
}

// BlobHash returns the name of the blob that holds data.
func BlobHash(data []byte) Hash {
	return hashOf(plumbing.ComputeHash(plumbing.BlobObject, data))
}

// A Mode is the kind of an entry of a tree, as git writes it (git-fast-import(1)).
type Mode uint32

// The modes that git has.
const (
	ModeFile       Mode = 0o100644
	ModeExecutable Mode = 0o100755
	ModeLink       Mode = 0o120000
	ModeModule     Mode = 0o160000 // a commit of another repository
	modeDir        Mode = 0o040000
)

// IsRegular reports whether m is a file with content, executable or not.
func (m Mode) IsRegular() bool { return m == ModeFile || m == ModeExecutable }

// canonical returns the mode that git takes m for. Old trees hold others,
// such as 100664.
func (m Mode) canonical() Mode {
	switch m & 0o170000 {
	case modeDir:
		return modeDir
	case 0o100000:
		if m&0o100 != 0 {
			return ModeExecutable
		}
		return ModeFile
	case ModeLink:
		return ModeLink
	}
	return ModeModule
}

type treeEntry struct {
	name string
	mode Mode
	id   oid
}

// key is what the entries of a tree are sorted by: a directory sorts as if
// its name ended in a slash, so that a tree has the order of full paths.
func (e treeEntry) key() string {
	if e.mode == modeDir {
		return e.name + "/"
	}
	return e.name
}

var errTree = errors.New("malformed tree")

// parseTree reads the content of a tree: mode in octal, space, name, NUL,
// binary hash. Besides what cannot be read it refuses names that are empty,
// hold a slash, are out of order or doubled: no tool may take one path for two.
func parseTree(data []byte) ([]treeEntry, error) {
	entries := make([]treeEntry, 0, len(data)/40)
	last := ""
	for len(data) > 0 {
		mode, rest, ok := bytes.Cut(data, []byte{' '})
		if !ok {
			return nil, errTree
		}
		m, err := strconv.ParseUint(string(mode), 8, 24)
		if err != nil {
			return nil, errTree
		}
		name, rest, ok := bytes.Cut(rest, []byte{0})
		if !ok || len(name) == 0 || bytes.IndexByte(name, '/') >= 0 || len(rest) < len(oid{}) {
			return nil, errTree
		}
		e := treeEntry{string(name), Mode(m).canonical(), oid(rest[:len(oid{})])}
		data = rest[len(oid{}):]
		key := e.key()
		if key <= last {
			return nil, fmt.Errorf("%w: %q is out of order", errTree, e.name)
		}
		last = key
		if e.mode == modeDir {
			// A file of that name sorts before it, maybe not directly.
			if _, found := slices.BinarySearchFunc(entries, e.name, func(o treeEntry, name string) int {
				return strings.Compare(o.key(), name)
			}); found {
				return nil, fmt.Errorf("%w: %q is there twice", errTree, e.name)
			}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func encodeTree(entries []treeEntry) []byte {
	slices.SortFunc(entries, func(a, b treeEntry) int { return strings.Compare(a.key(), b.key()) })
	size := 0
	for _, e := range entries {
		size += len("100644 ") + len(e.name) + 1 + len(e.id)
	}
	data := make([]byte, 0, size)
	for _, e := range entries {
		data = strconv.AppendUint(data, uint64(e.mode), 8)
		data = append(data, ' ')
		data = append(data, e.name...)
		data = append(data, 0)
		data = append(data, e.id[:]...)
	}
	return data
}

// tree returns the entries of the tree id; the zero oid has none.
func (s *store) tree(id oid) ([]treeEntry, error) {
	if id == (oid{}) {
		return nil, nil
	}
	data, err := s.typed(id, plumbing.TreeObject)
	if err != nil {
		return nil, err
	}
	entries, err := parseTree(data)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", id, err)
	}
	return entries, nil
}

// A parsedTree is a tree that was parsed lately.
type parsedTree struct {
	id      oid
	entries []treeEntry
}

// maxParsed bounds the entries of the trees that parsed keeps, about 2 MB; the
// last one is kept whatever its size.
const maxParsed = 1 << 14

// parsed is tree for looking paths up one by one, which goes through the same
// few trees again and again: it keeps those. The entries are not to be changed.
func (s *store) parsed(id oid) ([]treeEntry, error) {
	s.treesMu.Lock()
	defer s.treesMu.Unlock()
	for i, t := range s.trees {
		if t.id == id {
			s.trees = append(slices.Delete(s.trees, i, i+1), t)
			return t.entries, nil
		}
	}
	entries, err := s.tree(id)
	if err != nil {
		return nil, err
	}
	s.trees = append(s.trees, parsedTree{id, entries})
	held := 0
	for i := len(s.trees) - 1; i >= 0; i-- {
		if held += len(s.trees[i].entries) + 1; held > maxParsed && i < len(s.trees)-1 || len(s.trees)-i > 32 {
			s.trees = slices.Delete(s.trees, 0, i+1)
			break
		}
	}
	return entries, nil
}

// lookup returns the entry at path below the tree id; its mode is 0 if there
// is none. The path "" is the tree itself.
func (s *store) lookup(id oid, path string) (treeEntry, error) {
	e := treeEntry{mode: modeDir, id: id}
	for path != "" && e.mode == modeDir {
		entries, err := s.parsed(e.id)
		if err != nil {
			return treeEntry{}, err
		}
		var name string
		name, path, _ = strings.Cut(path, "/")
		i := slices.IndexFunc(entries, func(e treeEntry) bool { return e.name == name })
		if i < 0 {
			return treeEntry{}, nil
		}
		e = entries[i]
	}
	if path != "" || e.id == (oid{}) {
		return treeEntry{}, nil
	}
	return e, nil
}

// treeOf returns the tree of the commit h, the zero oid for the empty Hash.
func (s *store) treeOf(h Hash) (oid, error) {
	if h == "" {
		return oid{}, nil
	}
	c, err := s.commit(h.id())
	if err != nil {
		return oid{}, err
	}
	return c.TreeHash, nil
}

// at returns the entry at path in the commit h.
func (s *store) at(h Hash, path string) (treeEntry, error) {
	tree, err := s.treeOf(h)
	if err != nil {
		return treeEntry{}, err
	}
	return s.lookup(tree, path)
}

// An Entry is a file in a commit.
type Entry struct {
	Path string // from the root of the repository, separated by slashes
	Blob Hash
	Mode Mode
}

// Files returns the regular files below the directory dir (recursively; "" is
// the root) in the commit h, in the order of git: by path, as bytes. Links and
// submodules are left out, [Clone.Irregular] has them. A directory that is not
// there has no files, and so has the empty Hash.
func (c *Clone) Files(h Hash, dir string) ([]Entry, error) {
	return c.entries(h, dir, Mode.IsRegular)
}

// Irregular returns the symbolic links and submodules below the directory dir
// in the commit h. The Blob of a link holds its target, that of a submodule
// is a commit elsewhere.
func (c *Clone) Irregular(h Hash, dir string) ([]Entry, error) {
	return c.entries(h, dir, func(m Mode) bool { return !m.IsRegular() })
}

func (c *Clone) entries(h Hash, dir string, want func(Mode) bool) ([]Entry, error) {
	e, err := c.repo.at(h, dir)
	if err != nil {
		return nil, fmt.Errorf("listing %s in %s: %w", cmp.Or(dir, "the root"), h, err)
	}
	if e.mode != modeDir {
		return nil, nil
	}
	var out []Entry
	var walk func(prefix string, id oid) error
	walk = func(prefix string, id oid) error {
		entries, err := c.repo.tree(id)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.mode == modeDir {
				if err := walk(prefix+e.name+"/", e.id); err != nil {
					return err
				}
			} else if want(e.mode) {
				out = append(out, Entry{prefix + e.name, hashOf(e.id), e.mode})
			}
		}
		return nil
	}
	if dir != "" {
		dir += "/"
	}
	if err := walk(dir, e.id); err != nil {
		return nil, fmt.Errorf("listing %s in %s: %w", cmp.Or(dir, "the root"), h, err)
	}
	return out, nil
}

// TreeHash returns the name of the tree at the directory dir ("" is the root)
// in the commit h: equal names mean equal content. It is empty if there is no
// such directory.
func (c *Clone) TreeHash(h Hash, dir string) (Hash, error) {
	e, err := c.repo.at(h, dir)
	if err != nil || e.mode != modeDir {
		return "", err
	}
	return hashOf(e.id), nil
}

// NoDirectory returns the path, dir or one above it, at which the commit h has
// something else than a directory, a file or a link, say. It is empty if there
// is none, so that there can be files in dir.
func (c *Clone) NoDirectory(h Hash, dir string) (string, error) {
	for i := range len(dir) + 1 {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		switch e, err := c.repo.at(h, dir[:i]); {
		case err != nil || e.mode == 0:
			return "", err
		case e.mode != modeDir:
			return dir[:i], nil
		}
	}
	return "", nil
}

// Lookup returns the blob of the regular file at path in the commit h, and
// whether there is one.
func (c *Clone) Lookup(h Hash, path string) (Hash, bool, error) {
	e, err := c.repo.at(h, path)
	if err != nil || !e.mode.IsRegular() {
		return "", false, err
	}
	return hashOf(e.id), true, nil
}

// Blob returns the content of a blob. It must not be changed.
func (c *Clone) Blob(h Hash) ([]byte, error) {
	return c.repo.typed(h.id(), plumbing.BlobObject)
}

// A Diff is a path that two commits do not have in common.
type Diff struct {
	Path             string
	Old, New         Hash // empty where the path is not there
	OldMode, NewMode Mode // 0 where the path is not there
}

// Diff returns the paths below the directory dir ("" is the root) in which
// the commits a and b differ, by path. Either may be empty. A file that
// becomes a directory is one path that goes and others that come. Only what
// differs is read.
func (c *Clone) Diff(a, b Hash, dir string) ([]Diff, error) {
	ea, err := c.repo.at(a, dir)
	if err != nil {
		return nil, fmt.Errorf("comparing %s with %s: %w", a, b, err)
	}
	eb, err := c.repo.at(b, dir)
	if err != nil {
		return nil, fmt.Errorf("comparing %s with %s: %w", a, b, err)
	}
	var out []Diff
	err = c.repo.diff(asDir(ea), asDir(eb), dir, func(path string, old, new treeEntry) (bool, error) {
		if old.mode == modeDir || new.mode == modeDir {
			return true, nil
		}
		out = append(out, Diff{path, hashOf(old.id), hashOf(new.id), old.mode, new.mode})
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("comparing %s with %s: %w", a, b, err)
	}
	return out, nil
}

// asDir returns the id of e if it is a directory, else the zero oid.
func asDir(e treeEntry) oid {
	if e.mode != modeDir {
		return oid{}
	}
	return e.id
}

// diff walks what differs between the trees a and b, both at the path dir,
// and calls fn for each path, directories before what they hold; the entry on
// the side where a path is not there is zero. A directory is descended into
// if fn says so. A path that is a directory on one side and not on the other
// is told twice, as it has two places in the order.
func (s *store) diff(a, b oid, dir string, fn func(path string, old, new treeEntry) (descend bool, err error)) error {
	if a == b {
		return nil
	}
	as, err := s.tree(a)
	if err != nil {
		return err
	}
	bs, err := s.tree(b)
	if err != nil {
		return err
	}
	if dir != "" {
		dir += "/"
	}
	for len(as) > 0 || len(bs) > 0 {
		var old, new treeEntry
		switch {
		case len(bs) == 0 || len(as) > 0 && as[0].key() < bs[0].key():
			old, as = as[0], as[1:]
		case len(as) == 0 || bs[0].key() < as[0].key():
			new, bs = bs[0], bs[1:]
		default:
			old, as = as[0], as[1:]
			new, bs = bs[0], bs[1:]
		}
		if old == new {
			continue
		}
		path := dir + cmp.Or(old.name, new.name)
		descend, err := fn(path, old, new)
		if err != nil {
			return err
		}
		if descend && (old.mode == modeDir || new.mode == modeDir) {
			if err := s.diff(asDir(old), asDir(new), path, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

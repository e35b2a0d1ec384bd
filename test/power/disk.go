// SPDX-License-Identifier: Apache-2.0

// Package power finds out what a power loss can take.
//
// A machine that loses its power forgets what was not synced: the content of
// files that nobody flushed, and names (made, moved, removed) in directories
// that nobody flushed, in any combination. A test that kills a process sees
// none of that, because the kernel remembers. So the test of this package
// records what the real daemon asks of the kernel, in order and with all data,
// and replays each prefix of it on a [Disk], a model that knows what was
// synced and yields the states in which a disk may be found when the power
// comes back. The daemon is started on each of them, beside the git server as
// it was at that moment, and everything that was dropped has to be there.
//
// # What the model promises
//
// Only what the manual pages promise, as no file system keeps less:
//
//   - Content (write, truncate, mode) is on disk when the file was flushed
//     after it was written: fsync(2) or fdatasync(2) of the file, syncfs(2) or
//     sync(2). Before that the disk has any of: what it had, a part of the
//     writes, the new length with zeros or with rubbish in it, all of it.
//   - A name is on disk when its directory was flushed after the change:
//     fsync(2) of a file "does not necessarily ensure that the entry in the
//     directory containing the file has also reached disk". It does not
//     here. Before that each change of a name is on disk or not, whatever
//     became of the others. So is a new directory: what was flushed in it
//     is lost with its own name.
//   - A name that is on disk says nothing of the content of the file. A file
//     that was renamed into its place without being flushed is found empty.
//   - rename(2) replaces the new name atomically, and the file is found under
//     one of its names or under both, never under neither: the old name
//     does not go from the disk before the new one is on it, even if only
//     its own directory was flushed. With RENAME_EXCHANGE both names change or
//     none, and so it is with the rename of a directory, which cannot have two
//     names.
//   - A directory that was removed was empty on disk, too: what was moved out of
//     it is where it was moved to.
//   - A symbolic link has its target from the beginning; extended attributes,
//     owners and times are not looked at.
//
// A flush covers what had been done when it was called, not what others did
// while it ran.
package power

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// A Disk is a directory on a disk that may forget. Its zero value is not
// useful, see [NewDisk].
type Disk struct {
	root  *inode
	names []*naming // in the order in which they were done
	done  int       // the number of operations
	all   []*inode  // with content that is not on disk, in order of creation
}

// An inode is a file, a directory or a link, by whatever names.
type inode struct {
	typ    fs.FileMode
	target string
	// What is on disk: the content of a file, its permissions, and the
	// entries that a directory had when the disk was made.
	data    []byte
	perm    fs.FileMode
	entries map[string]*inode

	content []content         // changes that are not on disk, in order
	now     map[string]*inode // the entries as they are, with everything
}

// content is a change of a file's content.
type content struct {
	at   int // which operation it was
	op   OpKind
	off  int64 // of a write; the size of a truncation
	data []byte
	perm fs.FileMode
}

// A naming is a change of names that is on disk as a whole or not at all.
type naming struct {
	at     int
	sets   []entry
	needs  []*naming // that are on disk if this one is
	synced bool
}

// An entry gives name in dir to node, or to nobody.
type entry struct {
	dir  *inode
	name string
	node *inode
}

// NewDisk returns a disk that has all of t.
func NewDisk(t Tree) (*Disk, error) {
	d := &Disk{}
	byPath := map[string]*inode{}
	for _, p := range slices.Sorted(maps.Keys(t)) {
		f := t[p]
		n := newInode(f.Mode.Type(), f.Mode.Perm())
		n.data, n.target = f.Data, f.Target
		byPath[p] = n
		if p == "." {
			d.root = n
			continue
		}
		parent := byPath[path.Dir(p)]
		if parent == nil || parent.typ != fs.ModeDir {
			return nil, fmt.Errorf("%s is in no directory", p)
		}
		parent.entries[path.Base(p)] = n
		parent.now[path.Base(p)] = n
	}
	if d.root == nil {
		return nil, fmt.Errorf("the tree has no root")
	}
	return d, nil
}

func newInode(typ, perm fs.FileMode) *inode {
	n := &inode{typ: typ, perm: perm}
	if typ == fs.ModeDir {
		n.entries, n.now = map[string]*inode{}, map[string]*inode{}
	}
	return n
}

// find returns what p names, with everything that was done. It follows no
// links.
func (d *Disk) find(p string) (*inode, error) {
	n := d.root
	if p == "." {
		return n, nil
	}
	for name := range strings.SplitSeq(p, "/") {
		if n = n.now[name]; n == nil {
			return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
		}
	}
	return n, nil
}

// place returns the directory of p and the name in it.
func (d *Disk) place(p string) (*inode, string, error) {
	dir, err := d.find(path.Dir(p))
	if err == nil && dir.typ != fs.ModeDir {
		err = fmt.Errorf("%s: not a directory", path.Dir(p))
	}
	return dir, path.Base(p), err
}

// set makes a change of names; node nil takes the name away.
func (d *Disk) set(needs []*naming, sets ...entry) *naming {
	c := &naming{at: d.done, sets: sets, needs: needs}
	for _, e := range sets {
		if e.node == nil {
			delete(e.dir.now, e.name)
		} else {
			e.dir.now[e.name] = e.node
		}
	}
	d.names = append(d.names, c)
	return c
}

// Do does op, which has to be possible.
func (d *Disk) Do(op Op) error {
	if err := d.do(op); err != nil {
		return fmt.Errorf("operation %d, %s: %w", d.done, op, err)
	}
	d.done++
	return nil
}

func (d *Disk) do(op Op) error {
	switch op.Kind {
	case Create, Mkdir, Symlink:
		return d.create(op)
	case Write, Truncate, Chmod:
		n, err := d.find(op.Path)
		if err != nil {
			return err
		}
		c := content{at: d.done, op: op.Kind, off: op.Off, data: op.Data, perm: op.Mode}
		if op.Kind == Truncate {
			c.off = op.Size
		}
		d.change(n, c)
	case Link, Rename, Exchange:
		return d.move(op)
	case Unlink, Rmdir:
		dir, name, err := d.place(op.Path)
		if err != nil {
			return err
		}
		n := dir.now[name]
		if n == nil || len(n.now) > 0 || (n.typ == fs.ModeDir) != (op.Kind == Rmdir) {
			return fs.ErrInvalid
		}
		d.set(d.changes(func(e entry) bool { return e.dir == n }), entry{dir, name, nil})
	case Sync:
		n, err := d.find(op.Path)
		if err != nil {
			return err
		}
		n.flush(op.Called)
		for _, c := range d.changes(func(e entry) bool { return e.dir == n }) {
			if c.at < op.Called {
				c.flush()
			}
		}
	case SyncAll:
		for _, n := range d.all {
			n.flush(op.Called)
		}
		d.all = slices.DeleteFunc(d.all, func(n *inode) bool { return len(n.content) == 0 })
		for _, c := range d.names {
			if c.at < op.Called {
				c.flush()
			}
		}
	default:
		return fmt.Errorf("unknown operation")
	}
	return nil
}

func (d *Disk) create(op Op) error {
	dir, name, err := d.place(op.Path)
	if err != nil {
		return err
	}
	if dir.now[name] != nil {
		return fs.ErrExist
	}
	n := newInode(0, op.Mode)
	switch op.Kind {
	case Mkdir:
		n = newInode(fs.ModeDir, op.Mode)
	case Symlink:
		n = newInode(fs.ModeSymlink, 0)
		n.target = op.To
	}
	d.set(nil, entry{dir, name, n})
	return nil
}

func (d *Disk) move(op Op) error {
	from, old, err := d.place(op.Path)
	if err != nil {
		return err
	}
	to, name, err := d.place(op.To)
	if err != nil {
		return err
	}
	n, there := from.now[old], to.now[name]
	if n == nil {
		return fs.ErrNotExist
	}
	switch op.Kind {
	case Link:
		if there != nil {
			return fs.ErrExist
		}
		d.set(nil, entry{to, name, n})
	case Exchange:
		if there == nil {
			return fs.ErrNotExist
		}
		d.set(nil, entry{to, name, n}, entry{from, old, there})
	case Rename:
		if n == there {
			return nil // rename(2): then it does nothing
		}
		if n.typ == fs.ModeDir {
			needs := d.changes(func(e entry) bool { return e.node == n || e.dir == there })
			d.set(needs, entry{from, old, nil}, entry{to, name, n})
			return nil
		}
		added := d.set(nil, entry{to, name, n})
		d.set([]*naming{added}, entry{from, old, nil})
	}
	return nil
}

// changes returns the changes that set an entry of which is says yes.
func (d *Disk) changes(is func(entry) bool) []*naming {
	var out []*naming
	for _, c := range d.names {
		if slices.ContainsFunc(c.sets, is) {
			out = append(out, c)
		}
	}
	return out
}

func (c *naming) flush() {
	if c.synced {
		return
	}
	c.synced = true
	for _, n := range c.needs {
		n.flush()
	}
}

func (d *Disk) change(n *inode, c content) {
	if len(n.content) == 0 {
		d.all = append(d.all, n)
	}
	n.content = append(n.content, c)
}

// flush puts the changes on disk that were made before operation upTo.
func (n *inode) flush(upTo int) {
	k := 0
	for k < len(n.content) && n.content[k].at < upTo {
		k++
	}
	n.data, n.perm = n.with(n.content[:k])
	n.content = slices.Delete(n.content, 0, k)
}

// with returns the content of n on disk with changes made to it.
func (n *inode) with(changes []content) ([]byte, fs.FileMode) {
	data, perm := n.data, n.perm
	if len(changes) > 0 {
		data = bytes.Clone(data)
	}
	for _, c := range changes {
		switch c.op {
		case Write:
			data = resize(data, max(len(data), int(c.off)+len(c.data)))
			copy(data[c.off:], c.data)
		case Truncate:
			data = resize(data, int(c.off))
		case Chmod:
			perm = c.perm
		}
	}
	return data, perm
}

func resize(data []byte, n int) []byte {
	if n <= len(data) {
		return data[:n]
	}
	return append(data, make([]byte, n-len(data))...)
}

// A Loss is a way in which a power loss takes what was not synced.
type Loss string

// The ways. With Scattered, each change is on disk or not by chance.
const (
	Unsynced  Loss = "unsynced"  // all that was not synced
	Nothing   Loss = "nothing"   // nothing, as when a process is killed
	Content   Loss = "content"   // content that was not synced; names stay
	Zeros     Loss = "zeros"     // the same, but for the files' sizes
	Names     Loss = "names"     // names that were not synced; content stays
	Scattered Loss = "scattered" // anything
)

// After returns what is on disk when the power is lost now. rng decides what
// a Scattered loss takes; it may be nil for the others.
func (d *Disk) After(loss Loss, rng *rand.Rand) Tree {
	kept := make(map[*naming]bool)
	switch loss {
	case Nothing, Content, Zeros:
		for _, c := range d.names {
			kept[c] = true
		}
	default:
		chance := 0.0
		if loss == Scattered {
			chance = rng.Float64()
		}
		for _, c := range d.names {
			if c.synced || chance > 0 && rng.Float64() < chance {
				c.keep(kept)
			}
		}
	}

	// The entries of directories that changed.
	changed := map[*inode]map[string]*inode{}
	for _, c := range d.names {
		if !kept[c] {
			continue
		}
		for _, e := range c.sets {
			if changed[e.dir] == nil {
				changed[e.dir] = maps.Clone(e.dir.entries)
			}
			if e.node == nil {
				delete(changed[e.dir], e.name)
			} else {
				changed[e.dir][e.name] = e.node
			}
		}
	}

	t := Tree{}
	seen := map[*inode]File{} // one file has one content, whatever it is called
	first := map[*inode]string{}
	var visit func(p string, n *inode)
	visit = func(p string, n *inode) {
		f, ok := seen[n]
		if !ok {
			f = n.after(loss, rng)
			seen[n], first[n] = f, p
		} else if f.Mode.IsRegular() {
			f.Same = first[n]
		}
		t[p] = f
		entries := n.entries
		if c, ok := changed[n]; ok {
			entries = c
		}
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			visit(path.Join(p, name), entries[name])
		}
	}
	visit(".", d.root)
	return t
}

func (c *naming) keep(kept map[*naming]bool) {
	if kept[c] {
		return
	}
	kept[c] = true
	for _, n := range c.needs {
		n.keep(kept)
	}
}

// after returns what of the file n is on disk.
func (n *inode) after(loss Loss, rng *rand.Rand) File {
	changes := n.content
	how := loss
	if loss == Scattered && len(changes) > 0 {
		how = []Loss{Unsynced, Nothing, Zeros, "torn", "rubbish"}[rng.IntN(5)]
	}
	data, perm := n.data, n.perm
	switch how {
	case Nothing, Names:
		data, perm = n.with(changes)
	case Zeros:
		all, p := n.with(changes)
		data, perm = resize(bytes.Clone(data), len(all)), p
	case "torn": // some of the writes, and a part of the next
		k := rng.IntN(len(changes))
		some := slices.Clone(changes[:k+1])
		if last := &some[k]; last.op == Write {
			last.data = last.data[:rng.IntN(len(last.data)+1)]
		}
		data, perm = n.with(some)
	case "rubbish": // blocks of the disk that held something else
		all, p := n.with(changes)
		perm = p
		for _, c := range changes {
			for i := range c.data {
				if at := int(c.off) + i; c.op == Write && at < len(all) {
					all[at] = byte(rng.Uint32())
				}
			}
		}
		data = all
	}
	return File{Mode: n.typ | perm, Data: data, Target: n.target}
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	gitobject "github.com/go-git/go-git/v5/plumbing/object"
)

// The bounds of what one call of Maintain takes in hand. With objects as small
// as those of a fabric it is done in some tenths of a second.
const (
	// looseLimit is the number of loose objects, roughly, from which on they
	// are packed. (git gc --auto lets it come to 6700.)
	looseLimit = 1024
	// sliceObjects and sliceBytes bound the loose objects of one new pack; the
	// latter counts them as they are in memory.
	sliceObjects = 4096
	sliceBytes   = 32 << 20

	// packsLimit is the number of small packs from which on they are merged.
	packsLimit = 8
	// A pack is small up to half of what a merged one may be.
	mergeObjects = 50_000
	mergeBytes   = 32 << 20

	// compareLimit is how long is spent on finding out what is similar.
	compareLimit = time.Second

	// maintainDepth is the longest chain of deltas that a new pack gets. Each
	// link makes reading the oldest version of a file slower.
	maintainDepth = 16
)

// Maintain keeps a clone that lives for years as fast as a new one. It does one
// piece of work of a bounded size and reports whether there was any; whoever
// has time calls it again. There is none most of the time, and to find that out
// takes a few system calls. If Options.Waiting says that other work waits, it
// stops and leaves no trace.
//
// Loose objects are packed, from about a thousand on. Packs, one of which comes
// with each larger fetch and commit, are merged such that each is at least
// twice as large as all smaller ones together: so their number grows with the
// logarithm of the history, and each object is copied as often. Packs that
// have become large stay.
//
// No object is ever dropped, whether something refers to it or not: what
// becomes of a commit that was planned anew, of a person's stash and of what
// they staged, decide git gc and its grace periods, when a person runs it. It
// can be run at any time; while it runs, Maintain does nothing. Nor does it
// touch packs that are marked to be kept, or any where a person has git
// maintain a multi-pack-index of them.
//
// Crash points: a new pack is complete, durable and read back before what it
// replaces is unlinked. Before that a crash leaves files with temporary names,
// which a later call removes; after that, objects that are there twice, which
// the next call finds.
func (c *Clone) Maintain(ctx context.Context) (worked bool, err error) {
	worked, err = c.repo.maintain(ctx, c.opts.Waiting)
	if errors.Is(err, errInterrupted) || errors.Is(err, ErrNotFound) {
		// Other work waits, or a git gc that just began took something away.
		return false, ctx.Err()
	}
	if err != nil {
		return false, fmt.Errorf("packing the clone's objects: %w", err)
	}
	return worked, nil
}

// errInterrupted says that maintenance made way for other work.
var errInterrupted = errors.New("interrupted")

func (r *repository) maintain(ctx context.Context, waiting func() bool) (worked bool, err error) {
	if fi, err := os.Stat(filepath.Join(r.dir, "gc.pid")); err == nil && time.Since(fi.ModTime()) < 12*time.Hour {
		return false, nil // git gc trusts this file for as long
	}
	pause := func() error {
		if ctx.Err() != nil || waiting != nil && waiting() {
			return errInterrupted
		}
		return nil
	}
	if err := r.removeLeftPacks(); err != nil {
		return false, err
	}
	if r.crowded() {
		return true, r.packLoose(pause)
	}
	packs, err := r.mergeable()
	if err != nil || len(packs) == 0 {
		return false, err
	}
	return true, r.mergePacks(packs, pause)
}

// removeLeftPacks removes packs in the making that a crash has left. Only this
// package puts such files directly into the objects directory.
func (s *store) removeLeftPacks() error {
	names, err := filepath.Glob(filepath.Join(s.dirs[0], "tmp_pack_*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if fi, err := os.Lstat(name); err == nil && time.Since(fi.ModTime()) > time.Hour {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// crowded estimates whether there are more loose objects than looseLimit from
// the number in 16 of the 256 directories: hashes are spread evenly.
func (s *store) crowded() bool {
	n := 0
	for i := range 16 {
		// What cannot be read is for whoever needs it to report.
		entries, _ := os.ReadDir(filepath.Join(s.dirs[0], fmt.Sprintf("%x%x", i, i)))
		n += len(entries)
	}
	return n >= looseLimit/16
}

// A looseObject is one that is to be packed.
type looseObject struct {
	id     oid
	typ    plumbing.ObjectType
	commit *gitobject.Commit // if it is one
}

// packLoose packs loose objects, up to the bounds of a slice, and removes them.
func (s *store) packLoose(pause func() error) error {
	objects, err := s.gatherLoose(pause)
	if err != nil {
		return err
	}
	if len(objects) == 0 {
		return nil
	}
	order, similar, err := s.arrange(objects, pause)
	if err != nil {
		return err
	}
	p, err := s.createPack()
	if err != nil {
		return err
	}
	defer p.discard()
	out := bufio.NewWriterSize(p.f, 64<<10)
	w, err := newPackWriter(out, len(order), -1)
	if err != nil {
		return err
	}
	var index []packIndexEntry
	depth := make(map[oid]int, len(order)) // of those that are written
	for _, id := range order {
		if err := pause(); err != nil {
			return err
		}
		o, err := s.get(id)
		if err != nil {
			return err
		}
		at := w.at
		base := similar[id]
		// Only what is written already can be a base, so that no chain of
		// deltas ends where it began.
		d, written := depth[base]
		if delta := s.delta(base, o); written && d < maintainDepth && delta != nil {
			depth[id] = d + 1
			err = w.add(plumbing.REFDeltaObject, base[:], delta)
		} else {
			depth[id] = 0
			err = w.add(o.typ, nil, o.data)
		}
		if err != nil {
			return err
		}
		index = append(index, packIndexEntry{id, w.crc, at})
	}
	if _, err := s.finish(p, w, out, index, pause); err != nil {
		return err
	}
	// Crash from here on: what is left is in the pack, too.
	for _, id := range order {
		if err := os.Remove(loosePath(s.dirs[0], id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// gatherLoose reads loose objects, up to the bounds of a slice. Those that a
// pack has too are removed on the way, and those that cannot be read are left
// alone.
func (s *store) gatherLoose(pause func() error) ([]looseObject, error) {
	var out []looseObject
	bytes := 0
	for fan := range 256 {
		dir := filepath.Join(s.dirs[0], fmt.Sprintf("%02x", fan))
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			id, ok := parseOID(filepath.Base(dir) + e.Name())
			if !ok {
				continue // what is being written
			}
			if err := pause(); err != nil {
				return nil, err
			}
			name := filepath.Join(dir, e.Name())
			s.mu.Lock()
			packed := s.packed(id)
			var o object
			if !packed {
				o, err = s.readLoose(name)
			}
			s.mu.Unlock()
			if packed {
				if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return nil, err
				}
				continue
			}
			if err != nil || verify(id, o) != nil {
				continue
			}
			l := looseObject{id: id, typ: o.typ}
			if o.typ == plumbing.CommitObject {
				if l.commit, err = s.commit(id); err != nil {
					l.commit = nil // git has stranger ones than go-git reads
				}
			}
			out = append(out, l)
			if bytes += len(o.data); len(out) >= sliceObjects || bytes >= sliceBytes {
				return out, nil
			}
		}
	}
	return out, nil
}

// arrange returns the objects in the order of a pack, and for each what is
// likely to be similar. As in git's packs the newest come first, as they are
// and the older versions as differences from them: the new ones are what is
// read.
func (s *store) arrange(objects []looseObject, pause func() error) (order []oid, similar map[oid]oid, err error) {
	loose := make(map[oid]bool, len(objects))
	for _, o := range objects {
		loose[o.id] = true
	}
	take := func(id oid) {
		if loose[id] {
			delete(loose, id)
			order = append(order, id)
		}
	}
	commits := newestFirst(objects)
	for _, c := range commits {
		take(c.Hash)
	}
	similar = make(map[oid]oid)
	for began := time.Now(); len(commits) > 0 && time.Since(began) < compareLimit; commits = commits[1:] {
		if err := pause(); err != nil {
			return nil, nil, err
		}
		c := commits[0]
		before, err := s.parentTree(c)
		if err != nil {
			continue
		}
		seen := func(old, new oid) {
			take(new)
			if old != (oid{}) && new != (oid{}) && similar[old] == (oid{}) {
				similar[old] = new
			}
		}
		seen(before, c.TreeHash)
		// What cannot be read is packed as it is, as is what there was no time
		// for.
		s.diff(before, c.TreeHash, "", func(path string, old, new treeEntry) (bool, error) {
			if old.mode == new.mode {
				seen(old.id, new.id)
			} else {
				take(new.id)
			}
			// What is new or gone as a whole is similar to nothing.
			return old.mode == new.mode, nil
		})
	}
	for _, o := range objects {
		take(o.id)
	}
	return order, similar, nil
}

// newestFirst returns the commits among the objects, children before their
// parents.
func newestFirst(objects []looseObject) []*gitobject.Commit {
	var byTime, out []*gitobject.Commit
	rest := make(map[oid]*gitobject.Commit)
	for _, o := range objects {
		if o.commit != nil {
			byTime = append(byTime, o.commit)
			rest[o.id] = o.commit
		}
	}
	slices.SortFunc(byTime, func(a, b *gitobject.Commit) int { return a.Committer.When.Compare(b.Committer.When) })
	for _, c := range byTime {
		out = append(out, parentsFirst(rest, c.Hash)...)
	}
	slices.Reverse(out)
	return out
}

// mergeable returns the small packs that are to be merged, if there are too
// many of them: the smallest ones, up to the largest that is less than twice
// as large as all smaller ones together.
func (s *store) mergeable() ([]*pack, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.list(); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dirs[0], "pack")
	if _, err := os.Lstat(filepath.Join(dir, "multi-pack-index")); err == nil {
		return nil, nil
	}
	type small struct {
		*pack
		size int64
	}
	var packs []small
	for _, p := range s.packs {
		fi, err := p.f.Stat()
		if err == nil && filepath.Dir(p.idxName) == dir && fi.Size() <= mergeBytes/2 && p.n <= mergeObjects/2 && !p.marked() {
			packs = append(packs, small{p, fi.Size()})
		}
	}
	if len(packs) < packsLimit {
		return nil, nil
	}
	packs = slices.DeleteFunc(packs, func(p small) bool { return p.twofold() })
	slices.SortFunc(packs, func(a, b small) int {
		return cmp.Or(cmp.Compare(a.size, b.size), strings.Compare(a.idxName, b.idxName))
	})
	var out, merged []*pack
	size, objects := int64(0), 0
	for _, p := range packs {
		if size+p.size > mergeBytes || objects+p.n > mergeObjects {
			break
		}
		out = append(out, p.pack)
		if p.size < 2*size {
			merged = out
		}
		size += p.size
		objects += p.n
	}
	return merged, nil
}

// marked reports whether git has marked the pack as one that is not like the
// others: to be kept, of a partial clone, or of what nothing refers to with
// the times since when.
func (p *pack) marked() bool {
	for _, suffix := range []string{".keep", ".promisor", ".mtimes"} {
		if _, err := os.Lstat(strings.TrimSuffix(p.idxName, ".idx") + suffix); err == nil {
			return true
		}
	}
	return false
}

// twofold reports whether the pack has an object twice. git takes such packs,
// and makes none.
func (p *pack) twofold() bool {
	for i := 1; i < p.n; i++ {
		if bytes.Equal(p.name(i-1), p.name(i)) {
			return true
		}
	}
	return false
}

// mergePacks makes one pack of several, and removes them. The objects are
// copied as they are.
//
// An object that several packs have is taken from the first. So its base, too,
// is in that pack or in one before it, and deltas that depend on each other in
// a circle cannot come of it: in none of the packs is there one, nor an object
// twice.
func (s *store) mergePacks(packs []*pack, pause func() error) error {
	for _, p := range packs {
		if err := p.check(); err != nil {
			return err // their indexes are about to be read as they are mapped
		}
	}
	n := 0
	earlier := func(k int, id oid) bool {
		return slices.ContainsFunc(packs[:k], func(p *pack) bool {
			_, ok := p.find(id)
			return ok
		})
	}
	for k, p := range packs {
		for i := range p.n {
			if !earlier(k, oid(p.name(i))) {
				n++
			}
		}
	}
	tmp, err := s.createPack()
	if err != nil {
		return err
	}
	defer tmp.discard()
	out := bufio.NewWriterSize(tmp.f, 64<<10)
	w, err := newPackWriter(out, n, -1)
	if err != nil {
		return err
	}
	var index []packIndexEntry
	for k, p := range packs {
		err := p.each(func(e packedEntry) error {
			if err := pause(); err != nil || earlier(k, e.id) {
				return err
			}
			at := w.at
			if err := w.copy(e); err != nil {
				return err
			}
			index = append(index, packIndexEntry{e.id, w.crc, at})
			return nil
		})
		if err != nil {
			return err
		}
	}
	sum, err := s.finish(tmp, w, out, index, pause)
	if err != nil {
		return err
	}
	// Crash from here on: what is left of the old packs is in the new one, too.
	for _, p := range packs {
		if filepath.Base(p.idxName) == packName(sum)+".idx" {
			continue // a crash came after it was made of the others
		}
		if err := p.remove(); err != nil {
			return err
		}
	}
	return nil
}

// finish ends the pack, reads everything in it back, and installs it. From
// then on it may replace what it was made of.
func (s *store) finish(p *newPack, w *packWriter, out *bufio.Writer, index []packIndexEntry, pause func() error) (sum oid, err error) {
	sum, err = w.end()
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = p.writeIndex(index, sum)
	}
	if err == nil {
		err = s.readBack(p, pause)
	}
	if err == nil {
		err = s.install(p, sum)
	}
	return sum, err
}

func (s *store) readBack(tmp *newPack, pause func() error) error {
	p, err := openPack(tmp.idxName(), false)
	if err != nil {
		return err
	}
	defer p.close()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cache.drop(p)
	}()
	return p.each(func(e packedEntry) error {
		if err := pause(); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		o, err := s.readPacked(p, e.at)
		if err == nil {
			err = verify(e.id, o)
		}
		if err != nil {
			return fmt.Errorf("a new pack does not hold what was written, object %s: %w", e.id, err)
		}
		return nil
	})
}

// remove removes the pack, the index first, as git does: without it the rest
// is nothing.
func (p *pack) remove() error {
	for _, suffix := range []string{".idx", ".rev", ".bitmap", ".pack"} {
		err := os.Remove(strings.TrimSuffix(p.idxName, ".idx") + suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// A packedEntry is an object as it stands in a pack.
type packedEntry struct {
	id   oid
	at   int64
	typ  plumbing.ObjectType // OFSDeltaObject is told as REFDeltaObject
	size int64               // of what is deflated
	base oid                 // if it is a delta
	data io.Reader           // deflated, to be read at once
}

// each calls fn for each object of the pack, in the order in which they lie
// there.
func (p *pack) each(fn func(packedEntry) error) error {
	type place struct {
		at int64
		i  int
	}
	places := make([]place, p.n, p.n+1)
	for i := range p.n {
		at, ok := p.offset(i)
		if !ok {
			return fmt.Errorf("%s is damaged: no offset of an object", p.idxName)
		}
		places[i] = place{at, i}
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.at, b.at) })
	fi, err := p.f.Stat()
	if err != nil {
		return err
	}
	end := fi.Size() - idxTail/2
	var r bufio.Reader
	for k, pl := range places {
		next := end
		if k+1 < len(places) {
			next = places[k+1].at
		}
		damaged := func(err error) error { return fmt.Errorf("%s is damaged at %d: %w", p.f.Name(), pl.at, err) }
		r.Reset(io.NewSectionReader(p.f, pl.at, next-pl.at))
		e := packedEntry{id: oid(p.name(pl.i)), at: pl.at, data: &r}
		if e.typ, e.size, err = readEntryHeader(&r); err != nil {
			return damaged(err)
		}
		switch e.typ {
		case plumbing.OFSDeltaObject:
			back, err := readBaseOffset(&r)
			if err != nil {
				return damaged(err)
			}
			b, ok := slices.BinarySearchFunc(places, pl.at-back, func(q place, at int64) int { return cmp.Compare(q.at, at) })
			if !ok {
				return damaged(errors.New("there is no object at the base of a delta"))
			}
			e.typ, e.base = plumbing.REFDeltaObject, oid(p.name(places[b].i))
		case plumbing.REFDeltaObject:
			if _, err := io.ReadFull(&r, e.base[:]); err != nil {
				return damaged(err)
			}
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

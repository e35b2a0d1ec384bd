// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"golang.org/x/sys/unix"
)

// An index is git's index file (gitformat-index(5)): which blob each path of
// the work tree came from, and how lstat(2) saw the file then, so that an
// unchanged file is known without reading it.
//
// The entries stay in the form that they have in the file. A commit changes a
// few among maybe 100,000, and the others are copied to the new file in a
// few pieces, byte by byte: extended flags, what a person's git noted, all of
// it stays.
//
// Of the extensions, the cached tree and the record of resolved conflicts are
// kept. The others are optional and hold what a changed index makes wrong.
type index struct {
	data     []byte // entries as in version 3
	at       []uint32
	extended int // the number of entries with extended flags
	tree     *cacheTree
	reuc     []byte // the resolve-undo extension
	mtime    uint32 // of the index file, in seconds
}

// An indexTime is a time as the index has it.
type indexTime struct{ sec, nsec uint32 }

// fileStat is what the index keeps of lstat(2), cut off to 32 bits.
type fileStat struct {
	ctime, mtime                  indexTime
	dev, ino, mode, uid, gid, len uint32
}

func statOf(st *unix.Stat_t) fileStat {
	return fileStat{
		ctime: indexTime{uint32(st.Ctim.Sec), uint32(st.Ctim.Nsec)},
		mtime: indexTime{uint32(st.Mtim.Sec), uint32(st.Mtim.Nsec)},
		dev:   uint32(st.Dev), ino: uint32(st.Ino), mode: uint32(st.Mode),
		uid: st.Uid, gid: st.Gid, len: uint32(st.Size),
	}
}

// An indexEntry is one path of the index.
type indexEntry struct {
	path     string
	mode     Mode
	id       oid
	stat     fileStat // zero where nothing is known: git then looks at the content
	extended uint16
}

// The layout of an entry, and the flags that matter here.
const (
	entryMode  = 24
	entryStat  = 40
	entryHash  = entryStat
	entryFlags = entryHash + 20
	entryName  = entryFlags + 2

	flagExtended  = 1 << 14
	flagStage     = 3 << 12
	flagNameLen   = 0xfff
	extSkip       = 1 << 14 // skip-worktree
	extIntent     = 1 << 13 // intent-to-add
	entryAlign    = 8
	checksumLen   = 20
	indexHeader   = 12
	minEntryBytes = 64
)

var errIndex = errors.New("malformed index")

// parseIndex reads an index of version 2, 3 or 4. With trusted, its checksum and
// the order of its entries are not looked at.
func parseIndex(data []byte, trusted bool) (*index, error) {
	if len(data) < indexHeader+checksumLen || !bytes.HasPrefix(data, []byte("DIRC")) {
		return nil, errIndex
	}
	body, sum := data[:len(data)-checksumLen], data[len(data)-checksumLen:]
	// git leaves the checksum zero with index.skipHash.
	if !trusted && !bytes.Equal(sum, make([]byte, checksumLen)) {
		if got := sha1.Sum(body); !bytes.Equal(got[:], sum) {
			return nil, fmt.Errorf("%w: wrong checksum", errIndex)
		}
	}
	version := binary.BigEndian.Uint32(data[4:])
	count := int(binary.BigEndian.Uint32(data[8:]))
	ix := &index{}
	var rest []byte
	var err error
	switch version {
	case 2, 3:
		rest, err = ix.parseEntries(body[indexHeader:], count, trusted)
	case 4:
		rest, err = ix.parseCompressed(body[indexHeader:], count)
	default:
		return nil, fmt.Errorf("%w: version %d", errIndex, version)
	}
	if err != nil {
		return nil, err
	}
	for len(rest) > 0 {
		if len(rest) < 8 {
			return nil, errIndex
		}
		name, n := string(rest[:4]), int(binary.BigEndian.Uint32(rest[4:]))
		if n > len(rest)-8 {
			return nil, errIndex
		}
		ext := rest[8 : 8+n]
		rest = rest[8+n:]
		switch {
		case name == "TREE":
			// A cached tree that makes no sense is like none.
			ix.tree, _ = parseCacheTree(ext)
		case name == "REUC":
			ix.reuc = ext
		case name[0] < 'A' || name[0] > 'Z':
			// Such an extension changes what the entries mean (a split or
			// a sparse index).
			return nil, fmt.Errorf("%w: extension %q", errIndex, name)
		}
	}
	return ix, nil
}

// parseEntries finds the entries of versions 2 and 3 in data.
func (ix *index) parseEntries(data []byte, count int, trusted bool) (rest []byte, err error) {
	if count > len(data)/minEntryBytes {
		return nil, errIndex
	}
	ix.at = make([]uint32, 0, count+1)
	at := 0
	for range count {
		n, name := entrySize(data[at:])
		if n < 0 {
			return nil, errIndex
		}
		size := (n + name + entryAlign) &^ (entryAlign - 1)
		if at+size > len(data) {
			return nil, errIndex
		}
		if err := ix.append(data[:at+size], at, trusted); err != nil {
			return nil, err
		}
		at += size
	}
	ix.data = data[:at]
	ix.at = append(ix.at, uint32(at))
	return data[at:], nil
}

// entrySize returns the length of what comes before the name of the entry at
// the beginning of data, and that of the name; -1 if it does not fit.
func entrySize(data []byte) (before, name int) {
	if len(data) < entryName {
		return -1, 0
	}
	flags := binary.BigEndian.Uint16(data[entryFlags:])
	before = entryName
	if flags&flagExtended != 0 {
		before += 2
	}
	if len(data) < before {
		return -1, 0
	}
	name = int(flags & flagNameLen)
	if name == flagNameLen {
		// Longer than the field can tell.
		if name = bytes.IndexByte(data[before:], 0); name < 0 {
			return -1, 0
		}
	}
	if name == 0 || len(data) < before+name {
		return -1, 0
	}
	return before, name
}

// append takes the entry at data[at:] into the list, and checks that it comes
// after the last one if that is not trusted.
func (ix *index) append(data []byte, at int, trusted bool) error {
	ix.data = data
	ix.at = append(ix.at, uint32(at))
	i := len(ix.at) - 1
	if ix.flags(i)&flagExtended != 0 {
		ix.extended++
	}
	if i > 0 && !trusted {
		if c := bytes.Compare(ix.path(i-1), ix.path(i)); c > 0 || c == 0 && ix.stage(i-1) >= ix.stage(i) {
			return fmt.Errorf("%w: %q is out of order", errIndex, ix.path(i))
		}
	}
	return nil
}

// parseCompressed reads the entries of version 4, where a name is given by
// how much to drop from the end of the last one and what to add, without
// padding, and writes them as version 3.
func (ix *index) parseCompressed(data []byte, count int) (rest []byte, err error) {
	if count > len(data)/minEntryBytes {
		return nil, errIndex
	}
	var last []byte
	out := make([]byte, 0, len(data)*2)
	for range count {
		if len(data) < entryName {
			return nil, errIndex
		}
		head := data[:entryName]
		data = data[entryName:]
		flags := binary.BigEndian.Uint16(head[entryFlags:])
		var ext []byte
		if flags&flagExtended != 0 {
			if len(data) < 2 {
				return nil, errIndex
			}
			ext, data = data[:2], data[2:]
		}
		r := bytes.NewReader(data)
		drop, err := readBaseOffset(r) // the same form of a number
		if err != nil || drop > int64(len(last)) {
			return nil, errIndex
		}
		data = data[len(data)-r.Len():]
		end := bytes.IndexByte(data, 0)
		if end < 0 {
			return nil, errIndex
		}
		last = append(last[:len(last)-int(drop)], data[:end]...)
		data = data[end+1:]
		if len(last) == 0 || bytes.IndexByte(last, 0) >= 0 {
			return nil, errIndex
		}
		at := len(out)
		out = append(out, head...)
		out = append(out, ext...)
		out = append(out, last...)
		flags = flags&^flagNameLen | uint16(min(len(last), flagNameLen))
		binary.BigEndian.PutUint16(out[at+entryFlags:], flags)
		out = pad(out, at)
		if err := ix.append(out, at, false); err != nil {
			return nil, err
		}
	}
	ix.at = append(ix.at, uint32(len(out)))
	return data, nil
}

// pad ends the entry that begins at at: with one to eight NULs, to a multiple
// of eight bytes.
func pad(out []byte, at int) []byte {
	n := len(out) - at
	return append(out, make([]byte, entryAlign-n%entryAlign)...)
}

// len returns the number of entries.
func (ix *index) len() int { return max(len(ix.at)-1, 0) }

func (ix *index) path(i int) []byte {
	e := ix.data[ix.at[i]:]
	before, name := entrySize(e)
	return e[before : before+name]
}

func (ix *index) flags(i int) uint16 {
	return binary.BigEndian.Uint16(ix.data[ix.at[i]+entryFlags:])
}

// stage is 0 for an entry without a conflict.
func (ix *index) stage(i int) uint16 { return ix.flags(i) & flagStage }

func (ix *index) extendedFlags(i int) uint16 {
	if ix.flags(i)&flagExtended == 0 {
		return 0
	}
	return binary.BigEndian.Uint16(ix.data[ix.at[i]+entryName:])
}

func (ix *index) mode(i int) Mode {
	return Mode(binary.BigEndian.Uint32(ix.data[ix.at[i]+entryMode:])).canonical()
}

func (ix *index) id(i int) oid { return oid(ix.data[ix.at[i]+entryHash:][:20]) }

func (ix *index) stat(i int) fileStat {
	e := ix.data[ix.at[i]:]
	n := func(k int) uint32 { return binary.BigEndian.Uint32(e[4*k:]) }
	return fileStat{
		ctime: indexTime{n(0), n(1)}, mtime: indexTime{n(2), n(3)},
		dev: n(4), ino: n(5), mode: n(6), uid: n(7), gid: n(8), len: n(9),
	}
}

// unchanged reports whether the file that lstat saw as st is the one of entry
// i, as git decides it (git-update-index(1)): its stat data is the same, and
// it was not changed so late that a further change in the same second may
// have gone unseen ("racily clean").
func (ix *index) unchanged(i int, st fileStat) bool {
	e := ix.stat(i)
	// Some implementations leave the nanoseconds out.
	if e.ctime.nsec == 0 {
		st.ctime.nsec = 0
	}
	if e.mtime.nsec == 0 {
		st.mtime.nsec = 0
	}
	return e.ctime == st.ctime && e.mtime == st.mtime && e.ino == st.ino && e.len == st.len &&
		e.uid == st.uid && e.gid == st.gid &&
		ix.mode(i) == fileMode(st) && !ix.racy(e)
}

// racy compares whole seconds, as git does unless it was built with USE_NSEC.
func (ix *index) racy(e fileStat) bool { return e.mtime.sec >= ix.mtime }

// fileMode is the mode that a file gets in git.
func fileMode(st fileStat) Mode {
	switch st.mode & unix.S_IFMT {
	case unix.S_IFREG:
		if st.mode&0o100 != 0 {
			return ModeExecutable
		}
		return ModeFile
	case unix.S_IFLNK:
		return ModeLink
	case unix.S_IFDIR:
		return modeDir
	}
	return 0
}

// smudge makes the racily clean entries such that their files' content is
// looked at next time: the index that is written now is younger than they
// are, and would hide a change that went unseen. Like git, it sets the size
// to 0, which no file but an empty one has.
func (ix *index) smudge() {
	for i := range ix.len() {
		if ix.stage(i) == 0 && ix.racy(ix.stat(i)) {
			copy(ix.data[ix.at[i]+entryStat-4:], []byte{0, 0, 0, 0})
		}
	}
}

// below returns the range of the entries below the directory dir; "" is the
// root.
func (ix *index) below(dir string) (lo, hi int) {
	if dir == "" {
		return 0, ix.len()
	}
	return ix.search(dir + "/"), ix.search(dir + "0") // '0' is '/' + 1
}

// search returns the first entry whose path is not before path.
func (ix *index) search(path string) int {
	return sort.Search(ix.len(), func(i int) bool { return string(ix.path(i)) >= path })
}

// find returns the entry of path without a conflict.
func (ix *index) find(path string) (i int, ok bool) {
	i = ix.search(path)
	return i, i < ix.len() && string(ix.path(i)) == path && ix.stage(i) == 0
}

// A splice replaces the entries from lo to hi by another one, or by none.
type splice struct {
	lo, hi int
	entry  *indexEntry
}

// write writes the index with the splices, which are in order, and the cached
// tree to w.
func (ix *index) write(w io.Writer, splices []splice, tree *cacheTree) error {
	count, extended := ix.len(), ix.extended
	for _, s := range splices {
		count -= s.hi - s.lo
		for i := s.lo; i < s.hi; i++ {
			if ix.flags(i)&flagExtended != 0 {
				extended--
			}
		}
		if s.entry != nil {
			count++
			if s.entry.extended != 0 {
				extended++
			}
		}
	}
	version := uint32(2)
	if extended > 0 {
		version = 3
	}
	header := binary.BigEndian.AppendUint32([]byte("DIRC"), version)
	pieces := [][]byte{binary.BigEndian.AppendUint32(header, uint32(count))}
	next := 0
	for _, s := range splices {
		pieces = append(pieces, ix.span(next, s.lo))
		if s.entry != nil {
			pieces = append(pieces, s.entry.encode())
		}
		next = s.hi
	}
	pieces = append(pieces, ix.span(next, ix.len()))
	if tree != nil {
		pieces = append(pieces, extension("TREE", tree.encode(nil)))
	}
	if ix.reuc != nil {
		pieces = append(pieces, extension("REUC", ix.reuc))
	}
	// In a large index the checksum takes as long as the writing.
	h := sha1.New()
	var hashing sync.WaitGroup
	hashing.Go(func() {
		for _, p := range pieces {
			h.Write(p)
		}
	})
	out := bufio.NewWriterSize(w, 256<<10)
	for _, p := range pieces {
		out.Write(p)
	}
	hashing.Wait()
	out.Write(h.Sum(nil))
	return out.Flush() // says what went wrong before, too
}

// span returns the bytes of the entries from lo to hi.
func (ix *index) span(lo, hi int) []byte {
	if lo >= hi {
		return nil
	}
	return ix.data[ix.at[lo]:ix.at[hi]]
}

func (e *indexEntry) encode() []byte {
	var b []byte
	for _, n := range []uint32{
		e.stat.ctime.sec, e.stat.ctime.nsec, e.stat.mtime.sec, e.stat.mtime.nsec,
		e.stat.dev, e.stat.ino, uint32(e.mode), e.stat.uid, e.stat.gid, e.stat.len,
	} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = append(b, e.id[:]...)
	flags := uint16(min(len(e.path), flagNameLen))
	if e.extended != 0 {
		flags |= flagExtended
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	if e.extended != 0 {
		b = binary.BigEndian.AppendUint16(b, e.extended)
	}
	return pad(append(b, e.path...), 0)
}

func extension(name string, data []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte(name), uint32(len(data))), data...)
}

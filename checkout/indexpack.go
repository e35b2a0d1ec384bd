// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"os"
	"slices"
	"strconv"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/klauspost/compress/zlib"
	"github.com/pjbgf/sha1cd"
)

// A packIndexer finds out what a received pack holds, as git index-pack does.
//
// While the pack comes in, scan copies it to its file, takes note of each entry
// and names the objects that stand there whole, by way of a buffer: however
// large an object is, it is never in memory. Then resolve names those that stand
// there as deltas, from the bases on, which it reads again.
//
// What a pack announces sets no memory aside: the entries are as many as have
// come, an entry is as long as was inflated of it, and the result of a delta as
// long as its instructions bear out (see applyDelta). Memory is bounded by some
// 100 bytes for each entry, by keptDeltas and heldBases, for each CPU by three
// times largeObject, and once by three times maxDeltaObject: for a base, a delta
// and its result.
type packIndexer struct {
	f        *os.File // the pack
	progress func(phase string, done, total int)

	entries []scannedEntry
	total   int   // the entries that the header announces
	deltas  int   // the entries that are deltas
	largest int64 // of the objects

	// waiting has the deltas by the name of a base that is not known yet: the
	// first of each, the others follow as siblings.
	waiting map[oid]int32
	byName  bool // there are deltas by the name of their base

	kept     [][]byte // inflated deltas, in blocks
	keptSize int
}

// A scannedEntry is an entry of a pack. Entries refer to each other by their
// place in packIndexer.entries, where noEntry is none.
type scannedEntry struct {
	packIndexEntry
	size   int64               // of what is deflated
	base   int32               // what it is a delta of
	delta  int32               // the first delta of this
	next   int32               // the next delta of the same base
	kept   int32               // its place in packIndexer.kept, or noEntry
	depth  uint16              // how many deltas lead to it
	header uint8               // how long that is, up to what is deflated
	typ    plumbing.ObjectType // of the object; a delta type until that is known
}

const noEntry = -1

const (
	// keptDeltas bounds the memory for deltas that are kept from the scan on,
	// so that they are not inflated twice; most are some bytes long. One may be
	// as large as keptDelta.
	keptDeltas = 12 << 20
	keptDelta  = 4 << 10
	keptBlock  = 256 << 10

	// heldBases bounds the memory for bases whose deltas wait while those of
	// another one are resolved.
	heldBases = 24 << 20

	// Of objects larger than largeObject, only one at a time is resolved.
	largeObject = 8 << 20

	// maxDeltaObject is the largest object that may be a delta, or the base of
	// one: git makes none of larger ones (core.bigFileThreshold in
	// git-config(1)).
	maxDeltaObject = 512 << 20
)

func newPackIndexer(f *os.File, progress func(phase string, done, total int)) *packIndexer {
	return &packIndexer{f: f, progress: progress, waiting: make(map[oid]int32)}
}

// scan reads the pack from r, and writes it to the file as it stands. It
// returns the checksum of the pack.
func (x *packIndexer) scan(ctx context.Context, r io.Reader) (sum oid, err error) {
	in := &packReader{ctx: ctx, r: r, f: x.f, sum: sha1.New(), buf: make([]byte, 64<<10), progress: x.progress}
	defer func() {
		switch {
		case err == nil && (in.err == nil || in.err == io.EOF):
		case ctx.Err() != nil:
			err = ctx.Err()
		case in.err != nil && in.err != io.EOF:
			err = fmt.Errorf("receiving a pack: %w", in.err)
		default:
			err = damaged(noEOF(err))
		}
	}()
	var header [12]byte
	if _, err := io.ReadFull(in, header[:]); err != nil {
		return oid{}, err
	}
	if string(header[:8]) != "PACK\x00\x00\x00\x02" {
		return oid{}, errors.New("it is not a pack of version 2")
	}
	n := binary.BigEndian.Uint32(header[8:])
	if n > math.MaxInt32 {
		return oid{}, fmt.Errorf("it claims to hold %d objects", n)
	}
	x.total = int(n)
	x.entries = make([]scannedEntry, 0, min(x.total, 4<<10))
	inf := newInflater()
	for range x.total {
		at := in.offset()
		if err := x.scanEntry(in, inf, at); err != nil {
			return oid{}, fmt.Errorf("at byte %d: %w", at, noEOF(err))
		}
	}
	return in.finish()
}

// scanEntry reads the entry at the offset at.
func (x *packIndexer) scanEntry(in *packReader, inf *inflater, at int64) error {
	in.begin()
	e := scannedEntry{packIndexEntry: packIndexEntry{at: at}, base: noEntry, delta: noEntry, next: noEntry, kept: noEntry}
	var err error
	if e.typ, e.size, err = readEntryHeader(in); err != nil {
		return err
	}
	this := int32(len(x.entries))
	switch e.typ {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		x.largest = max(x.largest, e.size)
	case plumbing.OFSDeltaObject:
		back, err := readBaseOffset(in)
		if err != nil {
			return err
		}
		i, ok := slices.BinarySearchFunc(x.entries, at-back, func(e scannedEntry, at int64) int { return cmp.Compare(e.at, at) })
		if !ok {
			return errors.New("there is no object at the base of a delta")
		}
		e.base = int32(i)
		e.next, x.entries[i].delta = x.entries[i].delta, this
	case plumbing.REFDeltaObject:
		var id oid
		if _, err := io.ReadFull(in, id[:]); err != nil {
			return err
		}
		if first, ok := x.waiting[id]; ok {
			e.next = first
		}
		x.waiting[id], x.byName = this, true
	default:
		return fmt.Errorf("an object of type %d", e.typ)
	}
	e.header = uint8(in.offset() - at)
	if e.typ.IsDelta() {
		x.deltas++
		e.kept, err = x.keep(inf, in, e.size)
	} else {
		e.id, err = inf.name(in.ctx, in, e.typ, e.size)
	}
	if err != nil {
		return err
	}
	e.crc = in.end()
	if n := len(x.entries); n == cap(x.entries) {
		x.entries = slices.Grow(x.entries, min(n, x.total-n))
	}
	x.entries = append(x.entries, e)
	return nil
}

// keep reads a delta, and keeps it if it is small. It returns where.
func (x *packIndexer) keep(inf *inflater, in *packReader, size int64) (int32, error) {
	if size > keptDelta || x.keptSize >= keptDeltas {
		return noEntry, inf.each(in.ctx, in, size, func([]byte) {})
	}
	last := len(x.kept) - 1
	if last < 0 || len(x.kept[last])+int(size) > keptBlock {
		x.kept = append(x.kept, make([]byte, 0, keptBlock))
		x.keptSize += keptBlock
		last++
	}
	at := len(x.kept[last])
	err := inf.each(in.ctx, in, size, func(p []byte) { x.kept[last] = append(x.kept[last], p...) })
	return int32(last*keptBlock + at), err
}

// keptDelta returns the delta of an entry if it was kept, else nil.
func (x *packIndexer) keptDelta(e *scannedEntry) []byte {
	if e.kept == noEntry {
		return nil
	}
	return x.kept[e.kept/keptBlock][e.kept%keptBlock:][:e.size]
}

// deflated returns a reader of what is deflated of an entry.
func (x *packIndexer) deflated(i int32) *io.SectionReader {
	e := &x.entries[i]
	at := e.at + int64(e.header)
	if int(i)+1 < len(x.entries) {
		return io.NewSectionReader(x.f, at, x.entries[i+1].at-at)
	}
	return io.NewSectionReader(x.f, at, 1<<62)
}

// index returns what is to be written to the index of the pack, once all is
// resolved.
//
// An object may be there twice, as git allows it. Not so where bases are told by
// their names: whoever takes the other one of two could go in a circle.
func (x *packIndexer) index() ([]packIndexEntry, error) {
	out := make([]packIndexEntry, len(x.entries))
	for i := range x.entries {
		out[i] = x.entries[i].packIndexEntry
	}
	slices.SortFunc(out, packIndexEntry.compare)
	for i := 1; i < len(out) && x.byName; i++ {
		if out[i].id == out[i-1].id {
			return nil, damaged(fmt.Errorf("it holds the object %s twice, and deltas by the names of their bases", out[i].id))
		}
	}
	return out, nil
}

// damaged is for what is wrong with a received pack.
func damaged(err error) error { return fmt.Errorf("the received pack is damaged: %w", err) }

// noEOF is for the end of a file in the middle of it.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A packReader reads a pack and writes it to a file.
type packReader struct {
	ctx      context.Context
	r        io.Reader
	f        *os.File
	progress func(phase string, done, total int)
	err      error // of r, f or ctx: io.EOF at the end

	buf   []byte
	n, at int       // how much there is in buf, and how much was read of it
	start int64     // where buf lies in the pack
	sum   hash.Hash // of what lies before buf[summed]
	crc   uint32    // of the entry in hand, before buf[from]
	from  int
}

// Read implements io.Reader.
func (p *packReader) Read(b []byte) (int, error) {
	if p.at == p.n && !p.fill() {
		return 0, p.err
	}
	n := copy(b, p.buf[p.at:p.n])
	p.at += n
	return n, nil
}

// ReadByte implements io.ByteReader, so that inflating takes no byte too many.
func (p *packReader) ReadByte() (byte, error) {
	if p.at == p.n && !p.fill() {
		return 0, p.err
	}
	b := p.buf[p.at]
	p.at++
	return b, nil
}

// fill reads more, once all in the buffer was read.
func (p *packReader) fill() bool {
	if p.err != nil {
		return false
	}
	p.crc = crc32.Update(p.crc, crc32.IEEETable, p.buf[p.from:p.n])
	p.sum.Write(p.buf[:p.n])
	p.start += int64(p.n)
	p.n, p.at, p.from = 0, 0, 0
	// What comes in pieces as small as packets of the wire is gathered.
	for p.err == nil && p.n < len(p.buf) {
		var n int
		n, p.err = p.r.Read(p.buf[p.n:])
		p.n += n
	}
	if p.n > 0 {
		if _, err := p.f.Write(p.buf[:p.n]); err != nil {
			p.n, p.err = 0, err
		}
	}
	if err := p.ctx.Err(); err != nil {
		p.n, p.err = 0, err
	}
	if done := p.start + int64(p.n); p.progress != nil && done > 256<<10 {
		p.progress("download", int(done>>10), 0)
	}
	return p.n > 0
}

// offset returns where in the pack the next byte lies.
func (p *packReader) offset() int64 { return p.start + int64(p.at) }

// begin begins an entry, and end returns its checksum.
func (p *packReader) begin() { p.crc, p.from = 0, p.at }

func (p *packReader) end() uint32 {
	return crc32.Update(p.crc, crc32.IEEETable, p.buf[p.from:p.at])
}

// finish reads the checksum of the pack, after which nothing may come.
func (p *packReader) finish() (sum oid, err error) {
	p.sum.Write(p.buf[:p.at])
	want := oid(p.sum.Sum(nil))
	// What is left in the buffer is not summed any more.
	if _, err := io.ReadFull(p, sum[:]); err != nil {
		return oid{}, err
	}
	if sum != want {
		return oid{}, errors.New("wrong checksum")
	}
	if _, err := p.ReadByte(); err == nil {
		return oid{}, errors.New("something follows its end")
	}
	return sum, nil
}

// An inflater inflates and names objects, one after the other.
type inflater struct {
	r    *bufio.Reader // for who has no buffer
	zr   io.ReadCloser
	hash sha1cd.CollisionResistantHash
	buf  []byte
}

func newInflater() *inflater {
	// The hash is the one of plumbing.Hasher.
	return &inflater{r: bufio.NewReaderSize(nil, 16<<10), hash: sha1cd.New().(sha1cd.CollisionResistantHash), buf: make([]byte, 32<<10)}
}

// reset begins with another object.
func (f *inflater) reset(r io.Reader) error {
	if f.zr == nil {
		var err error
		f.zr, err = zlib.NewReader(r)
		return noEOF(err)
	}
	return noEOF(f.zr.(zlib.Resetter).Reset(r, nil))
}

// each hands what is deflated in r to fn, piece by piece. It is an error if
// that is not size bytes.
func (f *inflater) each(ctx context.Context, r io.Reader, size int64, fn func([]byte)) error {
	if err := f.reset(r); err != nil {
		return err
	}
	for got := int64(0); ; {
		n, err := f.zr.Read(f.buf)
		if got += int64(n); got > size || err == io.EOF && got < size {
			return fmt.Errorf("an object of %d bytes claims to have %d", got, size)
		}
		fn(f.buf[:n])
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// name returns the name of the object of size bytes that is deflated in r.
func (f *inflater) name(ctx context.Context, r io.Reader, typ plumbing.ObjectType, size int64) (oid, error) {
	f.beginName(typ, size)
	if err := f.each(ctx, r, size, func(p []byte) { f.hash.Write(p) }); err != nil {
		return oid{}, err
	}
	return f.endName()
}

// nameOf returns the name of the object of type typ that holds data.
func (f *inflater) nameOf(typ plumbing.ObjectType, data []byte) (oid, error) {
	f.beginName(typ, int64(len(data)))
	f.hash.Write(data)
	return f.endName()
}

func (f *inflater) beginName(typ plumbing.ObjectType, size int64) {
	f.hash.Reset()
	header := append(f.buf[:0], typ.String()...)
	header = strconv.AppendInt(append(header, ' '), size, 10)
	f.hash.Write(append(header, 0))
}

// endName refuses what was made to share its name with something else.
func (f *inflater) endName() (id oid, err error) {
	_, collides := f.hash.CollisionResistantSum(id[:0])
	if collides {
		return oid{}, fmt.Errorf("an object is part of an attack on SHA-1 (%s)", id)
	}
	return id, nil
}

// all returns what is deflated in r, which is size bytes, in the memory of dst
// if that suffices. They have been counted before: size is no mere claim.
func (f *inflater) all(r io.Reader, size int64, dst []byte) ([]byte, error) {
	f.r.Reset(r)
	if err := f.reset(f.r); err != nil {
		return nil, err
	}
	dst = sized(dst, int(size))
	if _, err := io.ReadFull(f.zr, dst); err != nil {
		return nil, noEOF(err)
	}
	var more [1]byte
	if n, err := f.zr.Read(more[:]); n > 0 || err != io.EOF {
		return nil, cmp.Or(noEOF(err), errors.New("it changed while it was read"))
	}
	return dst, nil
}

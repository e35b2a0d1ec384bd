// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// A pack is a packfile and its index, version 2 (gitformat-pack(5)).
type pack struct {
	idxName string
	f       *os.File
	idx     []byte // the mapped index
	n       int    // the number of objects
}

// The layout of an index: a header, the fan-out table of 256 counts, then n
// names, n checksums, n offsets, the offsets of 8 bytes, and two hashes.
const (
	idxFanout = 8
	idxNames  = idxFanout + 256*4
	idxEntry  = 20 + 4 + 4
	idxTail   = 2 * 20
)

func openPack(idxName string) (*pack, error) {
	f, err := os.Open(idxName)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := fi.Size()
	if size < idxNames+idxTail {
		return nil, fmt.Errorf("%s: too short for an index", idxName)
	}
	idx, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping %s: %w", idxName, err)
	}
	p := &pack{idxName: idxName, idx: idx}
	p.n = int(p.fan(255))
	if !bytes.HasPrefix(idx, []byte("\xfftOc\x00\x00\x00\x02")) || size < int64(idxNames+p.n*idxEntry+idxTail) {
		unix.Munmap(idx)
		return nil, fmt.Errorf("%s: not an index of version 2", idxName)
	}
	if p.f, err = os.Open(strings.TrimSuffix(idxName, ".idx") + ".pack"); err != nil {
		unix.Munmap(idx)
		return nil, err
	}
	return p, nil
}

func (p *pack) close() {
	unix.Munmap(p.idx)
	p.f.Close()
}

// fan returns the number of objects whose names begin with a byte up to b.
func (p *pack) fan(b int) uint32 { return binary.BigEndian.Uint32(p.idx[idxFanout+4*b:]) }

// name returns the name of the i-th object in the order of names.
func (p *pack) name(i int) []byte { return p.idx[idxNames+20*i:][:20] }

// find returns the offset of the object id in the packfile.
func (p *pack) find(id oid) (at int64, ok bool) {
	lo, hi := 0, min(int(p.fan(int(id[0]))), p.n)
	if id[0] > 0 {
		lo = int(p.fan(int(id[0]) - 1))
	}
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := bytes.Compare(p.name(mid), id[:]); {
		case c < 0:
			lo = mid + 1
		case c > 0:
			hi = mid
		default:
			return p.offset(mid)
		}
	}
	return 0, false
}

func (p *pack) offset(i int) (at int64, ok bool) {
	offsets := idxNames + p.n*24
	o := binary.BigEndian.Uint32(p.idx[offsets+4*i:])
	if o&(1<<31) == 0 {
		return int64(o), true
	}
	large := offsets + 4*p.n + 8*int(o&^(1<<31))
	if large+8 > len(p.idx)-idxTail {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(p.idx[large:])), true
}

// maxDeltaDepth is more than the longest chain that git makes (pack.depth is
// at most 4095).
const maxDeltaDepth = 4096

// readPacked reads the object at the offset at of p, with the deltas that it
// is made of. The caller holds mu.
func (s *store) readPacked(p *pack, at int64, depth int) (object, error) {
	key := cacheKey{pack: p, at: at}
	if o, ok := s.cache.get(key); ok {
		return o, nil
	}
	if depth > maxDeltaDepth {
		return object{}, errors.New("the chain of deltas does not end")
	}
	r := bufio.NewReaderSize(io.NewSectionReader(p.f, at, 1<<62), 4096)
	typ, size, err := readEntryHeader(r)
	if err != nil {
		return object{}, err
	}
	var base object
	switch typ {
	case plumbing.OFSDeltaObject:
		back, err := readBaseOffset(r)
		if err != nil {
			return object{}, err
		}
		if back <= 0 || back >= at {
			return object{}, errors.New("the base of a delta lies outside of the pack")
		}
		if base, err = s.readPacked(p, at-back, depth+1); err != nil {
			return object{}, err
		}
	case plumbing.REFDeltaObject:
		var id oid
		if _, err := io.ReadFull(r, id[:]); err != nil {
			return object{}, err
		}
		baseAt, ok := p.find(id)
		if !ok {
			return object{}, fmt.Errorf("the base %s of a delta is not in the pack", id)
		}
		if base, err = s.readPacked(p, baseAt, depth+1); err != nil {
			return object{}, err
		}
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		data, err := s.inflate(r, size)
		if err != nil {
			return object{}, err
		}
		o := object{typ, data}
		if depth > 0 {
			s.cache.put(key, o)
		}
		return o, nil
	default:
		return object{}, fmt.Errorf("an object of type %d", typ)
	}
	delta, err := s.inflate(r, size)
	if err != nil {
		return object{}, err
	}
	data, err := packfile.PatchDelta(base.data, delta)
	if err != nil {
		return object{}, err
	}
	o := object{base.typ, data}
	if depth > 0 {
		s.cache.put(key, o)
	}
	return o, nil
}

// readEntryHeader reads the type and the inflated size of an object in a
// pack: three bits and four, then seven bits a byte.
func readEntryHeader(r io.ByteReader) (plumbing.ObjectType, int64, error) {
	b, err := r.ReadByte()
	if err != nil {
		return 0, 0, err
	}
	typ, size := plumbing.ObjectType(b>>4&7), int64(b&15)
	for shift := 4; b&0x80 != 0; shift += 7 {
		if b, err = r.ReadByte(); err != nil {
			return 0, 0, err
		}
		if shift > 50 {
			return 0, 0, errors.New("the size of an object overflows")
		}
		size |= int64(b&0x7f) << shift
	}
	return typ, size, nil
}

// readBaseOffset reads how far before a delta its base lies.
func readBaseOffset(r io.ByteReader) (int64, error) {
	b, err := r.ReadByte()
	if err != nil {
		return 0, err
	}
	n := int64(b & 0x7f)
	for b&0x80 != 0 {
		if b, err = r.ReadByte(); err != nil {
			return 0, err
		}
		if n > 1<<54 {
			return 0, errors.New("the offset of a base overflows")
		}
		n = (n+1)<<7 | int64(b&0x7f)
	}
	return n, nil
}

// unpackLimit is the number of objects below which a received pack is
// unpacked into loose objects, as with git (transfer.unpackLimit), so that
// small fetches do not pile up as packs.
const unpackLimit = 100

// receive stores the objects of the pack that r holds, and leaves r after it.
// Until it returns nil none of them can be relied on. They are not durable
// before sync. progress may be nil.
func (s *store) receive(r io.Reader, progress func(done, total int)) error {
	dir := filepath.Join(s.dirs[0], "pack")
	f, err := os.CreateTemp(dir, "tmp_pack_*")
	if err != nil {
		return err
	}
	idxName := f.Name() + ".idx"
	packName := f.Name() + ".pack"
	// What was not renamed in the end goes.
	defer os.Remove(f.Name())
	defer os.Remove(idxName)
	defer os.Remove(packName)
	defer f.Close()

	if _, err := io.Copy(f, r); err != nil {
		return fmt.Errorf("receiving a pack: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	counter := &packCounter{progress: progress}
	parser, err := packfile.NewParser(packfile.NewScanner(f), counter)
	if err != nil {
		return err
	}
	sum, err := parser.Parse()
	if err != nil {
		return fmt.Errorf("the received pack is damaged: %w", err)
	}
	if counter.total == 0 {
		return nil
	}
	index, err := counter.Index()
	if err != nil {
		return err
	}
	var idx bytes.Buffer
	if _, err := idxfile.NewEncoder(&idx).Encode(index); err != nil {
		return err
	}
	if err := os.WriteFile(idxName, idx.Bytes(), 0o444); err != nil {
		return err
	}
	if counter.total < unpackLimit {
		if err := os.Rename(f.Name(), packName); err != nil {
			return err
		}
		return s.unpack(idxName)
	}
	// The pack comes first: an index is what makes git look for it. Both are
	// flushed under their temporary names, so that no crash leaves half a
	// file under a final one.
	final := filepath.Join(dir, "pack-"+sum.String())
	if err := errors.Join(f.Chmod(0o444), f.Sync(), syncFile(idxName)); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), final+".pack"); err != nil {
		return err
	}
	if err := os.Rename(idxName, final+".idx"); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// unpack writes the objects of a small pack as loose ones. The commits come
// last, so that after a crash in between no commit lacks its tree.
func (s *store) unpack(idxName string) error {
	p, err := openPack(idxName)
	if err != nil {
		return err
	}
	defer p.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.cache.drop(p)
	var commits []oid
	for i := range p.n {
		id := oid(p.name(i))
		o, err := s.unpacked(p, i)
		if err != nil {
			return err
		}
		if o.typ == plumbing.CommitObject {
			commits = append(commits, id)
			continue
		}
		if err := s.writeLoose(id, o); err != nil {
			return err
		}
	}
	for _, id := range commits {
		at, _ := p.find(id)
		o, err := s.readPacked(p, at, 0)
		if err != nil {
			return err
		}
		if err := s.writeLoose(id, o); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) unpacked(p *pack, i int) (object, error) {
	at, ok := p.offset(i)
	if !ok {
		return object{}, errors.New("the index of the received pack is damaged")
	}
	return s.readPacked(p, at, 0)
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// packCounter builds an index and reports how far it is.
type packCounter struct {
	idxfile.Writer
	progress    func(done, total int)
	done, total int
}

// OnHeader implements packfile.Observer. What the header of a pack claims
// does not decide how much memory is set aside.
func (c *packCounter) OnHeader(count uint32) error {
	c.total = int(count)
	return c.Writer.OnHeader(min(count, 1<<16))
}

// OnInflatedObjectContent implements packfile.Observer.
func (c *packCounter) OnInflatedObjectContent(id oid, pos int64, crc uint32, content []byte) error {
	c.done++
	if c.progress != nil && (c.done%256 == 0 || c.done == c.total) {
		c.progress(c.done, c.total)
	}
	return c.Writer.OnInflatedObjectContent(id, pos, crc, content)
}

// A packObject is an object to be sent. Base, if not zero, is an object that
// the receiver has and that is likely to be similar.
type packObject struct {
	id, base oid
}

// Deltas are tried where they pay: a directory of 100,000 files is a tree of
// some megabytes, of which a commit changes one entry.
const (
	deltaMin = 4 << 10
	deltaMax = 32 << 20
)

// writePack writes a pack with the objects. With thin, an object may be
// written as a difference to its base, which is then not in the pack
// (gitprotocol-pack(5), "thin-pack").
func (s *store) writePack(w io.Writer, objects []packObject, thin bool) error {
	h := sha1.New()
	out := io.MultiWriter(w, h)
	var header [12]byte
	copy(header[:], "PACK")
	binary.BigEndian.PutUint32(header[4:], 2)
	binary.BigEndian.PutUint32(header[8:], uint32(len(objects)))
	if _, err := out.Write(header[:]); err != nil {
		return err
	}
	zw := zlib.NewWriter(out)
	for _, p := range objects {
		o, err := s.get(p.id)
		if err != nil {
			return err
		}
		if thin && p.base != (oid{}) && len(o.data) >= deltaMin && len(o.data) <= deltaMax {
			base, err := s.get(p.base)
			if err == nil && base.typ == o.typ && len(base.data) <= deltaMax {
				if delta := packfile.DiffDelta(base.data, o.data); len(delta) < len(o.data)/2 {
					if err := writeEntry(out, zw, plumbing.REFDeltaObject, p.base[:], delta); err != nil {
						return err
					}
					continue
				}
			}
		}
		if err := writeEntry(out, zw, o.typ, nil, o.data); err != nil {
			return err
		}
	}
	_, err := w.Write(h.Sum(nil))
	return err
}

func writeEntry(w io.Writer, zw *zlib.Writer, typ plumbing.ObjectType, base, data []byte) error {
	var header []byte
	size := len(data)
	b := byte(typ)<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		header = append(header, b|0x80)
		b = byte(size & 0x7f)
	}
	header = append(append(header, b), base...)
	if _, err := w.Write(header); err != nil {
		return err
	}
	zw.Reset(w)
	if _, err := zw.Write(data); err != nil {
		return err
	}
	return zw.Close()
}

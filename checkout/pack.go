// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"
)

// A pack is a packfile and its index, version 2 (gitformat-pack(5)).
type pack struct {
	idxName string
	f       *os.File
	idx     []byte // the mapped index
	n       int    // the number of objects

	idxStat, stat fileStat // of both files when they were found sound
}

// The layout of an index: a header, the fan-out table of 256 counts, then n
// names, n checksums, n offsets, the offsets of 8 bytes, and two hashes.
const (
	idxFanout = 8
	idxNames  = idxFanout + 256*4
	idxEntry  = 20 + 4 + 4
	idxTail   = 2 * 20
)

// openPack opens a pack. With lenient, only as much of it has to be sound as is
// needed to look for objects in it.
func openPack(idxName string, lenient bool) (*pack, error) {
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
	if err := p.check(); err != nil && !lenient {
		p.close()
		return nil, err
	}
	return p, nil
}

// check looks whether the index is what was written, and the packfile has the
// beginning and the end of the one that it belongs to. What lies in between is
// checked object by object, when it is read. Files that have not changed since
// they were last found sound are not read.
func (p *pack) check() error {
	var st [2]unix.Stat_t
	if err := unix.Stat(p.idxName, &st[0]); err != nil {
		return named("stat", p.idxName, err)
	}
	if err := unix.Stat(p.f.Name(), &st[1]); err != nil {
		return named("stat", p.f.Name(), err)
	}
	idxStat, stat := statOf(&st[0]), statOf(&st[1])
	if idxStat == p.idxStat && stat == p.stat {
		return nil
	}
	if int(st[0].Size) < len(p.idx) {
		return fmt.Errorf("%s was cut off", p.idxName)
	}
	// gitformat-pack(5): the index ends in the checksum of the packfile and
	// its own, the packfile in the former.
	body, tail := p.idx[:len(p.idx)-idxTail/2], p.idx[len(p.idx)-idxTail:]
	if sum := sha1.Sum(body); !bytes.Equal(sum[:], tail[idxTail/2:]) {
		return fmt.Errorf("%s is damaged: wrong checksum", p.idxName)
	}
	var head, end [idxTail / 2]byte
	if _, err := p.f.ReadAt(head[:], 0); err != nil {
		return fmt.Errorf("%s is damaged: %w", p.f.Name(), err)
	}
	if _, err := p.f.ReadAt(end[:], st[1].Size-int64(len(end))); err != nil {
		return fmt.Errorf("%s is damaged: %w", p.f.Name(), err)
	}
	if string(head[:8]) != "PACK\x00\x00\x00\x02" || !bytes.Equal(end[:], tail[:len(end)]) {
		return fmt.Errorf("%s is damaged: it is not the pack of its index", p.f.Name())
	}
	p.idxStat, p.stat = idxStat, stat
	return nil
}

func (p *pack) close() {
	unix.Munmap(p.idx)
	p.f.Close()
}

// fan returns the number of objects whose names begin with a byte up to b.
func (p *pack) fan(b int) uint32 { return binary.BigEndian.Uint32(p.idx[idxFanout+4*b:]) }

// name returns the name of the i-th object in the order of names.
func (p *pack) name(i int) []byte { return p.idx[idxNames+20*i:][:20] }

// find returns the offset of the object id in the packfile. Of an index that
// somebody cut off while it is mapped it finds nothing; to read beyond the end
// of the file is a fault then (mmap(2), SIGBUS).
func (p *pack) find(id oid) (at int64, ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }:
			at, ok = 0, false
		default:
			panic(r)
		}
	}()
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

// maxDeltaDepth is the longest chain that git makes (pack.depth in
// git-config(1)).
const maxDeltaDepth = 4095

// readPacked reads the object at the offset at of p, with the deltas that it
// is made of. The caller holds mu.
func (s *store) readPacked(p *pack, at int64) (object, error) {
	// Down the chain of deltas, to an object that is whole or known.
	type link struct {
		at    int64
		delta []byte
	}
	var chain []link
	var o object
	for whole := false; !whole; {
		var known bool
		if o, known = s.cache.get(cacheKey{pack: p, at: at}); known {
			break
		}
		if len(chain) > maxDeltaDepth {
			return object{}, errors.New("the chain of deltas does not end")
		}
		s.r.Reset(io.NewSectionReader(p.f, at, 1<<62))
		typ, size, err := readEntryHeader(s.r)
		if err != nil {
			return object{}, err
		}
		base := at
		switch typ {
		case plumbing.OFSDeltaObject:
			back, err := readBaseOffset(s.r)
			if err != nil {
				return object{}, err
			}
			if base -= back; back <= 0 || base <= 0 {
				return object{}, errors.New("the base of a delta lies outside of the pack")
			}
		case plumbing.REFDeltaObject:
			var id oid
			if _, err := io.ReadFull(s.r, id[:]); err != nil {
				return object{}, err
			}
			var ok bool
			if base, ok = p.find(id); !ok {
				return object{}, fmt.Errorf("the base %s of a delta is not in the pack", id)
			}
		case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
			whole = true
		default:
			return object{}, fmt.Errorf("an object of type %d", typ)
		}
		data, err := s.inflate(s.r, size)
		if err != nil {
			return object{}, err
		}
		if whole {
			o = object{typ, data}
			if len(chain) > 0 {
				s.cache.put(cacheKey{pack: p, at: at}, o)
			}
			break
		}
		chain = append(chain, link{at, data})
		at = base
	}
	// And up again.
	for i := len(chain) - 1; i >= 0; i-- {
		data, err := applyDelta(nil, o.data, chain[i].delta)
		if err != nil {
			return object{}, err
		}
		o = object{o.typ, data}
		if i > 0 {
			s.cache.put(cacheKey{pack: p, at: chain[i].at}, o)
		}
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

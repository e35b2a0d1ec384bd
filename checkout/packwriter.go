// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/klauspost/compress/zlib"
)

// A packObject is an object to be sent. Base, if not zero, is an object that
// is likely to be similar; the receiver has it, or it is sent before.
type packObject struct {
	id, base oid
}

// Deltas are sent where they pay: a directory of 100,000 files is a tree of
// some megabytes, of which a commit changes one entry.
const (
	deltaMin = 4 << 10
	deltaMax = 32 << 20
)

// writePack writes a pack with the objects. With thin, an object may be
// written as a difference to its base, which is then not in the pack
// (gitprotocol-pack(5), "thin-pack").
func (s *store) writePack(w io.Writer, objects []packObject, thin bool) error {
	p, err := newPackWriter(w, len(objects), zlib.DefaultCompression)
	if err != nil {
		return err
	}
	for _, ob := range objects {
		o, err := s.get(ob.id)
		if err != nil {
			return err
		}
		var delta []byte
		if thin && len(o.data) >= deltaMin {
			delta = s.delta(ob.base, o)
		}
		if delta != nil {
			err = p.add(plumbing.REFDeltaObject, ob.base[:], delta)
		} else {
			err = p.add(o.typ, nil, o.data)
		}
		if err != nil {
			return err
		}
	}
	_, err = p.end()
	return err
}

// delta returns the object o as a difference to the object base; nil if that
// does not pay, or if base is the zero oid or cannot be read.
func (s *store) delta(base oid, o object) []byte {
	if base == (oid{}) || len(o.data) > deltaMax {
		return nil
	}
	b, err := s.get(base)
	if err != nil || b.typ != o.typ || len(b.data) > deltaMax {
		return nil
	}
	if d := packfile.DiffDelta(b.data, o.data); len(d) < len(o.data)/2 {
		return d
	}
	return nil
}

// A packWriter writes a pack, object by object.
type packWriter struct {
	w   io.Writer
	zw  *zlib.Writer
	sum hash.Hash
	at  int64  // how much was written
	crc uint32 // of the object in hand
}

func newPackWriter(w io.Writer, n int, level int) (*packWriter, error) {
	p := &packWriter{w: w, sum: sha1.New()}
	var err error
	if p.zw, err = zlib.NewWriterLevel(p, level); err != nil {
		return nil, err
	}
	_, err = p.Write(binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(n)))
	return p, err
}

// Write writes a part of the pack.
func (p *packWriter) Write(b []byte) (int, error) {
	p.sum.Write(b)
	p.crc = crc32.Update(p.crc, crc32.IEEETable, b)
	p.at += int64(len(b))
	return p.w.Write(b)
}

// begin writes what comes before an object of size bytes; the base is the name
// of that of a delta.
func (p *packWriter) begin(typ plumbing.ObjectType, size int64, base []byte) error {
	var header []byte
	b := byte(typ)<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		header = append(header, b|0x80)
		b = byte(size & 0x7f)
	}
	p.crc = 0
	_, err := p.Write(append(append(header, b), base...))
	return err
}

// copy writes an object as it stands in another pack.
func (p *packWriter) copy(e packedEntry) error {
	var base []byte
	if e.typ == plumbing.REFDeltaObject {
		base = e.base[:]
	}
	if err := p.begin(e.typ, e.size, base); err != nil {
		return err
	}
	_, err := io.Copy(p, e.data)
	return err
}

// add writes an object, or a delta with the name of its base.
func (p *packWriter) add(typ plumbing.ObjectType, base, data []byte) error {
	if err := p.begin(typ, int64(len(data)), base); err != nil {
		return err
	}
	p.zw.Reset(p)
	if _, err := p.zw.Write(data); err != nil {
		return err
	}
	return p.zw.Close()
}

// end writes the checksum of the pack, which is its name, too.
func (p *packWriter) end() (sum oid, err error) {
	sum = oid(p.sum.Sum(nil))
	_, err = p.w.Write(sum[:])
	return sum, err
}

// packLimit is the number of objects from which on a commit is stored as a
// pack: creating that many files costs more than writing one.
const packLimit = 32

// A batch gathers the objects of a commit, to be stored together.
type batch struct {
	s       *store
	objects map[oid]object
	order   []oid
}

func (b *batch) add(typ plumbing.ObjectType, data []byte) oid {
	id := plumbing.ComputeHash(typ, data)
	if _, ok := b.objects[id]; !ok {
		b.objects[id] = object{typ, data}
		b.order = append(b.order, id)
	}
	return id
}

// store stores the objects, but for those that are there already and can be
// read. It is not enough that there is one of that name: after a power loss it
// may be cut off, and a writer that trusts in its name would never mend it. The
// objects are not durable before sync.
func (b *batch) store() error {
	if done, err := b.storeLoose(); done || err != nil {
		return err
	}
	pack, err := b.s.createPack()
	if err != nil {
		return err
	}
	defer pack.discard()
	out := bufio.NewWriter(pack.f)
	p, err := newPackWriter(out, len(b.order), zlib.BestSpeed)
	if err != nil {
		return err
	}
	var index []packIndexEntry
	for _, id := range b.order {
		at := p.at
		if err := p.add(b.objects[id].typ, nil, b.objects[id].data); err != nil {
			return err
		}
		index = append(index, packIndexEntry{id, p.crc, at})
	}
	sum, err := p.end()
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = pack.writeIndex(index, sum)
	}
	if err == nil {
		err = b.s.install(pack, sum)
	}
	if err != nil {
		return err
	}
	// They are about to be read: the trees to compare the index with them, the
	// files to be checked out, all of them to be pushed.
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	for _, id := range b.order {
		b.s.cache.put(cacheKey{id: id}, b.objects[id])
	}
	return nil
}

// storeLoose stores the objects as loose ones, if they are few.
func (b *batch) storeLoose() (done bool, err error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.order = slices.DeleteFunc(b.order, b.s.packed)
	if len(b.order) >= packLimit {
		return false, nil
	}
	for _, id := range b.order {
		if err := b.s.writeLoose(id, b.objects[id]); err != nil {
			return false, fmt.Errorf("writing object %s: %w", id, err)
		}
	}
	return true, nil
}

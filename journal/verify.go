// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"maps"
	"slices"
	"time"
)

// Report is what [Verify] found.
type Report struct {
	Journal  string // identity, see [Inventory.Journal]
	Segments int
	Bytes    int64 // in segments
	Records  int
	First    uint64 // number of the first record, 0 where there is none
	Last     uint64 // number of the last one
	Head     string // hash of the last one, which vouches for all before it
	Expired  uint64 // number of the last record that was removed for its age or for the journal's size

	Oldest, Newest time.Time // of the first and the last record

	Damage []Damage // in the order of the journal
	// Tail is a last append that is not complete, nil where there is none. A
	// daemon may be writing it at this moment; otherwise a crash tore it, and
	// the next Open cuts it off.
	Tail *Damage

	Inventory *Inventory // that follows from the records
}

// Verify reads the whole journal in dir and checks each hash, the chain, and
// that each checkpoint is what follows from the records before it. It takes no
// lock. Damage is not an error, but part of the report. Where see is not nil,
// it is called with each record on the way.
func Verify(dir string, see func(Record)) (Report, error) {
	r := Report{Inventory: newInventory()}
	known := true // the inventory follows from all records
	var s scanner
	s = scanner{dir: dir, yield: func(rec Record, err error) bool {
		var d *Damage
		if errors.As(err, &d) {
			r.Damage = append(r.Damage, *d)
			known = false
			return true
		}
		if r.First == 0 {
			r.First, r.Oldest = rec.Seq, rec.Time
			known = rec.Seq == 1
		}
		r.Records++
		r.Last, r.Head, r.Newest = rec.Seq, rec.Hash, rec.Time
		if see != nil {
			see(rec)
		}
		c := rec.Checkpoint
		if c == nil {
			r.Inventory.apply(rec)
			return true
		}
		before := r.Inventory.view()
		r.Inventory.apply(rec)
		if r.Inventory.complete(c) {
			if known && !before.equal(r.Inventory) {
				r.Damage = append(r.Damage, Damage{Segment: s.segment, Offset: s.behind, Seq: rec.Seq,
					What: "the checkpoint is not what follows from the records before it"})
			}
			known = true
		}
		return true
	}}
	if err := s.scan(); err != nil {
		return Report{}, err
	}
	r.Journal, r.Expired = r.Inventory.Journal(), r.Inventory.Expired()
	r.Segments, r.Bytes, r.Tail = s.count, s.bytes+s.off, s.tail
	if s.tail != nil {
		r.Bytes += s.tail.Bytes
	}
	if r.First > r.Expired+1 && (len(r.Damage) == 0 || r.Damage[0].Seq > 1) {
		r.Damage = slices.Insert(r.Damage, 0, Damage{Segment: segmentName(r.First), Seq: r.Expired + 1, Last: r.First - 1,
			What: "the journal begins with a later record, and none says that those before it were removed"})
	}
	return r, nil
}

// view returns what the inventory holds now, for comparing. Loading a
// checkpoint leaves it alone, any other record changes it.
func (inv *Inventory) view() *Inventory {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return &Inventory{repositories: inv.repositories, fabrics: inv.fabrics, journal: inv.journal, expired: inv.expired}
}

func (inv *Inventory) equal(other *Inventory) bool {
	return inv.journal == other.journal && inv.expired == other.expired &&
		maps.Equal(inv.repositories, other.repositories) &&
		maps.EqualFunc(inv.fabrics, other.fabrics, func(a, b *fabric) bool {
			return a.tree == b.tree && a.applied == b.applied && slices.Equal(a.order, b.order) && maps.Equal(a.archived, b.archived) &&
				maps.EqualFunc(a.objects, b.objects, func(x, y *object) bool { return *x == *y })
		})
}

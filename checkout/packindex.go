// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"slices"
)

// An packIndexEntry is what the index of a pack says of an object.
type packIndexEntry struct {
	id  oid
	crc uint32 // of the entry in the pack
	at  int64  // where it lies
}

// compare orders entries as an index has them.
func (e packIndexEntry) compare(f packIndexEntry) int {
	return cmp.Or(bytes.Compare(e.id[:], f.id[:]), cmp.Compare(e.at, f.at))
}

// writeIndex writes the index of the pack with the checksum sum. It sorts the
// entries.
func (p *newPack) writeIndex(entries []packIndexEntry, sum oid) (err error) {
	f, err := os.OpenFile(p.idxName(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o444)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	slices.SortFunc(entries, packIndexEntry.compare)
	return encodeIndex(f, entries, sum)
}

// encodeIndex writes an index of sorted entries: see idxFanout.
func encodeIndex(f io.Writer, entries []packIndexEntry, sum oid) error {
	h := sha1.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, h), 32<<10)
	u32 := func(v uint32) { w.Write(binary.BigEndian.AppendUint32(w.AvailableBuffer(), v)) }
	w.WriteString("\xfftOc\x00\x00\x00\x02")
	n := 0
	for b := range 256 {
		for n < len(entries) && int(entries[n].id[0]) == b {
			n++
		}
		u32(uint32(n))
	}
	for i := range entries {
		w.Write(entries[i].id[:])
	}
	for i := range entries {
		u32(entries[i].crc)
	}
	// Offsets that need more than 31 bits follow in a table of their own.
	var large []int64
	for i := range entries {
		if at := entries[i].at; at <= math.MaxInt32 {
			u32(uint32(at))
		} else {
			u32(1<<31 | uint32(len(large)))
			large = append(large, at)
		}
	}
	for _, at := range large {
		u32(uint32(at >> 32))
		u32(uint32(at))
	}
	w.Write(sum[:])
	if err := w.Flush(); err != nil { // of all that was written
		return err
	}
	_, err := f.Write(h.Sum(nil))
	return err
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A delta (gitformat-pack(5), "Deltified representation") is the size of its
// base, that of its result, and instructions to copy a part of the base, or to
// insert what follows.

// minDelta is the length of the shortest delta that git takes.
const minDelta = 4

var errDelta = errors.New("a damaged delta")

// splitDelta returns what a delta begins with, and its instructions.
func splitDelta(delta []byte) (base, size int64, ops []byte, err error) {
	b, n := binary.Uvarint(delta)
	if n <= 0 || len(delta) < minDelta {
		return 0, 0, nil, errDelta
	}
	s, m := binary.Uvarint(delta[n:])
	if m <= 0 || b > maxObject || s > maxObject {
		return 0, 0, nil, errDelta
	}
	return int64(b), int64(s), delta[n+m:], nil
}

// nextOp returns what the first of the instructions appends to the result, and
// the others.
func nextOp(base, ops []byte) (part, rest []byte, err error) {
	op := ops[0]
	ops = ops[1:]
	if op&0x80 == 0 {
		if op == 0 || int(op) > len(ops) {
			return nil, nil, errDelta
		}
		return ops[:op], ops[op:], nil
	}
	// Of four bytes for the offset and three for the size, those are there
	// whose bits are set.
	var v uint64
	for bit := range 7 {
		if op&(1<<bit) == 0 {
			continue
		}
		if len(ops) == 0 {
			return nil, nil, errDelta
		}
		v |= uint64(ops[0]) << (8 * bit)
		ops = ops[1:]
	}
	from, n := v&0xffffffff, v>>32
	if n == 0 {
		n = 0x10000
	}
	if from+n > uint64(len(base)) {
		return nil, nil, errDelta
	}
	return base[from : from+n], ops, nil
}

// applyDelta returns what delta makes of base, in the memory of dst if that
// suffices. Memory is taken once the instructions have been found to make as
// much as the delta says.
func applyDelta(dst, base, delta []byte) ([]byte, error) {
	from, size, ops, err := splitDelta(delta)
	if err != nil {
		return nil, err
	}
	if from != int64(len(base)) {
		return nil, fmt.Errorf("a delta of %d bytes has a base of %d", from, len(base))
	}
	sum := int64(0)
	for rest := ops; len(rest) > 0; {
		var part []byte
		if part, rest, err = nextOp(base, rest); err != nil {
			return nil, err
		}
		sum += int64(len(part))
	}
	if sum != size {
		return nil, fmt.Errorf("a delta makes %d bytes and claims to make %d", sum, size)
	}
	dst = sized(dst, int(size))[:0]
	for len(ops) > 0 {
		var part []byte
		part, ops, _ = nextOp(base, ops)
		dst = append(dst, part...)
	}
	return dst, nil
}

// sized returns n bytes, in the memory of b if that suffices.
func sized(b []byte, n int) []byte {
	if cap(b) >= n {
		return b[:n]
	}
	return make([]byte, n)
}

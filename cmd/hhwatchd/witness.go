// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/hhwatchd/hhwatchd/checkout"
)

// A witness is what a commit says of the journal at the time when it was made:
// that its newest record, by number, had this hash. As a record's hash vouches
// for all records before it, a journal that was cut off or rewritten since does
// not agree with the commits that the remote has.
type witness struct {
	journal string // the beginning of the journal's identity: several hosts may commit to one branch
	seq     uint64
	hash    string
}

// witnessID is how many digits of a journal's identity a witness names.
const witnessID = 16

// witness describes the journal as it is on disk now; its seq is 0 while the
// journal is empty.
func (b *book) witness() witness {
	seq, hash := b.j.Head()
	id := b.inventory().Journal()
	return witness{id[:min(len(id), witnessID)], seq, hash}
}

func (w witness) String() string { return fmt.Sprintf("%s %d %s", w.journal, w.seq, w.hash) }

var witnessSyntax = regexp.MustCompile(`^([0-9a-f]{16}) ([1-9][0-9]{0,18}) ([0-9a-f]{64})$`)

// witnessOf reads what a commit says of a journal. Whoever can push can write
// such a line, so nothing but verify believes it, and that only reports.
func witnessOf(c checkout.Commit) (witness, bool) {
	m := witnessSyntax.FindStringSubmatch(first(c.Trailer(trailerJournal)))
	if m == nil {
		return witness{}, false
	}
	seq, err := strconv.ParseUint(m[2], 10, 64)
	return witness{m[1], seq, m[3]}, err == nil
}

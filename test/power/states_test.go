// SPDX-License-Identifier: Apache-2.0

package power

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

// A state is one in which a power loss may leave the host, with what the remote
// was at, at the time.
type state struct {
	n    int // operations done
	head string
	loss Loss
	try  int // of a Scattered loss
	tree Tree
	key  stateKey
}

// A stateKey tells states apart: what is there, and what has to be.
type stateKey struct {
	sum  [sha256.Size]byte
	head string
	must int // the number of words that cannot be lost any more
}

func (s state) String() string {
	return fmt.Sprintf("after operation %d, remote at %.7s, lost: %s (try %d)", s.n, s.head, s.loss, s.try)
}

// scattered is how many losses by chance are tried at each prefix.
const scattered = 4

// states returns all states that differ, in the order of the recording, and
// how many there were before those alike were left out. Flushes that ignore
// says yes to, by their number, are taken not to have happened.
func (rec *recording) states(words []word, seed uint64, ignore func(n int) bool) (out []state, all int, err error) {
	d, err := NewDisk(rec.begin)
	if err != nil {
		return nil, 0, err
	}
	seen := map[stateKey]bool{}
	for n := 0; ; n++ {
		rng := rand.New(rand.NewPCG(seed, uint64(n)))
		for _, loss := range []Loss{Unsynced, Nothing, Content, Zeros, Names, Scattered} {
			tries := 1
			if loss == Scattered {
				tries = scattered
			}
			for try := range tries {
				tree := d.After(loss, rng)
				sum := tree.Sum()
				for _, head := range rec.heads(n) {
					s := state{n: n, head: head, loss: loss, try: try, tree: tree, key: stateKey{sum: sum, head: head}}
					for _, x := range words {
						if rec.kept(x, s) {
							s.key.must++
						}
					}
					if all++; !seen[s.key] {
						seen[s.key] = true
						out = append(out, s)
					}
				}
			}
		}
		if n == len(rec.ops) {
			return out, all, nil
		}
		if op := rec.ops[n]; ignore != nil && (op.Kind == Sync || op.Kind == SyncAll) && ignore(n) {
			d.done++
		} else if err := d.Do(op); err != nil {
			return nil, 0, err
		}
	}
}

// choose returns n of the states by chance, and before them all in which
// everything was lost that could be, if that is asked for.
func choose(states []state, n int, unsynced bool, seed uint64) []state {
	out := slices.Clone(states)
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	if unsynced {
		slices.SortStableFunc(out, func(a, b state) int {
			return cmp.Compare(order(a), order(b))
		})
		for n < len(out) && order(out[n]) == 0 {
			n++
		}
	}
	return out[:min(n, len(out))]
}

func order(s state) int {
	if s.loss == Unsynced {
		return 0
	}
	return 1
}

// kept reports whether the word x cannot be lost any more in the state s.
func (rec *recording) kept(x word, s state) bool {
	if x.head == "" {
		return s.n >= x.after
	}
	for _, seen := range rec.remotes { // the branch only ever moved forward
		if seen.head == x.head {
			return true
		}
		if seen.head == s.head {
			return false
		}
	}
	return false
}

// retired returns the number of operations after which the raw file name,
// that was dropped by the first upTo operations, had left raw/.
func (rec *recording) retired(file string, upTo int) (int, error) {
	for n := upTo; n < len(rec.ops); n++ {
		if op := rec.ops[n]; op.Path == rawDir+file && (op.Kind == Rename || op.Kind == Unlink) {
			return n + 1, nil
		}
	}
	return 0, errors.New(file + " never left raw/")
}

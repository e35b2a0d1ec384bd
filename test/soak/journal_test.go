// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/hhwatchd/hhwatchd/journal"
)

// told is what a host's journal has told so far.
type told struct {
	seq       uint64
	ingests   map[string]int            // by commit, path and blob
	refused   map[string]int            // rejected drops, and such that brought nothing new, by blob
	ingested  map[string]map[string]int // drops, by blob and commit
	commits   map[string]int            // made, by id
	pulled    map[string]int            // pulled, by id
	replanned int
}

// checkJournal wants a host's journal to be whole, to tell of everything that
// came in there and of each of its commits once, and to agree with managed/.
func (w *world) checkJournal(h *host, tree map[string]string) {
	b := w.found.books[h]
	if b == nil {
		b = &told{ingests: map[string]int{}, refused: map[string]int{}, ingested: map[string]map[string]int{}, commits: map[string]int{}, pulled: map[string]int{}}
		w.found.books[h] = b
	}
	for r, err := range journal.Read(h.journal(), b.seq+1) {
		if err != nil {
			w.violate(&w.found.other, nil, "the journal of %s: %v", h.name, err)
			continue
		}
		b.seq = r.Seq
		w.hear(h, b, r)
	}
	if _, err := h.hhwatchd("journal", "verify"); err != nil {
		w.violate(&w.found.other, nil, "on %s: %v", h.name, err)
	}

	// Each of our commits, and what each commit ingested.
	for _, c := range w.found.order {
		if c.step == "" {
			continue
		}
		// One that a crash came after, before the journal knew of it, can have
		// been found on the remote.
		if n := b.commits[c.id]; c.email == h.email() && (n > 1 || n+b.pulled[c.id] == 0) {
			w.violate(w.times(n), []string{c.id[:12]}, "the journal of %s tells %d times of its commit %s (%s %q)", h.name, n, c.id, c.step, c.files)
		}
		if c.step != "ingest" {
			continue
		}
		for _, ch := range c.changes {
			if !isRaw(ch.path) || ch.new != noBlob {
				continue
			}
			if n := b.ingests[c.id+ch.path+ch.old]; n != 1 {
				w.violate(w.times(n), []string{ch.old[:12]}, "the journal of %s tells %d times that commit %s of %s ingested %q (%s)", h.name, n, c.id, c.email, ch.path, ch.old)
			}
		}
	}

	// Each drop.
	for blob, ds := range w.byBlob {
		if ds[0].host != h {
			continue // its host's journal tells of it as a drop
		}
		owed, all := 0, 0
		for _, d := range ds {
			all++
			if !d.doubtful {
				owed++
			}
		}
		n := b.refused[blob]
		for id, times := range b.ingested[blob] {
			if w.found.commits[id] != nil {
				n += times
			}
		}
		if n < owed || n > all {
			w.violate(w.times(n), []string{blob[:12], fmt.Sprintf("%q", ds[0].path)}, "the journal of %s tells %d times of what was dropped %d times there (%d of them to be sure): %s", h.name, n, all, owed, ds[0])
		}
	}

	inv, err := journal.ReadInventory(h.journal())
	if err != nil {
		w.violate(&w.found.other, nil, "the journal of %s: %v", h.name, err)
		return
	}
	for _, f := range fabrics {
		have := map[string]string{}
		for _, e := range inv.Objects(f) {
			if e.Desired.Blob != "" {
				have[e.Desired.Path] = e.Desired.Blob
			}
		}
		for path, blob := range tree {
			if strings.HasPrefix(path, fabricPath(f)+"/managed/") && strings.HasSuffix(path, ".yaml") {
				if have[path] != blob {
					w.violate(&w.found.other, nil, "the inventory of %s has %s as %q, managed/ as %q", h.name, path, have[path], blob)
				}
				delete(have, path)
			}
		}
		for path := range have {
			w.violate(&w.found.other, nil, "the inventory of %s has %s, managed/ has not", h.name, path)
		}
	}
}

func (w *world) times(n int) *int {
	if n > 1 {
		return &w.found.duplicated
	}
	return &w.found.lost
}

func (w *world) hear(h *host, b *told, r journal.Record) {
	if text, _ := json.Marshal(r); strings.Contains(string(text), marker) {
		w.violate(&w.found.other, nil, "the journal of %s tells a secret: %s", h.name, text)
	}
	switch r.Step {
	case journal.StepIngest, journal.StepReject:
		if r.File == nil {
			break
		}
		b.ingests[r.To+r.File.Path+r.File.Blob]++
		if r.File.Origin == journal.Dropped {
			if r.File.Outcome == journal.Ingested {
				if b.ingested[r.File.Blob] == nil {
					b.ingested[r.File.Blob] = map[string]int{}
				}
				b.ingested[r.File.Blob][r.To]++
			} else {
				b.refused[r.File.Blob]++
			}
		}
	case journal.StepReplan:
		b.replanned++
		fallthrough
	case journal.StepCommit:
		for _, id := range r.Commits {
			b.commits[id]++
		}
	case journal.StepPull:
		for _, id := range r.Commits {
			b.pulled[id]++
		}
	case journal.StepApply:
		for _, o := range r.Objects {
			w.applied(h, r, o)
		}
	}
}

// applied wants the versions of an object to be applied in the order of
// history: none after a later one.
func (w *world) applied(h *host, r journal.Record, o journal.Object) {
	if o.Outcome != journal.Created && o.Outcome != journal.Configured && o.Outcome != journal.Unchanged {
		return
	}
	key := h.name + o.Path
	at, versions := w.found.pos[key], w.found.versions[o.Path]
	if i := slices.Index(versions[at:], o.Blob); i >= 0 {
		w.found.pos[key] = at + i
		return
	}
	w.violate(&w.found.other, []string{" " + o.Name + " ", o.Path}, "record %d of %s: %s was applied as %s, after a later version or without having been on the remote", r.Seq, h.name, o.Path, o.Blob)
}

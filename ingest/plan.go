// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
)

// Outcome is what a document does to its managed file.
type Outcome string

const (
	Created   Outcome = "created"   // there was no managed file
	Updated   Outcome = "updated"   // its text changes
	Unchanged Outcome = "unchanged" // it has that very text, or is to be absent and was
	Removed   Outcome = "removed"   // it is to be absent, and was there
)

// Step is what one file of a batch does, or with [Policy.Partial] one of its
// two parts.
type Step struct {
	Verdict

	// Input is the index of the file in the batch.
	Input int

	// Part is the text that the step is about, where that is not all of the
	// file: its good documents, or what is left without them. Each line of the
	// file is in one of the two.
	Part []byte

	// Outcomes has one outcome for each object, against the managed files as
	// the files before this one, and the documents before that one, left them.
	Outcomes []Outcome

	// Warnings are about objects of an accepted file that may not fit the
	// others of the fabric, or that its cluster refuses.
	Warnings []Problem

	refused []Problem // what of the objects only is to be warned of; while a Plan is made
}

// Plan is what a batch of raw files comes to.
type Plan struct {
	// Files are in the order of the batch. Of a file in two parts the one that
	// is taken in comes first.
	Files []Step

	// Writes are the managed files to write: path below the fabric's
	// directory to content; nil, to remove it. It is the net result of the
	// batch, an object that was changed and changed back is not in it.
	Writes map[string][]byte
}

// A state is what is managed at a path.
type state struct {
	before, now     []byte
	existed, exists bool
	said            int // in which round
}

// A hearing reads the files of a batch, in rounds of several at once.
type hearing struct {
	policy  Policy
	managed func(path string) ([]byte, bool, error)
	relate  bool // relations are asked for

	mu     sync.Mutex // while files are read
	states map[string]*state
	failed map[string]error // of managed, by path
	round  int
}

func (h *hearing) stateOf(path string) *state {
	s := h.states[path]
	if s == nil {
		data, exists, err := h.managed(path)
		if err != nil {
			h.failed[path] = fmt.Errorf("reading %s: %w", path, err)
		}
		s = &state{before: data, now: data, existed: exists, exists: exists}
		h.states[path] = s
	}
	return s
}

// read reads files on top of what is managed now.
func (h *hearing) read(files []File) []*openFile {
	return h.policy.read(files, func(path string) []byte {
		h.mu.Lock()
		defer h.mu.Unlock()
		if s := h.stateOf(path); s.exists {
			return s.now
		}
		return nil
	}, func(o *Object) {
		if h.relate && !o.Absent {
			o.relations = relationsOf(o.Group, o.Kind, o.Value)
		}
		o.Value = nil // it is several times as large as the text
	})
}

// hear reads files at once, and takes over what they say, one after the other.
// One that was held against what another of them changed is read again.
func (h *hearing) hear(files []File) ([]Step, error) {
	h.round++
	steps := make([]Step, len(files))
	for i, f := range h.read(files) {
		for _, path := range f.looked {
			if err := h.failed[path]; err != nil {
				return nil, err
			}
			if h.states[path].said == h.round {
				f = h.read(files[i : i+1])[0]
				break
			}
		}
		step := Step{Verdict: Verdict{File: files[i].Path, Objects: f.objects, Problems: f.problems.inOrder()}, Input: i, refused: f.problems.warnings}
		if len(step.Problems) > 0 {
			step.Objects = h.policy.spared(step.Verdict)
		}
		for _, o := range step.Objects {
			s := h.stateOf(o.Path)
			if err := h.failed[o.Path]; err != nil {
				return nil, err
			}
			s.now, s.exists, s.said = o.Text, !o.Absent, h.round
		}
		steps[i] = step
	}
	return steps, nil
}

// Plan reads files in the order in which they arrived and says what they come
// to: the last word on an object wins. It asks managed at most once for each
// path (see [Object]) for the managed file that is there; an error of that is
// returned, with the path. The same files and managed files give the same
// plan, on however many CPUs it is made; managed is called by one goroutine at a
// time. The texts of the plan may be parts of the files'.
//
// The objects are held against each other and against those of the fabric,
// which has to know of the managed files as managed returns them, and is left
// as it was. Without a fabric they are not.
func (p Policy) Plan(files []File, managed func(path string) (data []byte, exists bool, err error), fabric *Fabric) (Plan, error) {
	h := &hearing{policy: p, managed: managed, relate: fabric != nil, states: make(map[string]*state), failed: make(map[string]error)}
	plan := Plan{Files: make([]Step, 0, len(files)), Writes: make(map[string][]byte)}
	for start, end := 0, 0; start < len(files); start = end {
		for size := 0; end < len(files) && (end == start || size+len(files[end].Data) <= atOnce); end++ {
			size += len(files[end].Data)
		}
		steps, err := h.hear(files[start:end])
		if err != nil {
			return Plan{}, err
		}
		for _, s := range steps {
			s.Input += start
			plan.Files = append(plan.Files, s)
		}
	}
	states := h.states
	if fabric != nil && p.References != IgnoreReferences {
		p.cross(files, plan.Files, func(path string) []byte { return states[path].before }, fabric)
	}

	for i := range plan.Files {
		plan.Files[i].warn()
	}
	plan.Files = divide(files, plan.Files)

	// What the files that are left come to.
	for _, s := range states {
		s.now, s.exists = s.before, s.existed
	}
	for i := range plan.Files {
		step := &plan.Files[i]
		for _, o := range step.Objects {
			s := states[o.Path]
			outcome := Updated
			switch {
			case o.Absent && s.exists:
				outcome = Removed
			case o.Absent:
				outcome = Unchanged
			case !s.exists:
				outcome = Created
			case bytes.Equal(s.now, o.Text):
				outcome = Unchanged
			}
			step.Outcomes = append(step.Outcomes, outcome)
			s.now, s.exists = o.Text, !o.Absent
		}
	}
	for path, s := range states {
		// (What was only looked at, for a file that was rejected, is as it was.)
		switch {
		case s.exists && (!s.existed || !bytes.Equal(s.before, s.now)):
			plan.Writes[path] = s.now
		case !s.exists && s.existed:
			plan.Writes[path] = nil
		}
	}
	return plan, nil
}

// warn makes warnings of what the cluster refuses and is taken in nevertheless.
func (s *Step) warn() {
	if len(s.refused) == 0 {
		return
	}
	for _, p := range s.refused {
		if slices.ContainsFunc(s.Objects, func(o Object) bool { return o.Document == p.Document }) {
			s.Warnings = append(s.Warnings, p)
		}
	}
	s.refused = nil
	slices.SortFunc(s.Warnings, byPlace)
}

// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"fmt"
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
	// others of the fabric.
	Warnings []Problem
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

// Plan reads files in the order in which they arrived and says what they come
// to: the last word on an object wins. It asks managed at most once for each
// path (see [Object]) for the managed file that is there; an error of that is
// returned, with the path. The same files and managed files give the same
// plan.
//
// The objects are held against each other and against those of the fabric,
// which has to know of the managed files as managed returns them, and is left
// as it was. Without a fabric they are not.
func (p Policy) Plan(files []File, managed func(path string) (data []byte, exists bool, err error), fabric *Fabric) (Plan, error) {
	type state struct {
		before, now     []byte
		existed, exists bool
	}
	states := make(map[string]*state)
	var failed error
	stateOf := func(path string) *state {
		s := states[path]
		if s == nil {
			data, exists, err := managed(path)
			if err != nil && failed == nil {
				failed = fmt.Errorf("reading %s: %w", path, err)
			}
			s = &state{before: data, now: data, existed: exists, exists: exists}
			states[path] = s
		}
		return s
	}
	plan := Plan{Files: make([]Step, 0, len(files)), Writes: make(map[string][]byte)}
	for i, f := range files {
		ps := &problems{file: f.Path}
		objects := p.read(f, func(path string) []byte {
			if s := stateOf(path); s.exists {
				return s.now
			}
			return nil
		}, ps, func(o *Object) {
			if fabric != nil && !o.Absent {
				o.relations = relationsOf(o.Group, o.Kind, o.Value)
			}
			o.Value = nil // it is several times as large as the text
		})
		step := Step{Verdict: Verdict{File: f.Path, Objects: objects, Problems: ps.inOrder()}, Input: i}
		if len(step.Problems) > 0 {
			step.Objects = p.spared(step.Verdict)
		}
		for _, o := range step.Objects {
			s := stateOf(o.Path)
			s.now, s.exists = o.Text, !o.Absent
		}
		if failed != nil {
			return Plan{}, failed
		}
		plan.Files = append(plan.Files, step)
	}
	if fabric != nil && p.References != IgnoreReferences {
		p.cross(files, plan.Files, func(path string) []byte { return states[path].before }, fabric)
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

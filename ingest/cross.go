// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
)

// References says what becomes of a file with an object that does not fit the
// others of its fabric.
type References string

const (
	RefuseReferences References = "error"   // it is rejected, for what the fabric's own admission would refuse; "" is the same
	WarnOfReferences References = "warning" // it is taken in, with a warning
	IgnoreReferences References = "off"     // it is not looked at
)

// A word is the last that a batch says of one managed path.
type word struct {
	path         string
	file, object int        // the object of that file
	relations    *relations // nil: that there is to be no such object
	lost         []string   // the subnets that it had before, and has no more
}

// A judgement holds the objects of a batch against each other and the fabric.
type judgement struct {
	policy Policy
	files  []File
	steps  []Step
	before func(path string) []byte // the managed file, nil where there is none
	fabric *Fabric

	relations []([]*relations)         // of each object of each file
	had       map[string]map[flaw]bool // by path: what was wrong before the batch
	documents map[int]map[int]document // by file and number
	words     []word                   // in the order of files and objects
	wordOf    map[string]*word         // by path
}

// A portion is what is rejected as one: a file, or with [Policy.Partial] a
// document of it.
type portion struct{ file, document int }

func (j *judgement) portion(w *word) portion {
	if !j.policy.Partial {
		return portion{file: w.file}
	}
	return portion{w.file, j.steps[w.file].Objects[w.object].Document}
}

// cross holds the objects of a batch against each other and the fabric, and
// rejects the files whose objects do not fit. The batch is judged as a whole,
// as if all of its files were there at once: a file may refer to what comes
// with another one, before or after it. A file that refers to what a rejected
// one would have brought is rejected in turn, until nothing changes. Of two
// files that want the same port, subnet or VLAN the later one is rejected.
//
// Only what changes is judged, and only for flaws that it did not have before.
func (p Policy) cross(files []File, steps []Step, before func(path string) []byte, fabric *Fabric) {
	j := &judgement{policy: p, files: files, steps: steps, before: before, fabric: fabric,
		relations: make([][]*relations, len(steps)), had: make(map[string]map[flaw]bool), documents: make(map[int]map[int]document)}
	for i, step := range steps {
		j.relations[i] = make([]*relations, len(step.Objects))
		for k, o := range step.Objects {
			j.relations[i][k] = o.relations
		}
	}
	for j.round() {
	}
}

// round judges what the files say that are not rejected yet, rejects those that
// do not fit, and reports whether there were any. Where there are none, what is
// left to say becomes warnings.
func (j *judgement) round() (again bool) {
	j.listen()
	undo := j.speak()
	var flawed []*word
	for i := range j.words {
		w := &j.words[i]
		if len(j.all(w, func(string) bool { return true })) > 0 {
			flawed = append(flawed, w)
		}
	}
	undo()
	if len(flawed) == 0 {
		return false
	}
	for _, w := range flawed {
		j.lookBack(w)
	}
	undo = j.speak()
	defer undo()

	// First what is wrong whoever else is rejected. Only then it is certain
	// who wants the same as another.
	gone := make(map[portion]bool)
	for _, w := range flawed {
		if !gone[j.portion(w)] && j.refused(w, func(string) bool { return false }) {
			gone[j.portion(w)] = true
		}
	}
	if len(gone) == 0 {
		for _, w := range flawed {
			if !gone[j.portion(w)] && j.refused(w, j.rivals(w, gone)) {
				gone[j.portion(w)] = true
			}
		}
	}
	problems := make(map[int]*problems)
	for _, w := range flawed {
		if len(gone) > 0 && !gone[j.portion(w)] {
			continue
		}
		for _, fl := range j.flaws(w, j.rivals(w, gone)) {
			if len(gone) == 0 || j.refuses(fl) {
				j.report(w, fl, problems)
			}
		}
	}
	for i, ps := range problems {
		if len(gone) == 0 {
			j.steps[i].Warnings = ps.inOrder()
			continue
		}
		j.reject(i, ps.inOrder())
	}
	return len(gone) > 0
}

// reject takes back what a file says, or with [Policy.Partial] those documents
// of it that the problems are about.
func (j *judgement) reject(file int, problems []Problem) {
	step := &j.steps[file]
	step.Problems = append(step.Problems, problems...)
	kept := j.policy.spared(step.Verdict)
	relations := j.relations[file][:0]
	for i, k := 0, 0; i < len(step.Objects) && k < len(kept); i++ {
		if step.Objects[i].Document == kept[k].Document {
			relations, k = append(relations, j.relations[file][i]), k+1
		}
	}
	step.Objects, j.relations[file] = kept, relations
}

// listen finds the last word on each path, in the files that are not rejected,
// where that changes what is managed.
func (j *judgement) listen() {
	last := make(map[string]word)
	for i, step := range j.steps {
		for k, o := range step.Objects {
			last[o.Path] = word{path: o.Path, file: i, object: k, relations: j.relations[i][k]}
		}
	}
	maps.DeleteFunc(last, func(path string, w word) bool {
		was, o := j.before(path), j.steps[w.file].Objects[w.object]
		return (was == nil) == o.Absent && bytes.Equal(was, o.Text)
	})
	j.words = slices.SortedFunc(maps.Values(last), func(a, b word) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.object, b.object))
	})
	j.wordOf = make(map[string]*word, len(j.words))
	for i := range j.words {
		w := &j.words[i]
		j.wordOf[w.path] = w
		if was := j.fabric.objects[w.path]; was != nil && w.relations != nil {
			for _, subnet := range was.subnets {
				if !slices.Contains(w.relations.subnets, subnet) {
					w.lost = append(w.lost, subnet)
				}
			}
		}
	}
}

// speak makes of the fabric what it would be with the words, and returns what
// undoes that.
func (j *judgement) speak() (undo func()) {
	undos := make([]func(), len(j.words))
	for i, w := range j.words {
		if w.relations == nil {
			undos[i] = j.fabric.replace(w.path, nil, false)
		} else {
			undos[i] = j.fabric.replace(w.path, j.fabric.holdingOfNew(w.path, w.relations), true)
		}
	}
	return func() {
		for _, u := range undos {
			u()
		}
	}
}

// lookBack finds what was wrong with an object before the batch. The fabric is
// as it was then.
func (j *judgement) lookBack(w *word) {
	if j.had[w.path] != nil {
		return
	}
	had := make(map[flaw]bool)
	if was := j.before(w.path); was != nil {
		if value, err := readKubernetes(was); err == nil {
			o := j.steps[w.file].Objects[w.object]
			object, _ := value.(map[string]any)
			for _, fl := range j.fabric.flaws(w.path, relationsOf(o.Group, o.Kind, object), func(string) bool { return true }) {
				had[fl] = true
			}
		}
	}
	j.had[w.path] = had
}

// all returns what is wrong with a word. Who refers to what it takes away counts
// where the batch says nothing of it: else that is what is wrong with the other.
func (j *judgement) all(w *word, counts func(string) bool) []flaw {
	flaws := j.fabric.bereft(w.path, w.relations == nil, w.lost, func(other string) bool { return j.wordOf[other] == nil })
	if w.relations != nil {
		flaws = append(flaws, j.fabric.flaws(w.path, w.relations, counts)...)
	}
	return flaws
}

// flaws returns what is wrong with a word that was not wrong before.
func (j *judgement) flaws(w *word, counts func(string) bool) []flaw {
	return slices.DeleteFunc(j.all(w, counts), func(fl flaw) bool { return j.had[w.path][fl] })
}

func (j *judgement) refuses(fl flaw) bool {
	return !fl.warning && j.policy.References != WarnOfReferences
}

// refused reports whether the file of a word is to be rejected for it.
func (j *judgement) refused(w *word, counts func(string) bool) bool {
	return slices.ContainsFunc(j.flaws(w, counts), j.refuses)
}

// rivals says which others count that want the same as a word: those that were
// there before the batch, or came earlier in it, and are not rejected.
func (j *judgement) rivals(w *word, gone map[portion]bool) func(string) bool {
	return func(path string) bool {
		other := j.wordOf[path]
		if other == nil || j.portion(other) == j.portion(w) {
			return true
		}
		earlier := cmp.Or(cmp.Compare(other.file, w.file), cmp.Compare(other.object, w.object)) < 0
		return earlier && !gone[j.portion(other)]
	}
}

// report adds a flaw to the problems of its file, at its place.
func (j *judgement) report(w *word, fl flaw, found map[int]*problems) {
	f, o := j.files[w.file], j.steps[w.file].Objects[w.object]
	ps := found[w.file]
	if ps == nil {
		ps = &problems{file: f.Path}
		found[w.file] = ps
	}
	if ps.more {
		return
	}
	if j.documents[w.file] == nil {
		j.documents[w.file] = make(map[int]document)
		for _, doc := range documents(f.Data, &problems{}) {
			j.documents[w.file][doc.number] = doc
		}
	}
	r := &reader{doc: j.documents[w.file][o.Document], problems: ps}
	p := Problem{Code: fl.code, Message: fl.message, Hint: fl.hint}
	root, _ := parseNodes(r.doc.body) // it was read before
	value, _ := readKubernetes(r.doc.body)
	r.report(locate(root, value, fl.at).node(), p)
}

// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"slices"
)

// spared returns the objects of a file with problems that may be taken in
// nevertheless: with [Policy.Partial] those of documents without one, unless
// something is wrong with the file as a whole.
func (p Policy) spared(v Verdict) []Object {
	if !p.Partial {
		return nil
	}
	bad := make(map[int]bool)
	for _, problem := range v.Problems {
		if problem.Document == 0 {
			return nil
		}
		bad[problem.Document] = true
	}
	var good []Object
	for _, o := range v.Objects {
		if !bad[o.Document] {
			good = append(good, o)
		}
	}
	return good
}

// divide makes two steps of each that has objects as well as problems: of the
// documents with objects, which is taken in, and of all else, which is not. The
// lines that problems and objects are at are then those of the part.
func divide(files []File, steps []Step) []Step {
	if !slices.ContainsFunc(steps, func(s Step) bool { return len(s.Objects) > 0 && len(s.Problems) > 0 }) {
		return steps
	}
	var all []Step
	for _, s := range steps {
		if len(s.Objects) == 0 || len(s.Problems) == 0 {
			all = append(all, s)
			continue
		}
		taken := make(map[int]bool, len(s.Objects))
		for _, o := range s.Objects {
			taken[o.Document] = true
		}
		in, left := cutOut(files[s.Input].Data, func(document int) bool { return taken[document] })
		one := Step{Verdict: Verdict{File: s.File, Objects: s.Objects}, Input: s.Input, Part: in.text, Warnings: s.Warnings}
		for i := range one.Objects {
			o := &one.Objects[i]
			o.Document, o.Line = in.place(o.Document, o.Line)
		}
		for i := range one.Warnings {
			p := &one.Warnings[i]
			p.Document, p.Line = in.place(p.Document, p.Line)
		}
		two := Step{Verdict: Verdict{File: s.File, Problems: s.Problems, Taken: len(taken)}, Input: s.Input, Part: left.text}
		for i := range two.Problems {
			p := &two.Problems[i]
			p.Document, p.Line = left.place(p.Document, p.Line)
		}
		slices.SortFunc(two.Problems, byPlace)
		all = append(all, one, two)
	}
	return all
}

// ReadTaken reads, like [Policy.ReadAccepted], those documents of a file that
// were taken in although the others, which rest holds, were not. Documents and
// lines are those of the file.
func (p Policy) ReadTaken(f File, rest []byte) Verdict {
	if len(rest) == 0 {
		return p.ReadAccepted(f)
	}
	left := count(rest)
	taken := make(map[int]bool)
	for _, u := range units(f.Data) {
		taken[u.document] = !left.take(u)
	}
	in, _ := cutOut(f.Data, func(document int) bool { return taken[document] })
	v := p.ReadAccepted(File{Path: f.Path, Data: in.text})
	number := make(map[int]int)
	for of, is := range in.documents {
		number[is] = of
	}
	for i := range v.Objects {
		o := &v.Objects[i]
		o.Document = number[o.Document]
		o.Line += in.shift[o.Document]
	}
	return v
}

// A part is some of a file's documents.
type part struct {
	text      []byte
	documents map[int]int // number in the file to number in the part
	shift     map[int]int // of a document's lines, by its number in the file
	lines     int
}

func (p *part) place(document, line int) (int, int) {
	if line > 0 {
		line -= p.shift[document]
	}
	return p.documents[document], line
}

// cutOut puts each line of a file into one of two parts, in order: a document
// goes with the comments that go to it, and with the separator before those.
func cutOut(data []byte, first func(document int) bool) (in, out part) {
	in, out = part{documents: make(map[int]int), shift: make(map[int]int)}, part{documents: make(map[int]int), shift: make(map[int]int)}
	for _, u := range units(data) {
		to := &out
		if first(u.document) {
			to = &in
		}
		to.documents[u.document] = len(to.documents) + 1
		to.shift[u.document] = u.line - 1 - to.lines
		to.lines += bytes.Count(u.text, []byte("\n"))
		to.text = append(to.text, u.text...)
	}
	return in, out
}

// A unit is the lines of a file that belong to one document.
type unit struct {
	document int // its number
	line     int // of the first line, from 1
	text     []byte
}

// units cuts a file into its documents, without leaving anything out.
func units(data []byte) []unit {
	var all []unit
	docs := documents(data, &problems{})
	start, startLine, line := 0, 1, 0
	for pos, next := 0, 0; pos < len(data) && len(all) < len(docs); pos = next {
		next = len(data)
		if n := bytes.IndexByte(data[pos:], '\n'); n >= 0 {
			next = pos + n + 1
		}
		line++
		// A separator behind the document's first line ends it. (One before
		// that is of comments which go to the document.)
		doc := docs[len(all)]
		if bytes.HasPrefix(data[pos:], []byte("---")) && line > doc.line && doc.number < len(docs) {
			all = append(all, unit{doc.number, startLine, data[start:pos]})
			start, startLine = pos, line
		}
	}
	if len(all) < len(docs) {
		all = append(all, unit{docs[len(all)].number, startLine, data[start:]})
	}
	return all
}

// tally counts documents by their text.
type tally map[string]int

func count(texts ...[]byte) tally {
	t := make(tally)
	for _, text := range texts {
		for _, u := range units(text) {
			t[string(u.text)]++
		}
	}
	return t
}

// take takes a document out of the tally, and reports whether it was there.
func (t tally) take(u unit) bool {
	if t[string(u.text)] == 0 {
		return false
	}
	t[string(u.text)]--
	return true
}

// Rest returns what is left of a file without those of its documents that
// parts hold, which were taken in of it before; nothing, where that is all.
func Rest(data []byte, parts ...[]byte) []byte {
	taken := count(parts...)
	var rest []byte
	for _, u := range units(data) {
		if !taken.take(u) {
			rest = append(rest, u.text...)
		}
	}
	return rest
}

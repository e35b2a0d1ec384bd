// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Problem is one reason to reject a file.
type Problem struct {
	File     string // the path that was given to Read
	Document int    // which of the file's documents, from 1; 0: the file as a whole
	Line     int    // from 1, in the file; 0: no one line
	Column   int    // from 1, in characters; 0: not known
	Code     string // stable, like HH203; see Explain
	Message  string // what is wrong, in one line
	Hint     string // what to do, in one line
}

// String returns the problem in one line: where, what, and what to do.
func (p Problem) String() string {
	where := p.where()
	if where != "" {
		where += ": "
	}
	return fmt.Sprintf("%s: %s%s %s: %s", printable(p.File), where, p.Code, p.Message, p.Hint)
}

func (p Problem) where() string {
	var parts []string
	if p.Document > 0 {
		parts = append(parts, "document "+strconv.Itoa(p.Document))
	}
	if p.Line > 0 {
		parts = append(parts, "line "+strconv.Itoa(p.Line))
	}
	if p.Column > 0 {
		parts = append(parts, "column "+strconv.Itoa(p.Column))
	}
	return strings.Join(parts, ", ")
}

// maxProblems bounds how many problems of one file are listed, and with that
// the size of its reason file.
const maxProblems = 1000

// problems collects what is wrong with one file.
type problems struct {
	file string
	list []Problem
	more bool // there are more than are listed

	warnings []Problem // what is wrong with objects that may be taken in
}

func (ps *problems) add(p Problem) {
	if len(ps.list) == maxProblems {
		ps.more = true
		return
	}
	p.File = ps.file
	if p.Hint == "" {
		p.Hint = table[p.Code].remedy
	}
	ps.list = append(ps.list, p)
}

// inOrder returns the problems as they stand in the file.
func (ps *problems) inOrder() []Problem {
	slices.SortFunc(ps.list, byPlace)
	if ps.more {
		ps.list = append(ps.list, Problem{File: ps.file, Code: tooManyProblems,
			Message: fmt.Sprintf("the file has more problems than the %d that are listed", maxProblems),
			Hint:    table[tooManyProblems].remedy})
	}
	return ps.list
}

// byPlace orders problems as they stand in a file. Those of one place have an
// order of their own: the API server's code finds them in that of a Go map.
func byPlace(a, b Problem) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message))
}

// Reason returns the text that explains a rejected file to the person who
// wrote it: every problem with its place, its code and what to do. The same
// verdict gives the same bytes; they name no time and no host. It is empty for
// a verdict without problems.
func Reason(v Verdict) []byte {
	if len(v.Problems) == 0 {
		return nil
	}
	var b bytes.Buffer
	count := "1 problem"
	if n := len(v.Problems); n > 1 {
		count = strconv.Itoa(n) + " problems"
	}
	if v.Taken == 0 {
		fmt.Fprintf(&b, "%s was not taken in: %s.\n", printable(v.File), count)
		b.WriteString("Nothing of the file was used. Correct it and put it into raw/ again.\n")
	} else {
		taken := "1 other document was"
		if v.Taken > 1 {
			taken = strconv.Itoa(v.Taken) + " other documents were"
		}
		fmt.Fprintf(&b, "%s was not taken in: what is left of it here, for %s.\n", printable(v.File), count)
		fmt.Fprintf(&b, "%s taken in, and cut out of this file. Correct what is left and put it into raw/ again.\n", taken)
	}
	for _, p := range v.Problems {
		where := p.where()
		if where == "" {
			where = "the file"
		}
		fmt.Fprintf(&b, "\n%s\n  %s: %s\n  what to do: %s\n", where, p.Code, p.Message, p.Hint)
	}
	fmt.Fprintf(&b, "\n\"hhwatchd explain %s\" says more about a code.\n", v.Problems[0].Code)
	return b.Bytes()
}

// ParseReason returns the problems that a text made by [Reason] lists. Of what
// is no such text it returns what looks like problems.
func ParseReason(text []byte) []Problem {
	lines := strings.Split(string(text), "\n")
	file, _, _ := strings.Cut(lines[0], " was not taken in: ")
	if unquoted, err := strconv.Unquote(file); err == nil {
		file = unquoted
	}
	var list []Problem
	for i := 1; i+1 < len(lines); i++ {
		code, message, ok := strings.Cut(strings.TrimPrefix(lines[i], "  "), ": ")
		hint, hinted := strings.CutPrefix(lines[i+1], "  what to do: ")
		if !ok || !hinted || !strings.HasPrefix(code, "HH") {
			continue
		}
		p := Problem{File: file, Code: code, Message: message, Hint: hint}
		for part := range strings.SplitSeq(lines[i-1], ", ") {
			what, number, _ := strings.Cut(part, " ")
			n, err := strconv.Atoi(number)
			if err != nil {
				continue
			}
			switch what {
			case "document":
				p.Document = n
			case "line":
				p.Line = n
			case "column":
				p.Column = n
			}
		}
		list = append(list, p)
	}
	return list
}

// clip quotes text from a file for a message: in one line, printable, and not
// longer than is good for one.
func clip(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) > most {
		return strconv.Quote(string([]rune(s)[:most])) + "…"
	}
	return strconv.Quote(s)
}

// tame returns what somebody else says for a message: printable, in one line,
// and not longer than is good for one.
func tame(s string) string {
	const most = 2000
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if utf8.RuneCountInString(s) > most {
		return string([]rune(s)[:most]) + "…"
	}
	return s
}

// printable returns a path as it is, or quoted when it would upset a terminal
// or a line.
func printable(path string) string {
	for _, r := range path {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return strconv.Quote(path)
		}
	}
	return path
}

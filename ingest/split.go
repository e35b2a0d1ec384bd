// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"fmt"
	"math"
	"unicode/utf8"
)

// Limits bound what is read. They keep memory and time in proportion to the
// largest file, whatever it holds.
type Limits struct {
	File      int64 // bytes of a raw file
	Documents int   // of a file
	Depth     int   // of nested lists and mappings in a document; at most [MaxDepth]
	Expanded  int   // bytes of a document with its aliases expanded; at most [MaxDocument]
}

// DefaultLimits are those of a [Policy] that has none of its own.
var DefaultLimits = Limits{File: 16 << 20, Documents: 50_000, Depth: 100, Expanded: MaxDocument}

// widest are those for what was accepted before, perhaps with wider ones.
var widest = Limits{File: math.MaxInt64, Documents: math.MaxInt, Depth: MaxDepth, Expanded: MaxDocument}

const (
	// MaxDocument bounds the text of one document in bytes, and what its
	// aliases expand to. etcd takes no larger object (its option
	// --max-request-bytes), and the parsers need several hundred bytes of
	// memory for one byte of the worst text.
	MaxDocument = 3 << 19

	// MaxDepth bounds the depth that [Limits] may allow: the parsers and all
	// that walks values call themselves.
	MaxDepth = 1000
)

// A document is one document of a file, cut out as kubectl would cut it.
type document struct {
	number int // among the file's documents that hold an object, from 1
	line   int // of the body's first line in the file, from 1
	end    int // of the body's last line

	// body is the document from its first line that is neither blank nor a
	// comment to its end, with LF line ends, without separators and markers.
	body []byte

	// lead and trail are comment lines that stood before the body and after
	// its end, each without indentation and with its line feed: also those
	// of documents that have nothing but comments, and those on separators.
	lead, trail [][]byte

	unreadable bool // a problem was found that makes parsing pointless
}

// split cuts a file into documents at the lines where kubectl cuts it
// (k8s.io/apimachinery/pkg/util/yaml.YAMLReader): those that begin with "---".
// It reports what kubectl would refuse, and what it would drop. The data has
// LF line ends and ends with one.
func split(data []byte, ps *problems) []document {
	var docs []document
	var cur document // the document that is being read; it has no body yet while cur.line is 0
	bodyStart, bodyEnd := 0, 0
	ended := false   // a "..." was seen
	dropped := false // something behind it was reported

	// finish ends the document. Comments without an object go to the next
	// document that has one.
	finish := func() {
		if cur.line > 0 {
			cur.number = len(docs) + 1
			cur.body = data[bodyStart:bodyEnd]
			if !bytes.ContainsAny(cur.body, "|>") {
				// Only in a block scalar can blank lines at the end be part
				// of a value. Without one they need not be read.
				cur.body = trimBlankLines(cur.body)
			}
			docs = append(docs, cur)
			cur = document{}
		}
		ended, dropped = false, false
	}

	for pos, line := 0, 1; pos < len(data); line++ {
		start := pos
		pos += bytes.IndexByte(data[pos:], '\n') + 1
		text := data[start : pos-1]

		switch {
		case bytes.HasPrefix(text, []byte("---")):
			finish()
			if comment, ok := afterMarker(text); !ok {
				ps.add(Problem{Document: len(docs) + 1, Line: line, Column: 4, Code: badSeparator,
					Message: "something follows the document separator"})
			} else if comment != nil {
				cur.lead = append(cur.lead, comment)
			}

		case bytes.HasPrefix(text, []byte("...")) && (len(text) == 3 || text[3] == ' ' || text[3] == '\t'):
			ended = true
			comment, ok := afterMarker(text)
			switch {
			case dropped:
			case cur.line == 0:
				// To YAML that is an error, except behind a "---".
				dropped = true
				ps.add(Problem{Document: len(docs) + 1, Line: line, Column: 1, Code: afterEnd,
					Message: "there is no document that the \"...\" ends",
					Hint:    "delete the line"})
			case comment != nil:
				cur.trail = append(cur.trail, comment)
			case !ok:
				dropped = true
				ps.add(Problem{Document: len(docs) + 1, Line: line, Column: 4, Code: afterEnd,
					Message: "something follows the \"...\" that ends the document"})
			}

		case ended:
			if comment := asComment(text); comment != nil {
				cur.trail = append(cur.trail, comment)
			} else if !isBlank(text) && !dropped {
				dropped = true
				ps.add(Problem{Document: len(docs) + 1, Line: line, Code: afterEnd,
					Message: "this follows the \"...\" that ends the document"})
			}

		case cur.line == 0:
			if comment := asComment(text); comment != nil {
				cur.lead = append(cur.lead, comment)
			} else if !isBlank(text) {
				cur.line, cur.end = line, line
				bodyStart, bodyEnd = start, pos
			}

		default:
			cur.end, bodyEnd = line, pos
		}
	}
	finish()
	if len(docs) > 0 {
		last := &docs[len(docs)-1]
		last.trail = append(last.trail, cur.lead...)
	}
	return docs
}

// afterMarker looks at what follows the three characters of "---" or "...": it
// returns the comment there, if there is one, and whether nothing else is there.
func afterMarker(text []byte) (comment []byte, ok bool) {
	rest := bytes.TrimRight(text[3:], " \t")
	trimmed := bytes.TrimLeft(rest, " \t")
	if len(trimmed) == 0 {
		return nil, true
	}
	if trimmed[0] != '#' || len(trimmed) == len(rest) {
		return nil, false
	}
	return withLF(trimmed), true
}

// asComment returns a line that holds only a comment, without its indentation
// and with a line feed, or nil. Only spaces indent: YAML has no place for a
// tab there.
func asComment(text []byte) []byte {
	trimmed := bytes.TrimLeft(text, " ")
	if len(trimmed) == 0 || trimmed[0] != '#' {
		return nil
	}
	return withLF(trimmed)
}

func withLF(text []byte) []byte {
	return append(bytes.Clone(text), '\n')
}

// isBlank reports whether a line has only spaces. One with tabs is not blank:
// YAML parsers may refuse it.
func isBlank(text []byte) bool {
	return len(bytes.TrimLeft(text, " ")) == 0
}

// trimBlankLines cuts the blank lines off the end of a text, which ends with a
// line feed and does so after.
func trimBlankLines(text []byte) []byte {
	for {
		body := text[:len(text)-1]
		start := bytes.LastIndexByte(body, '\n') + 1
		if start == 0 || !isBlank(body[start:]) {
			return text
		}
		text = text[:start]
	}
}

// Bytes that may begin a character of badCharacter: a quick look at them spares
// most files the slow one.
var suspect = func() (t [256]bool) {
	for b := range 0x20 {
		t[b] = b != '\t' && b != '\n'
	}
	t[0x7f], t[0xc2], t[0xe2], t[0xef] = true, true, true, true
	return t
}()

// hasSuspects reports whether a text may hold characters that
// [badCharacters] reports.
func hasSuspects(text []byte) bool {
	for _, b := range text {
		if suspect[b] {
			return true
		}
	}
	return false
}

// badCharacters reports the characters of a file that YAML does not allow
// (production c-printable of YAML 1.2, section 5.1) or that readers take
// differently. Documents that hold one are marked as unreadable.
func badCharacters(data []byte, docs []document, ps *problems) {
	next := 0 // the first document that does not end before the line
	line, column := 1, 1
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		data = data[size:]
		what, hint := "", "delete it"
		switch {
		case r == '\n':
			line, column = line+1, 1
			continue
		case r == '\r':
			what, hint = "a carriage return without a line feed", "end lines with a line feed, with or without a carriage return before it"
		case r == 0xfeff:
			what = "a byte order mark inside of the file"
		case r == 0x85 || r == 0x2028 || r == 0x2029:
			what, hint = fmt.Sprintf("the line separator U+%04X", r), fmt.Sprintf("delete it, or write it as \\u%04x in double quotes", r)
		case r < 0x20 && r != '\t' || r >= 0x7f && r < 0xa0 || r == 0xfffe || r == 0xffff:
			what, hint = fmt.Sprintf("the control character U+%04X", r), fmt.Sprintf("delete it, or write it as \\u%04x in double quotes", r)
		}
		if what != "" {
			for next < len(docs) && docs[next].end < line {
				next++
			}
			p := Problem{Line: line, Column: column, Code: badCharacter, Message: what, Hint: hint}
			if next < len(docs) && docs[next].line <= line {
				docs[next].unreadable = true
				p.Document = docs[next].number
			}
			ps.add(p)
		}
		column++
	}
}

// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// complaint is what is known about a message of the YAML parsers, both of
// which descend from libyaml.
type complaint struct {
	// parser: the message comes from the parser rather than the scanner, and
	// the line in it counts from 0.
	parser bool
	// opened: the place to show is where the construct began, not where the
	// parser gave up, which may be many lines below.
	opened bool
	hint   string
}

var complaints = map[string]complaint{
	"did not find expected key":                              {parser: true, hint: "check the indentation and the quotes of this line against the lines above"},
	"did not find expected '-' indicator":                    {parser: true, hint: "begin the line with '- ' like the other items of the list, or indent it less"},
	"did not find expected node content":                     {parser: true},
	"did not find expected <document start>":                 {parser: true},
	"did not find expected ',' or ']'":                       {parser: true, opened: true, hint: "close the list that begins here with ']'"},
	"did not find expected ',' or '}'":                       {parser: true, opened: true, hint: "close the mapping that begins here with '}'"},
	"found undefined tag handle":                             {parser: true, hint: "delete the tag"},
	"found unexpected end of stream":                         {opened: true, hint: "close the quote that begins here"},
	"found unexpected document indicator":                    {opened: true, hint: "close the quote that begins here"},
	"could not find expected ':'":                            {opened: true, hint: "write a colon and a space behind the key, or put the text into quotes"},
	"mapping values are not allowed in this context":         {hint: "put a value that holds ': ' into quotes, or check the indentation of this line"},
	"block sequence entries are not allowed in this context": {hint: "begin the list on a line of its own"},
	"found character that cannot start any token":            {hint: "put a value that begins with @, ` or % into quotes"},
	"found a tab character that violates indentation":        {},
	"found unknown escape character":                         {hint: "write a backslash in double quotes as two, or use single quotes"},
	"found invalid Unicode character escape code":            {hint: "write the character itself instead of a pair of \\u escapes"},
	"did not find expected alphabetic or numeric character":  {hint: "put a value that begins with & or * into quotes"},
}

// syntax reports that a document cannot be parsed, with the best place that
// can be had: the two parsers name different ones, neither of them a column.
func (r *reader) syntax(err error) {
	if more, ok := errors.AsType[*moreError](err); ok {
		r.reportHere(Problem{Line: r.doc.line + more.line - 1, Code: afterEnd,
			Message: "this follows the end of the document"})
		return
	}

	// Both parsers leave out the line, or take that of another place, when it
	// is the first: so there is one more.
	body := append([]byte{'\n'}, r.doc.body...)
	_, err = parseNodes(body)
	if err == nil {
		r.report(nil, Problem{Code: badSyntax, Message: "the YAML parser gave up"})
		return
	}
	message, line := parserMessage(err)
	known := complaints[message]
	if !known.opened && !bytes.ContainsRune(body, '*') {
		// The parser of Kubernetes names the better line. It cannot be told
		// to only parse, so this is not for documents with aliases, which it
		// would expand.
		if _, err := readKubernetes(body); err != nil {
			if m, l := parserMessage(err); m == message {
				line = l
			}
		}
	}
	p := Problem{Code: badSyntax, Message: message, Hint: known.hint, Line: r.doc.line}
	if strings.HasPrefix(message, "unknown anchor") {
		p.Hint = "write the anchor (&name) before its alias (*name), or put text that begins with * into quotes"
	}
	if line > 1 {
		p.Line += line - 2
	}
	if column := tabInIndent(body, line); column > 0 {
		p.Code, p.Column, p.Hint = tabIndent, column, ""
		p.Message = "a tab is used as indentation"
	}
	r.reportHere(p)
}

// parserMessage takes an error of a parser ("yaml: line 3: text") apart. The
// line counts from 1; it is 0 where the parser names none, as it does for the
// first.
func parserMessage(err error) (message string, line int) {
	message = strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		if number, text, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				message, line = text, n
			}
		}
	}
	if line > 0 && complaints[message].parser {
		line++
	}
	return message, line
}

// tabInIndent returns the column of a tab in the indentation of a line, or 0.
// The line counts from 1.
func tabInIndent(body []byte, line int) int {
	for text := range bytes.Lines(body) {
		if line--; line > 0 {
			continue
		}
		if indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]; len(indent) > 0 {
			return bytes.IndexByte(indent, '\t') + 1
		}
		return 0
	}
	return 0
}

// unreadable reports why Kubernetes cannot read a document that is YAML 1.2.
// The errors of its parser hold values of the document, which may be secret:
// they are not repeated.
func (r *reader) unreadable(err error) {
	message, line := parserMessage(err)
	p := Problem{Line: r.doc.line}
	if line > 0 {
		p.Line += line - 1
	}
	switch {
	case strings.HasPrefix(message, "cannot decode "), strings.HasPrefix(message, "!!binary "):
		p.Code, p.Message = badTag, "a tag does not fit its value"
	case strings.Contains(message, "excessive aliasing"), strings.Contains(message, "contains itself"):
		p.Code, p.Message = badAlias, "the document's aliases expand too far"
	default:
		p.Code, p.Message = badSyntax, "the parser of Kubernetes cannot read the document"
		if known, ok := complaints[message]; ok {
			p.Message += ": " + message
			p.Hint = known.hint
		}
	}
	r.reportHere(p)
}

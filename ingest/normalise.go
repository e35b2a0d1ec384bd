// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"reflect"
	"slices"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// normalise returns the managed text of a document: its body, with the comments
// that stood around it inside, and no blank lines at the end. Where anything
// but the place of blank lines and comments outside of the body changed, the
// text is read again; it reports whether it still has the same values. The text
// may be a part of the file.
func normalise(doc document, root *yaml.Node, value map[string]any) ([]byte, bool) {
	text := arrange(trimBlankLines(doc.body), doc, root)
	if bytes.Equal(text, doc.body) || sameText(text, value) {
		return text, true
	}
	// Blank lines at the end of a block scalar that keeps them (|+) are part
	// of the value.
	text = arrange(doc.body, doc, root)
	return text, bytes.Equal(text, doc.body) || sameText(text, value)
}

// arrange puts the comments around a document's body into it. Where there are
// none, that is the body.
func arrange(body []byte, doc document, root *yaml.Node) []byte {
	if len(doc.lead)+len(doc.trail) == 0 {
		return slices.Clip(body)
	}
	size := len(body)
	for _, line := range doc.lead {
		size += len(line)
	}
	for _, line := range doc.trail {
		size += len(line)
	}
	text := make([]byte, 0, size)
	if n := firstEntry(body, root); n > 0 {
		text = append(text, body[:n]...)
		body = body[n:]
		for _, line := range doc.lead {
			text = append(text, line...)
		}
		doc.lead = nil
	}
	text = append(text, body...)
	for _, line := range doc.lead {
		text = append(text, line...)
	}
	for _, line := range doc.trail {
		text = append(text, line...)
	}
	return text
}

// firstEntry returns the length of the body's first line, with its line feed,
// when that line is a whole entry of the top mapping, a key and a scalar: then
// comments may follow it. Otherwise it returns 0.
func firstEntry(body []byte, root *yaml.Node) int {
	if root.Kind != yaml.MappingNode || root.Style&yaml.FlowStyle != 0 || len(root.Content) == 0 {
		return 0
	}
	value := root.Content[1]
	if value.Kind != yaml.ScalarNode || value.Line != 1 || value.Value == "" {
		return 0
	}
	var token string
	switch value.Style {
	case 0:
		token = value.Value
	case yaml.DoubleQuotedStyle:
		token = `"` + value.Value + `"`
	case yaml.SingleQuotedStyle:
		token = `'` + value.Value + `'`
	default:
		return 0
	}
	// The value is complete on this line when its text stands there as it was
	// read, and only a comment follows.
	end := bytes.IndexByte(body, '\n') + 1
	rest := body[:end]
	for range value.Column - 1 {
		_, size := utf8.DecodeRune(rest)
		rest = rest[size:]
	}
	rest, ok := bytes.CutPrefix(rest, []byte(token))
	if !ok {
		return 0
	}
	if trimmed := bytes.TrimLeft(rest, " \t"); trimmed[0] != '\n' && (trimmed[0] != '#' || len(trimmed) == len(rest)) {
		return 0
	}
	return end
}

// sameText reports whether both readers read exactly these values from a text.
func sameText(text []byte, want map[string]any) bool {
	var ps problems
	r := &reader{doc: document{body: text}, problems: &ps, limits: widest}
	_, value := r.read()
	return r.found == 0 && reflect.DeepEqual(value, want)
}

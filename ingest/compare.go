// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
	kjson "sigs.k8s.io/json"
)

// place is where in a document a value stands. It is a list through the
// callers' frames, turned into text only for a problem.
type place struct {
	above *place
	key   string
	index int // in a list; -1 for a key
}

func (at *place) String() string {
	if at == nil {
		return "the document"
	}
	var b strings.Builder
	at.write(&b)
	return b.String()
}

func (at *place) write(b *strings.Builder) {
	if at.above != nil {
		at.above.write(b)
	}
	switch {
	case at.index >= 0:
		fmt.Fprintf(b, "[%d]", at.index)
	case strings.ContainsAny(at.key, ". []\"\n\t") || len(at.key) > 60:
		fmt.Fprintf(b, "[%s]", clip(at.key))
	default:
		if at.above != nil {
			b.WriteByte('.')
		}
		b.WriteString(at.key)
	}
}

// checker looks at the nodes of a document for what can be told without the
// second reading, and for what would make that too expensive.
type checker struct {
	*reader
	aliases bool // the document has some
	stop    bool // the document must not be read further
	sizes   map[*yaml.Node]int
}

func (c *checker) check(n *yaml.Node, depth int) {
	if depth > c.limits.Depth {
		if !c.stop {
			c.report(n, Problem{Code: tooDeep, Message: fmt.Sprintf("lists and mappings are nested more than %d deep", c.limits.Depth)})
		}
		c.stop = true
		return
	}
	if n.Style&yaml.TaggedStyle != 0 {
		c.checkTag(n)
	}
	switch n.Kind {
	case yaml.AliasNode:
		c.aliases = true
	case yaml.ScalarNode:
		if n.Tag == "!!float" && isNotFinite(n.Value) {
			c.report(n, Problem{Code: noJSONValue, Message: n.Value + " has no JSON"})
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			c.check(item, depth+1)
		}
	case yaml.MappingNode:
		c.checkKeys(n)
		for i := 0; i < len(n.Content); i += 2 {
			c.check(n.Content[i], depth+1)
			c.check(n.Content[i+1], depth+1)
		}
	}
}

func (c *checker) checkTag(n *yaml.Node) {
	switch n.Tag {
	case "!!map", "!!seq", "!!str", "!!int", "!!float", "!!bool", "!!null", "!!binary", "!!timestamp", "!!merge":
		var v any
		if n.Kind == yaml.ScalarNode && n.Decode(&v) != nil {
			c.report(n, Problem{Code: badTag, Message: "the tag " + n.Tag + " does not fit its value"})
		}
	default:
		c.report(n, Problem{Code: badTag, Message: "the tag " + clip(n.Tag) + " is ignored by Kubernetes"})
	}
}

// checkKeys reports keys that stand twice or are no text at all. Whether the
// others are read as they are written is seen in compare.
func (c *checker) checkKeys(n *yaml.Node) {
	var seen map[string]*yaml.Node
	if len(n.Content) > 16 {
		seen = make(map[string]*yaml.Node, len(n.Content)/2)
	}
	for i := 0; i < len(n.Content); i += 2 {
		key := target(n.Content[i])
		switch {
		case key.Kind != yaml.ScalarNode:
			c.report(n.Content[i], Problem{Code: badKey, Message: "a list or a mapping is used as a key",
				Hint: "write a key of text; a value that begins with { or [ and is text goes into quotes"})
			continue
		case key.Tag == "!!null":
			c.report(n.Content[i], Problem{Code: badKey, Message: "a key is empty (null)",
				Hint: "write a key before the colon, or put it in quotes"})
			continue
		case isMerge(key) && !isMergeable(n.Content[i+1]):
			c.report(n.Content[i], Problem{Code: badKey, Message: "<< merges something that is not a mapping",
				Hint: "let << have a mapping, an alias of one, or a list of them; put << into quotes where it is just a key"})
			continue
		}
		first := seen[key.Value]
		if seen != nil {
			seen[key.Value] = n.Content[i]
		} else {
			for j := 0; j < i; j += 2 {
				if k := target(n.Content[j]); k.Kind == yaml.ScalarNode && k.Value == key.Value {
					first = n.Content[j]
				}
			}
		}
		if first != nil {
			c.report(n.Content[i], Problem{Code: duplicateKey,
				Message: fmt.Sprintf("the key %s is written twice, first %s", clip(key.Value), linesAbove(n.Content[i].Line-first.Line))})
		}
	}
}

func linesAbove(n int) string {
	switch n {
	case 0:
		return "on the same line"
	case 1:
		return "on the line above"
	}
	return fmt.Sprintf("%d lines above", n)
}

// target follows an alias.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isMerge(key *yaml.Node) bool {
	return key.Kind == yaml.ScalarNode && key.Tag == "!!merge"
}

func isMergeable(n *yaml.Node) bool {
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			if target(item).Kind != yaml.MappingNode {
				return false
			}
		}
		return true
	}
	return target(n).Kind == yaml.MappingNode
}

// isNotFinite tells .inf and .nan in all their spellings from other floats.
func isNotFinite(s string) bool {
	s = strings.TrimLeft(s, "+-")
	return len(s) == 4 && s[0] == '.' && (s[1]|0x20 == 'i' || s[1]|0x20 == 'n')
}

// expandedSize returns about how many bytes of JSON a node is with its aliases
// expanded, at most a little more than allowed. Each node is looked at
// once. It reports anchors that contain themselves.
func (c *checker) expandedSize(n *yaml.Node) int {
	const visiting = -1
	if n.Kind == yaml.AliasNode {
		// An anchor stands before its aliases, so it has been looked at.
		size := c.sizes[n.Alias]
		if size == visiting {
			c.report(n, Problem{Code: badAlias, Message: "the anchor " + clip(n.Value) + " contains its own alias"})
			c.stop = true
			return 0
		}
		return size
	}
	c.sizes[n] = visiting
	size := len(n.Value) + 3 // quotes or brackets, and a comma
	for _, child := range n.Content {
		size = min(size+c.expandedSize(child), c.limits.Expanded+1)
	}
	c.sizes[n] = size
	return size
}

// compare reports where the nodes of a document, read as YAML 1.2, and what
// Kubernetes read from it are not the same.
func (r *reader) compare(n *yaml.Node, v any, at *place) {
	written := n
	n = target(n)
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag == "!!str" {
			if s, ok := v.(string); ok && s == n.Value {
				return
			}
		}
		if other, same := sameScalar(n, v); !same {
			r.differ(written, at, v, other)
		}
	case yaml.SequenceNode:
		list, ok := v.([]any)
		if !ok || len(list) != len(n.Content) {
			r.differ(written, at, v, "a list")
			return
		}
		for i, item := range n.Content {
			r.compare(item, list[i], &place{above: at, index: i})
		}
	case yaml.MappingNode:
		m, ok := v.(map[string]any)
		if !ok {
			r.differ(written, at, v, "a mapping")
			return
		}
		entries := n.Content
		if hasMerge(n) {
			entries = merged(n)
		}
		all := true
		for i := 0; i < len(entries); i += 2 {
			key := target(entries[i])
			value, ok := m[key.Value]
			if !ok {
				all = false
				r.report(entries[i], Problem{Code: badKey,
					Message: fmt.Sprintf("%s: the key %s is written, but Kubernetes reads another (%s)", at, clip(key.Value), keyReading(key))})
				continue
			}
			r.compare(entries[i+1], value, &place{above: at, key: key.Value, index: -1})
		}
		if all && len(m) != len(entries)/2 {
			r.differ(written, at, v, "a mapping with other keys")
		}
	}
}

// differ reports a value with both its readings.
func (r *reader) differ(n *yaml.Node, at *place, kubernetes any, other string) {
	r.report(n, Problem{Code: twoReadings,
		Message: fmt.Sprintf("%s: Kubernetes reads %s, YAML 1.2 reads %s", at, reading(kubernetes), other)})
}

func hasMerge(n *yaml.Node) bool {
	for i := 0; i < len(n.Content); i += 2 {
		if isMerge(target(n.Content[i])) {
			return true
		}
	}
	return false
}

// merged returns the keys and values of a mapping in turn, with those of its
// merge keys: its own win over merged ones, and earlier merged ones over later
// ones (yaml.org/type/merge.html).
func merged(n *yaml.Node) []*yaml.Node {
	var entries []*yaml.Node
	seen := make(map[string]bool)
	var add func(n *yaml.Node)
	add = func(n *yaml.Node) {
		for i := 0; i < len(n.Content); i += 2 {
			if key := target(n.Content[i]); !isMerge(key) && !seen[key.Value] {
				seen[key.Value] = true
				entries = append(entries, n.Content[i], n.Content[i+1])
			}
		}
		for i := 0; i < len(n.Content); i += 2 {
			if !isMerge(target(n.Content[i])) {
				continue
			}
			if from := target(n.Content[i+1]); from.Kind == yaml.SequenceNode {
				for _, item := range from.Content {
					add(target(item))
				}
			} else {
				add(from)
			}
		}
	}
	add(n)
	return entries
}

// keyReading returns what Kubernetes makes of a key on its own.
func keyReading(key *yaml.Node) string {
	value, err := readKubernetes([]byte("? " + key.Value + "\n: 0\n"))
	if m, ok := value.(map[string]any); err == nil && ok && len(m) == 1 {
		for k := range m {
			return clip(k)
		}
	}
	return "none"
}

// sameScalar reports whether a scalar that is not plainly text has the same
// value in YAML 1.2, and that value for a message.
func sameScalar(n *yaml.Node, v any) (string, bool) {
	if n.Tag == "!!int" {
		// Most numbers are small, decimal and written in one way.
		if i, ok := v.(int64); ok && strconv.FormatInt(i, 10) == n.Value {
			return "", true
		}
	}
	var other any
	if err := n.Decode(&other); err != nil {
		return "no value", false
	}
	switch x := other.(type) {
	case int:
		return reading(x), sameNumber(v, big.NewInt(int64(x)))
	case int64:
		return reading(x), sameNumber(v, big.NewInt(x))
	case uint64:
		return reading(x), sameNumber(v, new(big.Int).SetUint64(x))
	case float64:
		if i, ok := decimalInteger(n.Value); ok {
			// More digits than any of YAML's integers has.
			return "the whole number " + clip(n.Value), sameNumber(v, i)
		}
		if i, ok := v.(int64); ok {
			return reading(x), sameNumber(x, big.NewInt(i))
		}
		return reading(x), v == other
	case time.Time:
		return x.Format(time.RFC3339Nano) + " (a time)", false
	default:
		return reading(x), v == other
	}
}

// sameNumber reports whether a value is exactly that integer.
func sameNumber(v any, i *big.Int) bool {
	switch v := v.(type) {
	case int64:
		return i.IsInt64() && i.Int64() == v
	case float64:
		return new(big.Float).SetInt(i).Cmp(big.NewFloat(v)) == 0
	}
	return false
}

func decimalInteger(s string) (*big.Int, bool) {
	return new(big.Int).SetString(strings.ReplaceAll(s, "_", ""), 10)
}

// compareJSON reads a document that is a JSON object with a JSON decoder, as
// kubectl does when a file begins with one, and reports where that differs.
func (r *reader) compareJSON(v any) {
	body := bytes.TrimLeft(r.doc.body, " \t\n")
	if body[0] != '{' {
		return
	}
	var raw json.RawMessage
	if json.NewDecoder(bytes.NewReader(body)).Decode(&raw) != nil {
		return // kubectl goes on to read it as YAML
	}
	var other any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &other); err != nil {
		r.report(nil, Problem{Code: twoReadings, Message: "the document can be read as YAML, but not as JSON"})
		return
	}
	if at, a, b := firstDifference(v, other, nil); at != "" {
		r.report(nil, Problem{Code: twoReadings,
			Message: fmt.Sprintf("%s: read as JSON it is %s, read as YAML %s", at, reading(b), reading(a))})
	}
}

// firstDifference returns a place where two values differ, and what is there,
// or "".
func firstDifference(a, b any, at *place) (string, any, any) {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return at.String(), a, b
		}
		for _, k := range slices.Sorted(maps.Keys(x)) {
			other, ok := y[k]
			if !ok {
				return at.String(), a, b
			}
			if where, va, vb := firstDifference(x[k], other, &place{above: at, key: k, index: -1}); where != "" {
				return where, va, vb
			}
		}
		return "", nil, nil
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return at.String(), a, b
		}
		for i := range x {
			if where, va, vb := firstDifference(x[i], y[i], &place{above: at, index: i}); where != "" {
				return where, va, vb
			}
		}
		return "", nil, nil
	}
	// YAML's 1.0 is the integer, JSON's is not.
	i, aInt := a.(int64)
	j, bInt := b.(int64)
	if a == b || aInt && sameNumber(b, big.NewInt(i)) || bInt && sameNumber(a, big.NewInt(j)) {
		return "", nil, nil
	}
	return at.String(), a, b
}

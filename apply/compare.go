// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Fields that the API server enters under nobody's name, because they say
// which object it is or are the server's own; and metadata, which is walked
// by itself. Where status is a subresource (that is, not owned) the server
// leaves it out of what is applied to the object.
var (
	notOwned         = map[string]bool{"apiVersion": true, "kind": true, "metadata": true}
	notOwnedStatus   = map[string]bool{"apiVersion": true, "kind": true, "metadata": true, "status": true}
	notOwnedMetadata = map[string]bool{
		"name": true, "namespace": true, "uid": true, "resourceVersion": true, "generation": true,
		"creationTimestamp": true, "managedFields": true, "selfLink": true, "clusterName": true,
	}
)

// A comparison is of an object with the live one.
type comparison struct {
	// schema is that of the object's kind, nil while it is not known. It is
	// needed rarely, and is large to get.
	schema *structural
	// doubt is set when something differs that may well be in order: it
	// takes the schema to tell.
	doubt bool
	// path leads to what differs, in the keys of fieldsV1.
	path []string
}

// holds reports whether applying desired would leave live as it is: our field
// manager's entry in live names exactly the fields of desired, and they have
// desired's values. When it does not, field is one field that tells, as in
// ".spec.ports[0]".
func (c *comparison) holds(desired, live map[string]any) (field string, ok bool) {
	c.path = c.path[:0]
	entry := managedEntry(live)
	if entry != nil && entry["apiVersion"] != desired["apiVersion"] {
		// Entered in terms of another version's fields.
		return ".apiVersion", false
	}
	own, _ := entry["fieldsV1"].(map[string]any)
	skip := notOwnedStatus
	if _, ok := own["f:status"]; ok {
		skip = notOwned
	}
	if field, ok := c.holdsMap(desired, live, own, c.schema, skip); !ok {
		return field, false
	}
	meta, _ := desired["metadata"].(map[string]any)
	liveMeta, _ := live["metadata"].(map[string]any)
	ownMeta, _ := own["f:metadata"].(map[string]any)
	c.path = append(c.path, "f:metadata")
	field, ok = c.holdsMap(meta, liveMeta, ownMeta, nil, notOwnedMetadata)
	if !ok {
		field = ".metadata" + field
	}
	return field, ok
}

// managedEntry returns our field manager's entry in metadata.managedFields,
// as the JSON that it is; nil if there is none.
func managedEntry(live map[string]any) map[string]any {
	meta, _ := live["metadata"].(map[string]any)
	entries, _ := meta["managedFields"].([]any)
	for _, e := range entries {
		entry, _ := e.(map[string]any)
		if entry["manager"] == Manager && entry["operation"] == string(metav1.ManagedFieldsOperationApply) &&
			(entry["subresource"] == nil || entry["subresource"] == "") {
			return entry
		}
	}
	return nil
}

// whose returns the field manager who has what path leads to, or a part of it,
// or what it is a part of, and when they last changed what is theirs: of
// several the last one. We are not counted.
func whose(live *unstructured.Unstructured, path []string) (manager string, changed time.Time) {
	for _, e := range live.GetManagedFields() {
		if e.Manager == Manager && e.Operation == metav1.ManagedFieldsOperationApply || e.Subresource != "" || e.FieldsV1 == nil {
			continue
		}
		var node any
		json.Unmarshal(e.FieldsV1.GetRawBytes(), &node) // what cannot be read holds nothing
		holds := true
		for _, key := range path {
			m, _ := node.(map[string]any)
			if len(m) == 0 || len(m) == 1 && m["."] != nil {
				break // all that is below is theirs
			}
			if node, holds = m[key]; !holds {
				break
			}
		}
		at := time.Time{}
		if e.Time != nil {
			at = e.Time.UTC()
		}
		if holds && (manager == "" || at.After(changed)) {
			manager, changed = e.Manager, at
		}
	}
	return manager, changed
}

// The methods below walk a value beside a node of a fieldsV1 tree
// (k8s.io/apimachinery/pkg/apis/meta/v1, FieldsV1): a JSON object whose key
// "." stands for the value itself, "f:<name>" for a field of a map,
// "k:<keys>" for an element of a list known by some of its fields, and
// "v:<value>" for one known by its value. A node without children is a value
// that is owned as a whole: a scalar, an empty map, or a list or map that the
// schema calls atomic.

// holdsMap compares the fields of a map, those in skip aside, in the order of
// their names: of several that differ, it is the same one that is told each
// time.
func (c *comparison) holdsMap(desired, live, own map[string]any, s *structural, skip map[string]bool) (field string, ok bool) {
	for _, name := range slices.Sorted(maps.Keys(desired)) {
		if skip[name] {
			continue
		}
		v := desired[name]
		node, mine := own["f:"+name]
		c.path = append(c.path, "f:"+name)
		l, present := live[name]
		if !mine {
			field, ok = c.holdsUnowned(v, l, s.field(name))
		} else {
			field, ok = c.holdsOwned(v, l, present, node, s.field(name))
		}
		if !ok {
			return "." + name + field, false
		}
		c.path = c.path[:len(c.path)-1]
	}
	for _, key := range slices.Sorted(maps.Keys(own)) {
		name, isField := strings.CutPrefix(key, "f:")
		if !isField || skip[name] {
			continue
		}
		if _, ok := desired[name]; !ok {
			c.path = append(c.path, key)
			return "." + name, false // the file has dropped it
		}
	}
	return "", true
}

// holdsUnowned compares a value that is not entered as ours. Some leave no
// trace of who applied them: a list of elements known by key has only its
// elements entered, so none while it is empty, nor has a map that holds
// nothing but such.
func (c *comparison) holdsUnowned(desired, live any, s *structural) (field string, ok bool) {
	switch d := desired.(type) {
	case nil:
		return "", live == nil
	case []any:
		l, ok := live.([]any)
		if !ok || len(d) > 0 {
			return "", false
		}
		if len(l) > 0 && c.schema == nil {
			c.doubt = true
			return "", false
		}
		return "", len(l) == 0 || s.granularList()
	case map[string]any:
		if l, ok := live.(map[string]any); ok && len(d) > 0 {
			return c.holdsMap(d, l, nil, s, nil)
		}
	}
	return "", false
}

// holdsOwned compares a value that is entered as ours, or has parts that are.
func (c *comparison) holdsOwned(desired, live any, present bool, node any, s *structural) (field string, ok bool) {
	own, _ := node.(map[string]any)
	leaf := true
	for key := range own {
		leaf = leaf && key == "."
	}
	if leaf {
		switch {
		case equal(desired, live):
			return "", true
		case !present:
			// The API server stores no empty labels or annotations.
			d, ok := desired.(map[string]any)
			return "", desired == nil || ok && len(d) == 0
		case !covers(live, desired):
			return "", false
		case c.schema == nil:
			c.doubt = true
			return "", false
		}
		if d, ok := desired.(map[string]any); ok && len(d) == 0 && s.granularMap() {
			// Ours is that there is a map; what is in it is others'.
			return "", true
		}
		return "", s.completes(desired, live)
	}
	switch d := desired.(type) {
	case map[string]any:
		if l, ok := live.(map[string]any); ok {
			return c.holdsMap(d, l, own, s, nil)
		}
	case []any:
		if l, ok := live.([]any); ok {
			return c.holdsList(d, l, own, s)
		}
	}
	return "", false
}

// holdsList compares a list whose elements are owned one by one: each owned
// element must be one of desired's and the other way round, with desired's
// values, and in desired's order. Others may have elements between them.
func (c *comparison) holdsList(desired, live []any, own map[string]any, s *structural) (field string, ok bool) {
	place := make([]int, len(desired)) // in live
	for i := range place {
		place[i] = -1
	}
	claim := func(is func(any) bool) int {
		for i, e := range desired {
			if place[i] < 0 && is(e) {
				return i
			}
		}
		return -1
	}
	for _, key := range slices.Sorted(maps.Keys(own)) {
		node := own[key]
		var exact, loose func(any) bool
		switch {
		case strings.HasPrefix(key, "k:"):
			keys, ok := parse(key[2:]).(map[string]any)
			if !ok {
				return "", false
			}
			exact = func(e any) bool { return hasKeys(e, keys, false) }
			// A key that the schema gives a default may be left out.
			loose = func(e any) bool { return hasKeys(e, keys, true) }
		case strings.HasPrefix(key, "v:"):
			v := parse(key[2:])
			exact = func(e any) bool { return equal(e, v) }
			loose = exact
		default:
			continue // "."
		}
		c.path = append(c.path, key)
		at := claim(exact)
		if at < 0 {
			at = claim(loose)
		}
		in := slices.IndexFunc(live, exact)
		if at < 0 || in < 0 {
			return "[" + key[2:] + "]", false
		}
		if field, ok := c.holdsOwned(desired[at], live[in], true, node, s.item()); !ok {
			return "[" + strconv.Itoa(at) + "]" + field, false
		}
		place[at] = in
		c.path = c.path[:len(c.path)-1]
	}
	if i := slices.Index(place, -1); i >= 0 {
		return "[" + strconv.Itoa(i) + "]", false
	}
	return "", slices.IsSorted(place)
}

// parse parses the JSON in a fieldsV1 key.
func parse(s string) (v any) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	d.Decode(&v) // what it cannot read equals nothing
	return v
}

// hasKeys reports whether e is a map with these values. With loose, fields
// that it lacks are passed over.
func hasKeys(e any, keys map[string]any, loose bool) bool {
	m, ok := e.(map[string]any)
	if !ok {
		return false
	}
	for k, want := range keys {
		v, ok := m[k]
		if !ok && loose {
			continue
		}
		if !ok || !equal(v, want) {
			return false
		}
	}
	return true
}

// covers reports whether live could be desired with more in it.
func covers(live, desired any) bool {
	switch d := desired.(type) {
	case nil:
		return true
	case map[string]any:
		l, ok := live.(map[string]any)
		if !ok {
			return false
		}
		for k, v := range d {
			if !covers(l[k], v) {
				return false
			}
		}
		return true
	case []any:
		l, ok := live.([]any)
		return ok && slices.EqualFunc(l, d, covers)
	}
	return equal(desired, live)
}

// equal reports whether two JSON values are the same, numbers by value
// whatever Go type they have.
func equal(a, b any) bool {
	switch a := a.(type) {
	case nil:
		return b == nil
	case string:
		s, ok := b.(string)
		return ok && a == s
	case bool:
		v, ok := b.(bool)
		return ok && a == v
	case map[string]any:
		m, ok := b.(map[string]any)
		if !ok || len(a) != len(m) {
			return false
		}
		for k, v := range a {
			w, ok := m[k]
			if !ok || !equal(v, w) {
				return false
			}
		}
		return true
	case []any:
		l, ok := b.([]any)
		return ok && slices.EqualFunc(a, l, equal)
	}
	ia, fa, isInt, ok := number(a)
	ib, fb, isIntToo, okToo := number(b)
	if !ok || !okToo {
		return false
	}
	if isInt && isIntToo {
		return ia == ib
	}
	return fa == fb
}

// number returns a JSON number as an integer if it is one and fits int64, as
// Kubernetes reads it, and as a float64 in any case.
func number(v any) (i int64, f float64, isInt, ok bool) {
	switch n := v.(type) {
	case int64:
		return n, float64(n), true, true
	case int:
		return int64(n), float64(n), true, true
	case uint64:
		return int64(n), float64(n), n <= math.MaxInt64, true
	case float64:
		// 2^63 is the first float64 beyond int64.
		whole := n == math.Trunc(n) && n >= -1<<63 && n < 1<<63
		if whole {
			i = int64(n)
		}
		return i, n, whole, true
	case json.Number:
		if i, err := n.Int64(); err == nil {
			return i, float64(i), true, true
		}
		if f, err := n.Float64(); err == nil {
			return number(f)
		}
	}
	return 0, 0, false, false
}

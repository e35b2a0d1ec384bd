// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
)

// judge reports what the API server would refuse of an object because of its
// schema. It does what the server does with an object that is applied, in the
// same order (pkg/registry/customresource and customresource_handler.go of
// k8s.io/apiextensions-apiserver): what the schema does not know is refused,
// nulls that it does not allow are dropped, defaults are filled in, and the
// result is validated. All of that is done to a copy.
//
// before is the object as it is managed now, nil if it is not or in another
// version. As in the API server, what has not changed since then is not held
// against the author, and transition rules compare with it.
func (r *reader) judge(s *schema, root *yaml.Node, value map[string]any, before func() map[string]any) {
	object, unknown := s.prune(value)
	s.complete(object)
	invalid, broken := s.validate(object, nil)
	if len(invalid)+len(broken) > 0 || s.rules != nil {
		if old := before(); old != nil {
			old, _ = s.prune(old)
			s.complete(old)
			invalid, broken = s.validate(object, old)
		}
	}
	// A value of the wrong type brings more errors about itself and what is in
	// it; the one says all.
	mistyped := make(map[string]bool)
	for _, err := range invalid {
		if err.Type == field.ErrorTypeTypeInvalid {
			mistyped[err.Field] = true
		}
	}
	for _, path := range unknown {
		if i := strings.LastIndexByte(path, '.'); i < 0 || !mistyped[path[:i]] {
			r.unknownField(s, root, value, path)
		}
	}
	for _, err := range invalid {
		if err.Field == (*field.Path)(nil).String() { // it is in the text only
			if i := strings.LastIndex(err.Detail, " in "); i >= 0 {
				err.Field, err.Detail = err.Detail[i+len(" in "):], err.Detail[:i]
			}
		}
		if err.Type == field.ErrorTypeTypeInvalid || !mistyped[err.Field] {
			r.invalidField(root, value, err)
		}
	}
	for _, err := range broken {
		at := locate(root, value, err.Field)
		r.report(at.node(), Problem{Code: brokenRule, Message: atPath(err.Field) + err.Detail})
	}
}

// prune returns a copy of an object without what its schema does not know, and
// the paths of that.
func (s *schema) prune(value map[string]any) (object map[string]any, unknown []string) {
	object = runtime.DeepCopyJSON(value)
	track := structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	unknown = pruning.PruneWithOptions(object, s.structural, true, track)
	if s.embedded {
		_, more := objectmeta.CoerceWithOptions(nil, object, s.structural, false, objectmeta.CoerceOptions{ReturnUnknownFieldPaths: true})
		unknown = append(unknown, more...)
	}
	return object, unknown
}

// complete makes of an object what the API server would validate.
func (s *schema) complete(object map[string]any) {
	if s.status {
		delete(object, "status")
	}
	// To find out that there is nothing to do takes long.
	if s.defaults || hasNull(object) {
		defaulting.PruneNonNullableNullsWithoutDefaults(object, s.structural)
		defaulting.Default(object, s.structural)
	}
}

func hasNull(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		for _, field := range v {
			if hasNull(field) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, hasNull)
	}
	return false
}

// validate returns what is wrong with values, and, where that allows to look,
// which rules (x-kubernetes-validations) are broken. With old it is an update
// of that.
func (s *schema) validate(object, old map[string]any) (invalid, broken field.ErrorList) {
	ctx := context.Background() // nothing here waits
	var correlated *common.CorrelatedObject
	var ratchet []cel.Option
	var before any // nil, not an empty map, for the rules
	if old == nil {
		invalid = validation.ValidateCustomResource(nil, object, s.values)
	} else {
		before = old
		correlated = common.NewCorrelatedObject(object, old, &model.Structural{Structural: s.structural})
		ratchet = []cel.Option{cel.WithRatcheting(correlated)}
		invalid = validation.ValidateCustomResourceUpdate(nil, object, old, s.values, validation.WithRatcheting(correlated))
	}
	if s.embedded {
		invalid = append(invalid, objectmeta.Validate(ctx, nil, object, s.structural, false)...)
	}
	if s.lists && (old == nil || len(listtype.ValidateListSetsAndMaps(nil, s.structural, old)) == 0) {
		invalid = append(invalid, listtype.ValidateListSetsAndMaps(nil, s.structural, object)...)
	}
	if s.rules == nil || slices.ContainsFunc(invalid, blocksRules) {
		return invalid, nil
	}
	broken, _ = s.rules.Validate(ctx, nil, s.structural, object, before, celconfig.RuntimeCELCostBudget, ratchet...)
	return invalid, broken
}

// blocksRules reports whether an error keeps the API server from evaluating
// rules, which could not rely on the schema.
func blocksRules(err *field.Error) bool {
	switch err.Type {
	case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
		return true
	}
	return false
}

// unknownField reports a field that is not in the schema, with the one that
// may have been meant.
func (r *reader) unknownField(s *schema, root *yaml.Node, value map[string]any, path string) {
	at := locate(root, value, path)
	p := Problem{Code: unknownField, Message: "unknown field " + clipPath(path)}
	name := at.steps[len(at.steps)-1]
	var fields []string
	if above := s.at(at.steps); above != nil {
		fields = slices.Sorted(maps.Keys(above.Properties))
	}
	_, inSpec := s.structural.Properties["spec"].Properties[name]
	switch near := nearest(name, fields); {
	case near != "":
		p.Hint = "did you mean " + near + "? If not, delete the field"
	case len(at.steps) == 1 && inSpec:
		p.Hint = "indent it, so that it is below spec"
	case len(fields) > 0 && len(fields) <= 20:
		p.Hint = "delete it, or use one of the known fields: " + strings.Join(fields, ", ")
	}
	r.report(at.key, p)
}

// at returns the schema of the mapping that holds the last of the steps; nil
// where there is none.
func (s *schema) at(steps []string) *structuralschema.Structural {
	at := s.structural
	for i := 0; i < len(steps)-1 && at != nil; i++ {
		switch field, ok := at.Properties[steps[i]]; {
		case at.Items != nil:
			at = at.Items
		case ok:
			at = &field
		case at.AdditionalProperties != nil:
			at = at.AdditionalProperties.Structural
		default:
			at = nil
		}
	}
	return at
}

// invalidField reports a value that the schema does not allow.
func (r *reader) invalidField(root *yaml.Node, value map[string]any, err *field.Error) {
	at := locate(root, value, err.Field)
	// The validator's own words begin with the path.
	detail := strings.TrimPrefix(err.Detail, err.Field+" in body ")
	is := atPath(err.Field) + reading(at.value)
	p := Problem{Code: valueNotAllowed, Message: is + ": " + detail}
	switch err.Type {
	case field.ErrorTypeRequired:
		r.report(at.key, Problem{Code: missingField, Message: clipPath(err.Field) + " is missing"})
		return
	case field.ErrorTypeDuplicate:
		p.Message = is + " is in the list already"
	case field.ErrorTypeTypeInvalid:
		want, _, _ := strings.Cut(strings.TrimPrefix(detail, "must be of type "), ":")
		if name := typeNames[want]; name != "" {
			p.Code, p.Message = wrongType, is+" where "+name+" is needed"
		} else { // the validator takes formats for types
			p.Message = is + " is not of the format " + want
		}
	}
	r.report(at.node(), p)
}

// typeNames names the types of schemas as messages name those of values.
var typeNames = map[string]string{
	"object": "a mapping", "array": "a list", "string": "text", "boolean": "true or false",
	"integer": "an integer", "number": "a number", "integer,string": "an integer or text",
}

func atPath(path string) string {
	if path == "" || path == (*field.Path)(nil).String() {
		return ""
	}
	return clipPath(path) + ": "
}

// clipPath returns a path for a message; keys in it are the author's.
func clipPath(path string) string {
	if len(path) > 200 || printable(path) != path {
		return clip(path)
	}
	return path
}

// A spot is where in a document a path leads.
type spot struct {
	key   *yaml.Node // of the entry, or of the nearest one above that is there
	entry *yaml.Node // its value
	value any        // as Kubernetes reads it; nil where the path leads nowhere
	steps []string   // the keys and indices of the path
}

// node returns the node to point at for what is wrong with a value: the value
// where it is a scalar, else the key, because a mapping begins a line further
// down.
func (s spot) node() *yaml.Node {
	if s.entry != nil && s.entry.Kind == yaml.ScalarNode && s.entry.Line > 0 {
		return s.entry
	}
	return s.key
}

// locate finds what a path of the API server's code means: keys with dots
// before them or in brackets, indices in brackets or with dots. Keys can hold
// dots and brackets themselves; only the values tell.
func locate(root *yaml.Node, value any, path string) spot {
	best, bestLeft := spot{key: root}, len(path)+1
	var walk func(at spot, left string) bool
	walk = func(at spot, left string) bool {
		if len(left) < bestLeft {
			best, bestLeft = at, len(left)
			best.steps = slices.Clone(at.steps)
		}
		if left == "" {
			return true
		}
		left = strings.TrimPrefix(left, ".")
		// try follows one key or index, in the way that the path may write it.
		try := func(step string, key, entry *yaml.Node, v any) bool {
			for _, written := range []string{step, "[" + step + "]"} {
				rest, ok := strings.CutPrefix(left, written)
				if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') &&
					walk(spot{key, entry, v, append(at.steps, step)}, rest) {
					return true
				}
			}
			return false
		}
		switch v := at.value.(type) {
		case map[string]any:
			for _, name := range slices.Sorted(maps.Keys(v)) {
				if !strings.HasPrefix(strings.TrimPrefix(left, "["), name) {
					continue
				}
				key, entry := at.key, (*yaml.Node)(nil)
				if at.entry != nil {
					if k, e := entryOf(target(at.entry), name); k != nil {
						key, entry = k, e
					}
				}
				if try(name, key, entry, v[name]) {
					return true
				}
			}
		case []any:
			digits := strings.TrimLeft(strings.TrimPrefix(left, "["), "0123456789")
			number := strings.TrimPrefix(left, "[")
			number = number[:len(number)-len(digits)]
			i, err := strconv.Atoi(number)
			if err != nil || i >= len(v) {
				return false
			}
			key, entry := at.key, (*yaml.Node)(nil)
			if list := at.entry; list != nil {
				if list = target(list); list.Kind == yaml.SequenceNode && i < len(list.Content) {
					key, entry = list.Content[i], list.Content[i]
				}
			}
			return try(number, key, entry, v[i])
		}
		return false
	}
	found := walk(spot{key: root, entry: root, value: value}, path)
	if !found {
		best.value = nil
		best.steps = append(best.steps, strings.TrimPrefix(path[len(path)-bestLeft:], "."))
	}
	return best
}

// entryOf returns the key and the value of a mapping's entry; nil where it is
// not written there.
func entryOf(n *yaml.Node, name string) (key, value *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i < len(n.Content); i += 2 {
		if k := target(n.Content[i]); k.Kind == yaml.ScalarNode && k.Value == name {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

// nearest returns the one of names that was most likely meant by name, which
// is none of them; "" when none is near.
func nearest(name string, names []string) string {
	best, least := "", min(3, (len(name)+1)/3)+1
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return n
		}
		if d := distance(strings.ToLower(name), strings.ToLower(n), least); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is how many letters have to be put in, left out, replaced or
// swapped with their neighbour to make b of a (the distance of Damerau and
// Levenshtein, without overlapping swaps); limit, if it is not less.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	two, one, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range one {
		one[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(one[j]+1, row[j-1]+1, one[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], two[j-2]+1)
			}
		}
		two, one, row = one, row, two
	}
	return min(one[len(b)], limit)
}

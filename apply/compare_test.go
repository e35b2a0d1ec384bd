// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"encoding/json"
	"testing"
)

func TestEqual(t *testing.T) {
	tests := []struct {
		a, b any
		want bool
	}{
		{nil, nil, true},
		{nil, "", false},
		{"a", "a", true},
		{"1", int64(1), false},
		{true, true, true},
		{true, "true", false},
		{int64(1), 1.0, true},
		{1, int64(1), true},
		{uint64(1), int64(1), true},
		{json.Number("1"), int64(1), true},
		{json.Number("1.0"), int64(1), true},
		{json.Number("1e2"), 100, true},
		{json.Number("0.1"), 0.1, true},
		{int64(9007199254740993), int64(9007199254740992), false},
		{json.Number("9007199254740993"), int64(9007199254740993), true},
		{json.Number("9223372036854775808"), 9223372036854775808.0, true},
		{uint64(9223372036854775808), 9223372036854775808.0, true},
		{uint64(9223372036854775808), int64(-9223372036854775808), false},
		{json.Number("x"), json.Number("x"), false},
		{map[string]any{"a": 1}, map[string]any{"a": 1.0}, true},
		{map[string]any{"a": nil}, map[string]any{"b": nil}, false},
		{map[string]any{"a": 1}, map[string]any{"a": 1, "b": 1}, false},
		{[]any{1, "a"}, []any{1, "a"}, true},
		{[]any{1, 2}, []any{2, 1}, false},
		{[]any{}, map[string]any{}, false},
		{func() {}, func() {}, false},
	}
	for _, tt := range tests {
		if got := equal(tt.a, tt.b); got != tt.want {
			t.Errorf("equal(%#v, %#v) = %t", tt.a, tt.b, got)
		}
		if got := equal(tt.b, tt.a); got != tt.want {
			t.Errorf("equal(%#v, %#v) = %t", tt.b, tt.a, got)
		}
	}
}

// FuzzHolds looks for a live object or a schema that upsets the comparison:
// they come from outside. It also holds that an object without anything that
// could be owned, and one that is not entered as ours, are told apart.
func FuzzHolds(f *testing.F) {
	f.Add(`{"spec": {"a": [1], "b": {}}}`, `{"spec": {"a": [1, 2]}}`, `{"f:spec": {"f:a": {"v:1": {}}, "f:b": {}}}`, `{"properties": {"spec": {"properties": null}}}`)
	f.Add(`{"spec": {"a": [{"k": 1, "v": 2}]}}`, `{"spec": {"a": [{"k": 1, "v": 3}]}}`, `{"f:spec": {"f:a": {".": {}, "k:{\"k\":1}": {".": {}, "f:v": {}}}}}`, `{"properties": {"spec": {"additionalProperties": true}}}`)
	f.Add(`{"metadata": {"labels": {"a": "b"}}}`, `{"metadata": {"labels": {}}}`, `{"f:metadata": {"f:labels": {"f:a": {}}}}`, `{"items": {"default": {}}}`)
	f.Add(`{"a": null}`, `{"a": 1}`, `{"f:a": {}, "k:": null, "v:{": 1, "x": []}`, `{"properties": {"a": {"default": 1}}}`)
	f.Fuzz(func(t *testing.T, desired, live, own, schema string) {
		var d, l, o map[string]any
		var s *structural
		if json.Unmarshal([]byte(desired), &d) != nil || json.Unmarshal([]byte(live), &l) != nil || json.Unmarshal([]byte(own), &o) != nil || json.Unmarshal([]byte(schema), &s) != nil || l == nil || d == nil {
			t.Skip()
		}
		meta, ok := l["metadata"].(map[string]any)
		if !ok {
			meta = map[string]any{}
			l["metadata"] = meta
		}
		meta["managedFields"] = []any{map[string]any{"manager": Manager, "operation": "Apply", "apiVersion": d["apiVersion"], "fieldsV1": o}}
		var without comparison
		_, ok = without.holds(d, l)
		with := comparison{schema: s}
		_, okWith := with.holds(d, l)
		if with.doubt && s != nil {
			t.Error("in doubt with a schema")
		}
		if ok && !okWith {
			t.Error("holds without a schema, and not with one")
		}
		if okWith && !ok && !without.doubt {
			t.Error("a schema would have shown that it holds, and there was no doubt")
		}
	})
}

func FuzzFindSchema(f *testing.F) {
	f.Add([]byte(`{"components": {"schemas": {"x.v1.X": {"properties": {"a": {"additionalProperties": {"default": 1}, "items": {"x-kubernetes-list-type": "map"}}}, "x-kubernetes-group-version-kind": [{"group": "x", "version": "v1", "kind": "X"}]}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := findSchema(data, Kind{"x", "v1", "X", "xs"})
		if s.field("a").field("b").item().completes(nil, 1) && s == nil {
			t.Error("a schema that is not there has a default")
		}
	})
}

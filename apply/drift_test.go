// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

const shapeHead = "apiVersion: test.hhwatchd.example/v1\nkind: Shape\n"

// TestFileChanges applies one version of an object and then another: what the
// second says has to come about, and a further look to find nothing to do.
func TestFileChanges(t *testing.T) {
	s := testServer(t)
	tests := []struct {
		name, from, to string
		field          string // reported
		spec           string // that comes of it, where it is not that of the file and defaulted
	}{
		{name: "value", from: `spec: {text: a}`, to: `spec: {text: b}`, field: ".spec.text"},
		{name: "false", from: `spec: {flag: true}`, to: `spec: {flag: false}`, field: ".spec.flag"},
		{name: "type", from: `spec: {intOrString: 80}`, to: `spec: {intOrString: "80"}`, field: ".spec.intOrString"},
		{name: "large int", from: `spec: {int: 9007199254740993}`, to: `spec: {int: 9007199254740992}`, field: ".spec.int"},
		{name: "field added", from: `spec: {text: a}`, to: `spec: {text: a, int: 1}`, field: ".spec.int"},
		{name: "field dropped", from: `spec: {text: a, int: 1}`, to: `spec: {text: a}`, field: ".spec.int"},
		{name: "all fields dropped", from: `spec: {text: a, int: 1}`, to: `spec: {}`},
		{name: "struct dropped", from: `spec: {struct: {a: x, deep: {a: z}}}`, to: `spec: {}`, field: ".spec.struct"},
		{name: "struct emptied", from: `spec: {struct: {a: x}}`, to: `spec: {struct: {}}`, field: ".spec.struct.a", spec: `{struct: {b: from the schema}}`},
		{name: "to null", from: `spec: {nullable: x}`, to: `spec: {nullable: null}`, field: ".spec.nullable"},
		{name: "back to the default", from: `spec: {text: a, defaulted: x}`, to: `spec: {text: a}`, field: ".spec.defaulted"},
		{name: "null for the default", from: `spec: {defaulted: x}`, to: `spec: {defaulted: null}`, field: ".spec.defaulted", spec: `{}`},
		{name: "map key", from: `spec: {map: {a: x, b: z}}`, to: `spec: {map: {a: x}}`, field: ".spec.map.b"},
		{name: "map filled", from: `spec: {map: {}}`, to: `spec: {map: {a: x}}`},
		{name: "atomic map", from: `spec: {atomicMap: {a: x, b: z}}`, to: `spec: {atomicMap: {a: x}}`, field: ".spec.atomicMap"},
		{name: "atomic map emptied", from: `spec: {atomicMap: {a: x}}`, to: `spec: {atomicMap: {}}`, field: ".spec.atomicMap"},
		{name: "atomic list", from: `spec: {atomicList: [a, b]}`, to: `spec: {atomicList: [b, a]}`, field: ".spec.atomicList"},
		{name: "atomic list emptied", from: `spec: {atomicList: [a]}`, to: `spec: {atomicList: []}`, field: ".spec.atomicList"},
		{name: "atomic list, default within", from: `spec: {atomicStructs: [{a: x, b: z}]}`, to: `spec: {atomicStructs: [{a: x}]}`, field: ".spec.atomicStructs",
			spec: `{atomicStructs: [{a: x, b: from the schema}]}`},
		{name: "atomic list, field dropped within", from: `spec: {atomicStructs: [{a: x, b: z, deep: {a: x}}]}`, to: `spec: {atomicStructs: [{a: x, b: z}]}`, field: ".spec.atomicStructs"},
		{name: "set shrinks", from: `spec: {set: [a, b]}`, to: `spec: {set: [a]}`, field: ".spec.set[\"b\"]"},
		{name: "set grows", from: `spec: {set: [b]}`, to: `spec: {set: [a, b]}`, field: ".spec.set[0]"},
		{name: "set in another order", from: `spec: {set: [a, b]}`, to: `spec: {set: [b, a]}`, field: ".spec.set"},
		{name: "set emptied", from: `spec: {set: [a]}`, to: `spec: {set: []}`},
		{name: "set added empty", from: `spec: {text: a}`, to: `spec: {text: a, set: []}`},
		{name: "keyed list shrinks", from: `spec: {keyed: [{port: 80}, {port: 81}]}`, to: `spec: {keyed: [{port: 81}]}`, spec: `{keyed: [{port: 81, protocol: TCP}]}`},
		{name: "keyed list, value within", from: `spec: {keyed: [{port: 80, protocol: TCP, note: x}]}`, to: `spec: {keyed: [{port: 80, protocol: TCP, note: z}]}`, field: ".spec.keyed[0].note"},
		{name: "keyed list, key", from: `spec: {keyed: [{port: 80, protocol: TCP}]}`, to: `spec: {keyed: [{port: 80, protocol: UDP}]}`},
		{name: "keyed list in another order", from: `spec: {keyed: [{port: 80, protocol: TCP}, {port: 81, protocol: TCP}]}`,
			to: `spec: {keyed: [{port: 81, protocol: TCP}, {port: 80, protocol: TCP}]}`, field: ".spec.keyed"},
		{name: "keyed list emptied", from: `spec: {keyed: [{port: 80}]}`, to: `spec: {keyed: []}`},
		{name: "free form", from: `spec: {free: {a: [1, 2], b: {c: d}}}`, to: `spec: {free: {a: [1], b: {}}}`},
		{name: "label", from: `metadata: {labels: {a: x, b: z}}`, to: `metadata: {labels: {a: x}}`, field: ".metadata.labels.b"},
		{name: "annotation", from: `metadata: {annotations: {a: x}}`, to: `metadata: {annotations: {a: z}}`, field: ".metadata.annotations.a"},
		{name: "spec added", from: ``, to: `spec: {text: a}`, field: ".spec"},
		{name: "spec dropped", from: `spec: {text: a}`, to: ``, field: ".spec"},
		{name: "version", from: "spec: {text: a}", to: "spec: {text: a}\napiVersion: test.hhwatchd.example/v2", field: ".apiVersion"},
	}
	var from, to []Object
	for i, tt := range tests {
		name := fmt.Sprintf("change-%d", i)
		from = append(from, named(t, shapeHead+tt.from, name))
		to = append(to, named(t, shapeHead+tt.to, name))
	}
	c := connect(t, s)
	first := applied(t, c, from, true)
	second := applied(t, c, to, true)
	before := writes(t, s)
	third := applied(t, connect(t, s), to, true)
	if n := writes(t, s) - before; n != 0 {
		t.Errorf("%d writes for what is as wanted", n)
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name := to[i].Name
			if r := first[name]; r.Outcome != Created {
				t.Fatalf("first: %s %v", r.Outcome, r.Err)
			}
			r := second[name]
			if r.Outcome != Configured || r.Err != nil {
				t.Errorf("second: %s %v", r.Outcome, r.Err)
			}
			if tt.field != "" && r.Field != tt.field {
				t.Errorf("field %s, want %s", r.Field, tt.field)
			}
			if r := third[name]; r.Outcome != Unchanged {
				t.Errorf("third: %s %s %v", r.Outcome, r.Field, r.Err)
			}
			want, ok := to[i].Value["spec"].(map[string]any)
			if !ok {
				return
			}
			if tt.spec != "" {
				want = parseYAML(t, tt.spec)
			}
			if want["defaulted"] == nil {
				want["defaulted"] = "from the schema"
			}
			if got := live(t, s, to[i])["spec"]; !equal(want, got) {
				t.Errorf("it holds %s, want %s", toJSON(got), toJSON(want))
			}
		})
	}
}

// TestOthersChange has others change an object: what they do to our fields is
// to be taken back, and what they do beside them is to be left alone.
func TestOthersChange(t *testing.T) {
	s := testServer(t)
	const file = `
metadata:
  labels: {a: x}
spec:
  text: a
  struct: {deep: {}}
  map: {a: x}
  atomicMap: {a: x}
  atomicList: [a, b]
  set: [a, b]
  intSet: []
  keyed: [{port: 80, protocol: TCP, note: x}, {port: 81, protocol: TCP}]
  free: {}
`
	tests := []struct {
		name  string
		patch string // a JSON merge patch
		apply string // or what somebody applies by server-side apply, with force
		taken string // the field reported; empty: it is to be left alone
	}{
		{name: "our value", patch: `{"spec": {"text": "b"}}`, taken: ".spec.text"},
		{name: "our value removed", patch: `{"spec": {"text": null}}`, taken: ".spec.text"},
		{name: "our value, applied", apply: `{"spec": {"text": "b"}}`, taken: ".spec.text"},
		{name: "our value as it is, applied", apply: `{"spec": {"text": "a"}}`},
		{name: "our label", patch: `{"metadata": {"labels": {"a": "y"}}}`, taken: ".metadata.labels.a"},
		{name: "our labels removed", patch: `{"metadata": {"labels": null}}`, taken: ".metadata.labels"},
		{name: "another label", patch: `{"metadata": {"labels": {"b": "y"}, "annotations": {"c": "d"}}}`},
		{name: "finalizer", patch: `{"metadata": {"finalizers": ["test.hhwatchd.example/x"]}}`},
		{name: "another field", patch: `{"spec": {"number": 1, "defaulted": "theirs", "nullable": null}}`},
		{name: "in our struct", patch: `{"spec": {"struct": {"a": "y"}}}`},
		{name: "in our empty struct", patch: `{"spec": {"struct": {"deep": {"a": "y"}}}}`},
		{name: "our empty struct removed", patch: `{"spec": {"struct": {"deep": null}}}`, taken: ".spec.struct.deep"},
		{name: "in our empty map", patch: `{"spec": {"free": {"a": [1]}}}`},
		{name: "in our map", patch: `{"spec": {"map": {"b": "y"}}}`},
		{name: "in our atomic map", patch: `{"spec": {"atomicMap": {"b": "y"}}}`, taken: ".spec.atomicMap.a"},
		{name: "in our atomic list", patch: `{"spec": {"atomicList": ["a", "b", "c"]}}`, taken: ".spec.atomicList"},
		{name: "in our set", patch: `{"spec": {"set": ["a", "c", "b"]}}`},
		{name: "from our set", patch: `{"spec": {"set": ["a"]}}`, taken: ".spec.set[1]"},
		{name: "in our empty set", patch: `{"spec": {"intSet": [1]}}`},
		{name: "our empty set removed", patch: `{"spec": {"intSet": null}}`, taken: ".spec.intSet"},
		{name: "in our keyed list", patch: `{"spec": {"keyed": [{"port": 80, "protocol": "TCP", "note": "x"}, {"port": 80, "protocol": "UDP"}, {"port": 81, "protocol": "TCP"}]}}`},
		{name: "in an element", patch: `{"spec": {"keyed": [{"port": 80, "protocol": "TCP", "note": "x", "set": ["y"]}, {"port": 81, "protocol": "TCP", "note": "y"}]}}`},
		{name: "our value in an element", patch: `{"spec": {"keyed": [{"port": 80, "protocol": "TCP", "note": "y"}, {"port": 81, "protocol": "TCP"}]}}`, taken: ".spec.keyed[0].note"},
		{name: "from our keyed list", patch: `{"spec": {"keyed": [{"port": 80, "protocol": "TCP", "note": "x"}]}}`, taken: ".spec.keyed[1]"},
		{name: "order of our keyed list", patch: `{"spec": {"keyed": [{"port": 81, "protocol": "TCP"}, {"port": 80, "protocol": "TCP", "note": "x"}]}}`, taken: ".spec.keyed"},
		{name: "spec removed", patch: `{"spec": null}`, taken: "some"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := connect(t, s)
			o := named(t, shapeHead+file, fmt.Sprintf("others-%d", i))
			if r := one(t, c, o, true); r.Outcome != Created {
				t.Fatalf("first: %s %v", r.Outcome, r.Err)
			}
			if tt.patch != "" {
				edit(t, s, o, tt.patch)
			} else {
				v := parseYAML(t, tt.apply)
				v["apiVersion"], v["kind"] = o.Value["apiVersion"], o.Value["kind"]
				if _, err := s.Do(http.MethodPatch, path(o)+"?fieldManager=somebody&force=true", "application/apply-patch+yaml", []byte(toJSON(v))); err != nil {
					t.Fatal(err)
				}
			}
			edited := toJSON(live(t, s, o)["spec"])
			r := one(t, c, o, true)
			if tt.taken == "" {
				if r.Outcome != Unchanged {
					t.Errorf("not left alone: %s %s %v", r.Outcome, r.Field, r.Err)
				}
				if got := toJSON(live(t, s, o)["spec"]); got != edited {
					t.Errorf("it holds %s, they wanted %s", got, edited)
				}
				return
			}
			if r.Outcome != Configured || r.Field != tt.taken && tt.taken != "some" {
				t.Errorf("not taken back: %s %s %v", r.Outcome, r.Field, r.Err)
			}
			if r := one(t, connect(t, s), o, true); r.Outcome != Unchanged {
				t.Errorf("again: %s %s %v", r.Outcome, r.Field, r.Err)
			}
			var comparison comparison
			if field, ok := comparison.holds(o.Value, live(t, s, o)); !ok && !comparison.doubt {
				t.Errorf("%s is still not as wanted", field)
			}
		})
	}

	t.Run("deleted", func(t *testing.T) {
		c := connect(t, s)
		for _, full := range []bool{true, false} {
			o := named(t, shapeHead+file, "others-deleted")
			one(t, c, o, full)
			if _, err := s.Do(http.MethodDelete, path(o), "", nil); err != nil {
				t.Fatal(err)
			}
			if r := one(t, c, o, full); r.Outcome != Created {
				t.Errorf("full %t: %s %v", full, r.Outcome, r.Err)
			}
		}
	})

	t.Run("theirs before", func(t *testing.T) {
		c := connect(t, s)
		o := named(t, shapeHead+file, "others-first")
		if _, err := s.Do(http.MethodPost, kube.Path("test.hhwatchd.example/v1/shapes", "default"), "application/json", []byte(toJSON(o.Value))); err != nil {
			t.Fatal(err)
		}
		if r := one(t, c, o, true); r.Outcome != Configured {
			t.Errorf("taking it over: %s %v", r.Outcome, r.Err)
		}
		if r := one(t, c, o, true); r.Outcome != Unchanged {
			t.Errorf("again: %s %s %v", r.Outcome, r.Field, r.Err)
		}
	})
}

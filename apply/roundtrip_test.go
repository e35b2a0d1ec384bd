// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"fmt"
	"testing"
)

// TestUnchanged applies values of each shape, and then again: the second time
// the API server is to get no apply request, since the comparison is to see
// by itself that all is well.
func TestUnchanged(t *testing.T) {
	s := testServer(t)
	tests := []struct{ name, text string }{
		{"nothing", ``},
		{"spec empty", `spec: {}`},
		{"scalars", `spec: {text: "a", flag: false, int: 0, number: 1.5, defaulted: mine}`},
		{"empty string", `spec: {text: ""}`},
		{"string like a number", `spec: {text: "0123"}`},
		{"multi-line string", `spec: {text: "a\nb\n"}`},
		{"unicode", `spec: {text: "\u00fc \u2028 \U0001F600 <&>"}`},
		{"large int", `spec: {int: 9007199254740993}`},
		{"largest int", `spec: {int: 9223372036854775807}`},
		{"whole float", `spec: {number: 1.0}`},
		{"large float", `spec: {number: 1e+30}`},
		{"small float", `spec: {number: 1.0e-7}`},
		{"float in int", `spec: {int: 3.0}`},
		{"int or string, int", `spec: {intOrString: 80}`},
		{"int or string, string", `spec: {intOrString: "80"}`},
		{"null", `spec: {nullable: null}`},
		{"null where a default is", `spec: {defaulted: null}`},
		{"default untouched", `spec: {text: a}`},
		{"struct", `spec: {struct: {a: x}}`},
		{"empty struct", `spec: {struct: {deep: {}}}`},
		{"map", `spec: {map: {a: x, b.c/d: z}}`},
		{"empty map", `spec: {map: {}}`},
		{"map of structs", `spec: {mapOfStructs: {a: {a: x}, b: {deep: {a: z}}}}`},
		{"atomic map", `spec: {atomicMap: {a: x}}`},
		{"empty atomic map", `spec: {atomicMap: {}}`},
		{"atomic list", `spec: {atomicList: [b, a, b]}`},
		{"empty atomic list", `spec: {atomicList: []}`},
		{"atomic list of structs", `spec: {atomicStructs: [{a: x, b: z}, {b: z, deep: {}}]}`},
		{"lists of lists", `spec: {lists: [[1, 2], [], [3]]}`},
		{"set", `spec: {set: [b, a]}`},
		{"empty set", `spec: {set: []}`},
		{"set of ints", `spec: {intSet: [2, 1, 9007199254740993]}`},
		{"keyed list", `spec: {keyed: [{port: 80, protocol: UDP, note: x}, {port: 80, protocol: TCP}]}`},
		{"keyed list with a default key", `spec: {keyed: [{port: 80}, {port: 80, protocol: UDP}, {port: 443, note: z}]}`},
		{"keyed list, sets within", `spec: {keyed: [{port: 80, set: [x]}, {port: 81, set: []}]}`},
		{"empty keyed list", `spec: {keyed: []}`},
		{"free form", `spec: {free: {a: {b: [1, {c: null}, 2.5, ""]}, e: {}, l: [], n: null, big: 18446744073709551615}}`},
		{"empty labels", `metadata: {labels: {}, annotations: {}}`},
		{"null labels", `metadata: {labels: null, annotations: null}`},
		{"labels", `metadata: {labels: {a: "", b: x}, annotations: {c/d: "{}"}}`},
		{"creation time", `metadata: {creationTimestamp: null}`},
		{"finalizers", `metadata: {finalizers: [test.hhwatchd.example/a, test.hhwatchd.example/b]}`},
		{"status", "spec: {text: a}\nstatus: {seen: 1}"},
		{"empty status", "spec: {text: a}\nstatus: {}"},
	}
	for _, full := range []bool{true, false} {
		c := connect(t, s)
		var objs []Object
		names := map[string]string{}
		for i, tt := range tests {
			name := fmt.Sprintf("unchanged-%t-%d", full, i)
			names[name] = tt.name
			text := "apiVersion: test.hhwatchd.example/v1\nkind: Shape\n" + tt.text
			objs = append(objs, named(t, text, name))
		}
		for _, text := range []string{"spec: {text: a}", "spec: {text: a}\nstatus: {seen: 1}"} {
			name := fmt.Sprintf("unchanged-%t-plain-%d", full, len(names))
			names[name] = "no subresource, " + text
			objs = append(objs, named(t, "apiVersion: test.hhwatchd.example/v1\nkind: Plain\n"+text, name))
		}
		for name, r := range applied(t, c, objs, full) {
			if r.Outcome != Created || r.ResourceVersion == "" || r.Err != nil {
				t.Errorf("%s: first: %s %v", names[name], r.Outcome, r.Err)
			}
		}
		if n := len(c.settled); n != 0 {
			for k := range c.settled {
				t.Errorf("%s: compares unequal after it was applied", names[k.Name])
			}
		}
		before := writes(t, s)
		again := connect(t, s) // remembers nothing
		for name, r := range applied(t, again, objs, full) {
			if r.Outcome != Unchanged || r.ResourceVersion == "" || r.Err != nil {
				t.Errorf("%s: again: %s %s %v", names[name], r.Outcome, r.Field, r.Err)
			}
		}
		if n := writes(t, s) - before; n != 0 {
			t.Errorf("full %t: %d writes for objects that are as wanted", full, n)
		}
	}
}

// named reads an object that does not say its name.
func named(t testing.TB, text, name string) Object {
	t.Helper()
	v := parseYAML(t, text)
	meta, _ := v["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
		v["metadata"] = meta
	}
	meta["name"] = name
	return object(t, v)
}

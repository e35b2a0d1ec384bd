// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"strings"
	"testing"
)

// TestRefused applies objects that cannot be applied among others that can.
func TestRefused(t *testing.T) {
	s := testServer(t)
	const good = "spec: {text: a}"
	tests := []struct {
		name, text string
		want       string // in the error; empty for an object that is to go in
		permanent  bool
	}{
		{name: "good-1", text: good},
		{name: "unknown-field", text: "spec: {txt: a}", want: ".spec.txt: field not declared in schema", permanent: true},
		{name: "wrong-type", text: "spec: {text: 1}", want: ".spec.text: expected string", permanent: true},
		{name: "out-of-range", text: "spec: {int: 9223372036854775808}", want: "spec.int", permanent: true},
		{name: "missing-key", text: "spec: {keyed: [{note: x}]}", want: "spec.keyed[0].port: Required", permanent: true},
		{name: "duplicate-key", text: "spec: {keyed: [{port: 1}, {port: 1}]}", want: ".spec.keyed", permanent: true},
		{name: "label", text: "metadata: {labels: {a: 'not a label'}}", want: "metadata.labels", permanent: true},
		{name: "managed-fields", text: "metadata: {managedFields: [{manager: x}]}", want: "managedFields", permanent: true},
		{name: "Not_A_Name", text: good, want: "Not_A_Name", permanent: true},
		{name: "a/b", text: good, want: `shapes "a/b" in namespace "default": the name may not contain '/'`, permanent: true},
		{name: "..", text: good, want: "the name may not be '..'", permanent: true},
		{name: "", text: good, want: "the name is empty", permanent: true},
		{name: "other-namespace", text: "metadata: {namespace: kube-system}\n" + good, want: `cannot get resource "shapes"`},
		{name: "crd-missing", text: "kind: Missing", want: "the cluster does not know missings in test.hhwatchd.example/v1: its CRD is not installed"},
		{name: "crd-missing-too", text: "kind: Missing", want: "the cluster does not know missings in test.hhwatchd.example/v1: its CRD is not installed"},
		{name: "version-missing", text: "apiVersion: test.hhwatchd.example/v3", want: "the cluster does not know shapes in test.hhwatchd.example/v3"},
		{name: "good-2", text: good},
	}
	for _, full := range []bool{false, true} {
		var objs []Object
		for _, tt := range tests {
			objs = append(objs, named(t, shapeHead+tt.text, tt.name))
		}
		results := applied(t, connect(t, s), objs, full)
		for _, tt := range tests {
			r := results[tt.name]
			if tt.want == "" {
				if want := map[bool]Outcome{false: Created, true: Unchanged}[full]; r.Outcome != want {
					t.Errorf("full %t: %s: %s %v", full, tt.name, r.Outcome, r.Err)
				}
				continue
			}
			if r.Outcome != Failed || r.Err == nil {
				t.Errorf("full %t: %s: %s %v", full, tt.name, r.Outcome, r.Err)
				continue
			}
			if !strings.Contains(r.Err.Error(), tt.want) || strings.ContainsAny(r.Err.Error(), "\r\n") {
				t.Errorf("full %t: %s: error %q, want one line with %q", full, tt.name, r.Err, tt.want)
			}
			if r.Permanent != tt.permanent {
				t.Errorf("full %t: %s: permanent %t", full, tt.name, r.Permanent)
			}
			if r.Path != "managed/"+r.Plural+"/"+tt.name+".yaml" {
				t.Errorf("path %s", r.Path)
			}
		}
		if a, b := results["crd-missing"].Err, results["crd-missing-too"].Err; a != b {
			t.Error("the same reason is not the same error")
		}
	}
}

// TestRightsMissing applies an object of a kind that may be read and not
// written.
func TestRightsMissing(t *testing.T) {
	s := testServer(t)
	o := Object{Version: "v1", Kind: "ConfigMap", Plural: "configmaps", Namespace: "default", Name: "rights-missing",
		Value: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "rights-missing", "namespace": "default"}}}
	r := one(t, connect(t, s), o, true)
	const want = `User "hhwatchd" cannot patch resource "configmaps" in API group "" in the namespace "default"`
	if r.Outcome != Failed || r.Err == nil || !strings.Contains(r.Err.Error(), want) {
		t.Errorf("%s %v, want an error with %q", r.Outcome, r.Err, want)
	}
	if r.Permanent {
		t.Error("permanent, though rights can be given")
	}
}

// TestMarshal applies a value that is not JSON.
func TestMarshal(t *testing.T) {
	s := testServer(t)
	o := named(t, shapeHead, "not-json")
	o.Value["spec"] = map[string]any{"text": func() {}}
	if r := one(t, connect(t, s), o, true); r.Outcome != Failed || r.Err == nil || !r.Permanent {
		t.Errorf("%s %v, permanent %t", r.Outcome, r.Err, r.Permanent)
	}
}

// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// create makes an object by another hand than ours.
func create(t testing.TB, s *kube.Server, o Object) {
	t.Helper()
	if _, err := s.Do(http.MethodPost, kube.Path(o.Group+"/"+o.Version+"/"+o.Plural, o.Namespace)+"?fieldManager=kubectl-create", "application/json", []byte(toJSON(o.Value))); err != nil {
		t.Fatal(err)
	}
}

// TestLive makes up objects as other people make them, reads them as files
// would say them, and applies those: no value changes, each object is written
// to once, for the fields to be ours, and then no more.
func TestLive(t *testing.T) {
	s := testServer(t)
	c := connect(t, s)
	r := rand.New(rand.NewPCG(3, 4))
	const n = 60
	for i := range n {
		o := named(t, shapeHead+`metadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}", kept: "yes"}, finalizers: [test.hhwatchd.example/a]}`, fmt.Sprintf("live-%d", i))
		o.Value["spec"] = randomSpec(r)
		o.Value["status"] = map[string]any{"seen": 1}
		create(t, s, o)
		defer edit(t, s, o, `{"metadata": {"finalizers": null}}`)
	}
	owner := named(t, shapeHead+"spec: {}", "live-owner")
	create(t, s, owner)
	owned := named(t, shapeHead+"spec: {}", "live-owned")
	owned.Value["metadata"].(map[string]any)["ownerReferences"] = []any{map[string]any{
		"apiVersion": "test.hhwatchd.example/v1", "kind": "Shape", "name": "live-owner", "uid": live(t, s, owner)["metadata"].(map[string]any)["uid"],
	}}
	create(t, s, owned)
	going := named(t, shapeHead+"metadata: {finalizers: [test.hhwatchd.example/a]}", "live-going")
	create(t, s, going)
	if _, err := s.Do(http.MethodDelete, path(going), "", nil); err != nil {
		t.Fatal(err)
	}
	defer edit(t, s, going, `{"metadata": {"finalizers": null}}`)

	all, left, err := c.Live(t.Context(), []Kind{
		{"test.hhwatchd.example", "v1", "Shape", "shapes"},
		{"test.hhwatchd.example", "v1", "Missing", "missings"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"live-owned": "it belongs to Shape/live-owner", "live-going": "it is being deleted"} {
		if got := left[Key{"test.hhwatchd.example", "Shape", "default", name}]; got != want {
			t.Errorf("%s is left because %q, want %q", name, got, want)
		}
	}
	var objs []Object
	was := map[string]map[string]any{}
	for _, o := range all {
		if !strings.HasPrefix(o.Name, "live-") || o.Name == "live-owner" {
			continue
		}
		if text := toJSON(o.Value["metadata"]); text != fmt.Sprintf(`{"annotations":{"kept":"yes"},"name":%q}`, o.Name) {
			t.Errorf("%s has the metadata %s", o.Name, text)
		}
		if spec, _ := o.Value["spec"].(map[string]any); spec["defaulted"] == "from the schema" || o.Value["status"] != nil {
			t.Errorf("%s says what it need not: %s", o.Name, toJSON(o.Value))
		}
		was[o.Name] = live(t, s, o)
		o.Value["metadata"].(map[string]any)["namespace"] = "default"
		objs = append(objs, o)
	}
	if len(objs) != n {
		t.Fatalf("%d objects, want %d", len(objs), n)
	}
	before := writes(t, s)
	applied(t, c, objs, true)
	if wrote := writes(t, s) - before; wrote > n {
		t.Errorf("%d writes for %d objects", wrote, n)
	}
	for _, o := range objs {
		now := live(t, s, o)
		if !equal(authored(now), authored(was[o.Name])) {
			t.Errorf("%s was\n%s\nthe file says\n%s\nand it is\n%s", o.Name, toJSON(authored(was[o.Name])), toJSON(o.Value), toJSON(authored(now)))
		}
		if g, w := now["metadata"].(map[string]any)["generation"], was[o.Name]["metadata"].(map[string]any)["generation"]; !equal(g, w) {
			t.Errorf("%s: generation %v became %v", o.Name, w, g)
		}
		if managedEntry(now) == nil {
			t.Errorf("%s is not ours", o.Name)
		}
	}
	before = writes(t, s)
	for name, r := range applied(t, connect(t, s), objs, true) {
		if r.Outcome != Unchanged {
			t.Errorf("%s: again: %s in %s %v", name, r.Outcome, r.Field, r.Err)
		}
	}
	if wrote := writes(t, s) - before; wrote != 0 {
		t.Errorf("%d writes the second time", wrote)
	}
}

// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// differences are those of objs, and of gone, by name.
func differences(t testing.TB, c *Cluster, objs, gone []Object) map[string]Difference {
	t.Helper()
	all := map[string]Difference{}
	err := c.Diff(t.Context(), objs, gone, func(d Difference) {
		if _, ok := all[d.Name]; ok {
			t.Errorf("%s is reported twice", d.Name)
		}
		all[d.Name] = d
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// randomSpec makes up a spec of a Shape: any fields, any values, few enough of
// them that two specs often agree in some.
func randomSpec(r *rand.Rand) map[string]any {
	text := func() any { return []string{"", "a", "b", "0123", "true", "é\n"}[r.IntN(6)] }
	structOf := func() any {
		m := map[string]any{}
		for _, k := range []string{"a", "b"} {
			if r.IntN(2) == 0 {
				m[k] = text()
			}
		}
		switch r.IntN(4) {
		case 0:
			m["deep"] = map[string]any{}
		case 1:
			m["deep"] = map[string]any{"a": text()}
		}
		return m
	}
	some := func(max int, make func(i int) any) any {
		l := []any{}
		for i := range r.IntN(max + 1) {
			l = append(l, make(i))
		}
		return l
	}
	textMap := func() any {
		m := map[string]any{}
		for _, k := range []string{"k", "l", "m.n/o"} {
			if r.IntN(2) == 0 {
				m[k] = text()
			}
		}
		return m
	}
	makers := map[string]func() any{
		"text": text, "flag": func() any { return r.IntN(2) == 0 }, "int": func() any { return r.Int64N(3) },
		"intOrString": func() any { return []any{int64(1), "1", "x"}[r.IntN(3)] },
		"defaulted":   text, "struct": structOf, "map": textMap, "atomicMap": textMap,
		"mapOfStructs":  func() any { return map[string]any{"x": structOf(), "y": structOf()} },
		"atomicList":    func() any { return some(3, func(int) any { return text() }) },
		"atomicStructs": func() any { return some(2, func(int) any { return structOf() }) },
		"set":           func() any { return some(3, func(i int) any { return fmt.Sprint(i * (1 + r.IntN(2)) * 7) }) },
		"keyed": func() any {
			return some(3, func(i int) any {
				e := map[string]any{"port": int64(i)}
				if r.IntN(2) == 0 {
					e["protocol"] = []string{"TCP", "UDP"}[r.IntN(2)]
				}
				if r.IntN(2) == 0 {
					e["note"] = text()
				}
				return e
			})
		},
		"free": func() any { return map[string]any{"a": []any{structOf(), int64(1)}, "b": nil} },
	}
	spec := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(makers)) {
		if r.IntN(3) == 0 {
			spec[k] = makers[k]()
		}
	}
	delete(spec, "set") // its elements may come out the same
	if r.IntN(3) == 0 {
		spec["set"] = []any{"x", "y", "z"}[:r.IntN(4)]
	}
	return spec
}

// TestDiff makes up objects, others in their place, and edits by other people;
// what it says beforehand is what the API server has afterwards, and what it
// does not mention is not touched.
func TestDiff(t *testing.T) {
	s := testServer(t)
	c := connect(t, s)
	r := rand.New(rand.NewPCG(1, 2))
	const n = 150
	var before, after []Object
	for i := range n {
		name := fmt.Sprintf("diff-%d", i)
		o := named(t, shapeHead, name)
		o.Value["spec"] = randomSpec(r)
		if i%10 != 0 { // else it is new
			before = append(before, o)
		}
		next := named(t, shapeHead, name)
		next.Value["spec"] = o.Value["spec"]
		if i%3 != 0 {
			next.Value["spec"] = randomSpec(r)
		}
		if i%4 == 0 {
			next.Value["metadata"].(map[string]any)["labels"] = map[string]any{"a": fmt.Sprint(i % 8)}
		}
		after = append(after, next)
	}
	for name, res := range applied(t, c, before, true) {
		if res.Err != nil {
			t.Fatal(name, res.Err)
		}
	}
	for i, o := range before {
		switch i % 5 {
		case 0:
			edit(t, s, o, fmt.Sprintf(`{"spec": %s}`, toJSON(randomSpec(r))))
		case 1:
			edit(t, s, o, `{"metadata": {"labels": {"theirs": "x"}}, "spec": {"free": {"theirs": 1}}}`)
		}
	}
	for i := range 3 {
		o := named(t, shapeHead+"spec: {text: a, set: [x]}", fmt.Sprintf("diff-theirs-%d", i))
		if _, err := s.Do(http.MethodPost, kube.Path("test.hhwatchd.example/v1/shapes", "default")+"?fieldManager=kubectl", "application/json", []byte(toJSON(o.Value))); err != nil {
			t.Fatal(err)
		}
		before, after = append(before, o), append(after, o)
	}
	was := map[string]map[string]any{}
	for _, o := range before {
		was[o.Name] = live(t, s, o)
	}
	wrote := writes(t, s)
	diff := differences(t, connect(t, s), after, nil)
	for _, o := range before {
		if now := live(t, s, o); !equal(now, was[o.Name]) {
			t.Errorf("%s: the dry run changed it", o.Name)
		}
	}
	if writes(t, s) == wrote {
		t.Error("it was not asked what would become of anything")
	}
	created, configured, owned := 0, 0, 0
	refused := map[string]bool{}
	results := applied(t, c, after, true)
	for _, o := range after {
		d, ok := diff[o.Name]
		got := live(t, s, o)
		switch {
		case !ok:
			if !equal(got, was[o.Name]) {
				t.Errorf("%s was not to change:\n%s\n%s", o.Name, toJSON(was[o.Name]), toJSON(got))
			}
			continue
		case d.Err != nil && results[o.Name].Err != nil && d.Err.Error() == results[o.Name].Err.Error():
			// Kubernetes 1.37 leaves null where the last of some fields goes, and
			// then refuses it.
			refused[o.Name] = true
			continue
		case d.Outcome != results[o.Name].Outcome:
			t.Errorf("%s: it says %s, and it is %s", o.Name, d.Outcome, results[o.Name].Outcome)
		}
		if !equal(d.Live, authored(was[o.Name])) {
			t.Errorf("%s: it takes for live\n%s\nwhich is\n%s", o.Name, toJSON(d.Live), toJSON(authored(was[o.Name])))
		}
		if !equal(d.Want, authored(got)) {
			t.Errorf("%s: of\n%s\nand\n%s\nit says\n%s\nwould become, and it is\n%s", o.Name, toJSON(d.Live), toJSON(o.Value), toJSON(d.Want), toJSON(authored(got)))
		}
		switch {
		case d.Outcome == Created:
			created++
		case equal(d.Live, d.Want):
			owned++
		default:
			configured++
		}
	}
	if created == 0 || configured == 0 || owned == 0 {
		t.Errorf("%d to be created, %d to be changed, %d to be owned: not all was tried", created, configured, owned)
	}
	if len(refused) > n/10 {
		t.Errorf("%d of %d objects are refused", len(refused), n)
	}
	for name, d := range differences(t, connect(t, s), after, nil) {
		if refused[name] {
			continue
		}
		t.Errorf("%s differs afterwards: %s in %s\n%s\n%s", name, d.Outcome, d.Field, toJSON(d.Live), toJSON(d.Want))
	}
}

// TestDiffOfWebhooks has one that adds, which is no difference, one that
// insists on a value of its own, and one that refuses.
func TestDiffOfWebhooks(t *testing.T) {
	s := testServer(t)
	c := connect(t, s)
	webhook(t, s, "diff-adds", `"CREATE", "UPDATE"`, func(map[string]any) (patch, refusal string) {
		return `[{"op": "add", "path": "/metadata/labels/added", "value": "x"}, {"op": "replace", "path": "/spec/defaulted", "value": "insisted"}]`, ""
	})
	webhook(t, s, "diff-refuses", `"CREATE", "UPDATE"`, func(o map[string]any) (patch, refusal string) {
		if spec, _ := o["spec"].(map[string]any); spec["text"] == "bad" {
			return "", "bad is refused"
		}
		return "", ""
	})
	adds := named(t, shapeHead+"metadata: {labels: {webhook: diff-adds}}\nspec: {text: a, defaulted: mine}", "diff-adds")
	refused := named(t, shapeHead+"metadata: {labels: {webhook: diff-refuses}}\nspec: {text: bad}", "diff-refuses")

	diff := differences(t, c, []Object{adds, refused}, nil)
	if d := diff["diff-adds"]; d.Outcome != Created || d.Live != nil || d.Want["spec"].(map[string]any)["defaulted"] != "insisted" {
		t.Errorf("of what is new it says %+v", d)
	}
	if d := diff["diff-refuses"]; d.Outcome != Failed || d.Err == nil || !strings.Contains(d.Err.Error(), "bad is refused") || d.Want["spec"].(map[string]any)["text"] != "bad" {
		t.Errorf("of what is refused it says %+v", d)
	}
	one(t, c, adds, true)
	if diff := differences(t, connect(t, s), []Object{adds}, nil); len(diff) != 0 {
		t.Errorf("what a webhook made of it is a difference: %+v", diff)
	}
	adds.Value["spec"].(map[string]any)["text"] = "b"
	if d := differences(t, c, []Object{adds}, nil)["diff-adds"]; d.Outcome != Configured || toJSON(d.Want["spec"]) != `{"defaulted":"insisted","text":"b"}` {
		t.Errorf("it says %+v", d)
	}
}

// TestDiffOfPrune looks at what would be deleted.
func TestDiffOfPrune(t *testing.T) {
	s := testServer(t)
	c := connect(t, s)
	objs := shapes(t, "diff-prune", 5)
	ours, theirs, absent, going, refused := objs[0], objs[1], objs[2], objs[3], objs[4]
	refused.Value["metadata"].(map[string]any)["labels"] = map[string]any{"webhook": "diff-keeps"}
	if _, err := s.Do(http.MethodPost, kube.Path("test.hhwatchd.example/v1/shapes", "default")+"?fieldManager=kubectl", "application/json", []byte(toJSON(theirs.Value))); err != nil {
		t.Fatal(err)
	}
	applied(t, c, []Object{ours, going, refused}, true)
	edit(t, s, going, `{"metadata": {"finalizers": ["test.hhwatchd.example/agent"]}}`)
	pruned(t, c, []Object{going})
	webhook(t, s, "diff-keeps", `"DELETE"`, func(o map[string]any) (patch, refusal string) {
		if meta, _ := o["metadata"].(map[string]any); meta["name"] == refused.Name {
			return "", "it is in use"
		}
		return "", ""
	})
	missing := named(t, "apiVersion: test.hhwatchd.example/v1\nkind: Missing", "diff-prune-missing")
	diff := differences(t, c, nil, []Object{ours, theirs, absent, going, refused, missing})
	if d := diff[ours.Name]; d.Outcome != Pruned || d.Want != nil || d.Live["spec"] == nil {
		t.Errorf("of ours it says %+v", d)
	}
	if d := diff[refused.Name]; d.Outcome != Failed || d.Err == nil || !strings.Contains(d.Err.Error(), "it is in use") || d.Live == nil || d.Want != nil {
		t.Errorf("of what is refused it says %+v", d)
	}
	if len(diff) != 2 || !exists(s, ours) {
		t.Errorf("it says %+v", diff)
	}
	edit(t, s, going, `{"metadata": {"finalizers": null}}`)
}

// TestDiffOfDrift tells of what would only be reported as that.
func TestDiffOfDrift(t *testing.T) {
	s := testServer(t)
	c := connect(t, s)
	o := named(t, shapeHead+"spec: {text: a}", "diff-drift")
	one(t, c, o, true)
	edit(t, s, o, `{"spec": {"text": "theirs"}}`)
	for reportOnly, want := range map[bool]Outcome{false: Configured, true: Drifted} {
		o.ReportOnly = reportOnly
		if d := differences(t, c, []Object{o}, nil)[o.Name]; d.Outcome != want || d.Want["spec"].(map[string]any)["text"] != "a" {
			t.Errorf("with ReportOnly %t it says %+v", reportOnly, d)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// patience bounds what is waited for.
const patience = 30 * time.Second

// watched returns a cluster with a watch, and objects that are applied and
// known to be so.
func watched(t testing.TB, c *Cluster, objs []Object) *Watch {
	t.Helper()
	w := c.Watch()
	t.Cleanup(w.Close)
	applied(t, c, objs, true)
	awaitHolds(t, w, objs)
	return w
}

// awaitHolds waits until the watch knows that objs are as they should be.
func awaitHolds(t testing.TB, w *Watch, objs []Object) {
	t.Helper()
	eventually(t, func() error {
		for _, o := range objs {
			if _, ok := w.Holds(o.Key(), o.Digest); !ok {
				return fmt.Errorf("%s %s is not known to be held", o.Kind, o.Name)
			}
		}
		return nil
	})
}

func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// awaitChange waits until the watch tells that an object has changed.
func awaitChange(t testing.TB, w *Watch, want Key) {
	t.Helper()
	deadline := time.After(patience)
	for {
		if changed, _ := w.Take(); slices.Contains(changed, want) {
			return
		}
		select {
		case <-w.C():
		case <-deadline:
			t.Fatalf("no word of %v", want)
		}
	}
}

// digested gives an object a digest that goes with its value.
func digested(o Object) Object {
	o.Digest = toJSON(o.Value)
	return o
}

// TestWatch changes an object in ways that are of interest, and in others: the
// watch tells of the former, and its knowledge outlives the latter.
func TestWatch(t *testing.T) {
	s := testServer(t)
	file := func(i int) Object {
		return digested(named(t, shapeHead+"metadata: {labels: {a: x}}\nspec: {text: a, set: [a]}", fmt.Sprintf("watched-%d", i)))
	}
	tests := []struct {
		name, patch, subresource string
		told                     bool
	}{
		{name: "our field", patch: `{"spec": {"text": "b"}}`, told: true},
		{name: "our label", patch: `{"metadata": {"labels": {"a": "y"}}}`, told: true},
		{name: "our label removed", patch: `{"metadata": {"labels": null}}`, told: true},
		{name: "another field", patch: `{"spec": {"number": 1}}`, told: true}, // and found to be in order
		{name: "their label", patch: `{"metadata": {"labels": {"b": "y"}}}`},
		{name: "their annotation", patch: `{"metadata": {"annotations": {"b": "y"}}}`},
		{name: "deleted", told: true},
	}
	var objs []Object
	for i := range tests {
		objs = append(objs, file(i))
	}
	canary := digested(named(t, shapeHead+"spec: {text: a}", "watched-canary"))
	c := connect(t, s)
	w := watched(t, c, append(slices.Clone(objs), canary))
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := objs[i]
			if tt.patch == "" {
				if _, err := s.Do(http.MethodDelete, path(o), "", nil); err != nil {
					t.Fatal(err)
				}
			} else {
				edit(t, s, o, tt.patch)
			}
			if tt.told {
				awaitChange(t, w, o.Key())
				if _, ok := w.Holds(o.Key(), o.Digest); ok {
					t.Error("it is taken to be as it was")
				}
				if r := one(t, c, o, false); r.Err != nil {
					t.Error(r.Err)
				}
				if _, ok := w.Holds(o.Key(), o.Digest); !ok {
					t.Error("it is not known to be as wanted after it was put right")
				}
				return
			}
			// The canary is changed later, so by its word the other one is in.
			edit(t, s, canary, fmt.Sprintf(`{"spec": {"text": "%d"}}`, i))
			deadline := time.After(patience)
			for seen := false; !seen; {
				changed, _ := w.Take()
				if slices.Contains(changed, o.Key()) {
					t.Errorf("the watch tells of it")
				}
				if seen = slices.Contains(changed, canary.Key()); !seen {
					select {
					case <-w.C():
					case <-deadline:
						t.Fatal("no word of the canary")
					}
				}
			}
			if _, ok := w.Holds(o.Key(), o.Digest); !ok {
				t.Error("it is not known to be as wanted any more")
			}
			one(t, c, canary, false)
		})
	}
	if trouble := w.Trouble(); trouble != "" {
		t.Error(trouble)
	}
}

// TestWatchWho has somebody change a field: the result says who, and when.
func TestWatchWho(t *testing.T) {
	s := testServer(t)
	tests := []struct{ name, patch, field, manager string }{
		{"value", `{"spec": {"text": "b"}}`, ".spec.text", "kubectl-edit"},
		{"first by name of two", `{"spec": {"text": "b", "struct": {"deep": {"a": "q"}}}}`, ".spec.struct.deep.a", "kubectl-edit"},
		{"in an element", `{"spec": {"keyed": [{"port": 80, "protocol": "TCP", "note": "y"}]}}`, ".spec.keyed[0].note", "kubectl-edit"},
		{"atomic", `{"spec": {"atomicList": ["z"]}}`, ".spec.atomicList", "kubectl-edit"},
		{"removed", `{"spec": {"text": null}}`, ".spec.text", ""},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := connect(t, s)
			o := named(t, shapeHead+"spec: {text: a, struct: {deep: {a: x}}, atomicList: [a], keyed: [{port: 80, protocol: TCP, note: x}]}", fmt.Sprintf("who-%d", i))
			one(t, c, o, true)
			before := time.Now().Add(-2 * time.Second)
			edit(t, s, o, tt.patch)
			for _, report := range []bool{true, true, false} {
				o.ReportOnly = report
				want := Configured
				if report {
					want = Drifted
				}
				r := one(t, c, o, !report)
				if r.Outcome != want || r.Field != tt.field || r.Manager != tt.manager {
					t.Errorf("%s %s by %q, want %s %s by %q", r.Outcome, r.Field, r.Manager, want, tt.field, tt.manager)
				}
				if tt.manager != "" && (r.Changed.Before(before) || r.Changed.After(time.Now().Add(time.Second))) {
					t.Errorf("changed at %v", r.Changed)
				}
			}
			if r := one(t, c, o, true); r.Outcome != Unchanged || r.Manager != "" {
				t.Errorf("again: %s by %q", r.Outcome, r.Manager)
			}
		})
	}
	t.Run("deleted", func(t *testing.T) {
		c := connect(t, s)
		o := named(t, shapeHead+"spec: {text: a}", "who-deleted")
		o.ReportOnly = true
		for _, full := range []bool{true, false} {
			if r := one(t, c, o, full); r.Outcome != Drifted || r.Field != "" {
				t.Errorf("full %t: %s %s", full, r.Outcome, r.Field)
			}
		}
	})
}

// TestWatchSurvives takes from a watch what it stands on, and wants it to know
// what happened meanwhile.
func TestWatchSurvives(t *testing.T) {
	s := testServer(t)
	isWatch := func(r *http.Request) bool { return r.URL.Query().Get("watch") != "" }
	answer := func(w http.ResponseWriter, code int, reason, message string) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
		return true
	}
	tests := []struct {
		name  string
		fault func(w http.ResponseWriter, r *http.Request) bool
	}{
		{"connections break", func(w http.ResponseWriter, r *http.Request) bool { panic(http.ErrAbortHandler) }},
		{"gone at once", func(w http.ResponseWriter, r *http.Request) bool {
			return isWatch(r) && answer(w, 410, "Expired", "too old resource version")
		}},
		{"gone within the stream", func(w http.ResponseWriter, r *http.Request) bool {
			if !isWatch(r) {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old resource version"}}`)
			return true
		}},
		{"overloaded", func(w http.ResponseWriter, r *http.Request) bool {
			return answer(w, 503, "ServiceUnavailable", "starting")
		}},
		{"garbage", func(w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprint(w, "login please")
			return true
		}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := digested(named(t, shapeHead+"spec: {text: a}", fmt.Sprintf("survivor-%d", i)))
			lost := digested(named(t, shapeHead+"spec: {text: a}", fmt.Sprintf("survivor-deleted-%d", i)))
			p := kube.NewProxy(t, s)
			c, err := Connect(Config{Kubeconfig: p.Kubeconfig, Namespace: "default"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			w := watched(t, c, []Object{o, lost})
			p.Down()
			edit(t, s, o, `{"spec": {"text": "b"}}`)
			if _, err := s.Do(http.MethodDelete, path(lost), "", nil); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error {
				if _, ok := w.Holds(o.Key(), o.Digest); ok {
					return fmt.Errorf("it is taken to be as it was")
				}
				return nil
			})
			var met atomic.Int32
			p.Fault(func(w http.ResponseWriter, r *http.Request) bool {
				met.Add(1)
				return tt.fault(w, r)
			})
			p.Up()
			eventually(t, func() error {
				if met.Load() < 2 {
					return fmt.Errorf("nothing is asked")
				}
				return nil
			})
			p.Fault(nil)
			told := map[Key]bool{}
			eventually(t, func() error {
				changed, _ := w.Take()
				for _, k := range changed {
					told[k] = true
				}
				if !told[o.Key()] || !told[lost.Key()] {
					return fmt.Errorf("told of %v", told)
				}
				return nil
			})
			applied(t, c, []Object{o, lost}, false)
			awaitHolds(t, w, []Object{o, lost})
		})
	}
}

// TestWatchRenew has the kubeconfig change: what was watched by the old one is
// not known any more until it is watched by the new one.
func TestWatchRenew(t *testing.T) {
	s := testServer(t)
	p := kube.NewProxy(t, s)
	c, err := Connect(Config{Kubeconfig: p.Kubeconfig, Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	objs := []Object{digested(named(t, shapeHead+"spec: {text: a}", "renewed"))}
	w := watched(t, c, objs)
	if err := w.Renew(); err != nil {
		t.Error(err)
	}
	if _, ok := w.Holds(objs[0].Key(), objs[0].Digest); !ok {
		t.Error("it is not known any more, though nothing has changed")
	}
	data, err := os.ReadFile(p.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.Kubeconfig, append(data, "# changed\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Renew(); err != nil {
		t.Error(err)
	}
	if _, ok := w.Holds(objs[0].Key(), objs[0].Digest); ok {
		t.Error("it is known by the old kubeconfig")
	}
	awaitHolds(t, w, objs)
	if err := os.WriteFile(p.Kubeconfig, []byte("nonsense: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Renew(); err == nil {
		t.Error("no error for a kubeconfig that cannot be read")
	}
}

// TestWatchRewound has what was seen be of another cluster, whose resource
// versions are higher, or all of them lower, than those of the one that is there
// now.
func TestWatchRewound(t *testing.T) {
	for _, listed := range []uint64{50, 1000} {
		w := &Watch{c: make(chan struct{}, 1), kinds: map[place]*followed{}, changed: map[Key]uint64{}, troubles: map[place]string{}}
		o := Object{Group: "g", Kind: "K", Namespace: "default", Name: "n", Digest: "d"}
		b := batch{group: "g", kind: "K", namespace: "default"}
		w.follow(b, []Object{o})
		f := w.kinds[b.place()]
		f.stands, f.newest = true, 100
		old := &partial{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "old", Generation: 1, ResourceVersion: "90"}}
		w.regard(&o, old, o.Digest)
		if _, ok := w.Holds(o.Key(), "d"); !ok {
			t.Fatal("it is not known")
		}
		w.rewound(f, listed)
		other := &partial{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "new", Generation: 1, ResourceVersion: "40"}}
		w.see(f, other, false, listed)
		if _, ok := w.Holds(o.Key(), "d"); ok {
			t.Errorf("listed as of %d, the other cluster's object is taken for the one that was seen", listed)
		}
		if changed, _ := w.Take(); !slices.Contains(changed, o.Key()) {
			t.Errorf("listed as of %d, there is no word of it", listed)
		}
	}
}

// TestWatchForbidden has no right to watch.
func TestWatchForbidden(t *testing.T) {
	s := testServer(t)
	p := kube.NewProxy(t, s)
	p.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") != "" {
			r.Header.Del("Authorization") // nobody in particular
		}
		return false
	})
	c, err := Connect(Config{Kubeconfig: p.Kubeconfig, Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	w := c.Watch()
	t.Cleanup(w.Close)
	o := digested(named(t, shapeHead+"spec: {text: a}", "forbidden-to-watch"))
	one(t, c, o, true)
	eventually(t, func() error {
		if got, want := w.Trouble(), "the right to watch shapes.test.hhwatchd.example is missing"; got != want {
			return fmt.Errorf("trouble %q, want %q", got, want)
		}
		return nil
	})
	if _, ok := w.Holds(o.Key(), o.Digest); ok {
		t.Error("it is taken to be known")
	}
}

// TestWatchLateCRD follows a kind whose CRD comes late, and goes again.
func TestWatchLateCRD(t *testing.T) {
	s := testServer(t)
	c := connect(t, s)
	w := c.Watch()
	t.Cleanup(w.Close)
	plurals["Late"] = "lates"
	o := digested(named(t, "apiVersion: test.hhwatchd.example/v1\nkind: Late\nspec: {}", "late"))
	if r := one(t, c, o, true); r.Outcome != Failed || !strings.Contains(r.Err.Error(), "its CRD is not installed") {
		t.Fatalf("%s %v", r.Outcome, r.Err)
	}
	const crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	crd := `{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "lates.test.hhwatchd.example"}, "spec": {
		"group": "test.hhwatchd.example", "scope": "Namespaced", "names": {"kind": "Late", "listKind": "LateList", "plural": "lates", "singular": "late"},
		"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}}]}}`
	for range 2 {
		eventually(t, func() error { // the one before may still be going
			_, err := s.Do(http.MethodPost, crds, "application/json", []byte(crd))
			return err
		})
		eventually(t, func() error {
			if _, stirred := w.Take(); !stirred {
				return fmt.Errorf("no word of the CRD")
			}
			return nil
		})
		eventually(t, func() error {
			if r := one(t, c, o, true); r.Err != nil {
				return r.Err
			}
			return nil
		})
		awaitHolds(t, w, []Object{o})
		if _, err := s.Do(http.MethodDelete, crds+"/lates.test.hhwatchd.example", "", nil); err != nil {
			t.Fatal(err)
		}
		awaitChange(t, w, o.Key())
		eventually(t, func() error {
			if r := one(t, c, o, true); r.Outcome != Failed {
				return fmt.Errorf("it is %s", r.Outcome)
			}
			return nil
		})
	}
}

// switchGroups returns n objects, of a kind that is small.
func switchGroups(t testing.TB, prefix string, n int) []Object {
	var objs []Object
	for i := range n {
		objs = append(objs, digested(named(t, "apiVersion: wiring.githedgehog.com/v1beta1\nkind: SwitchGroup\nspec: {}", fmt.Sprintf("%s-%d", prefix, i))))
	}
	return objs
}

// TestNoop50 has fifty looks at 5,000 objects that are as they should be, as the
// daemon takes them: every 25th compares all, as for a person, and the others
// ask only about objects of which the watch does not know it. By the API
// server's own count, nothing is written, and nothing read where it is known.
func TestNoop50(t *testing.T) {
	s := testServer(t)
	objs := switchGroups(t, "noop50", 5000)
	c := connect(t, s)
	w := watched(t, c, objs)
	before, read := writes(t, s), reads(t, s)
	looks := 0
	for cycle := range 50 {
		ask := objs
		if cycle%25 > 0 {
			ask = slices.DeleteFunc(slices.Clone(objs), func(o Object) bool {
				_, ok := w.Holds(o.Key(), o.Digest)
				return ok
			})
		}
		looks += len(ask)
		err := c.Apply(t.Context(), ask, len(ask) == len(objs), func(r Result) {
			if r.Outcome != Unchanged {
				t.Errorf("cycle %d: %s: %s %s %v", cycle, r.Name, r.Outcome, r.Field, r.Err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := writes(t, s) - before; n != 0 {
		t.Errorf("%d writes in 50 cycles", n)
	}
	if looks != 2*len(objs) {
		t.Errorf("%d objects were asked for, want %d", looks, 2*len(objs))
	}
	// The pages of two lists, with what other tests have left in that kind.
	if n, most := reads(t, s)-read, 4*len(objs)/pageSize; n > most {
		t.Errorf("%d lists and gets in 50 cycles, want no more than %d", n, most)
	}
}

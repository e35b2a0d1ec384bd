// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// pruned prunes objs and returns the results in the order in which they came.
func pruned(t testing.TB, c *Cluster, objs []Object) []Result {
	t.Helper()
	var results []Result
	if err := c.Prune(t.Context(), objs, func(r Result) { results = append(results, r) }); err != nil {
		t.Fatal(err)
	}
	if len(results) != len(objs) {
		t.Errorf("%d results for %d objects", len(results), len(objs))
	}
	return results
}

func exists(s *kube.Server, o Object) bool {
	_, err := s.Get(o.Group+"/"+o.Version+"/"+o.Plural, o.Namespace, o.Name)
	return err == nil
}

func TestPrune(t *testing.T) {
	s := testServer(t)
	c := connect(t, s)
	objs := shapes(t, "prune", 6)
	ours, theirs, was, finalized, adopted, bad := objs[0], objs[1], objs[2], objs[3], objs[4], objs[5]
	bad.Name = "prune/../../6"

	// Theirs looks just like ours, but was not applied by us.
	for _, o := range []Object{theirs, adopted} {
		if _, err := s.Do(http.MethodPost, kube.Path("test.hhwatchd.example/v1/shapes", "default")+"?fieldManager=kubectl", "application/json", []byte(toJSON(o.Value))); err != nil {
			t.Fatal(err)
		}
	}
	applied(t, c, []Object{ours, finalized, adopted}, true)
	edit(t, s, finalized, `{"metadata": {"finalizers": ["test.hhwatchd.example/agent"]}}`)

	tests := []struct {
		o    Object
		want Outcome
		err  string
		left bool
	}{
		{ours, Pruned, "", false},
		{theirs, Skipped, "it was not applied by hhwatchd but by kubectl", true},
		{was, Gone, "", false},
		{finalized, Deleting, "it waits for finalizers (test.hhwatchd.example/agent)", true},
		{adopted, Pruned, "", false},
		{bad, Failed, "the name may not contain '/'", false},
		{named(t, "apiVersion: test.hhwatchd.example/v1\nkind: Missing", "prune-crd-missing"), Gone, "", false},
	}
	var all []Object
	for _, tt := range tests {
		all = append(all, tt.o)
	}
	for _, r := range pruned(t, c, all) {
		i := slices.IndexFunc(all, func(o Object) bool { return o.Name == r.Name })
		tt := tests[i]
		if r.Outcome != tt.want || r.Err == nil && tt.err != "" || r.Err != nil && (tt.err == "" || !strings.Contains(r.Err.Error(), tt.err)) {
			t.Errorf("%s: %s %v, want %s %s", r.Name, r.Outcome, r.Err, tt.want, tt.err)
		}
		if r.Outcome != Failed && exists(s, tt.o) != tt.left {
			t.Errorf("%s: still there: %t", r.Name, !tt.left)
		}
	}

	// While it waits it cannot be applied, and pruning it says the same again.
	if r := one(t, c, finalized, false); r.Outcome != Failed || r.Permanent || r.Err == nil || !strings.Contains(r.Err.Error(), "it is being deleted, and waits for finalizers (test.hhwatchd.example/agent)") {
		t.Errorf("applied while it is being deleted: %s %v", r.Outcome, r.Err)
	}
	if r := pruned(t, c, []Object{finalized})[0]; r.Outcome != Deleting {
		t.Errorf("pruned again: %s %v", r.Outcome, r.Err)
	}
	edit(t, s, finalized, `{"metadata": {"finalizers": null}}`)
	if r := pruned(t, c, []Object{finalized})[0]; r.Outcome != Gone {
		t.Errorf("pruned after the finalizer: %s %v", r.Outcome, r.Err)
	}
	if r := one(t, c, finalized, false); r.Outcome != Created {
		t.Errorf("applied after it is gone: %s %v", r.Outcome, r.Err)
	}
}

// TestPruneOrder applies and prunes one object of each of Hedgehog's kinds,
// and looks at the order.
func TestPruneOrder(t *testing.T) {
	s := testServer(t)
	c := connect(t, s)
	objs := fabric(t, "order", 1)
	slices.Reverse(objs)
	var up, down []string
	err := c.Apply(t.Context(), objs, true, func(r Result) {
		if r.Err != nil {
			t.Error(r.Kind, r.Err)
		}
		up = append(up, r.Kind)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range pruned(t, c, objs) {
		if r.Outcome != Pruned {
			t.Errorf("%s: %s %v", r.Kind, r.Outcome, r.Err)
		}
		down = append(down, r.Kind)
	}
	want := []string{"VLANNamespace", "IPv4Namespace", "SwitchGroup", "Server", "VPC", "VPCAttachment", "VPCPeering"}
	if !slices.Equal(up, want) {
		t.Errorf("applied in the order %v, want %v", up, want)
	}
	slices.Reverse(down)
	if !slices.Equal(down, want) {
		t.Errorf("pruned in the reverse of %v, want %v", down, want)
	}
}

// TestPruneConflict has somebody write to the object between our look at it
// and its deletion.
func TestPruneConflict(t *testing.T) {
	s := testServer(t)
	o := shapes(t, "prune-conflict", 1)[0]
	one(t, connect(t, s), o, false)
	tries := 0
	c := behind(t, s, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodDelete {
			if tries++; tries < 3 {
				edit(t, s, o, fmt.Sprintf(`{"metadata": {"annotations": {"try": "%d"}}}`, tries))
			}
		}
		return false
	})
	if r := pruned(t, c, []Object{o})[0]; r.Outcome != Pruned || tries != 3 {
		t.Errorf("%s %v after %d tries", r.Outcome, r.Err, tries)
	}

	// It is deleted and made anew by somebody else meanwhile.
	one(t, connect(t, s), o, false)
	replaced := false
	c = behind(t, s, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodDelete && !replaced {
			replaced = true
			if _, err := s.Do(http.MethodDelete, path(o), "", nil); err != nil {
				t.Error(err)
			}
			if _, err := s.Do(http.MethodPost, kube.Path("test.hhwatchd.example/v1/shapes", "default"), "application/json", []byte(toJSON(o.Value))); err != nil {
				t.Error(err)
			}
		}
		return false
	})
	if r := pruned(t, c, []Object{o})[0]; r.Outcome != Skipped || !exists(s, o) {
		t.Errorf("%s %v, though it is another's", r.Outcome, r.Err)
	}
}

// TestPruneWaits has an attachment that a finalizer holds, and one that
// admission does not let go: what they may refer to stays until they are gone.
func TestPruneWaits(t *testing.T) {
	s := testServer(t)
	c := connect(t, s)
	objs := fabric(t, "waits", 1)
	err := c.Apply(t.Context(), objs, true, func(r Result) {
		if r.Err != nil {
			t.Error(r.Kind, r.Err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]Object{}
	for _, o := range objs {
		of[o.Kind] = o
	}
	held := of["VPCAttachment"]
	edit(t, s, held, `{"metadata": {"finalizers": ["test.hhwatchd.example/agent"]}}`)
	want := map[string]string{
		"VPCPeering": "pruned ", "VPCAttachment": "deleting it waits for finalizers (test.hhwatchd.example/agent)",
	}
	for _, kind := range []string{"VPC", "Server", "SwitchGroup", "IPv4Namespace", "VLANNamespace"} {
		want[kind] = "deleting it waits until VPCAttachment/" + held.Name + " is gone"
	}
	prune := func() (results []Result) {
		t.Helper()
		if err := c.Prune(t.Context(), objs, func(r Result) { results = append(results, r) }); err != nil {
			t.Fatal(err)
		}
		if len(results) != len(objs) {
			t.Errorf("%d results for %d objects", len(results), len(objs))
		}
		return results
	}
	for range 2 {
		for _, r := range prune() {
			got := string(r.Outcome) + " "
			if r.Err != nil {
				got += r.Err.Error()
			}
			if got != want[r.Kind] {
				t.Errorf("%s: %q, want %q", r.Kind, got, want[r.Kind])
			}
		}
		want["VPCPeering"] = "gone "
	}
	if !exists(s, of["VPC"]) {
		t.Error("the VPC went before its attachment")
	}
	edit(t, s, held, `{"metadata": {"finalizers": null}}`)
	for _, r := range prune() {
		if r.Outcome != Pruned && r.Outcome != Gone {
			t.Errorf("%s: %s %v", r.Kind, r.Outcome, r.Err)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestTwoHosts has two hosts watch the same repository and the same cluster,
// both with drops all the time, while a third party pushes into raw/. Some
// objects come from all three, in files of the same name. The hosts end in the
// same state, with every drop and push in it, and then leave git, the cluster
// and the journal alone.
func TestTwoHosts(t *testing.T) {
	const (
		rounds = 12
		each   = 5 // drops of a host in a round; one of them of an object that all share
		shared = 3 // objects
	)
	one := newWorld(t, options{cluster: true, interval: "1s"})
	two := &world{t: t, repo: one.repo, git: one.git, bare: one.bare, kube: one.kube, state: filepath.Join(t.TempDir(), "state")}
	config, err := os.ReadFile(one.config)
	if err != nil {
		t.Fatal(err)
	}
	two.config = filepath.Join(t.TempDir(), "hhwatchd.yaml")
	write(t, two.config, strings.NewReplacer(one.state, two.state, "mgmt-1", "mgmt-2").Replace(string(config)))
	hosts := []*world{one, two}
	for _, w := range hosts {
		w.start()
	}

	var raw []string
	want := map[string]string{}               // of objects that one host alone has
	last := make([]map[string]bool, shared)   // of the others: the last text from each party
	text := func(name string, n int) string { // never the same twice
		s := vpc(name, 1000+n)
		raw = append(raw, s)
		return s
	}
	n := 0
	for round := range rounds {
		k := round % shared
		name := fmt.Sprintf("shared-%d", k)
		file := fmt.Sprintf("%s-%d.yaml", name, round)
		last[k] = map[string]bool{}
		for h, w := range hosts {
			for i := range each - 1 {
				n++
				own := fmt.Sprintf("vpc-%d-%d-%d", h, round, i)
				want["vpcs/"+own+".yaml"] = text(own, n)
				w.drop("fabric-1", own+".yaml", want["vpcs/"+own+".yaml"])
			}
			n++
			s := text(name, n)
			last[k][s] = true
			w.drop("fabric-1", file, s)
		}
		n++
		s := text(name, n)
		last[k][s] = true
		one.push("gitops/hedgehog/fabric-1/raw/"+file, s)
		// Not all at once: wait for one of the two, in turn.
		w := hosts[round%2]
		w.eventually("the drops of a round to be taken in", func() error {
			if left := rawFiles(t, w, "fabric-1"); len(left) > 0 {
				return fmt.Errorf("raw/ holds %v", left)
			}
			return nil
		})
	}

	one.eventually("the hosts to settle", func() error {
		head := one.remote("rev-parse", "main")
		for _, w := range hosts {
			st, err := w.status()
			if err != nil {
				return err
			}
			r := st.Repositories[0]
			f := r.Fabrics[0]
			if r.Unpushed > 0 || r.Head != head || f.Commit != head || f.Objects != len(want)+shared || f.Applied != f.Objects {
				return fmt.Errorf("the remote is at %s, status %+v", head, r)
			}
			if left := rawFiles(t, w, "fabric-1"); len(left) > 0 {
				return fmt.Errorf("raw/ holds %v", left)
			}
		}
		return nil
	})
	managed := one.managed("fabric-1")
	for k := range shared {
		p := fmt.Sprintf("vpcs/shared-%d.yaml", k)
		if !last[k][managed[p]] {
			t.Errorf("%s is none of those that came last from anybody:\n%s", p, managed[p])
		}
		want[p] = managed[p]
	}
	if !maps.Equal(managed, want) {
		t.Errorf("managed/ holds %v, want %v", slices.Sorted(maps.Keys(managed)), slices.Sorted(maps.Keys(want)))
	}
	one.wantLinear(raw...)
	// A drop has two commits, which others share at best, and so has a push.
	if got, _ := strconv.Atoi(one.commits()); got > 2*len(raw)+2 {
		t.Errorf("%d files made %d commits:\n%s", len(raw), got, one.remote("log", "--oneline", "main"))
	}
	for _, w := range hosts {
		w.wantApplied(managed)
	}

	head, live := one.remote("rev-parse", "main"), one.resourceVersions()
	records := []int{len(lines(one.history())), len(lines(two.history()))}
	for range 5 {
		for _, w := range hosts {
			w.must("sync")
		}
	}
	if now := one.remote("rev-parse", "main"); now != head {
		t.Errorf("they go on committing:\n%s", one.remote("log", "--oneline", head+".."+now))
	}
	if now := one.resourceVersions(); !maps.Equal(now, live) {
		t.Errorf("they go on changing objects in the cluster: %v, then %v", live, now)
	}
	for i, w := range hosts {
		if now := lines(w.history()); len(now) != records[i] {
			t.Errorf("host %d goes on recording:\n%s", i, strings.Join(now[records[i]:], "\n"))
		}
		w.clean()
		if out := w.must("get"); strings.Count(out, "vpc-")+strings.Count(out, "shared-") < len(want) {
			t.Errorf("an inventory lacks objects:\n%s", out)
		}
	}
}

// wantApplied wants the API server to hold what the managed files say, by the
// VLANs of their VPCs.
func (w *world) wantApplied(managed map[string]string) {
	w.t.Helper()
	live, err := w.kube.List(vpcs, "default")
	if err != nil {
		w.t.Fatal(err)
	}
	if len(live) != len(managed) {
		w.t.Errorf("the API server has %d objects, managed/ %d", len(live), len(managed))
	}
	for _, o := range live {
		name := o["metadata"].(map[string]any)["name"].(string)
		subnets, _ := o["spec"].(map[string]any)["subnets"].(map[string]any)
		subnet, _ := subnets["default"].(map[string]any)
		if vlan := fmt.Sprintf("vlan: %v\n", subnet["vlan"]); !strings.HasSuffix(managed["vpcs/"+name+".yaml"], vlan) {
			w.t.Errorf("%s has %sin the API server, in git it is\n%s", name, vlan, managed["vpcs/"+name+".yaml"])
		}
	}
}

// resourceVersions are those of all VPCs in the API server.
func (w *world) resourceVersions() map[string]string {
	w.t.Helper()
	live, err := w.kube.List(vpcs, "default")
	if err != nil {
		w.t.Fatal(err)
	}
	versions := map[string]string{}
	for _, o := range live {
		m := o["metadata"].(map[string]any)
		versions[m["name"].(string)] = m["resourceVersion"].(string)
	}
	return versions
}

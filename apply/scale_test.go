// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// fabric returns n objects of each of seven of Hedgehog's kinds.
func fabric(t testing.TB, prefix string, n int) []Object {
	var objs []Object
	for i := range n {
		objs = append(objs, objects(t, fmt.Sprintf(`
apiVersion: wiring.githedgehog.com/v1beta1
kind: VLANNamespace
metadata: {name: %[1]s-%[2]d}
spec: {ranges: [{from: 1000, to: 2999}]}
---
apiVersion: vpc.githedgehog.com/v1beta1
kind: IPv4Namespace
metadata: {name: %[1]s-%[2]d}
spec: {subnets: [10.%[2]d.0.0/16]}
---
apiVersion: wiring.githedgehog.com/v1beta1
kind: SwitchGroup
metadata: {name: %[1]s-%[2]d}
spec: {}
---
apiVersion: wiring.githedgehog.com/v1beta1
kind: Server
metadata: {name: %[1]s-%[2]d}
spec: {description: S-%[2]d}
---
apiVersion: vpc.githedgehog.com/v1beta1
kind: VPC
metadata: {name: %[1]s-%[2]d}
spec:
  ipv4Namespace: default
  vlanNamespace: default
  subnets:
    default:
      subnet: 10.%[2]d.1.0/24
      gateway: 10.%[2]d.1.1
      vlan: %[2]d
      dhcp: {enable: true, range: {start: 10.%[2]d.1.10}}
---
apiVersion: vpc.githedgehog.com/v1beta1
kind: VPCAttachment
metadata: {name: %[1]s-%[2]d}
spec: {connection: %[1]s-%[2]d, subnet: %[1]s-%[2]d/default}
---
apiVersion: vpc.githedgehog.com/v1beta1
kind: VPCPeering
metadata: {name: %[1]s-%[2]d}
spec: {permit: [{%[1]s-%[2]d: {}, vpc-2: {subnets: [default]}}]}
`, prefix, i+1))...)
	}
	return objs
}

// checkNoop applies objs once, and then again and again without a write.
func checkNoop(t *testing.T, s *kube.Server, objs []Object) {
	t.Helper()
	start := writes(t, s)
	first := map[Outcome]int{}
	c := connect(t, s)
	err := c.Apply(t.Context(), objs, true, func(r Result) {
		if r.Err != nil {
			t.Errorf("%s %s: %v", r.Kind, r.Name, r.Err)
		}
		first[r.Outcome]++
	})
	if err != nil {
		t.Fatal(err)
	}
	if first[Created] != len(objs) {
		t.Errorf("first: %v, want %d created", first, len(objs))
	}
	before := writes(t, s)
	if before-start != len(objs) {
		t.Errorf("%d writes for %d objects", before-start, len(objs))
	}
	for i := range 4 {
		if i == 2 {
			c = connect(t, s) // as after a restart
		}
		again := map[Outcome]int{}
		err := c.Apply(t.Context(), objs, i%2 == 0, func(r Result) {
			if r.Outcome != Unchanged {
				t.Errorf("%s %s: %s %s %v", r.Kind, r.Name, r.Outcome, r.Field, r.Err)
			}
			again[r.Outcome]++
		})
		if err != nil {
			t.Fatal(err)
		}
		if again[Unchanged] != len(objs) {
			t.Errorf("again: %v, want %d unchanged", again, len(objs))
		}
	}
	if n := writes(t, s) - before; n != 0 {
		t.Errorf("%d writes for what is as wanted", n)
	}
}

// TestNoop has more objects of a kind than fit on a page.
func TestNoop(t *testing.T) {
	s := testServer(t)
	objs := fabric(t, "noop", 5)
	for i := range pageSize + 20 {
		objs = append(objs, objects(t, fmt.Sprintf("apiVersion: wiring.githedgehog.com/v1beta1\nkind: SwitchGroup\nmetadata: {name: noop-many-%d}\nspec: {}", i))...)
	}
	checkNoop(t, s, objs)
}

// TestFewAmongMany applies changed objects of a kind of which there are many:
// what it costs goes by the former.
func TestFewAmongMany(t *testing.T) {
	s := testServer(t)
	many := shapes(t, "many", 200)
	applied(t, connect(t, s), many, true)
	var gets, lists atomic.Int32
	c := behind(t, s, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			if strings.HasSuffix(r.URL.Path, "/shapes") {
				lists.Add(1)
			} else {
				gets.Add(1)
			}
		}
		return false
	})
	tests := []struct{ few, maxGets, maxLists int32 }{
		{few: 1, maxGets: 1},
		{few: inFlight, maxGets: inFlight},
		{few: 20, maxGets: 20, maxLists: 1}, // whose answer says that there are too many
		{few: 180, maxLists: 3},
	}
	for _, tt := range tests {
		gets.Store(0)
		lists.Store(0)
		objs := slices.Clone(many[200-tt.few:])
		objs = append(objs[1:], shapes(t, fmt.Sprintf("few-%d", tt.few), 1)...)
		outcomes := map[Outcome]int32{}
		for _, r := range applied(t, c, objs, false) {
			outcomes[r.Outcome]++
		}
		if outcomes[Unchanged] != tt.few-1 || outcomes[Created] != 1 {
			t.Errorf("%d of them: %v", tt.few, outcomes)
		}
		if g, l := gets.Load(), lists.Load(); g > tt.maxGets || l > tt.maxLists {
			t.Errorf("%d of them: %d gets and %d lists, want at most %d and %d", tt.few, g, l, tt.maxGets, tt.maxLists)
		}
	}
}

// TestSamples applies the files that people have put into a raw directory.
func TestSamples(t *testing.T) {
	s := testServer(t)
	for _, file := range []string{"prepop.yaml", "test-vpc.yaml"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "shared", "hedgehog", "samples", file))
		if os.IsNotExist(err) {
			t.Skip("the samples are not here")
		}
		if err != nil {
			t.Fatal(err)
		}
		checkNoop(t, s, objects(t, string(text)))
	}
}

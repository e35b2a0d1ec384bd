// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"fmt"
	"os"
	"path/filepath"
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

// writes returns how many writing requests for Hedgehog's kinds the API server
// has counted. (It also writes leases of its own.)
func writes(t testing.TB, s *kube.Server) (n int) {
	t.Helper()
	for _, verb := range []string{"APPLY", "PATCH", "POST", "PUT", "DELETE", "DELETECOLLECTION"} {
		for _, group := range []string{wiring, vpc, gateway} {
			f, err := s.Metric("apiserver_request_total", map[string]string{"verb": verb, "group": group})
			if err != nil {
				t.Fatal(err)
			}
			n += int(f)
		}
	}
	return n
}

// checkNoop applies objs once, and then again and again without a write.
func checkNoop(t *testing.T, s *kube.Server, objs []Object) {
	t.Helper()
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
	if before < len(objs) {
		t.Errorf("%d writes counted for %d objects", before, len(objs))
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

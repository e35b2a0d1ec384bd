// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// What diff shows is what a sync does, with a daemon and without one; and then
// there is no difference.
func TestDiff(t *testing.T) {
	w := newWorld(t, options{cluster: true, prune: true})
	if out, code := w.hh("diff"); code != 3 {
		t.Errorf("before all, exit code %d:\n%s", code, out)
	}
	w.must("sync", "--once") // makes the clone
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001)+"---\n"+vpc("vpc-2", 1002)+"---\n"+vpc("vpc-3", 1003)+"---\n"+vpc("vpc-4", 1004))
	w.must("sync", "--once")
	if out := w.must("diff"); out != "" {
		t.Errorf("after a sync there is a difference:\n%s", out)
	}
	edit := func(name, patch string) {
		t.Helper()
		if _, err := w.kube.Do("PATCH", "/apis/vpc.githedgehog.com/v1beta1/namespaces/default/vpcs/"+name+"?fieldManager=kubectl-edit", "application/merge-patch+json", []byte(patch)); err != nil {
			t.Fatal(err)
		}
	}
	edit("vpc-1", `{"metadata": {"labels": {"theirs": "x"}}}`) // is nobody's business
	edit("vpc-2", `{"spec": {"subnets": {"default": {"vlan": 2002}}}}`)
	if _, err := w.kube.Do("DELETE", "/apis/vpc.githedgehog.com/v1beta1/namespaces/default/vpcs/vpc-3", "", nil); err != nil {
		t.Fatal(err)
	}
	want := `fabric-1: VPC/vpc-2 would be configured
diff live/VPC/vpc-2 gitops/hedgehog/fabric-1/managed/vpcs/vpc-2.yaml
--- live/VPC/vpc-2
+++ gitops/hedgehog/fabric-1/managed/vpcs/vpc-2.yaml
@@ -8,4 +8,4 @@
     default:
       gateway: 10.3.234.1
       subnet: 10.3.234.0/24
-      vlan: 2002
+      vlan: 1002
fabric-1: VPC/vpc-3 would be created
diff /dev/null gitops/hedgehog/fabric-1/managed/vpcs/vpc-3.yaml
--- /dev/null
+++ gitops/hedgehog/fabric-1/managed/vpcs/vpc-3.yaml
@@ -0,0 +1,11 @@
+apiVersion: vpc.githedgehog.com/v1beta1
+kind: VPC
+metadata:
+  name: vpc-3
+  namespace: default
+spec:
+  subnets:
+    default:
+      gateway: 10.3.235.1
+      subnet: 10.3.235.0/24
+      vlan: 1003
`
	if out, code := w.hh("diff"); code != 1 || out != want {
		t.Errorf("exit code %d:\n%s\nwant:\n%s", code, out, want)
	}
	for args, exit := range map[string]int{"vpc-1": 0, "VPC/vpc-2": 1, "vpc-3 --fabric fabric-1": 1, "Switch/vpc-2": 3, "--fabric none": 2} {
		if out, code := w.hh(append([]string{"diff"}, strings.Fields(args)...)...); code != exit {
			t.Errorf("diff %s, exit code %d, want %d:\n%s", args, code, exit, out)
		}
	}
	out, code := w.hh("diff", "-o", "json")
	var diffs []struct {
		Fabric, Commit string
		Objects        []struct{ Object, Outcome string }
	}
	if err := json.Unmarshal([]byte(out), &diffs); err != nil || code != 1 || len(diffs) != 1 || fmt.Sprint(diffs[0].Objects) != "[{VPC/vpc-2 configured} {VPC/vpc-3 created}]" {
		t.Errorf("as JSON, exit code %d, %v:\n%s", code, err, out)
	}
	if out := w.must("sync", "--once"); !strings.Contains(out, "1 configured") || !strings.Contains(out, "1 created") {
		t.Errorf("sync says\n%s", out)
	}
	if out := w.must("diff"); out != "" {
		t.Errorf("after a sync there is a difference:\n%s", out)
	}

	w.start()
	w.must("sync")
	if out := w.must("diff"); out != "" {
		t.Errorf("the daemon sees a difference:\n%s", out)
	}
	if out, code := w.hh("diff", "Switch/vpc-2"); code != 3 || !strings.Contains(out, "no fabric has or had an object Switch/vpc-2") {
		t.Errorf("of what is not there, exit code %d:\n%s", code, out)
	}
	c := w.git.Clone(t, "fabrics")
	c.Git("rm", "-qr", "gitops/hedgehog/fabric-1/managed/vpcs")
	c.Git("commit", "-qm", "remove")
	c.Push()
	w.hh("sync")
	if out, code := w.hh("diff"); code != 1 || !strings.HasPrefix(out, "fabric-1: prune HELD: 4 of 4 objects") {
		t.Errorf("with a prune that is held, exit code %d:\n%s", code, out)
	}
}

// Where drift is only reported, diff does not say that it would be put right.
func TestDiffOfDrift(t *testing.T) {
	w := newWorld(t, options{cluster: true})
	config, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, strings.Replace(string(config), "        prune: false\n", "        drift: report\n", 1))
	w.must("sync", "--once")
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.must("sync", "--once")
	if _, err := w.kube.Do("PATCH", "/apis/vpc.githedgehog.com/v1beta1/namespaces/default/vpcs/vpc-1?fieldManager=kubectl-edit", "application/merge-patch+json",
		[]byte(`{"spec": {"subnets": {"default": {"vlan": 2002}}}}`)); err != nil {
		t.Fatal(err)
	}
	if out, code := w.hh("diff"); code != 1 || !strings.Contains(out, "VPC/vpc-1 is not as it was applied; it is left so (drift: report)") || !strings.Contains(out, "-      vlan: 2002") {
		t.Errorf("diff, exit code %d:\n%s", code, out)
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// What the API server does not let go is told, in its words, until it does.
func TestPruneRefused(t *testing.T) {
	w := newWorld(t, options{cluster: true, prune: true})
	w.must("sync", "--once") // makes the clone
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001)+"---\n"+vpc("vpc-2", 1002)+"---\n"+vpc("vpc-3", 1003))
	w.must("sync", "--once")
	const (
		policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
		why      = "vpc-1 is in use by the lab"
	)
	name := strings.ToLower(t.Name())
	for path, text := range map[string]string{
		policies: `{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": %q}, "spec": {
			"matchConstraints": {"resourceRules": [{"apiGroups": ["vpc.githedgehog.com"], "apiVersions": ["*"], "operations": ["DELETE"], "resources": ["vpcs"]}]},
			"validations": [{"expression": "oldObject.metadata.name != 'vpc-1'", "message": "` + why + `"}]}}`,
		policies[:len(policies)-len("policies")] + "policybindings": `{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": %q},
			"spec": {"policyName": "` + name + `", "validationActions": ["Deny"]}}`,
	} {
		if _, err := w.kube.Do("POST", path, "application/json", fmt.Appendf(nil, text, name)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			// Also when the test failed: other tests have the same API server.
			_, _ = w.kube.Do("DELETE", path+"/"+name, "", nil)
		})
	}
	w.eventually("the policy to be in force", func() error {
		_, err := w.kube.Do("DELETE", "/apis/vpc.githedgehog.com/v1beta1/namespaces/default/vpcs/vpc-1?dryRun=All", "", nil)
		if err == nil || !strings.Contains(err.Error(), why) {
			return fmt.Errorf("a dry run of a deletion: %v", err)
		}
		return nil
	})

	c := w.git.Clone(t, "fabrics")
	c.Git("rm", "-q", "gitops/hedgehog/fabric-1/managed/vpcs/vpc-1.yaml", "gitops/hedgehog/fabric-1/managed/vpcs/vpc-2.yaml")
	c.Git("commit", "-qm", "remove")
	c.Push()
	w.start()
	for range 2 {
		if out, code := w.hh("sync"); code != 1 || !strings.Contains(out, why) {
			t.Errorf("sync, exit code %d:\n%s", code, out)
		}
		if out, code := w.hh("status"); code != 1 || !strings.Contains(out, "deleting VPC/vpc-1") || !strings.Contains(out, why) {
			t.Errorf("status, exit code %d:\n%s", code, out)
		}
	}
	if _, err := w.kube.Get(vpcs, "default", "vpc-2"); err == nil {
		t.Error("the other VPC was not deleted")
	}
	if h := w.history(); strings.Count(h, why) != 1 {
		t.Errorf("the history does not tell of it once:\n%s", h)
	}
	if _, err := w.kube.Do("DELETE", policies+"/"+name, "", nil); err != nil {
		t.Fatal(err)
	}
	w.eventually("vpc-1 to be deleted", func() error {
		if out, code := w.hh("sync"); code != 0 {
			return fmt.Errorf("sync, exit code %d:\n%s", code, out)
		}
		if _, err := w.kube.Get(vpcs, "default", "vpc-1"); err == nil {
			return fmt.Errorf("it is still there")
		}
		return nil
	})
	if out, code := w.hh("status"); code != 0 {
		t.Errorf("status afterwards, exit code %d:\n%s", code, out)
	}
}

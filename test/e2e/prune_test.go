// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
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

// Whatever makes it look as if objects were to go, without somebody having
// taken them out of managed/, deletes nothing, and one line says why. There are
// too few of them for the limit to hold anything.
func TestPruneGuard(t *testing.T) {
	w := newWorld(t, options{cluster: true, prune: true})
	w.start()
	const dir = "gitops/hedgehog/fabric-1"
	for i := range 3 {
		w.drop("fabric-1", fmt.Sprintf("%d.yaml", i), vpc(fmt.Sprintf("vpc-%d", i), 1001+i))
		w.inCluster(vpcs, fmt.Sprintf("vpc-%d", i))
	}
	w.must("sync")
	good := w.remote("rev-parse", "main")
	tests := []struct {
		name string
		harm func(c *gitserver.Work)
		says string
	}{
		{"the directory is renamed", func(c *gitserver.Work) {
			c.Git("mv", dir, "gitops/hedgehog/fabric-one")
			c.Git("commit", "-qm", "rename")
		}, "HELD: 3 of 3 objects would be deleted from the cluster, but managed/ came up empty"},
		{"managed/ is renamed", func(c *gitserver.Work) {
			c.Git("mv", dir+"/managed", dir+"/objects")
			c.Git("commit", "-qm", "rename")
		}, "HELD: 3 of 3 objects would be deleted from the cluster, but managed/ came up empty"},
		{"the repository is emptied", func(c *gitserver.Work) {
			c.Git("rm", "-qr", ".")
			c.Git("commit", "-qm", "empty")
		}, "HELD: 3 of 3 objects would be deleted from the cluster, but managed/ came up empty"},
		{"an older branch is pushed by force", func(c *gitserver.Work) {
			c.Git("reset", "-q", "--hard", "HEAD~2") // before the last file
		}, "HELD: 1 of 3 objects would be deleted from the cluster, but the branch was rewritten since they were applied"},
		{"another history is pushed by force", func(c *gitserver.Work) {
			c.Git("checkout", "-q", "--orphan", "new")
			c.Git("rm", "-qr", "--cached", dir+"/managed/vpcs/vpc-1.yaml")
			c.Git("commit", "-qm", "begin anew")
		}, "HELD: 1 of 3 objects would be deleted from the cluster, but the branch was rewritten since they were applied"},
		{"a file cannot be read", func(c *gitserver.Work) {
			c.Git("mv", dir+"/managed/vpcs/vpc-1.yaml", dir+"/managed/vpcs/vpc-one.yaml")
			c.Git("commit", "-qm", "rename a file")
		}, "HELD: 1 of 3 objects would be deleted from the cluster, but 1 file in managed/ cannot be read"},
		{"managed/ is a file", func(c *gitserver.Work) {
			c.Git("rm", "-qr", dir+"/managed")
			c.Write(dir+"/managed", "oops\n")
			c.Commit("a mistake")
		}, dir + "/managed is not a directory in git"},
	}
	there := func(when string) {
		t.Helper()
		for i := range 3 {
			o, err := w.kube.Get(vpcs, "default", fmt.Sprintf("vpc-%d", i))
			if err != nil || o["metadata"].(map[string]any)["deletionTimestamp"] != nil {
				t.Errorf("%s: vpc-%d is gone: %v", when, i, err)
			}
		}
	}
	for _, tt := range tests {
		c := w.git.Clone(t, "fabrics")
		tt.harm(c)
		c.Git("push", "--quiet", "--force", "origin", "HEAD:main")
		for range 3 { // again and again
			out, code := w.hh("sync")
			if code != 1 || !strings.Contains(out, tt.says) {
				t.Errorf("%s: sync, exit code %d:\n%s", tt.name, code, out)
			}
		}
		if out, code := w.hh("status"); code != 1 || !strings.Contains(out, tt.says) {
			t.Errorf("%s: status, exit code %d:\n%s", tt.name, code, out)
		}
		there(tt.name)
		w.stop() // what it knows survives that
		w.hh("sync", "--once")
		w.launch(exec.Command(binary, "--config", w.config, "run"))
		w.eventually("the daemon's first look", func() error {
			var st statusDoc
			out, _ := w.hh("status", "-o", "json")
			if err := json.Unmarshal([]byte(out), &st); err != nil || st.Repositories[0].Cycles == 0 {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
		there(tt.name + ", after a restart")
		c.Git("push", "--quiet", "--force", "origin", good+":main")
		w.eventually("all to be well", func() error {
			if out, code := w.hh("sync"); code != 0 {
				return fmt.Errorf("sync, exit code %d:\n%s", code, out)
			}
			return nil
		})
		there(tt.name + ", afterwards")
	}
	// And what somebody takes out of managed/ after all that goes.
	c := w.git.Clone(t, "fabrics")
	c.Git("rm", "-q", dir+"/managed/vpcs/vpc-1.yaml")
	c.Git("commit", "-qm", "remove")
	c.Push()
	if out := w.must("sync"); !strings.Contains(out, "1 pruned") {
		t.Errorf("sync says\n%s", out)
	}
}

// What only an unpushed commit takes out of managed/ stays in the cluster
// until the remote has that commit.
func TestPruneWaitsForThePush(t *testing.T) {
	w := newWorld(t, options{cluster: true, prune: true})
	w.start()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001)+"---\n"+vpc("vpc-2", 1002))
	w.inCluster(vpcs, "vpc-2")
	w.git.Down()
	w.drop("fabric-1", "gone.yaml", absent("vpc-1"))
	w.eventually("the drop to be committed", func() error {
		if h := w.history(); !strings.Contains(h, "gone.yaml") {
			return fmt.Errorf("%s", h)
		}
		return nil
	})
	for range 2 {
		w.hh("sync") // looks at everything
	}
	if _, err := w.kube.Get(vpcs, "default", "vpc-1"); err != nil {
		t.Errorf("it is gone before the remote knows of it: %v", err)
	}
	w.git.Up()
	if out := w.must("sync"); !strings.Contains(out, "1 pruned") {
		t.Errorf("sync says\n%s", out)
	}
}

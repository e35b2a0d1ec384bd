// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// A cluster that may goes ahead while the git server is away, and says so until
// the push has caught up; where that has to be planned anew on what somebody
// else pushed, it follows.
func TestApplyCommitted(t *testing.T) {
	w := newWorld(t, options{cluster: true, prune: true})
	config, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, strings.Replace(string(config), "cluster: {", "cluster: {apply: committed, ", 1))
	w.start()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.inCluster(vpcs, "vpc-1")
	w.must("sync")
	if out := w.must("status"); strings.Contains(out, "AHEAD") {
		t.Errorf("status with the remote there:\n%s", out)
	}
	w.git.Down()
	w.drop("fabric-1", "b.yaml", vpc("vpc-2", 1002))
	w.inCluster(vpcs, "vpc-2")
	w.eventually("status to say so", func() error {
		if out, code := w.hh("status"); code != 1 || !strings.Contains(out, "AHEAD of the remote, which does not have ") {
			return fmt.Errorf("exit code %d:\n%s", code, out)
		}
		return nil
	})
	if h := w.history(); !strings.Contains(h, "ahead of the remote") {
		t.Errorf("the history does not tell:\n%s", h)
	}
	if out, code := w.hh("diff"); code != 0 {
		t.Errorf("diff, exit code %d:\n%s", code, out)
	}
	w.drop("fabric-1", "c.yaml", vpc("vpc-1", 1003))
	w.eventually("the change in the cluster", func() error {
		o, err := w.kube.Get(vpcs, "default", "vpc-1")
		if err == nil && !strings.Contains(fmt.Sprint(o["spec"]), "vlan:1003") {
			err = fmt.Errorf("%v", o["spec"])
		}
		return err
	})

	w.git.Up()
	w.push("gitops/hedgehog/fabric-1/raw/theirs.yaml", vpc("vpc-3", 1004))
	w.must("sync")
	w.inCluster(vpcs, "vpc-3")
	w.wantManaged("fabric-1", map[string]string{
		"vpcs/vpc-1.yaml": vpc("vpc-1", 1003), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002), "vpcs/vpc-3.yaml": vpc("vpc-3", 1004),
	})
	if out := w.must("sync"); !strings.Contains(out, "3 unchanged") {
		t.Errorf("sync says\n%s", out)
	}
	if out := w.must("status"); strings.Contains(out, "AHEAD") {
		t.Errorf("status when the push has caught up:\n%s", out)
	}
	if h := w.history(); strings.Contains(h, "pruned") {
		t.Errorf("something was deleted meanwhile:\n%s", h)
	}
	w.clean()
}

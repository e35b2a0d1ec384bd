// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// absent names a VPC that is to be removed.
func absent(name string) string {
	return fmt.Sprintf(`apiVersion: vpc.githedgehog.com/v1beta1
kind: VPC
metadata:
  name: %s
  annotations:
    hhwatchd.githedgehog.com/ensure: absent
`, name)
}

// Who only drops files removes objects by dropping one, and has them back by
// dropping another; the journal, which is checked against git, tells of it.
func TestAbsent(t *testing.T) {
	w := newWorld(t, options{cluster: true, prune: true})
	w.start()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001)+"---\n"+vpc("vpc-2", 1002))
	w.inCluster(vpcs, "vpc-1")
	gone := func() {
		t.Helper()
		w.eventually("vpc-1 to be gone", func() error {
			if strings.Contains(w.remote("ls-tree", "-r", "--name-only", "main"), "/managed/vpcs/vpc-1.yaml") {
				return errors.New("it is in managed/")
			}
			if text, err := w.kube.Get(vpcs, "default", "vpc-1"); err == nil {
				return fmt.Errorf("it is in the cluster: %v", text)
			}
			return nil
		})
	}
	w.drop("fabric-1", "gone.yaml", absent("vpc-1"))
	gone()
	if h := w.history("--object", "VPC/vpc-1"); !strings.Contains(h, "removed") || !strings.Contains(h, "gone.yaml") {
		t.Errorf("the history does not tell who removed it:\n%s", h)
	}
	n := w.commits()
	w.drop("fabric-1", "again.yaml", absent("vpc-1"))
	w.eventually("the same again to be taken", func() error {
		if h := w.history(); !strings.Contains(h, "again.yaml") {
			return errors.New(h)
		}
		return nil
	})
	if now := w.commits(); now != n {
		t.Errorf("what is gone already made commits: %s, then %s", n, now)
	}

	// It comes back, and the very same file removes it once more.
	w.push("gitops/hedgehog/fabric-1/raw/back.yaml", vpc("vpc-1", 1001))
	w.must("sync")
	w.inCluster(vpcs, "vpc-1")
	w.drop("fabric-1", "gone.yaml", absent("vpc-1"))
	gone()
	w.must("journal", "verify")
	w.clean()
}

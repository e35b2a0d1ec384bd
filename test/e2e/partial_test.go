// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// With partial, the good documents of a file go through, dropped or pushed, and
// also when somebody else's push is first. What is left of a drop is not in
// git. Corrected and dropped it says nothing again of what went in before.
func TestPartial(t *testing.T) {
	w := newWorld(t, options{partial: true})
	w.push("README", "a repository\n")
	w.start()
	const secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: hunter2\n"
	raced := false
	w.git.BeforePush(func() {
		if !raced {
			raced = true
			w.push("gitops/hedgehog/fabric-1/raw/pushed.yaml", secret+"---\n"+vpc("vpc-3", 1003)+"---\n"+vpc("vpc-4", 1004))
		}
	})
	w.drop("fabric-1", "mixed.yaml", vpc("vpc-1", 1001)+"---\n"+secret+"---\n"+vpc("vpc-2", 1002))
	want := map[string]string{
		"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002),
		"vpcs/vpc-3.yaml": vpc("vpc-3", 1003), "vpcs/vpc-4.yaml": vpc("vpc-4", 1004),
	}
	w.eventually("the good documents", func() error {
		if got := w.managed("fabric-1"); len(got) != len(want) {
			return errors.New(w.remote("ls-tree", "-r", "--name-only", "main"))
		}
		return nil
	})
	w.wantManaged("fabric-1", want)
	for name, left := range map[string]string{"mixed.yaml": "---\n" + secret, "pushed.yaml": secret} {
		file := filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged", name)
		if got, err := os.ReadFile(file); err != nil || string(got) != left {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if got, err := os.ReadFile(file + ".reason"); err != nil || !strings.Contains(string(got), "2 other documents were taken in") || !strings.Contains(string(got), "HH301") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if log := w.remote("log", "-p", "main", "--", "gitops/hedgehog/fabric-1/raw/mixed.yaml", "gitops/hedgehog/fabric-1/unmanaged/mixed.yaml"); strings.Contains(log, "hunter2") {
		t.Errorf("what is left of the drop is in git:\n%s", log)
	}
	history := w.history()
	for _, line := range []string{"ingested a part of raw/mixed.yaml", "rejected a part of raw/mixed.yaml",
		"ingested raw/pushed.yaml", "rejected a part of raw/pushed.yaml"} {
		if !strings.Contains(history, line) {
			t.Errorf("the history does not say %q:\n%s", line, history)
		}
	}
	if got := w.must("get", "vpc", "vpc-4", "--fabric", "fabric-1", "-o", "json"); !strings.Contains(got, `"document": 3`) {
		t.Errorf("the document of the pushed file is not said: %s", got)
	}

	n := w.commits()
	w.must("sync")
	if now := w.commits(); now != n {
		t.Errorf("commits without a change: %s, then %s", n, now)
	}
	w.drop("fabric-1", "mixed.yaml", vpc("vpc-1", 1001)+"---\n"+secret+"---\n"+vpc("vpc-2", 1002))
	w.eventually("the same file again", func() error {
		if h := w.history(); strings.Count(h, "nothing new in a part of") != 1 {
			return errors.New(h)
		}
		return nil
	})
	if now := w.commits(); now != n {
		t.Errorf("commits of the same file again: %s, then %s", n, now)
	}
	w.drop("fabric-1", "mixed.yaml", "---\n"+vpc("vpc-5", 1005))
	w.eventually("the corrected file", func() error {
		if got := w.managed("fabric-1"); len(got) != 5 {
			return errors.New("not there yet")
		}
		return nil
	})
	w.must("journal", "verify")
	w.clean()
}

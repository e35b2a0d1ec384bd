// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
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

// A part that was not pushed stays known as one when the clone is made again: the
// file of which it is, if a crash left it in raw/, is not said once more as a
// whole, over what was said since.
func TestPartialBroken(t *testing.T) {
	for name, damaged := range map[string]string{"of the commit the journal tells": "main~3", "its trailers tell": "main~3^{tree}"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{partial: true})
			w.push("README", "a repository\n")
			w.start()
			w.git.Fail(503)
			mixed := vpc("vpc-1", 1001) + "---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: hunter2\n---\n" + vpc("vpc-2", 1002)
			drop := func(name, text string, commits int) {
				w.drop("fabric-1", name, text)
				w.eventually("commits of "+name, func() error {
					if n := strings.Count(w.history(), "made 2 commits"); n != commits {
						return fmt.Errorf("the journal knows of %d drops", n)
					}
					return nil
				})
			}
			drop("mixed.yaml", mixed, 1)
			drop("newer.yaml", vpc("vpc-1", 2001), 2)
			w.stop()
			w.half(filepath.Join(w.clone(), ".git"), damaged)
			w.drop("fabric-1", "mixed.yaml", mixed)
			w.git.Clear()
			w.start()
			w.hh("sync")
			w.pushed("fabric-1", "vpcs/vpc-2.yaml")
			w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 2001), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002)})
			if history := w.history(); strings.Contains(history, "ingested raw/mixed.yaml") || strings.Count(history, "ingested a part of raw/mixed.yaml") != 2 {
				t.Errorf("the history says:\n%s", history)
			}
			if log := w.remote("log", "-p", "main"); !strings.Contains(log, "Part-Of: ") || strings.Contains(log, "hunter2") {
				t.Errorf("the commits say:\n%s", log)
			}
			if got, err := os.ReadFile(w.unmanaged("mixed.yaml")); err != nil || !strings.Contains(string(got), "hunter2") || strings.Contains(string(got), "VPC") {
				t.Errorf("what is left of it is %q, %v", got, err)
			}
			if entries, err := os.ReadDir(w.raw("fabric-1")); err != nil || len(entries) > 0 {
				t.Errorf("raw/ holds %v, %v", entries, err)
			}
			w.clean()
		})
	}
}

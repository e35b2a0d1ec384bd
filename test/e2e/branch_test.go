// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The branch in the config changes while a drop waits to be pushed to the one
// before. It goes to the new one, whatever that holds; the old one is left as
// its remote has it; and when the config changes back, nothing is said twice.
func TestBranchChanged(t *testing.T) {
	for name, other := range map[string]func(w *world){
		"to one that is not there": func(w *world) {},
		"to an equal one":          func(w *world) { w.remote("branch", "other", "main") },
		"to an older one":          func(w *world) { w.remote("branch", "other", "main~2") },
		"to one that went on": func(w *world) {
			w.remote("branch", "other", "main")
			c := w.git.Clone(w.t, "fabrics")
			c.Git("checkout", "-q", "other")
			c.Write("gitops/hedgehog/fabric-1/raw/vpc-3.yaml", vpc("vpc-3", 1003))
			c.Commit("add vpc-3")
			c.Git("push", "-q", "origin", "other")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{})
			w.push("README.md", "fabrics\n")
			w.start()
			w.drop("fabric-1", "vpc-1.yaml", vpc("vpc-1", 1001))
			w.pushed("fabric-1", "vpcs/vpc-1.yaml")
			w.must("sync")
			main := w.remote("rev-parse", "main")
			other(w)
			w.git.Fail(503)
			w.drop("fabric-1", "vpc-2.yaml", vpc("vpc-2", 1002))
			w.eventually("commits that wait", func() error {
				if n := strings.Count(w.history(), "made 2 commits"); n != 2 {
					return fmt.Errorf("the journal knows of %d drops", n)
				}
				return nil
			})
			w.stop()
			config, err := os.ReadFile(w.config)
			w.ok(err)
			write(t, w.config, strings.Replace(string(config), "    interval:", "    branch: other\n    interval:", 1))
			// The remote is still away at first.
			w.startDown()
			w.git.Clear()
			w.hh("sync")
			want := map[string]string{"vpcs/vpc-2.yaml": vpc("vpc-2", 1002)}
			if name != "to an older one" {
				want["vpcs/vpc-1.yaml"] = vpc("vpc-1", 1001)
			}
			if name == "to one that went on" {
				want["vpcs/vpc-3.yaml"] = vpc("vpc-3", 1003)
			}
			w.must("sync")
			holds := func(branch string, want map[string]string) {
				t.Helper()
				got := strings.Fields(w.remote("ls-tree", "-r", "--name-only", branch, "--", "gitops/hedgehog/fabric-1/raw/", "gitops/hedgehog/fabric-1/managed/"))
				if len(got) != len(want) {
					t.Errorf("%s holds %v, want %d files", branch, got, len(want))
				}
				for p, text := range want {
					if got := w.remote("show", branch+":gitops/hedgehog/fabric-1/managed/"+p) + "\n"; got != text {
						t.Errorf("%s on %s: %s", p, branch, got)
					}
				}
			}
			holds("other", want)
			w.clean()
			if out := w.must("status"); strings.Contains(out, "unpushed") || strings.Contains(out, "ASIDE") {
				t.Errorf("status:\n%s", out)
			}
			if got := w.gitHere("rev-parse", "main"); got != main {
				t.Errorf("the old branch is at %s here, want %s", got, main)
			}
			history := w.history()
			if strings.Contains(history, "broken") || strings.Contains(history, "set aside") {
				t.Errorf("history:\n%s", history)
			}
			if _, err := os.Stat(filepath.Join(w.state, "aside")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("set aside: %v", err)
			}
			// And back.
			w.stop()
			write(t, w.config, string(config))
			w.start()
			w.must("sync")
			holds("main", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001)})
			if got := w.remote("rev-parse", "main"); got != main {
				t.Errorf("the old branch is at %s on the remote, want %s", got, main)
			}
			w.clean()
		})
	}
}

// startDown starts the daemon while its remote is away.
func (w *world) startDown() {
	w.t.Helper()
	w.launch(exec.Command(binary, "--config", w.config, "run"))
	w.eventually("the daemon's first look", func() error {
		st, err := w.look()
		if err == nil && st.Cycles == 0 {
			err = errors.New("no cycle yet")
		}
		return err
	})
}

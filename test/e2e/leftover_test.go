// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/journal"
	"github.com/hhwatchd/hhwatchd/test/gitserver"
)

// A crash came between the commit of a drop and the raw file's leaving raw/.
// The drop is not taken for another one, also where another clone has pushed
// first meanwhile and it is said again on top of that.
func TestLeftover(t *testing.T) {
	for name, raced := range map[string]bool{"": false, "and a lost race": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			w.start()
			w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
			w.pushed("fabric-1", "vpcs/vpc-1.yaml")
			w.must("sync") // the cycle is through
			clone := gitserver.Open(t, w.clone())
			archived := strings.TrimSpace(clone.Git("rev-parse", "refs/hhwatchd/archived"))

			w.git.Down()
			w.drop("fabric-1", "b.yaml", vpc("vpc-2", 1002))
			w.eventually("the drop's commits", func() error {
				if out := clone.Git("rev-list", "--count", "main"); out != "4\n" {
					return fmt.Errorf("there are %s", out)
				}
				return nil
			})
			w.stop()
			write(t, filepath.Join(w.raw("fabric-1"), "b.yaml"), vpc("vpc-2", 1002))
			clone.Git("update-ref", "refs/hhwatchd/archived", archived)
			w.git.Up()
			raw := []string{vpc("vpc-1", 1001), vpc("vpc-2", 1002)}
			want := map[string]string{"vpcs/vpc-1.yaml": raw[0], "vpcs/vpc-2.yaml": raw[1]}
			if raced {
				raw = append(raw, vpc("vpc-3", 1003))
				want["vpcs/vpc-3.yaml"] = raw[2]
				w.push("gitops/hedgehog/fabric-1/raw/c.yaml", raw[2])
			}

			w.start()
			w.wantManaged("fabric-1", want)
			w.wantLinear(raw...)
			if out := w.remote("log", "--format=%s", "--fixed-strings", "--grep=Drop b.yaml", "main"); len(lines(out)) != 1 {
				t.Errorf("the drop was not committed once:\n%s", w.remote("log", "--oneline", "main"))
			}
			if left := rawFiles(t, w, "fabric-1"); len(left) > 0 {
				t.Errorf("raw/ holds %v", left)
			}
			if h := w.history(); strings.Contains(h, "nothing new") {
				t.Errorf("the history tells of one more drop:\n%s", h)
			}
			w.clean()
		})
	}
}

// Files that are said again after a lost race keep the order of their arrival:
// the later word wins, whatever the files are called.
func TestOrderAfterLostRace(t *testing.T) {
	w := newWorld(t, options{})
	w.must("sync", "--once") // makes the clone
	w.git.Down()
	for i, name := range []string{"z.yaml", "a.yaml", "m.yaml"} {
		w.drop("fabric-1", name, vpc("vpc-1", 1001+i))
		time.Sleep(20 * time.Millisecond) // ctime has the kernel's clock tick
	}
	w.hh("sync", "--once")
	if out := gitserver.Open(t, w.clone()).Git("rev-list", "--count", "main"); out != "2\n" {
		t.Fatalf("there are %s commits, want one drop and its ingestion", out)
	}
	w.git.Up()
	w.push("docs/note.md", "first\n")
	w.must("sync", "--once")
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1003)})
	w.wantLinear(vpc("vpc-1", 1001), vpc("vpc-1", 1002), vpc("vpc-1", 1003))
}

// A crash came between the push of work that had been planned anew and the
// journal. The journal tells of each commit that the remote has, also of those
// that a later one superseded.
func TestJournalBehindLostRace(t *testing.T) {
	w := newWorld(t, options{})
	w.push("docs/note.md", "first\n")
	w.must("sync", "--once")
	w.git.Down()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.hh("sync", "--once")
	w.drop("fabric-1", "b.yaml", vpc("vpc-1", 1002))
	w.hh("sync", "--once")
	dir, saved := filepath.Join(w.state, "journal"), t.TempDir()
	if err := os.CopyFS(saved, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	w.git.Up()
	w.push("gitops/hedgehog/fabric-1/raw/c.yaml", vpc("vpc-3", 1003))
	w.push("gitops/hedgehog/fabric-1/raw/c.yaml", vpc("vpc-3", 1004))
	w.must("sync", "--once")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(saved)); err != nil {
		t.Fatal(err)
	}
	w.must("sync", "--once")

	told := map[string]int{}
	for r, err := range journal.Read(dir, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Step == journal.StepIngest {
			told[r.To+" "+r.File.Path]++
		}
	}
	for _, file := range []string{"a.yaml", "b.yaml", "c.yaml"} {
		path := "gitops/hedgehog/fabric-1/raw/" + file
		commits := lines(w.remote("log", "--format=%H", "--diff-filter=D", "main", "--", path))
		if len(commits) != 1 {
			t.Fatalf("%d commits ingest %s", len(commits), file)
		}
		for _, c := range commits {
			if told[c+" "+path] != 1 {
				t.Errorf("the journal tells %d times that %s ingested %s:\n%s", told[c+" "+path], c, file, w.history())
			}
		}
	}
	if out := w.must("get"); strings.Count(out, "vpc-") != 2 {
		t.Errorf("the inventory is\n%s", out)
	}
}

// The journal knew of a rejection, and then the file could not be moved to
// unmanaged/, or a crash came: it is moved later, and told once.
func TestRejectionInterrupted(t *testing.T) {
	w := newWorld(t, options{})
	w.must("sync", "--once") // makes the clone
	w.drop("fabric-1", "bad.yaml", "kind: VPC\n")
	kept := filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged/bad.yaml")
	if err := os.MkdirAll(kept+".reason", 0o755); err != nil { // in the way
		t.Fatal(err)
	}
	for range 2 {
		if out, code := w.hh("sync", "--once"); code != 1 || !strings.Contains(out, "bad.yaml: it is rejected (HH202), but cannot be moved to unmanaged/") {
			t.Fatalf("sync, exit code %d:\n%s", code, out)
		}
	}
	if err := os.Remove(kept + ".reason"); err != nil {
		t.Fatal(err)
	}
	w.hh("sync", "--once")
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	if h := w.history(); strings.Count(h, "rejected raw/bad.yaml") != 1 {
		t.Errorf("the history does not tell once of the rejection:\n%s", h)
	}
	// Dropped again, it is another rejection.
	w.drop("fabric-1", "bad.yaml", "kind: VPC\n")
	w.hh("sync", "--once")
	if h := w.history(); strings.Count(h, "rejected raw/bad.yaml") != 2 {
		t.Errorf("the history does not tell of the second rejection:\n%s", h)
	}
}

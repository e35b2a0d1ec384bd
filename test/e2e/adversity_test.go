// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
	"github.com/hhwatchd/hhwatchd/test/kube"
)

// wantLinear wants a history without merges, and every one of these raw
// files' bytes in it.
func (w *world) wantLinear(raw ...string) {
	w.t.Helper()
	if merges := w.remote("log", "--merges", "--oneline", "main"); merges != "" {
		w.t.Errorf("there are merge commits:\n%s", merges)
	}
	objects := w.remote("rev-list", "--objects", "main")
	for _, text := range raw {
		cmd := exec.Command("git", "hash-object", "--stdin")
		cmd.Stdin = strings.NewReader(text)
		blob, err := cmd.Output()
		if err != nil {
			w.t.Fatal(err)
		}
		if !strings.Contains(objects, strings.TrimSpace(string(blob))) {
			w.t.Errorf("the history does not hold the bytes of a raw file:\n%s", text)
		}
	}
}

// wantManaged wants these files on the remote, and no others.
func (w *world) wantManaged(fabric string, want map[string]string) {
	w.t.Helper()
	w.eventually("managed files on the remote", func() error {
		if out, err := exec.Command("git", "-C", w.bare, "-c", "safe.directory=*", "rev-parse", "--verify", "-q", "main").CombinedOutput(); err != nil {
			return fmt.Errorf("%v %s", err, out)
		}
		if got := w.managed(fabric); !maps.Equal(got, want) {
			return fmt.Errorf("managed/ holds %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
		return nil
	})
}

// Somebody else pushes between our pull and our push: the drop is planned
// anew on their commit, at once, without a merge.
func TestLostRace(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.drop("fabric-1", "first.yaml", vpc("vpc-0", 1000))
	w.pushed("fabric-1", "vpcs/vpc-0.yaml")
	other := w.git.Clone(t, "fabrics")
	w.git.BeforePush(func() {
		for _, f := range []struct{ path, text string }{
			{"README.md", "somebody else was here\n"},
			{"gitops/hedgehog/fabric-1/raw/other.yaml", vpc("vpc-2", 1002)},
		} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(other.Dir, f.path)), 0o755); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(filepath.Join(other.Dir, f.path), []byte(f.text), 0o644); err != nil {
				t.Error(err)
			}
		}
		for _, args := range [][]string{{"add", "-A"}, {"commit", "-qm", "first"}, {"push", "-q"}} {
			if out, err := other.TryGit(args...); err != nil {
				t.Errorf("git %v: %v\n%s", args, err, out)
			}
		}
	})
	w.drop("fabric-1", "ours.yaml", vpc("vpc-1", 1001))
	w.wantManaged("fabric-1", map[string]string{
		"vpcs/vpc-0.yaml": vpc("vpc-0", 1000), "vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002),
	})
	w.wantLinear(vpc("vpc-0", 1000), vpc("vpc-1", 1001), vpc("vpc-2", 1002))
	w.clean()
	if n := w.commits(); n != "6" {
		t.Errorf("%s commits, want 2 for the first drop, theirs, its ingestion, and 2 for ours:\n%s", n, w.remote("log", "--oneline", "main"))
	}
}

// While the remote is away work goes on, and when it is back, and somebody
// else has pushed meanwhile, all of it goes through in order.
func TestRemoteAway(t *testing.T) {
	w := newWorld(t, options{interval: "1s"})
	w.start()
	w.git.Down()
	versions := []string{vpc("vpc-1", 1001), vpc("vpc-1", 1002), vpc("vpc-1", 1003)}
	for i, text := range versions {
		w.drop("fabric-1", "x.yaml", text)
		w.eventually("the drop to be committed", func() error {
			got, err := os.ReadFile(filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/managed/vpcs/vpc-1.yaml"))
			if err == nil && string(got) != text {
				err = fmt.Errorf("version %d is not there", i)
			}
			return err
		})
	}
	w.eventually("status to say so", func() error {
		out, code := w.hh("status")
		if code != 1 || !strings.Contains(out, "DOWN") || !strings.Contains(out, "connection refused") || !strings.Contains(out, "6 commits") {
			return fmt.Errorf("exit code %d:\n%s", code, out)
		}
		return nil
	})
	w.stop()

	w.git.Up()
	w.push("gitops/hedgehog/fabric-1/raw/y.yaml", vpc("vpc-2", 1004))
	w.start()
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": versions[2], "vpcs/vpc-2.yaml": vpc("vpc-2", 1004)})
	w.wantLinear(append(versions, vpc("vpc-2", 1004))...)
	w.clean()
	head := w.remote("rev-parse", "main")
	w.must("sync")
	if now := w.remote("rev-parse", "main"); now != head {
		t.Errorf("the next cycle commits again:\n%s", w.remote("log", "--oneline", "main"))
	}
}

// What was taken back on the remote by a forced push stays so.
func TestRewound(t *testing.T) {
	w := newWorld(t, options{cluster: true})
	w.start()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.inCluster(vpcs, "vpc-1")
	w.drop("fabric-1", "b.yaml", vpc("vpc-2", 1002))
	w.inCluster(vpcs, "vpc-2")
	w.remote("update-ref", "refs/heads/main", w.remote("rev-parse", "main~2"))
	w.must("sync")
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001)})
	w.clean()
	if h := w.history(); !strings.Contains(h, "rewritten") {
		t.Errorf("the history does not tell of the rewrite:\n%s", h)
	}
	// Dropped again, it comes back, although the journal has seen it.
	w.drop("fabric-1", "b.yaml", vpc("vpc-2", 1002))
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002)})
	w.wantLinear(vpc("vpc-2", 1002))
}

// A local edit in managed/ is neither overwritten in silence nor pushed.
func TestLocalEdit(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")
	head := w.remote("rev-parse", "main")
	file := filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/managed/vpcs/vpc-1.yaml")
	edit := vpc("vpc-1", 666)
	write(t, file, edit)
	out := w.must("sync")
	if got, err := os.ReadFile(file); err != nil || string(got) != vpc("vpc-1", 1001) {
		t.Errorf("the file was not restored: %v\n%s", err, got)
	}
	kept, err := os.ReadFile(filepath.Join(w.state, "aside/site-a/gitops/hedgehog/fabric-1/managed/vpcs/vpc-1.yaml"))
	if err != nil || string(kept) != edit {
		t.Errorf("the edit was not kept: %v\n%s", err, kept)
	}
	for _, said := range []string{out, w.history()} {
		if !strings.Contains(said, "aside") {
			t.Errorf("nothing is said of the edit:\n%s", said)
		}
	}
	if now := w.remote("rev-parse", "main"); now != head {
		t.Error("the edit led to a commit")
	}
	w.clean()
}

// A writer that pauses for longer than the quiet period is waited for.
func TestSlowWriter(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	text := vpc("vpc-1", 1001) + "---\n" + vpc("vpc-2", 1002)
	f, err := os.Create(filepath.Join(w.raw("fabric-1"), "slow.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	half := len(vpc("vpc-1", 1001)) // a whole document: to be read at this point would be wrong and go unnoticed
	f.WriteString(text[:half])
	w.eventually("the daemon to wait for the writer", func() error {
		if out := w.must("sync"); !strings.Contains(out, "still being written") {
			return fmt.Errorf("sync says\n%s", out)
		}
		return nil
	})
	if out := w.must("status"); !strings.Contains(out, "slow.yaml") {
		t.Errorf("status does not say for what it waits:\n%s", out)
	}
	f.WriteString(text[half:])
	f.Close()
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002)})
	w.wantLinear(text)
}

// While one fabric's cluster is away, ingestion and the other fabric's
// cluster go on; when it is back, what waited is applied.
func TestClusterAway(t *testing.T) {
	w := newWorld(t, options{cluster: true, fabrics: []string{"fabric-1", "fabric-2"}})
	away := kube.Start(t, kube.Options{CRDs: []string{kube.FixtureCRDs()}})
	config, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	before, after, _ := strings.Cut(string(config), "name: fabric-2")
	write(t, w.config, before+"name: fabric-2"+strings.Replace(after, w.kube.Kubeconfig, away.Kubeconfig, 1))
	if err := away.Stop(); err != nil {
		t.Fatal(err)
	}
	w.launch(exec.Command(binary, "--config", w.config, "run")) // status is not well, as start would want it
	w.eventually("the daemon's first look", func() error { _, err := os.Stat(w.raw("fabric-2")); return err })
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.drop("fabric-2", "b.yaml", vpc("vpc-2", 1002))
	w.inCluster(vpcs, "vpc-1")
	w.pushed("fabric-2", "vpcs/vpc-2.yaml")
	w.eventually("status to say that the cluster is away", func() error {
		out, code := w.hh("status")
		if code != 1 || !strings.Contains(out, "cluster DOWN") {
			return fmt.Errorf("exit code %d:\n%s", code, out)
		}
		return nil
	})
	if err := away.Restart(); err != nil {
		t.Fatal(err)
	}
	w.eventually("what waited, in the cluster", func() error {
		_, err := away.Get(vpcs, "default", "vpc-2")
		return err
	})
	if _, err := away.Get(vpcs, "default", "vpc-1"); err == nil {
		t.Error("the first fabric's object is in the second one's cluster")
	}
	w.eventually("status to be well", func() error { _, err := w.status(); return err })
	if h := w.history("--fabric", "fabric-2"); !strings.Contains(h, "fault") || !strings.Contains(h, "over") {
		t.Errorf("the history does not tell of the outage:\n%s", h)
	}
}

// An object that the API server refuses does not stop the others.
func TestRefusedByTheCluster(t *testing.T) {
	w := newWorld(t, options{cluster: true, lax: true})
	w.start()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001)+"---\n"+strings.Replace(vpc("vpc-2", 1002), "vlan: 1002", "vlan: many", 1))
	w.inCluster(vpcs, "vpc-1")
	w.eventually("status to name the object", func() error {
		out, code := w.hh("status")
		if code != 1 || !strings.Contains(out, "NOT APPLIED managed/vpcs/vpc-2.yaml") {
			return fmt.Errorf("exit code %d:\n%s", code, out)
		}
		return nil
	})
	n := len(lines(w.history()))
	w.hh("sync")
	w.hh("sync")
	if h := w.history(); len(lines(h)) != n {
		t.Errorf("the same failure is told again:\n%s", h)
	}
	w.drop("fabric-1", "b.yaml", vpc("vpc-2", 1002))
	w.inCluster(vpcs, "vpc-2")
	w.eventually("status to be well", func() error { _, err := w.status(); return err })
}

// Objects whose file left managed/ are deleted, where that was asked for, and
// not too many at once without a person's word.
func TestPrune(t *testing.T) {
	w := newWorld(t, options{cluster: true, prune: true})
	w.start()
	var all strings.Builder
	for i := range 12 {
		fmt.Fprintf(&all, "---\n%s", vpc(fmt.Sprintf("vpc-%d", i), 1000+i))
	}
	w.drop("fabric-1", "all.yaml", all.String())
	w.inCluster(vpcs, "vpc-11")
	remove := func(names ...string) {
		c := w.git.Clone(t, "fabrics")
		for _, n := range names {
			c.Git("rm", "-q", "gitops/hedgehog/fabric-1/managed/vpcs/"+n+".yaml")
		}
		c.Git("commit", "-qm", "remove")
		c.Push()
	}
	remove("vpc-0")
	if out := w.must("sync"); !strings.Contains(out, "1 pruned") {
		t.Errorf("sync says\n%s", out)
	}
	if _, err := w.kube.Get(vpcs, "default", "vpc-0"); err == nil {
		t.Error("vpc-0 is still in the cluster")
	}
	remove("vpc-1", "vpc-2", "vpc-3", "vpc-4", "vpc-5", "vpc-6")
	if out, _ := w.hh("sync"); !strings.Contains(out, "HELD") || !strings.Contains(out, "sync --fabric fabric-1 --prune") {
		t.Errorf("sync says\n%s", out)
	}
	if _, err := w.kube.Get(vpcs, "default", "vpc-1"); err != nil {
		t.Errorf("a held prune went on: %v", err)
	}
	// It is held until somebody agrees, not until something else happens.
	w.drop("fabric-1", "one-more.yaml", vpc("vpc-12", 1012))
	w.inCluster(vpcs, "vpc-12")
	w.eventually("vpc-12 to be known as applied", func() error {
		out, _ := w.hh("status", "-o", "json")
		var st statusDoc
		if err := json.Unmarshal([]byte(out), &st); err != nil {
			return err
		}
		r := st.Repositories[0]
		if f := r.Fabrics[0]; r.Unpushed > 0 || f.Applied != 6 || f.Commit != r.Head {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	if out, code := w.hh("status"); code != 1 || !strings.Contains(out, "prune HELD") {
		t.Errorf("status, exit code %d:\n%s", code, out)
	}
	w.must("sync", "--fabric", "fabric-1", "--prune")
	if left, err := w.kube.List(vpcs, "default"); err != nil || len(left) != 6 {
		t.Errorf("%d VPCs are left, want 6: %v", len(left), err)
	}
	if _, err := w.status(); err != nil {
		t.Error(err)
	}
}

// A reload takes a new config over, and keeps the old one if the new is wrong.
func TestReload(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	good, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, strings.Replace(string(good), "interval:", "intervall:", 1))
	w.daemon.cmd.Process.Signal(syscall.SIGHUP)
	w.eventually("the daemon to refuse the config", func() error {
		if out := w.daemon.output(); !strings.Contains(out, "intervall") {
			return fmt.Errorf("it says\n%s", out)
		}
		return nil
	})
	if out, code := w.hh("reload"); code != 78 || !strings.Contains(out, "intervall") {
		t.Errorf("reload with a bad config: exit code %d:\n%s", code, out)
	}
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")

	// It returns when the pull that it forced has been dealt with.
	w.push("gitops/hedgehog/fabric-1/raw/c.yaml", vpc("vpc-3", 1003))
	write(t, w.config, string(good)+"      - name: fabric-9\n        path: gitops/hedgehog/fabric-9\n")
	if out := w.must("reload"); out != "" {
		t.Errorf("reload says\n%s", out)
	}
	w.remote("cat-file", "-e", "main:gitops/hedgehog/fabric-1/managed/vpcs/vpc-3.yaml")
	if _, err := os.Stat(w.raw("fabric-9")); err != nil {
		t.Errorf("the new fabric has no raw directory: %v", err)
	}
	w.drop("fabric-9", "b.yaml", vpc("vpc-2", 1002))
	w.pushed("fabric-9", "vpcs/vpc-2.yaml")
	w.clean()

	// A remote that is away does not make a reload fail; it is told.
	w.git.Down()
	if out, code := w.hh("reload"); code != 0 || !strings.Contains(out, "site-a: ") || !strings.Contains(out, "connection refused") {
		t.Errorf("reload without the remote: exit code %d:\n%s", code, out)
	}
}

// init lays a fabric out, and takes in what lies loose.
func TestInit(t *testing.T) {
	w := newWorld(t, options{})
	c := w.git.Clone(t, "fabrics")
	c.Write("gitops/hedgehog/fabric-1/loose.yaml", vpc("vpc-1", 1001))
	c.Write("gitops/hedgehog/fabric-1/NOTES.md", "kept where it is\n")
	c.Commit("as it was before")
	c.Push()
	for range 2 { // the second time there is nothing to do
		w.must("init")
		w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001)})
		for _, p := range []string{"raw/.gitkeep", "managed/.gitkeep", "unmanaged/.gitkeep", "NOTES.md"} {
			w.remote("cat-file", "-e", "main:gitops/hedgehog/fabric-1/"+p)
		}
		if n := w.commits(); n != "3" {
			t.Errorf("%s commits, want theirs, the layout and the ingestion:\n%s", n, w.remote("log", "--oneline", "main"))
		}
	}
}

// --dry-run shows the plan and writes nothing.
func TestDryRun(t *testing.T) {
	w := newWorld(t, options{})
	w.must("sync", "--once") // makes the clone
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.drop("fabric-1", "bad.yaml", "kind: VPC\n")
	before := snapshot(t, w.state)
	for _, command := range []string{"sync", "ingest"} {
		out, code := w.hh(command, "--once", "--dry-run")
		if code != 1 || !strings.Contains(out, "created") || !strings.Contains(out, "VPC/vpc-1 → managed/vpcs/vpc-1.yaml") || !strings.Contains(out, "HH202") {
			t.Errorf("%s --dry-run, exit code %d:\n%s", command, code, out)
		}
	}
	if after := snapshot(t, w.state); !maps.Equal(before, after) {
		t.Errorf("a dry run wrote something:\nbefore %v\nafter  %v", before, after)
	}
}

// snapshot lists all files below dir with their sizes and times.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" || strings.HasSuffix(p, ".lock") {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files[p] = fmt.Sprint(info.Size(), info.ModTime())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// The daemon is killed again and again in the middle of its work: every drop
// ends in managed/ with its bytes in the history, and none is there twice.
func TestKilled(t *testing.T) {
	w := newWorld(t, options{cluster: true, interval: "1s"})
	want := map[string]string{}
	var raw []string
	w.start()
	for i := range 12 {
		for j := range 3 {
			name := fmt.Sprintf("vpc-%d-%d", i, j)
			text := vpc(name, 1000+3*i+j)
			w.drop("fabric-1", name+".yaml", text)
			want["vpcs/"+name+".yaml"] = text
			raw = append(raw, text)
		}
		time.Sleep(50*time.Millisecond + rand.N(150*time.Millisecond)) // somewhere in the cycle
		w.daemon.cmd.Process.Kill()
		<-w.daemon.done
		w.launch(exec.Command(binary, "--config", w.config, "run"))
	}
	w.wantManaged("fabric-1", want)
	w.wantLinear(raw...)
	for p := range want {
		w.inCluster(vpcs, strings.TrimSuffix(filepath.Base(p), ".yaml"))
	}
	w.eventually("raw/ to be empty", func() error {
		if left := rawFiles(t, w, "fabric-1"); len(left) > 0 {
			return fmt.Errorf("raw/ holds %v", left)
		}
		return nil
	})
	w.must("sync")
	w.clean()
	drops := map[string]int{}
	for _, l := range lines(w.remote("log", "--format=%(trailers:key=Hhwatchd-Step,valueonly,separator=%x20) %(trailers:key=Raw-File,valueonly,separator=%x20)", "main")) {
		step, files, _ := strings.Cut(l, " ")
		if step != "drop" {
			continue
		}
		for _, f := range strings.Fields(files) {
			drops[f]++
		}
	}
	for f, n := range drops {
		if n > 1 {
			t.Errorf("%s was committed %d times as dropped", f, n)
		}
	}
	if len(drops) != len(want) {
		t.Errorf("%d files were committed as dropped, want %d", len(drops), len(want))
	}
	wantApplied(t, w, len(want))
}

// wantApplied wants n objects in the inventory, all applied.
func wantApplied(t *testing.T, w *world, n int) {
	t.Helper()
	w.eventually("all objects to be applied", func() error {
		st, err := w.status()
		if err == nil && (st.Repositories[0].Fabrics[0].Objects != n || st.Repositories[0].Fabrics[0].Applied != n) {
			err = fmt.Errorf("%+v", st.Repositories[0].Fabrics[0])
		}
		return err
	})
}

// A person works in the clone with git meanwhile.
func TestPersonInTheClone(t *testing.T) {
	w := newWorld(t, options{interval: "1s"})
	w.start()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")
	c := gitserver.Open(t, w.clone())
	c.Git("status")
	c.Git("log", "--stat")
	c.Git("gc", "-q")
	c.Write("docs/note.md", "by hand\n")
	c.Git("add", "docs/note.md")
	c.Git("commit", "-qm", "a note")
	w.drop("fabric-1", "b.yaml", vpc("vpc-2", 1002))
	w.pushed("fabric-1", "vpcs/vpc-2.yaml")
	w.remote("cat-file", "-e", "main:docs/note.md")
	w.clean()
}

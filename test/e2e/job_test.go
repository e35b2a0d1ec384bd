// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/test/fabric"
	"github.com/hhwatchd/hhwatchd/test/kube"
)

// sample reads a file that people really put into a raw directory; where the
// samples are not present, a generated fabric stands in for it.
func sample(t *testing.T, name string) (text, crds string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(filepath.Dir(kube.CRDs()), "samples", name))
	if err == nil {
		return string(data), kube.CRDs()
	}
	if name == "prepop.yaml" {
		return fabric.Spec{Spines: 2, Leaves: 4, Servers: 8}.YAML(), kube.FixtureCRDs()
	}
	return vpc("test-vpc", 1001), kube.FixtureCRDs()
}

// resources maps the directories of managed/ to API resources.
var resources = map[string]string{
	"switchgroups": "wiring.githedgehog.com/v1beta1/switchgroups", "switches": "wiring.githedgehog.com/v1beta1/switches",
	"servers": "wiring.githedgehog.com/v1beta1/servers", "connections": "wiring.githedgehog.com/v1beta1/connections",
	"vlannamespaces": "wiring.githedgehog.com/v1beta1/vlannamespaces", "ipv4namespaces": "vpc.githedgehog.com/v1beta1/ipv4namespaces",
	"vpcs": vpcs, "vpcattachments": "vpc.githedgehog.com/v1beta1/vpcattachments",
}

// The real file, dropped by hand on one world and pushed by another clone in
// a second one: the same managed files, and everything everywhere.
func TestRealFile(t *testing.T) {
	for _, name := range []string{"prepop.yaml", "test-vpc.yaml"} {
		t.Run(name, func(t *testing.T) {
			text, crds := sample(t, name)
			dropped := newWorld(t, options{cluster: true, crds: crds})
			dropped.start()
			dropped.drop("fabric-1", name, text)
			want := arrived(dropped)

			// One commit as it was dropped, and one with its ingestion.
			if n := dropped.commits(); n != "2" {
				t.Errorf("%s commits on the remote, want 2:\n%s", n, dropped.remote("log", "--stat", "main"))
			}
			if got := dropped.remote("show", "main^:gitops/hedgehog/fabric-1/raw/"+name); got != strings.TrimSpace(text) {
				t.Errorf("the commit of the drop does not hold the file as it was dropped")
			}
			if out, err := exec.Command("git", "-C", dropped.bare, "-c", "safe.directory=*", "cat-file", "-e", "main:gitops/hedgehog/fabric-1/raw/"+name).CombinedOutput(); err == nil {
				t.Errorf("the raw file is still in the tree: %s", out)
			}
			if left := rawFiles(t, dropped, "fabric-1"); len(left) > 0 {
				t.Errorf("raw/ still holds %v", left)
			}
			dropped.clean()

			// History and inventory are complete.
			h := dropped.history("--file", name)
			told := fmt.Sprintf("%d created", len(want))
			if len(want) == 1 {
				told = "VPC/test-vpc created"
			}
			if !strings.Contains(h, told) {
				t.Errorf("the history does not tell of %q:\n%s", told, h)
			}
			wantInventory(t, dropped, name, len(want))

			pushed := newWorld(t, options{cluster: true, crds: crds, interval: "1s"})
			pushed.start()
			pushed.push("gitops/hedgehog/fabric-1/raw/"+name, text)
			got := arrived(pushed)
			if !maps.Equal(want, got) {
				t.Errorf("dropping and pushing give different managed files:\n%v\n%v", slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
			}
			if n := pushed.commits(); n != "2" {
				t.Errorf("%s commits on the remote, want the push and its ingestion:\n%s", n, pushed.remote("log", "--stat", "main"))
			}
			pushed.clean()
			wantInventory(t, pushed, name, len(want))
		})
	}
}

// arrived waits until all managed files on the remote are in the API server,
// and returns them.
func arrived(w *world) map[string]string {
	w.t.Helper()
	var files map[string]string
	w.eventually("managed files on the remote", func() error {
		if out, err := exec.Command("git", "-C", w.bare, "-c", "safe.directory=*", "rev-parse", "--verify", "-q", "main:gitops/hedgehog/fabric-1/managed").CombinedOutput(); err != nil {
			return fmt.Errorf("%v %s", err, out)
		}
		files = w.managed("fabric-1")
		return nil
	})
	w.eventually("every object in the API server", func() error {
		for p := range files {
			kind, file, _ := strings.Cut(p, "/")
			if _, err := w.kube.Get(resources[kind], "default", strings.TrimSuffix(file, ".yaml")); err != nil {
				return err
			}
		}
		st, err := w.status()
		if err == nil && st.Repositories[0].Fabrics[0].Applied != len(files) {
			err = fmt.Errorf("status says %d of %d objects are applied", st.Repositories[0].Fabrics[0].Applied, len(files))
		}
		return err
	})
	return files
}

// rawFiles lists what a person finds in a raw directory.
func rawFiles(t *testing.T, w *world, fabric string) []string {
	t.Helper()
	var files []string
	root, err := filepath.EvalSymlinks(w.raw(fabric))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != ".gitkeep" {
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// wantInventory wants n objects in `get`, each with the raw file, document
// and commit that it came from, and applied.
func wantInventory(t *testing.T, w *world, file string, n int) {
	t.Helper()
	var items []struct {
		Fabric, Kind, Name, State string
		RawFile, Managed, Commit  string
		Document                  int
		Applied                   *struct{ ResourceVersion string }
	}
	if err := json.Unmarshal([]byte(w.must("get", "-o", "json")), &items); err != nil {
		t.Fatal(err)
	}
	if len(items) != n {
		t.Fatalf("the inventory has %d objects, want %d", len(items), n)
	}
	docs := map[int]bool{}
	for _, it := range items {
		if filepath.Base(it.RawFile) != file || it.Document < 1 || it.Commit == "" || it.Managed == "" || it.State != "applied" || it.Applied == nil {
			t.Errorf("the inventory of %s/%s is incomplete: %+v", it.Kind, it.Name, it)
		}
		docs[it.Document] = true
	}
	if len(docs) != n {
		t.Errorf("%d different documents for %d objects", len(docs), n)
	}
}

// A cycle that changes nothing writes nothing: not to git, not to the API
// server, not to the journal.
func TestNothingTwice(t *testing.T) {
	text, crds := sample(t, "prepop.yaml")
	w := newWorld(t, options{cluster: true, crds: crds})
	w.start()
	w.drop("fabric-1", "prepop.yaml", text)
	files := arrived(w)
	head, journal := w.remote("rev-parse", "main"), lines(w.history())
	writes := func() (n float64) {
		for _, verb := range []string{"POST", "PUT", "PATCH", "DELETE", "APPLY"} {
			for _, group := range []string{"wiring.githedgehog.com", "vpc.githedgehog.com"} {
				v, err := w.kube.Metric("apiserver_request_total", map[string]string{"verb": verb, "group": group})
				if err != nil {
					t.Fatal(err)
				}
				n += v
			}
		}
		return n
	}
	sent := writes()
	if int(sent) < len(files) {
		t.Fatalf("the API server counts %v writes for %d objects: the count is not to be trusted", sent, len(files))
	}

	w.drop("fabric-1", "prepop.yaml", text)
	w.eventually("the second drop to be gone", func() error {
		if left := rawFiles(t, w, "fabric-1"); len(left) > 0 {
			return fmt.Errorf("raw/ holds %v", left)
		}
		return nil
	})
	for range 100 {
		w.must("sync")
	}
	w.stop()
	w.start()
	w.must("sync")

	if now := w.remote("rev-parse", "main"); now != head {
		t.Errorf("there are new commits:\n%s", w.remote("log", "--stat", head+"..main"))
	}
	if now := writes(); now != sent {
		t.Errorf("%v requests that write reached the API server", now-sent)
	}
	if h := lines(w.history()); len(h) != len(journal)+1 || !strings.Contains(h[len(h)-1], "prepop.yaml") {
		t.Errorf("the journal grew by %d records, want the one of the drop:\n%s", len(h)-len(journal), strings.Join(h[len(journal):], "\n"))
	}
	w.clean()
}

func lines(s string) []string { return strings.Split(strings.TrimSpace(s), "\n") }

// Every trigger reaches the whole chain: each one ends with the object in the
// API server, from both ways in where both make sense.
func TestEveryTrigger(t *testing.T) {
	push := func(w *world, name string) { w.push("gitops/hedgehog/fabric-1/raw/"+name+".yaml", vpc(name, 1001)) }
	for _, tt := range []struct {
		name     string
		interval string
		do       func(w *world, name string)
	}{
		{"interval", "1s", func(w *world, name string) { w.start(); push(w, name) }},
		{"drop", "", func(w *world, name string) { w.start(); w.drop("fabric-1", name+".yaml", vpc(name, 1001)) }},
		{"SIGHUP", "", func(w *world, name string) {
			w.start()
			push(w, name)
			w.daemon.cmd.Process.Signal(syscall.SIGHUP)
		}},
		{"sync", "", func(w *world, name string) { w.start(); push(w, name); w.must("sync", "--fabric", "fabric-1") }},
		{"start-up", "", func(w *world, name string) { push(w, name); w.start() }},
		{"sync --once", "", func(w *world, name string) { push(w, name); w.must("sync", "--once") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, options{cluster: true, interval: tt.interval})
			tt.do(w, "vpc-1")
			w.inCluster(vpcs, "vpc-1")
			if got, want := w.managed("fabric-1")["vpcs/vpc-1.yaml"], vpc("vpc-1", 1001); got != want {
				t.Errorf("managed/vpcs/vpc-1.yaml is\n%s\nwant\n%s", got, want)
			}
			w.clean()
		})
	}
}

// What is bad is refused, with a reason, and the good files of the same batch
// go on.
func TestRefused(t *testing.T) {
	bad := []struct{ name, content, code, says string }{
		{"not-yaml.yaml", "a: [b\n", "HH1", "not-yaml.yaml"},
		{"not-an-object.yaml", "- just\n- a list\n", "HH2", "document 1"},
		{"no-name.yaml", "apiVersion: vpc.githedgehog.com/v1beta1\nkind: VPC\nmetadata: {}\n", "HH2", "name"},
		{"secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n", "HH3", "not allowed"},
		{"empty.yaml", "", "HH", "empty.yaml"},
		{"second.yaml", vpc("good", 1) + "---\nkind: VPC\n", "HH2", "document 2"},
	}
	for _, way := range []string{"dropped", "pushed"} {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t, options{interval: "1s"})
			w.start()
			if way == "dropped" {
				for _, b := range bad {
					w.drop("fabric-1", b.name, b.content)
				}
				w.drop("fabric-1", "good.yaml", vpc("vpc-1", 1001))
			} else {
				c := w.git.Clone(t, "fabrics")
				for _, b := range bad {
					c.Write("gitops/hedgehog/fabric-1/raw/"+b.name, b.content)
				}
				c.Write("gitops/hedgehog/fabric-1/raw/good.yaml", vpc("vpc-1", 1001))
				c.Commit("good and bad")
				c.Push()
			}
			w.pushed("fabric-1", "vpcs/vpc-1.yaml")
			dir := filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged")
			for _, b := range bad {
				var reason []byte
				w.eventually(b.name+" in unmanaged/", func() (err error) {
					if reason, err = os.ReadFile(filepath.Join(dir, b.name+".reason")); err != nil {
						return err
					}
					got, err := os.ReadFile(filepath.Join(dir, b.name))
					if err == nil && string(got) != b.content {
						t.Errorf("%s does not have its bytes any more", b.name)
					}
					return err
				})
				for _, want := range []string{b.code, b.says, b.name} {
					if !strings.Contains(string(reason), want) {
						t.Errorf("the reason for %s does not say %q:\n%s", b.name, want, reason)
					}
				}
				w.eventually("the history of "+b.name, func() error {
					if h := w.history("--file", b.name); !strings.Contains(h, b.code) {
						return fmt.Errorf("it does not say %s:\n%s", b.code, h)
					}
					return nil
				})
			}
			w.eventually("raw/ to be empty", func() error {
				if left := rawFiles(t, w, "fabric-1"); len(left) > 0 {
					return fmt.Errorf("raw/ holds %v", left)
				}
				return nil
			})
			if len(w.managed("fabric-1")) != 1 {
				t.Errorf("managed/ holds %v, want the good object only", w.managed("fabric-1"))
			}
			// A rejected drop may hold a secret and never reaches git; the
			// author of a pushed one must see why.
			inGit := w.remote("log", "--all", "--name-only", "--format=") + w.remote("ls-tree", "-r", "--name-only", "main")
			if way == "dropped" && strings.Contains(inGit, "secret.yaml") {
				t.Errorf("a rejected drop reached git:\n%s", inGit)
			}
			if way == "pushed" && !strings.Contains(inGit, "unmanaged/secret.yaml.reason") {
				t.Errorf("the reason of a rejected push is not on the remote:\n%s", inGit)
			}
			w.clean()
		})
	}
}

// A file that is created empty and filled later ends as what it was filled
// with, however long the pause is.
func TestEmptyThenFilled(t *testing.T) {
	for _, pause := range []string{"short", "long"} {
		t.Run(pause, func(t *testing.T) {
			w := newWorld(t, options{})
			w.start()
			w.drop("fabric-1", "vpc-1.yaml", "")
			if pause == "long" {
				w.eventually("the empty file's rejection", func() error {
					_, err := os.Stat(filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged/vpc-1.yaml.reason"))
					return err
				})
			}
			w.drop("fabric-1", "vpc-1.yaml", vpc("vpc-1", 1001))
			w.pushed("fabric-1", "vpcs/vpc-1.yaml")
			w.clean()
		})
	}
}

// The five things that the tool was asked for.

func TestForcedSyncProcessesRaw(t *testing.T) {
	w := newWorld(t, options{cluster: true})
	w.start()
	w.push("gitops/hedgehog/fabric-1/raw/a.yaml", vpc("vpc-1", 1001))
	out := w.must("sync")
	for _, step := range []string{"pull", "a.yaml", "1 created", "commit", "push", "apply"} {
		if !strings.Contains(out, step) {
			t.Errorf("sync does not tell of %q:\n%s", step, out)
		}
	}
	if _, err := w.kube.Get(vpcs, "default", "vpc-1"); err != nil {
		t.Errorf("after a forced sync: %v", err)
	}
}

func TestFilesMoveFromRawToManaged(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.drop("fabric-1", "sub/dir/a.yaml", vpc("vpc-1", 1001))
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")
	w.eventually("raw/ to be empty", func() error {
		if left := rawFiles(t, w, "fabric-1"); len(left) > 0 {
			return fmt.Errorf("raw/ holds %v", left)
		}
		return nil
	})
	onDisk, err := os.ReadFile(filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/managed/vpcs/vpc-1.yaml"))
	if err != nil || string(onDisk) != vpc("vpc-1", 1001) {
		t.Errorf("managed/vpcs/vpc-1.yaml in the clone: %v\n%s", err, onDisk)
	}
}

func TestObjectsAreInTheInventoryAfterASync(t *testing.T) {
	w := newWorld(t, options{cluster: true})
	w.start()
	w.push("gitops/hedgehog/fabric-1/raw/a.yaml", vpc("vpc-1", 1001)+"---\n"+vpc("vpc-2", 1002))
	w.must("sync")
	wantInventory(t, w, "a.yaml", 2)
	if out := w.must("get", "vpc", "vpc-2"); !strings.Contains(out, "applied") {
		t.Errorf("get vpc vpc-2:\n%s", out)
	}
}

func TestDroppedFilesAreHandledByThemselves(t *testing.T) {
	t.Run("by the watch", func(t *testing.T) {
		w := newWorld(t, options{})
		w.start()
		w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
		w.pushed("fabric-1", "vpcs/vpc-1.yaml")
	})
	t.Run("by the rescan", func(t *testing.T) {
		// In a user namespace of its own the daemon gets no inotify watch, so
		// that it cannot see the drop.
		w := newWorld(t, options{rescan: "1s"})
		probe := exec.Command("unshare", "--user", "--map-root-user", "sh", "-c", "echo 0 > /proc/sys/user/max_inotify_watches")
		if out, err := probe.CombinedOutput(); err != nil {
			t.Skipf("this machine has no user namespaces: %v %s", err, out)
		}
		w.launch(exec.Command("unshare", "--user", "--map-root-user", "sh", "-c",
			`echo 0 > /proc/sys/user/max_inotify_watches && exec "$0" "$@"`, binary, "--config", w.config, "run"))
		w.eventually("the raw directory", func() error { _, err := os.Stat(w.raw("fabric-1")); return err })
		w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
		w.pushed("fabric-1", "vpcs/vpc-1.yaml")
		if !strings.Contains(w.daemon.output(), "watch") {
			t.Errorf("the daemon does not say that it cannot watch:\n%s", w.daemon.output())
		}
	})
}

func TestEveryTriggerGivesTheSameResult(t *testing.T) {
	text := vpc("vpc-1", 1001) + "---\n# the second\n" + vpc("vpc-2", 1002)
	var want map[string]string
	for _, how := range []string{"drop", "interval", "reload", "sync", "start", "once"} {
		w := newWorld(t, options{interval: map[bool]string{true: "1s", false: "1h"}[how == "interval"]})
		push := func() { w.push("gitops/hedgehog/fabric-1/raw/a.yaml", text) }
		switch how {
		case "drop":
			w.start()
			w.drop("fabric-1", "a.yaml", text)
		case "interval":
			w.start()
			push()
		case "reload":
			w.start()
			push()
			w.daemon.cmd.Process.Signal(syscall.SIGHUP)
		case "sync":
			w.start()
			push()
			w.must("sync")
		case "start":
			push()
			w.start()
		case "once":
			push()
			w.must("sync", "--once")
		}
		w.pushed("fabric-1", "vpcs/vpc-2.yaml")
		got := w.managed("fabric-1")
		if want == nil {
			want = got
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s gives %v, a drop gives %v", how, got, want)
		}
	}
}

// SIGTERM ends the daemon within seconds, whatever the remote does.
func TestStopWhileTheRemoteHangs(t *testing.T) {
	w := newWorld(t, options{interval: "1s"})
	w.start()
	w.git.Hang()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	time.Sleep(1500 * time.Millisecond) // into the hanging request
	start := time.Now()
	w.stop()
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("stopping took %v", took)
	}
}

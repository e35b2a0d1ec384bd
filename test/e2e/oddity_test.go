// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Pushed files are ingested in the order of their commits, whatever they are
// called: the later word wins.
func TestOrderOfPushes(t *testing.T) {
	w := newWorld(t, options{})
	c := w.git.Clone(t, "fabrics")
	for i, name := range []string{"z.yaml", "a.yaml", "m.yaml"} {
		c.Write("gitops/hedgehog/fabric-1/raw/"+name, vpc("vpc-1", 1001+i))
		c.Commit(name)
	}
	c.Push()
	w.must("sync", "--once")
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1003)})
}

// A client that leaves in the middle of a cycle takes nothing with it.
func TestClientLeaves(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.git.Delay(700 * time.Millisecond)
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(w.state, "control.sock"))
	}}}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		req, err := http.NewRequestWithContext(ctx, "POST", "http://hhwatchd/v1/sync", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := client.Do(req); err == nil {
			buf := make([]byte, 1)
			for err == nil {
				_, err = resp.Body.Read(buf)
			}
			resp.Body.Close()
		}
		cancel()
	}
	w.git.Clear()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")
	if out := w.daemon.output(); strings.Contains(out, "panic") {
		t.Errorf("the daemon says\n%s", out)
	}
}

// A remote branch that is gone is a fault until it is back. It is not made
// anew, and nothing is deleted from the cluster because of it.
func TestBranchGone(t *testing.T) {
	w := newWorld(t, options{cluster: true, prune: true})
	w.start()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.inCluster(vpcs, "vpc-1")
	w.eventually("the push to be told", func() error {
		if h := w.history(); !strings.Contains(h, "pushed 2 commits") {
			return fmt.Errorf("the history is\n%s", h)
		}
		return nil
	})
	head := w.remote("rev-parse", "main")
	w.remote("update-ref", "-d", "refs/heads/main")
	w.drop("fabric-1", "b.yaml", vpc("vpc-2", 1002))
	for range 3 {
		out, code := w.hh("sync")
		if code != 1 || !strings.Contains(out, "branch main is gone") {
			t.Errorf("sync, exit code %d:\n%s", code, out)
		}
	}
	if refs := w.remote("for-each-ref"); refs != "" {
		t.Errorf("the remote has refs again:\n%s", refs)
	}
	if _, err := w.kube.Get(vpcs, "default", "vpc-1"); err != nil {
		t.Error(err)
	}
	if n := strings.Count(w.history(), "is gone"); n != 1 {
		t.Errorf("the fault is told %d times", n)
	}
	w.remote("update-ref", "refs/heads/main", head)
	w.must("sync")
	w.inCluster(vpcs, "vpc-2")
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002)})
	w.wantLinear()
	w.clean()
}

// When a fabric's path changes in the config, unpushed drops move with it,
// and nothing is deleted from the cluster without a person's word.
func TestPathChanged(t *testing.T) {
	w := newWorld(t, options{cluster: true, prune: true, interval: "1s"})
	w.start()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.inCluster(vpcs, "vpc-1")
	w.git.Down()
	w.drop("fabric-1", "b.yaml", vpc("vpc-2", 1002))
	w.eventually("the drop to be committed", func() error {
		_, err := os.Stat(filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/managed/vpcs/vpc-2.yaml"))
		return err
	})
	w.stop()
	w.git.Up()
	w.push("README.md", "somebody else\n")
	config, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, strings.Replace(string(config), "path: gitops/hedgehog/fabric-1", "path: elsewhere/fabric-1", 1))
	w.start()
	w.eventually("the unpushed drop at the new path", func() error {
		if out, _ := w.hh("sync"); strings.Contains(out, "STOPPED") {
			return fmt.Errorf("sync says\n%s", out)
		}
		if got := w.remote("ls-tree", "-r", "--name-only", "main"); !strings.Contains(got, "elsewhere/fabric-1/managed/vpcs/vpc-2.yaml") {
			return fmt.Errorf("the remote has\n%s", got)
		}
		return nil
	})
	w.inCluster(vpcs, "vpc-2")
	if out, code := w.hh("sync"); code != 1 || !strings.Contains(out, "the fabric's path was changed") {
		t.Errorf("sync, exit code %d:\n%s", code, out)
	}
	if _, err := w.kube.Get(vpcs, "default", "vpc-1"); err != nil {
		t.Error(err)
	}
	n := len(lines(w.history()))
	w.hh("sync")
	if h := w.history(); len(lines(h)) != n {
		t.Errorf("a cycle that changes nothing is told:\n%s", h)
	}
}

// Files that clash with something or are oddly named hold up no others.
func TestOddFiles(t *testing.T) {
	long := strings.Repeat("n", 245) + ".yaml"
	for _, tt := range []struct {
		name   string
		pushed map[string]string // before, from another clone
		drops  [][2]string
		good   map[string]string // of those
		says   string            // sync says of what stays in raw/
	}{
		{"long name rejected", nil, [][2]string{{long, "kind: VPC\n"}}, nil, ""},
		{"rejected file, then a directory of that name", nil, [][2]string{{"notes", "text\n"}, {"notes/y.yaml", "kind: VPC\n"}}, nil, ""},
		{"rejected file, and one called like its reason", map[string]string{"raw/a.yaml": "a: [", "raw/a.yaml.reason": "why"}, nil, nil, ""},
		{"a directory where a managed file belongs", map[string]string{"managed/vpcs/vpc-9.yaml/oops": "x"},
			[][2]string{{"nine.yaml", vpc("vpc-9", 1009)}}, nil, "nine.yaml: "},
		{"a name that git refuses", nil, [][2]string{{"git~1/x.yaml", vpc("vpc-8", 1008)}}, nil, "git~1/x.yaml: "},
		{"spaces, quotes and a line break", nil, [][2]string{{"a b\n\"c\".yaml", vpc("vpc-7", 1007)}},
			map[string]string{"vpcs/vpc-7.yaml": vpc("vpc-7", 1007)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, options{})
			if tt.pushed != nil {
				c := w.git.Clone(t, "fabrics")
				for p, text := range tt.pushed {
					c.Write("gitops/hedgehog/fabric-1/"+p, text)
				}
				c.Commit("odd")
				c.Push()
			}
			w.start()
			for _, d := range tt.drops {
				w.drop("fabric-1", d[0], d[1])
				w.eventually("the drop to be seen", func() error {
					out, _ := w.hh("sync")
					if strings.Contains(out, "STOPPED") || strings.Contains(out, "still being written") {
						return fmt.Errorf("sync says\n%s", out)
					}
					return nil
				})
			}
			w.drop("fabric-1", "good.yaml", vpc("vpc-1", 1001))
			want := map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001)}
			for p, text := range tt.good {
				want[p] = text
			}
			w.pushed("fabric-1", "vpcs/vpc-1.yaml")
			for p, text := range want {
				if got := w.managed("fabric-1")[p]; got != text {
					t.Errorf("%s on the remote is %q", p, got)
				}
			}
			out, code := w.hh("sync")
			if strings.Contains(out, "STOPPED") {
				t.Errorf("sync says\n%s", out)
			}
			left := rawFiles(t, w, "fabric-1")
			if tt.says == "" && (len(left) > 0 || code != 0) || tt.says != "" && (len(left) != 1 || !strings.Contains(out, "LEFT ALONE: "+tt.says)) {
				t.Errorf("raw/ holds %v; sync, exit code %d:\n%s", left, code, out)
			}
			n := w.commits()
			w.hh("sync")
			if now := w.commits(); now != n {
				t.Errorf("the next cycle commits again:\n%s", w.remote("log", "--oneline", "main"))
			}
		})
	}
}

// A fabric whose raw/ cannot be used does not stop the other one.
func TestRawUnusable(t *testing.T) {
	w := newWorld(t, options{fabrics: []string{"fabric-1", "fabric-2"}})
	w.start()
	raw, err := filepath.EvalSymlinks(w.raw("fabric-1"))
	if err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	write(t, filepath.Join(outside, "private.yaml"), vpc("vpc-1", 1001))
	// In one step: the daemon makes a raw directory that is gone anew.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, link, unix.AT_FDCWD, raw, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	w.drop("fabric-2", "b.yaml", vpc("vpc-2", 1002))
	w.pushed("fabric-2", "vpcs/vpc-2.yaml")
	w.eventually("status to say so", func() error {
		out, code := w.hh("status")
		if code != 1 || !strings.Contains(out, "raw/ FAILED") || !strings.Contains(out, "symbolic link") {
			return fmt.Errorf("exit code %d:\n%s", code, out)
		}
		return nil
	})
	if _, err := os.Stat(filepath.Join(outside, "private.yaml")); err != nil {
		t.Errorf("the link was followed: %v", err)
	}
	// And when it is put right, it goes on by itself.
	if err := os.Remove(raw); err != nil {
		t.Fatal(err)
	}
	w.daemon.cmd.Process.Signal(syscall.SIGHUP)
	w.eventually("raw/ to be there again", func() error { _, err := os.Stat(raw); return err })
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")
}

// A file or a link that was pushed in the place of a fabric's directory stops
// that fabric until it is gone, and neither the other one nor what was dropped.
func TestNoDirectoryInGit(t *testing.T) {
	for _, tt := range []struct {
		name, dir string // below the first fabric's
		link      bool
	}{
		{"a file for raw", "raw", false},
		{"a link for raw", "raw", true},
		{"a file for managed", "managed", false},
		{"a link for managed", "managed", true},
		{"a file for the fabric", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{fabrics: []string{"fabric-1", "fabric-2"}})
			w.push("gitops/hedgehog/fabric-1/raw/.gitkeep", "")
			w.start()
			w.drop("fabric-1", "vpc-1.yaml", vpc("vpc-1", 1001))
			w.pushed("fabric-1", "vpcs/vpc-1.yaml")
			w.must("sync")

			at := path.Join("gitops/hedgehog/fabric-1", tt.dir)
			c := w.git.Clone(t, "fabrics")
			w.ok(os.RemoveAll(filepath.Join(c.Dir, at)))
			if tt.link {
				w.ok(os.Symlink("/tmp", filepath.Join(c.Dir, at)))
			} else {
				c.Write(at, "not a directory\n")
			}
			c.Commit("a mistake")
			c.Git("push", "--quiet", "origin", "HEAD")
			wrong := at + " is not a directory in git"
			out, code := w.hh("sync")
			if code != 1 || strings.Count(out, wrong) != 1 {
				t.Errorf("sync, exit code %d:\n%s", code, out)
			}
			w.drop("fabric-1", "vpc-2.yaml", vpc("vpc-2", 1002))
			w.drop("fabric-2", "vpc-3.yaml", vpc("vpc-3", 1003))
			w.pushed("fabric-2", "vpcs/vpc-3.yaml")
			w.hh("sync")
			if out, code := w.hh("status"); code != 1 || strings.Count(out, wrong) != 1 {
				t.Errorf("status, exit code %d:\n%s", code, out)
			}
			if n := strings.Count(w.history(), wrong); n != 1 {
				t.Errorf("the history tells of it %d times:\n%s", n, w.history())
			}

			c = w.git.Clone(t, "fabrics")
			c.Git("rm", "-q", at)
			c.Commit("put right")
			c.Git("push", "--quiet", "origin", "HEAD")
			w.hh("sync")
			w.pushed("fabric-1", "vpcs/vpc-2.yaml")
			w.eventually("status to be well", func() error {
				if out, code := w.hh("status"); code != 0 {
					return fmt.Errorf("exit code %d:\n%s", code, out)
				}
				return nil
			})
			w.must("sync")
			w.clean()
		})
	}
}

// A file that was pushed in the place of managed/ does not empty the cluster.
func TestManagedNoDirectoryInGit(t *testing.T) {
	w := newWorld(t, options{cluster: true, prune: true})
	w.start()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.inCluster(vpcs, "vpc-1")
	w.must("sync")
	c := w.git.Clone(t, "fabrics")
	w.ok(os.RemoveAll(filepath.Join(c.Dir, "gitops/hedgehog/fabric-1/managed")))
	c.Write("gitops/hedgehog/fabric-1/managed", "not a directory\n")
	c.Commit("a mistake")
	c.Git("push", "--quiet", "origin", "HEAD")
	for range 2 {
		if out, code := w.hh("sync", "--prune", "--fabric", "fabric-1"); code != 1 || !strings.Contains(out, "managed is not a directory in git") {
			t.Errorf("sync, exit code %d:\n%s", code, out)
		}
	}
	if _, err := w.kube.Get(vpcs, "default", "vpc-1"); err != nil {
		t.Error(err)
	}
	c.Git("revert", "--no-edit", "HEAD")
	c.Git("push", "--quiet", "origin", "HEAD")
	w.hh("sync")
	w.must("sync")
	w.wantApplied(map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001)})
	w.clean()
}

// A directory that is moved into raw/ keeps the times of its files. They are
// input all the same, also when history holds their bytes already.
func TestOldFilesMovedIn(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	staging := filepath.Join(w.state, "staging")
	write(t, filepath.Join(staging, "set", "x.yaml"), vpc("vpc-1", 1001))
	w.drop("fabric-1", "set/x.yaml", vpc("vpc-1", 1001))
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001)})
	w.drop("fabric-1", "y.yaml", vpc("vpc-1", 1002))
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1002)})
	raw, err := filepath.EvalSymlinks(w.raw("fabric-1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(staging, "set"), unix.AT_FDCWD, filepath.Join(raw, "set"), unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001)})
}

// What a file that cannot be committed says of an object is not taken for
// granted by those that come after it.
func TestAfterAFileLeftOut(t *testing.T) {
	w := newWorld(t, options{})
	c := w.git.Clone(t, "fabrics")
	c.Write("gitops/hedgehog/fabric-1/managed/vpcs/clash.yaml/oops", "x")
	c.Write("gitops/hedgehog/fabric-1/raw/m.yaml", vpc("vpc-1", 1001)+"---\n"+vpc("clash", 1002))
	c.Commit("odd")
	c.Push()
	w.launch(exec.Command(binary, "--config", w.config, "run"))
	w.eventually("the raw directory", func() error { _, err := os.Stat(w.raw("fabric-1")); return err })
	w.drop("fabric-1", "x.yaml", vpc("vpc-1", 1001))
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")
	w.drop("fabric-1", "x.yaml", vpc("vpc-1", 1003))
	w.eventually("the second word", func() error {
		if got := w.managed("fabric-1")["vpcs/vpc-1.yaml"]; got != vpc("vpc-1", 1003) {
			return fmt.Errorf("it is\n%s", got)
		}
		return nil
	})
	if out, code := w.hh("sync"); code != 1 || !strings.Contains(out, "LEFT ALONE: m.yaml") {
		t.Errorf("sync, exit code %d:\n%s", code, out)
	}
}

// A rejected file is not overwritten by the reason of another one.
func TestRejectedReason(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	dir := filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged")
	w.drop("fabric-1", "a.yaml.reason", "the first\n")
	w.eventually("the first file's rejection", func() error {
		if n, err := filepath.Glob(filepath.Join(dir, "*.reason.reason")); err != nil || len(n) != 1 {
			return fmt.Errorf("%v %v", n, err)
		}
		return nil
	})
	w.drop("fabric-1", "a.yaml", "kind: VPC\n")
	w.eventually("the second file's rejection", func() error { _, err := os.Stat(filepath.Join(dir, "a.yaml.reason")); return err })
	found := false
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		found = found || err == nil && string(data) == "the first\n"
	}
	if !found {
		t.Errorf("the bytes of the first file are gone; there are %v", files)
	}
}

// A reload that restarts a repository answers those who wait for it.
func TestReloadDuringSync(t *testing.T) {
	w := newWorld(t, options{cluster: true})
	w.start()
	w.git.Delay(time.Second)
	done := make(chan string)
	go func() {
		out, _ := w.hh("sync")
		done <- out
	}()
	time.Sleep(300 * time.Millisecond) // into the slow request
	config, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, strings.Replace(string(config), "interval: 1h", "interval: 2h", 1))
	w.daemon.cmd.Process.Signal(syscall.SIGHUP)
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("sync hangs")
	}
	w.git.Clear()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.inCluster(vpcs, "vpc-1")
}

// What a merge brings is taken in in the order of the commits that it merged,
// not of the files' names: the last one to speak of an object is right.
func TestMergeOrder(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.drop("fabric-1", "first.yaml", vpc("vpc-1", 1001))
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")
	c := w.git.Clone(t, "fabrics")
	raw := "gitops/hedgehog/fabric-1/raw/"
	commit := func(branch, file, text string) {
		c.Git("switch", "--quiet", branch)
		c.Write(raw+file, text)
		c.Commit("add " + file)
	}
	for _, branch := range []string{"one", "two"} {
		c.Git("branch", branch)
	}
	commit("one", "d.yaml", vpc("vpc-1", 1002))
	commit("two", "c.yaml", vpc("vpc-2", 1003))
	commit("one", "b.yaml", vpc("vpc-1", 1004))
	commit("two", "a.yaml", vpc("vpc-2", 1005))
	c.Git("merge", "--quiet", "--no-edit", "one") // into two
	commit("two", "0.yaml", vpc("vpc-1", 1006))
	c.Git("switch", "--quiet", "main")
	c.Git("merge", "--quiet", "--no-ff", "--no-edit", "two")
	c.Push()
	w.must("sync")
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1006), "vpcs/vpc-2.yaml": vpc("vpc-2", 1005)})
	w.clean()
}

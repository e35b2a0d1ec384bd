// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
)

// damages are what can happen to a clone's .git. They are done to the clone of
// the world, whose last two commits were not pushed.
var damages = []struct {
	name string
	do   func(w *world, git string)
	lost string // what is reported as lost
}{
	{"rm -rf .git", func(w *world, git string) { w.ok(os.RemoveAll(git)) }, ""},
	{"an empty .git", func(w *world, git string) { w.ok(os.RemoveAll(git), os.Mkdir(git, 0o755)) }, ""},
	{"empty branch", func(w *world, git string) { w.cut(git+"/refs/heads/main", 0) }, ""},
	{"branch is gone", func(w *world, git string) { w.ok(os.Remove(git + "/refs/heads/main")) }, ""},
	{"branch to nowhere", func(w *world, git string) {
		w.ok(os.WriteFile(git+"/refs/heads/main", []byte(strings.Repeat("1", 40)+"\n"), 0o644))
	}, "the commit 1111"},
	{"garbage HEAD", func(w *world, git string) { w.ok(os.WriteFile(git+"/HEAD", []byte("\x00\x01\x02"), 0o644)) }, ""},
	{"no HEAD", func(w *world, git string) { w.ok(os.Remove(git + "/HEAD")) }, ""},
	{"garbage config", func(w *world, git string) { w.ok(os.WriteFile(git+"/config", []byte("[core\n\x00"), 0o644)) }, ""},
	{"empty packed-refs line", func(w *world, git string) {
		w.gitHere("pack-refs", "--all")
		w.cut(git+"/packed-refs", -7)
	}, ""},
	{"empty packed-refs", func(w *world, git string) {
		w.gitHere("pack-refs", "--all")
		w.cut(git+"/packed-refs", 0)
	}, ""},
	{"half of the last commit", func(w *world, git string) { w.half(git, "main") }, ""},
	{"half of the drop's commit", func(w *world, git string) { w.half(git, "main^") }, ""},
	{"half of the drop's bytes", func(w *world, git string) {
		w.half(git, "main^:gitops/hedgehog/fabric-1/raw/vpc-3.yaml")
	}, ""},
	{"a flipped bit in a tree", func(w *world, git string) {
		name := w.loose(git, "main^{tree}")
		data, err := os.ReadFile(name)
		w.ok(err)
		data[len(data)/2] ^= 4
		w.ok(os.Remove(name), os.WriteFile(name, data, 0o444))
	}, ""},
	{"half of the pack", func(w *world, git string) { w.cut(w.packed(git, ".pack"), -1) }, ""},
	{"zeros at the end of the pack", func(w *world, git string) {
		name := w.packed(git, ".pack")
		data, err := os.ReadFile(name)
		w.ok(err)
		copy(data[len(data)-30:], make([]byte, 30))
		w.overwrite(name, data)
	}, ""},
	{"half of the pack's index", func(w *world, git string) { w.cut(w.packed(git, ".idx"), -1) }, ""},
	{"garbage in the pack's index", func(w *world, git string) {
		name := w.packed(git, ".idx")
		info, err := os.Stat(name)
		w.ok(err)
		w.overwrite(name, bytes.Repeat([]byte("garbage "), int(info.Size()/8)))
	}, ""},
	{"no objects", func(w *world, git string) { w.ok(os.RemoveAll(git + "/objects")) }, ""},
	{"no refs", func(w *world, git string) { w.ok(os.RemoveAll(git + "/refs")) }, ""},
	{"no refs of ours", func(w *world, git string) {
		w.ok(os.RemoveAll(git+"/refs/hhwatchd"), os.WriteFile(git+"/HEAD", nil, 0o644))
	}, ""},
}

// TestBroken breaks the clone in every way, with the daemon stopped and with
// it running, and wants everything back without a person: what was pushed,
// what was not, what lies in raw/ and what was rejected.
func TestBroken(t *testing.T) {
	for _, d := range damages {
		for _, running := range []bool{false, true} {
			if testing.Short() && running {
				continue
			}
			name := d.name + ", stopped"
			if running {
				name = d.name + ", running"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, options{})
				w.push("gitops/hedgehog/fabric-1/raw/vpc-1.yaml", vpc("vpc-1", 1001))
				w.start()
				w.pushed("fabric-1", "vpcs/vpc-1.yaml")
				w.drop("fabric-1", "vpc-2.yaml", vpc("vpc-2", 1002))
				w.pushed("fabric-1", "vpcs/vpc-2.yaml")
				w.drop("fabric-1", "bad.yaml", "kind: [")
				w.eventually("the rejection", func() error { _, err := os.Stat(w.unmanaged("bad.yaml.reason")); return err })
				w.git.Fail(503)
				w.drop("fabric-1", "vpc-3.yaml", vpc("vpc-3", 1003))
				w.eventually("commits that wait", func() error {
					if n := strings.Count(w.history(), "made 2 commits"); n != 2 {
						return fmt.Errorf("the journal knows of %d drops", n)
					}
					return nil
				})

				if !running {
					w.stop()
				}
				git := filepath.Join(w.clone(), ".git")
				d.do(w, git)
				w.drop("fabric-1", "vpc-4.yaml", vpc("vpc-4", 1004))
				w.git.Clear()
				if !running {
					w.start()
				}
				w.hh("sync")
				w.wantRebuilt(4, d.lost)
				if st, err := w.status(); err != nil || st.Repositories[0].Error != "" || st.Repositories[0].Down != "" || st.Repositories[0].Unpushed != 0 {
					t.Errorf("status: %+v, %v", st, err)
				}
			})
		}
	}
}

// wantRebuilt wants the VPCs from 1 to n on the remote, all else where it was,
// nothing reported as lost but lost, and quiet.
func (w *world) wantRebuilt(n int, lost string) {
	w.t.Helper()
	want := map[string]string{}
	var raw []string
	for i := 1; i <= n; i++ {
		text := vpc(fmt.Sprint("vpc-", i), 1000+i)
		want[fmt.Sprintf("vpcs/vpc-%d.yaml", i)] = text
		raw = append(raw, text)
	}
	w.wantManaged("fabric-1", want)
	w.must("sync")
	w.clean()
	w.wantLinear(raw...)
	for name, text := range want {
		if data, err := os.ReadFile(filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/managed", name)); err != nil || string(data) != text {
			w.t.Errorf("%s in the work tree: %q, %v", name, data, err)
		}
	}
	if data, err := os.ReadFile(w.unmanaged("bad.yaml")); err != nil || string(data) != "kind: [" {
		w.t.Errorf("the rejected file: %q, %v", data, err)
	}
	left, err := os.ReadDir(w.raw("fabric-1"))
	if err != nil || len(left) > 0 {
		w.t.Errorf("left in raw/: %v, %v", left, err)
	}
	if aside, err := os.ReadDir(filepath.Join(w.state, "aside", "site-a")); !errors.Is(err, os.ErrNotExist) {
		w.t.Errorf("set aside as local edits: %v, %v", aside, err)
	}
	history := w.history()
	for _, line := range []string{"the clone is made again from the remote", "the clone was made again from the remote"} {
		if got := strings.Count(history, line); got != 1 {
			w.t.Errorf("the history says %q %d times:\n%s", line, got, history)
		}
	}
	if strings.Contains(history, "removed") {
		w.t.Errorf("an object was taken for removed:\n%s", history)
	}
	if _, told, ok := strings.Cut(history, "lost with the broken clone: "); ok != (lost != "") || !strings.HasPrefix(told, lost) {
		w.t.Errorf("reported as lost is %q, want %q:\n%s", told, lost, history)
	}
	if lost == "" {
		w.must("journal", "verify")
	}
	// And quiet.
	commits := w.commits()
	for range 2 {
		w.must("sync")
	}
	if now := w.commits(); now != commits {
		w.t.Errorf("%s commits became %s:\n%s", commits, now, w.remote("log", "--stat"))
	}
	if now := w.history(); now != history {
		w.t.Errorf("the history went on:\n%s", strings.TrimPrefix(now, history))
	}
}

// TestBrokenWithoutRemote breaks the clone while the remote is away, restarts
// the daemon in the middle, and moves the remote on: all of that is said, drops
// wait in raw/, and go through in order when the remote is back.
func TestBrokenWithoutRemote(t *testing.T) {
	w := newWorld(t, options{cluster: true})
	w.start()
	w.drop("fabric-1", "vpc-1.yaml", vpc("vpc-1", 1001))
	w.inCluster(vpcs, "vpc-1")
	w.drop("fabric-1", "bad.yaml", "kind: [")
	w.eventually("the rejection", func() error { _, err := os.Stat(w.unmanaged("bad.yaml.reason")); return err })
	w.git.Fail(503)
	w.drop("fabric-1", "vpc-2.yaml", vpc("vpc-2", 1002))
	w.eventually("commits that wait", func() error {
		if n := strings.Count(w.history(), "made 2 commits"); n != 2 {
			return fmt.Errorf("the journal knows of %d drops", n)
		}
		return nil
	})
	// A person's branch, and an edit that waits for its commit.
	w.gitHere("branch", "mine", w.gitHere("-c", "user.name=A", "-c", "user.email=a@b", "commit-tree", "-m", "mine", "-p", "main", "main^{tree}"))
	mine := w.gitHere("rev-parse", "mine")
	w.cut(filepath.Join(w.clone(), ".git/HEAD"), 0)
	w.hh("sync")
	w.drop("fabric-1", "vpc-3.yaml", vpc("vpc-3", 1003))
	down := func() error {
		st, code := w.hh("status")
		if code != 1 || !strings.Contains(st, "is broken: HEAD holds") && !strings.Contains(st, ".git is gone") || !strings.Contains(st, "it is made again when the remote can be had, and raw/ waits") {
			return fmt.Errorf("status says, with code %d:\n%s", code, st)
		}
		return nil
	}
	w.eventually("the state in status", down)
	w.stop()
	w.launch(exec.Command(binary, "--config", w.config, "run"))
	w.eventually("the state in status", down)
	if _, err := os.Stat(filepath.Join(w.raw("fabric-1"), "vpc-3.yaml")); err != nil {
		t.Error(err)
	}
	w.git.Clear()
	w.push("gitops/hedgehog/fabric-1/raw/vpc-4.yaml", vpc("vpc-4", 1004))
	w.hh("sync")
	w.wantManaged("fabric-1", map[string]string{
		"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002),
		"vpcs/vpc-3.yaml": vpc("vpc-3", 1003), "vpcs/vpc-4.yaml": vpc("vpc-4", 1004),
	})
	for _, name := range []string{"vpc-1", "vpc-2", "vpc-3", "vpc-4"} {
		w.inCluster(vpcs, name)
	}
	w.must("sync")
	w.clean()
	w.wantLinear(vpc("vpc-2", 1002), vpc("vpc-3", 1003))
	if got := w.gitHere("rev-parse", "refs/hhwatchd/aside/"+mine); got != mine {
		t.Errorf("the person's commit: %s", got)
	}
	history := w.history()
	for _, line := range []string{"carried over what was not pushed: 2 commits, refs/heads/mine as refs/hhwatchd/aside/" + mine, "the broken one lies in " + w.clone() + ".broken-1"} {
		if !strings.Contains(history, line) {
			t.Errorf("the history does not say %q:\n%s", line, history)
		}
	}
	// The cluster was compared, not written to again.
	if n := strings.Count(w.history("--object", "VPC/vpc-1"), ", resourceVersion"); n != 1 {
		t.Errorf("vpc-1 was applied %d times:\n%s", n, w.history("--object", "VPC/vpc-1"))
	}
}

// wantSame wants the clone in its place, and nothing said of a broken one.
func (w *world) wantSame() {
	w.t.Helper()
	if names, err := filepath.Glob(w.clone() + ".broken-*"); err != nil || len(names) > 0 {
		w.t.Errorf("set aside: %v, %v", names, err)
	}
	if history := w.history(); strings.Contains(history, "made again") {
		w.t.Errorf("the clone was made again:\n%s", history)
	}
}

// TestNotBroken: a sound clone that lacks commits which the journal names,
// because the remote was rewritten and git gc has removed them, is not taken
// for a broken one; one that lacks what its branch needs is.
func TestNotBroken(t *testing.T) {
	for _, partly := range []bool{false, true} {
		t.Run(fmt.Sprint("partly=", partly), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{})
			w.start()
			w.drop("fabric-1", "vpc-1.yaml", vpc("vpc-1", 1001))
			w.pushed("fabric-1", "vpcs/vpc-1.yaml")
			w.drop("fabric-1", "vpc-2.yaml", vpc("vpc-2", 1002))
			w.pushed("fabric-1", "vpcs/vpc-2.yaml")
			w.must("sync")
			w.stop()

			// The journal is at a commit that is gone, or lacks its tree and
			// its parent.
			recorded := w.gitHere("rev-parse", "main")
			object := w.loose(filepath.Join(w.clone(), ".git"), recorded)
			kept, err := os.ReadFile(object)
			w.ok(err)
			w.remote("update-ref", "refs/heads/main", w.remote("rev-parse", "main~2"))
			w.gitHere("reset", "-q", "--hard", "main~2")
			for _, name := range []string{"remotes/origin/main", "hhwatchd/base", "hhwatchd/archived"} {
				w.gitHere("update-ref", "refs/"+name, "main")
			}
			w.gitHere("reflog", "expire", "--expire=now", "--all")
			w.gitHere("-c", "gc.auto=0", "gc", "-q", "--prune=now")
			if partly {
				w.ok(os.MkdirAll(filepath.Dir(object), 0o755), os.WriteFile(object, kept, 0o444))
			}
			w.start()
			w.must("sync")
			w.drop("fabric-1", "vpc-3.yaml", vpc("vpc-3", 1003))
			w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-3.yaml": vpc("vpc-3", 1003)})
			w.must("sync")
			w.wantSame()
			w.clean()

			// The same under a daemon that runs, and remembers.
			w.remote("update-ref", "refs/heads/main", w.remote("rev-parse", "main~2"))
			w.must("sync")
			w.gitHere("reflog", "expire", "--expire=now", "--all")
			w.gitHere("gc", "-q", "--prune=now")
			w.must("sync")
			w.drop("fabric-1", "vpc-4.yaml", vpc("vpc-4", 1004))
			w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-4.yaml": vpc("vpc-4", 1004)})
			w.must("sync")
			w.wantSame()
			w.clean()

			// And damage that nothing but a look at everything confirms.
			w.stop()
			w.ok(os.Remove(w.loose(filepath.Join(w.clone(), ".git"), "main:gitops/hedgehog/fabric-1/managed/vpcs/vpc-4.yaml")))
			w.start()
			w.drop("fabric-1", "vpc-4.yaml", vpc("vpc-4", 1005))
			w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-4.yaml": vpc("vpc-4", 1005)})
			w.must("sync")
			w.clean()
			if n := strings.Count(w.history(), "the clone is made again from the remote"); n != 1 {
				t.Errorf("the clone was made again %d times:\n%s", n, w.history())
			}
		})
	}
}

// TestBrokenAndBranchGone loses the clone while the remote's branch is gone: it
// is not made anew without what it had.
func TestBrokenAndBranchGone(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.drop("fabric-1", "vpc-1.yaml", vpc("vpc-1", 1001))
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")
	w.must("sync")
	head := w.remote("rev-parse", "main")
	w.remote("update-ref", "-d", "refs/heads/main")
	w.ok(os.RemoveAll(filepath.Join(w.clone(), ".git")))
	w.drop("fabric-1", "vpc-2.yaml", vpc("vpc-2", 1002))
	for range 3 {
		if out, code := w.hh("sync"); code != 1 || !strings.Contains(out, "branch main is gone") {
			t.Errorf("sync, exit code %d:\n%s", code, out)
		}
	}
	if refs := w.remote("for-each-ref"); refs != "" {
		t.Errorf("the remote has refs again:\n%s", refs)
	}
	w.remote("update-ref", "refs/heads/main", head)
	w.must("sync")
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002)})
	w.wantLinear()
	w.clean()
}

// TestBrokenBytes loses what was never pushed: where only the bytes of the
// drop are gone, its object is said again from managed/; where nothing is left,
// it is reported by name.
func TestBrokenBytes(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprint("lost=", lost), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{})
			w.start()
			w.drop("fabric-1", "vpc-1.yaml", vpc("vpc-1", 1001))
			w.pushed("fabric-1", "vpcs/vpc-1.yaml")
			w.git.Fail(503)
			text := "# two objects\n---\n" + vpc("vpc-2", 1002) + "---\n" + vpc("vpc-3", 1003)
			w.drop("fabric-1", "both.yaml", text)
			w.eventually("commits that wait", func() error {
				if n := strings.Count(w.history(), "made 2 commits"); n != 2 {
					return fmt.Errorf("the journal knows of %d drops", n)
				}
				return nil
			})
			w.stop()
			w.ok(os.RemoveAll(filepath.Join(w.clone(), ".git")))
			managed := filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/managed/vpcs/vpc-3.yaml")
			if lost {
				w.ok(os.WriteFile(managed, []byte("edited: by hand\n"), 0o644))
			}
			w.git.Clear()
			w.start()
			w.pushed("fabric-1", "vpcs/vpc-2.yaml")
			w.must("sync")
			history := w.history()
			if got := strings.Contains(history, "lost with the broken clone: VPC/vpc-3 of gitops/hedgehog/fabric-1/raw/both.yaml, dropped by"); got != lost {
				t.Errorf("reported as lost: %v, want %v:\n%s", got, lost, history)
			}
			if _, there := w.managed("fabric-1")["vpcs/vpc-3.yaml"]; there == lost {
				t.Errorf("vpc-3 is on the remote: %v", there)
			}
			if lost {
				kept := filepath.Join(w.state, "aside/site-a/gitops/hedgehog/fabric-1/managed/vpcs/vpc-3.yaml")
				if data, err := os.ReadFile(kept); err != nil || string(data) != "edited: by hand\n" {
					t.Errorf("the edit: %q, %v", data, err)
				}
			}
			w.clean()
		})
	}
}

// TestBrokenBeforeFirstPush: the remote has no commit yet, so that everything
// there is lies in the clone that breaks.
func TestBrokenBeforeFirstPush(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.git.Fail(503)
	w.drop("fabric-1", "vpc-1.yaml", vpc("vpc-1", 1001))
	w.eventually("commits that wait", func() error {
		if !strings.Contains(w.history(), "made 2 commits") {
			return errors.New("the journal knows of none")
		}
		return nil
	})
	w.stop()
	w.ok(os.WriteFile(filepath.Join(w.clone(), ".git/config"), []byte("[core"), 0o644))
	w.git.Clear()
	w.start()
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")
	w.must("sync")
	w.clean()
	w.wantLinear(vpc("vpc-1", 1001))
	if history := w.history(); !strings.Contains(history, "carried over what was not pushed: 2 commits") {
		t.Errorf("history:\n%s", history)
	}
}

// TestTornIndex: an index that is empty, cut off or garbage is made again; it
// breaks nothing, and no file is taken for a person's edit.
func TestTornIndex(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.drop("fabric-1", "vpc-1.yaml", vpc("vpc-1", 1001))
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")
	index := filepath.Join(w.clone(), ".git/index")
	for i, tear := range []func(){
		func() { w.cut(index, 0) },
		func() { w.cut(index, -1) },
		func() { w.overwrite(index, []byte("garbage")) },
		func() { w.ok(os.Remove(index)) },
	} {
		for _, running := range []bool{true, false} {
			if !running {
				w.stop()
			}
			tear()
			if !running {
				w.start()
			}
			n := 2*i + 2
			if running {
				n++
			}
			name := fmt.Sprint("vpc-", n)
			w.drop("fabric-1", name+".yaml", vpc(name, 1010+n))
			w.must("sync")
			w.pushed("fabric-1", "vpcs/"+name+".yaml")
			w.must("sync")
			w.clean()
		}
	}
	for _, not := range []string{"broken", "set aside"} {
		if history := w.history(); strings.Contains(history, not) {
			t.Errorf("the history says %q:\n%s", not, history)
		}
	}
}

// unmanaged is a file below unmanaged/ of fabric-1.
func (w *world) unmanaged(name string) string {
	return filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged", name)
}

func (w *world) ok(errs ...error) {
	w.t.Helper()
	if err := errors.Join(errs...); err != nil {
		w.t.Fatal(err)
	}
}

// gitHere runs git in the working clone.
func (w *world) gitHere(args ...string) string {
	w.t.Helper()
	return strings.TrimSpace(gitserver.Open(w.t, w.clone()).Git(args...))
}

// cut truncates a file in place: to size bytes, by so many if size is less
// than -1, by half if it is -1.
func (w *world) cut(name string, size int64) {
	w.t.Helper()
	info, err := os.Stat(name)
	w.ok(err)
	switch {
	case size == -1:
		size = info.Size() / 2
	case size < 0:
		size += info.Size()
	}
	w.ok(os.Truncate(name, size))
}

// overwrite writes into a file in place.
func (w *world) overwrite(name string, data []byte) {
	w.t.Helper()
	w.ok(os.Chmod(name, 0o644))
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	w.ok(err)
	_, err = f.Write(data)
	w.ok(err, f.Close())
}

// loose is the file of a loose object.
func (w *world) loose(git, rev string) string {
	w.t.Helper()
	id := w.gitHere("rev-parse", rev)
	return filepath.Join(git, "objects", id[:2], id[2:])
}

func (w *world) half(git, rev string) {
	w.t.Helper()
	w.cut(w.loose(git, rev), -1)
}

// packed packs the clone and returns the pack's file.
func (w *world) packed(git, ext string) string {
	w.t.Helper()
	w.gitHere("repack", "-adq")
	names, err := filepath.Glob(filepath.Join(git, "objects", "pack", "*"+ext))
	w.ok(err)
	if len(names) != 1 {
		w.t.Fatalf("packs: %v", names)
	}
	return names[0]
}

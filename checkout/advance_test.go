// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLocalEdits: what a person did in the work tree is set aside where the
// commit has something else, and left alone elsewhere.
func TestLocalEdits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{
		"m/edited": "1", "m/deleted": "1", "m/gone": "1", "m/typed": "1", "m/same": "1", "m/moded": "1", "dir/f": "1", "link": "1",
		"elsewhere": "1",
	})
	c := w.clone()
	save(t, w.dir, map[string]string{"m/edited": "mine", "m/deleted": "", "m/gone": "mine", "m/new": "mine", "m/same": "2", "elsewhere": "mine", "dir": ""})
	for _, err := range []error{
		os.Remove(filepath.Join(w.dir, "m/typed")),
		os.Mkdir(filepath.Join(w.dir, "m/typed"), 0o777),
		os.WriteFile(filepath.Join(w.dir, "m/typed/in"), []byte("mine"), 0o666),
		os.Chmod(filepath.Join(w.dir, "m/moded"), 0o755),
		os.Symlink("/etc", filepath.Join(w.dir, "dir")),
		os.Remove(filepath.Join(w.dir, "link")),
		os.Symlink("elsewhere", filepath.Join(w.dir, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	h, err := c.WriteCommit(w.head(c), []Change{
		put("m/edited", "2"), put("m/deleted", "2"), del("m/gone"), put("m/new", "2"), put("m/typed", "2"), put("m/same", "2"),
		put("m/moded", "2"), put("dir/f", "2"), put("link", "2"),
	}, us, us, "x")
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Advance(w.ctx(), h)
	if err != nil {
		t.Fatal(err)
	}
	aside := w.opts.AsideDir
	want := []Aside{
		{Path: "m/gone", Kept: aside + "/m/gone"},
		{Path: "dir", Kept: aside + "/dir"},
		{Path: "link", Kept: aside + "/link"},
		{Path: "m/deleted", Deleted: true},
		{Path: "m/edited", Kept: aside + "/m/edited"},
		{Path: "m/new", Kept: aside + "/m/new"},
		{Path: "m/typed", Kept: aside + "/m/typed"},
	}
	byPath := func(a, b Aside) int { return strings.Compare(a.Path, b.Path) }
	// The symbolic link in the place of dir makes dir/f a deletion, too.
	got = slices.DeleteFunc(got, func(a Aside) bool { return a.Path == "dir/f" && a.Deleted })
	slices.SortFunc(got, byPath)
	slices.SortFunc(want, byPath)
	if !slices.Equal(got, want) {
		t.Errorf("set aside:\n%+v\nwant:\n%+v", got, want)
	}
	same(t, "kept", treeWithoutLinks(t, aside), map[string]string{"m/gone": "mine", "m/edited": "mine", "m/new": "mine", "m/typed/in": "mine"})
	w.has(map[string]string{"m/edited": "2", "m/deleted": "2", "m/gone": "", "m/new": "2", "m/typed": "2", "m/same": "2", "m/moded": "2", "dir/f": "2", "link": "2", "elsewhere": "mine"})
	if out := git(t, w.dir, "status", "--porcelain"); out != " M elsewhere" {
		t.Errorf("git status:\n%s", out)
	}
	if _, err := os.Stat("/etc/f"); err == nil {
		t.Error("written through a symbolic link")
	}
	// Again: the names are taken now.
	save(t, w.dir, map[string]string{"m/edited": "mine again"})
	h, err = c.WriteCommit(h, []Change{put("m/edited", "3")}, us, us, "x")
	if err != nil {
		t.Fatal(err)
	}
	got, err = c.Advance(w.ctx(), h)
	if want := (Aside{Path: "m/edited", Kept: aside + "/m/edited.1"}); err != nil || !slices.Equal(got, []Aside{want}) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func treeWithoutLinks(t *testing.T, dir string) map[string]string {
	t.Helper()
	for _, name := range []string{"dir", "link"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	return tree(t, dir)
}

// TestInputs: raw files that differ from what git knows are nobody's to touch.
func TestInputs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{
		"fabric/raw/.gitkeep": "k", "fabric/raw/done": "1", "fabric/raw/again": "1", "fabric/raw/updated": "1", "fabric/raw/redropped": "1",
		"fabric/raw/sub/only": "1",
	})
	c := w.clone()
	save(t, w.dir, map[string]string{"fabric/raw/again": "new input", "fabric/raw/redropped": "new input", "fabric/raw/fresh": "drop", "fabric/raw/clash": "drop"})
	w.commit(c, del("fabric/raw/done"), del("fabric/raw/again"), del("fabric/raw/sub/only"), put("fabric/raw/updated", "2"),
		put("fabric/raw/redropped", "2"), put("fabric/raw/clash", "2"), del("fabric/raw/.gitkeep"))
	w.has(map[string]string{
		"fabric/raw/done": "", "fabric/raw/again": "new input", "fabric/raw/updated": "2", "fabric/raw/redropped": "new input",
		"fabric/raw/fresh": "drop", "fabric/raw/clash": "drop", "fabric/raw/sub/only": "",
	})
	out := git(t, w.dir, "status", "--porcelain")
	if want := " M fabric/raw/clash\n M fabric/raw/redropped\n?? fabric/raw/again\n?? fabric/raw/fresh"; out != want {
		t.Errorf("git status:\n%s\nwant:\n%s", out, want)
	}
	// Restore has no business there, either.
	if got, err := c.Restore(w.ctx(), []string{"fabric", "fabric/raw"}); len(got) > 0 || err != nil {
		t.Errorf("Restore: %v, %v", got, err)
	}
	// An input directory outlives its last file.
	save(t, w.dir, map[string]string{"fabric/raw/again": "", "fabric/raw/fresh": "", "fabric/raw/redropped": "2", "fabric/raw/clash": "2"})
	w.commit(c, del("fabric/raw/redropped"), del("fabric/raw/clash"), del("fabric/raw/updated"))
	if entries, err := os.ReadDir(filepath.Join(w.dir, "fabric/raw")); err != nil || len(entries) != 0 {
		t.Errorf("raw: %v, %v", entries, err)
	}
	w.clean()
	// And where it is a link to elsewhere, nothing is written through it.
	other := t.TempDir()
	for _, err := range []error{os.Remove(filepath.Join(w.dir, "fabric/raw")), os.Symlink(other, filepath.Join(w.dir, "fabric/raw"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.commit(c, put("fabric/raw/x", "1"))
	if entries, _ := os.ReadDir(other); len(entries) > 0 {
		t.Errorf("written through a link: %v", entries)
	}
}

// TestOpenInput: a raw file that is being written to in its place stays, even
// though it does not look changed yet.
func TestOpenInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"fabric/raw/x": "1", "fabric/raw/y": "1"})
	c := w.clone()
	for _, name := range []string{"x", "y"} {
		f, err := os.OpenFile(filepath.Join(w.dir, "fabric/raw", name), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	h, err := c.WriteCommit(w.head(c), []Change{del("fabric/raw/x"), put("fabric/raw/y", "2")}, us, us, "x")
	if err != nil {
		t.Fatal(err)
	}
	w.advance(c, h)
	w.has(map[string]string{"fabric/raw/x": "1", "fabric/raw/y": "1"})
	if out := git(t, w.dir, "status", "--porcelain"); out != " M fabric/raw/y\n?? fabric/raw/x" {
		t.Errorf("git status:\n%s", out)
	}
}

// TestCrash leaves the clone as a crash at each of its points would, and lets
// the next process finish.
func TestCrash(t *testing.T) {
	t.Parallel()
	crashes := map[string]func(t *testing.T, w *world, c *Clone, from, to Hash){
		"before the ref": func(t *testing.T, w *world, c *Clone, from, to Hash) {},
		"after the ref": func(t *testing.T, w *world, c *Clone, from, to Hash) {
			if err := c.repo.setRef(w.ctx(), "refs/heads/main", from.id(), to.id()); err != nil {
				t.Fatal(err)
			}
		},
		"half of the files": func(t *testing.T, w *world, c *Clone, from, to Hash) {
			if err := c.repo.setRef(w.ctx(), "refs/heads/main", from.id(), to.id()); err != nil {
				t.Fatal(err)
			}
			save(t, w.dir, map[string]string{"a": "2", "gone": "", "m/new": "2"})
			save(t, filepath.Join(w.dir, ".git/hhwatchd"), map[string]string{"index.tmp": "torn", "stage/.hhwatchd-1-0.tmp": "2", "stage/taken": "1"})
		},
		"no index": func(t *testing.T, w *world, c *Clone, from, to Hash) {
			save(t, w.dir, map[string]string{".git/index": ""})
		},
		"torn index": func(t *testing.T, w *world, c *Clone, from, to Hash) {
			data, err := os.ReadFile(filepath.Join(w.dir, ".git/index"))
			if err != nil {
				t.Fatal(err)
			}
			save(t, w.dir, map[string]string{".git/index": string(data[:len(data)-30])})
		},
		"stale locks": func(t *testing.T, w *world, c *Clone, from, to Hash) {
			for _, name := range []string{"index", "refs/heads/main", "HEAD", "config"} {
				if err := os.Symlink("hhwatchd:1:0:another-boot", filepath.Join(w.dir, ".git", name+".lock")); err != nil {
					t.Fatal(err)
				}
			}
		},
		"truncated objects": func(t *testing.T, w *world, c *Clone, from, to Hash) {
			// They are not durable before the ref moves; the commit is then
			// made again, and must not trust in what lies there.
			for _, change := range []string{"2"} {
				path := loosePath(filepath.Join(w.dir, ".git/objects"), BlobHash([]byte(change)).id())
				for _, err := range []error{os.Remove(path), os.WriteFile(path, []byte("x\x01"), 0o444)} {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
		},
		"no base": func(t *testing.T, w *world, c *Clone, from, to Hash) {
			save(t, w.dir, map[string]string{".git/hhwatchd/worktree": ""})
		},
	}
	for name, crash := range crashes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.personPushes(map[string]string{"a": "1", "b": "1", "gone": "1", "m/same": "1"})
			c := w.clone()
			from := w.head(c)
			changes := []Change{put("a", "2"), put("b", "2"), del("gone"), put("m/new", "2")}
			to, err := c.WriteCommit(from, changes, us, us, "x")
			if err != nil {
				t.Fatal(err)
			}
			crash(t, w, c, from, to)
			c.Close()

			c = w.open()
			if again, err := c.WriteCommit(from, changes, us, us, "x"); err != nil || again != to {
				t.Fatalf("the commit again: %s, %v; want %s", again, err, to)
			}
			w.head(c)
			w.advance(c, to)
			w.advance(c, to)
			w.has(map[string]string{"a": "2", "b": "2", "gone": "", "m/new": "2", "m/same": "1"})
			w.clean()
			if left := tree(t, w.opts.AsideDir); len(left) > 0 {
				t.Errorf("set aside: %v", left)
			}
			if left := tree(t, filepath.Join(w.dir, ".git/hhwatchd/stage")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestStaged: what a person staged stays, unless the commit wants that path.
func TestStaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"mine": "1", "both": "1", "d/x": "1"})
	c := w.clone()
	save(t, w.dir, map[string]string{"mine": "2", "both": "2", "fresh": "2"})
	git(t, w.dir, "add", "mine", "both", "fresh")
	h, err := c.WriteCommit(w.head(c), []Change{put("both", "3"), put("d/x", "2")}, us, us, "x")
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Advance(w.ctx(), h)
	if len(got) != 1 || got[0].Path != "both" || err != nil {
		t.Errorf("set aside: %v, %v", got, err)
	}
	if out := git(t, w.dir, "status", "--porcelain"); out != "A  fresh\nM  mine" {
		t.Errorf("git status:\n%s", out)
	}
	// The person commits and goes on; we follow.
	git(t, w.dir, "commit", "-qm", "mine")
	w.commit(c, put("d/x", "3"))
	w.clean()
	w.has(map[string]string{"mine": "2", "both": "3", "fresh": "2", "d/x": "3"})
}

// TestPerson uses git in the clone between our steps.
func TestPerson(t *testing.T) {
	t.Parallel()
	steps := map[string]func(w *world){
		"status":      func(w *world) { git(w, w.dir, "-c", "core.optionalLocks=true", "status") },
		"refresh":     func(w *world) { git(w, w.dir, "update-index", "--refresh", "--really-refresh") },
		"gc":          func(w *world) { git(w, w.dir, "gc", "-q", "--prune=now") },
		"repack":      func(w *world) { git(w, w.dir, "repack", "-adq") },
		"pack-refs":   func(w *world) { git(w, w.dir, "pack-refs", "--all") },
		"read-tree":   func(w *world) { git(w, w.dir, "read-tree", "HEAD") },
		"stash":       func(w *world) { save(w, w.dir, map[string]string{"a": "x"}); git(w, w.dir, "stash", "-q") },
		"index v4":    func(w *world) { git(w, w.dir, "update-index", "--index-version", "4") },
		"split index": func(w *world) { git(w, w.dir, "update-index", "--split-index") },
		"untracked":   func(w *world) { git(w, w.dir, "update-index", "--force-untracked-cache") },
		"reset":       func(w *world) { git(w, w.dir, "reset", "-q", "--hard", "HEAD~1") },
		"soft reset": func(w *world) {
			git(w, w.dir, "reset", "-q", "--soft", "HEAD~1")
			git(w, w.dir, "reset", "-q", "--hard")
		},
		"switch": func(w *world) { git(w, w.dir, "checkout", "-q", "-B", "side", "HEAD~1") },
		"detach": func(w *world) { git(w, w.dir, "checkout", "-q", "--detach", "HEAD~1") },
		"detach+commit": func(w *world) {
			git(w, w.dir, "checkout", "-q", "--detach")
			git(w, w.dir, "commit", "-q", "--allow-empty", "-m", "x")
		},
		"assume": func(w *world) { git(w, w.dir, "update-index", "--assume-unchanged", "b") },
		"fetch":  func(w *world) { git(w, w.dir, "fetch", "-q") },
		"commit": func(w *world) {
			save(w, w.dir, map[string]string{"p": "1"})
			git(w, w.dir, "add", "p")
			git(w, w.dir, "commit", "-q", "--allow-empty", "-m", "p")
		},
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.personPushes(map[string]string{"a": "1", "b": "1", "m/x": "1", "m/n/y": "1"})
			c := w.clone()
			w.commit(c, put("a", "2"), put("m/n/z", "1"))
			step(w)
			head := w.head(c)
			w.advance(c, head)
			w.commit(c, put("a", "3"), put("m/x", "2"), del("m/n/y"))
			w.has(map[string]string{"a": "3", "m/x": "2", "m/n/y": ""})
			w.clean()
			if got := git(t, w.dir, "symbolic-ref", "HEAD"); got != "refs/heads/main" {
				t.Errorf("HEAD is %s", got)
			}
			step(w)
			w.head(c)
			w.advance(c, w.head(c))
			w.clean()
		})
	}
}

// TestSparse: what a person's sparse checkout leaves out stays out.
func TestSparse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"in/a": "1", "out/b": "1", "out/c": "1"})
	c := w.clone()
	git(t, w.dir, "sparse-checkout", "set", "in")
	w.commit(c, put("in/a", "2"), put("out/b", "2"), del("out/c"))
	w.has(map[string]string{"in/a": "2", "out/b": ""})
	if got, err := c.Restore(w.ctx(), []string{"in", "out"}); len(got) > 0 || err != nil {
		t.Errorf("Restore: %v, %v", got, err)
	}
	w.clean()
}

func TestMoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	h, err := c.WriteCommit(w.head(c), []Change{put("a", "2")}, us, us, "x")
	if err != nil {
		t.Fatal(err)
	}
	git(t, w.dir, "commit", "-q", "--allow-empty", "-m", "by hand")
	if _, err := c.Advance(w.ctx(), h); !errors.Is(err, ErrMoved) {
		t.Errorf("Advance: %v, want ErrMoved", err)
	}
	w.clean()
	w.head(c)
	w.advance(c, h)
	w.clean()
}

// TestLinksAndModules: what git has besides files is checked out as git does.
func TestLinksAndModules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	save(t, w.desk(), map[string]string{"target": "1", "run.sh": "#!/bin/sh\n"})
	for _, err := range []error{
		os.Symlink("target", filepath.Join(w.desk(), "link")),
		os.Symlink("/etc/passwd", filepath.Join(w.desk(), "out")),
		os.Chmod(filepath.Join(w.desk(), "run.sh"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	git(t, w.desk(), "add", "-A")
	git(t, w.desk(), "update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("12", 20)+",mod/ule")
	git(t, w.desk(), "commit", "-qm", "x")
	git(t, w.desk(), "push", "-q", "origin", "HEAD:main")
	c := w.clone()
	w.clean()
	h := w.head(c)
	files, err := c.Files(h, "")
	if err != nil || len(files) != 2 {
		t.Errorf("Files: %v, %v", files, err)
	}
	others, err := c.Irregular(h, "")
	if err != nil || len(others) != 3 {
		t.Errorf("Irregular: %v, %v", others, err)
	}
	if _, ok, err := c.Lookup(h, "link"); ok || err != nil {
		t.Errorf("Lookup of a link: %v, %v", ok, err)
	}
	if fi, err := os.Stat(filepath.Join(w.dir, "run.sh")); err != nil || fi.Mode().Perm()&0o100 == 0 {
		t.Errorf("run.sh: %v, %v", fi, err)
	}
	// They go, and a file comes where the link was.
	w.commit(c, del("out"), put("link", "a file"), put("run.sh", "#!/bin/bash\n"))
	if fi, err := os.Lstat(filepath.Join(w.dir, "link")); err != nil || !fi.Mode().IsRegular() {
		t.Errorf("link: %v, %v", fi, err)
	}
	if got := git(t, w.dir, "ls-tree", "HEAD", "run.sh"); !strings.HasPrefix(got, "100755") {
		t.Errorf("run.sh is %s", got)
	}
	w.clean()
	git(t, w.desk(), "rm", "-q", "--cached", "mod/ule")
	git(t, w.desk(), "commit", "-qm", "x")
	git(t, w.desk(), "push", "-q", "origin", "HEAD:main")
	w.advance(c, w.fetch(c))
	if _, err := os.Lstat(filepath.Join(w.dir, "mod")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("mod: %v", err)
	}
	w.clean()
}

// TestExistingFiles clones into a directory in which files wait already.
func TestExistingFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"fabric/raw/tracked": "1", "a": "1", "b": "1"})
	save(t, w.dir, map[string]string{"fabric/raw/drop": "drop", "fabric/raw/tracked": "drop", "a": "1", "b": "mine"})
	c := w.open()
	got, err := c.Advance(w.ctx(), w.head(c))
	if len(got) != 1 || got[0].Path != "b" || err != nil {
		t.Errorf("set aside: %v, %v", got, err)
	}
	w.has(map[string]string{"fabric/raw/drop": "drop", "fabric/raw/tracked": "drop", "a": "1", "b": "1"})
}

// TestUnwritable: one path that cannot be written does not hold up the others,
// and is made good later.
func TestUnwritable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1", "d/x": "1", "e": "1"})
	c := w.clone()
	h, err := c.WriteCommit(w.head(c), []Change{put("a", "2"), del("d/x"), put("blocked", "a file"), put("e", "2")}, us, us, "x")
	if err != nil {
		t.Fatal(err)
	}
	save(t, w.dir, map[string]string{"blocked/edit": "mine"})
	w.noAside()
	if _, err := c.Advance(w.ctx(), h); err == nil || !strings.Contains(err.Error(), "blocked") {
		t.Errorf("Advance: %v", err)
	}
	if w.head(c) != h {
		t.Error("the branch did not move")
	}
	w.has(map[string]string{"a": "2", "d/x": "", "e": "2", "blocked/edit": "mine"})
	save(t, w.dir, map[string]string{"blocked": ""})
	w.advance(c, h)
	w.has(map[string]string{"blocked": "a file"})
	w.clean()
}

// TestInterruptedClone begins again where a crash left half a clone beside.
func TestInterruptedClone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	save(t, w.dir+".clone", map[string]string{"HEAD": "ref: refs/heads/ma", "objects/pack/tmp_pack_1": "PACK"})
	w.clone()
	w.clean()
	if _, err := os.Lstat(w.dir + ".clone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// TestNoDirectory has commits with something else in the place of an input
// directory, or of one above it: what lies there stays, and all else goes on.
func TestNoDirectory(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"fabric/raw", "fabric"} {
		w := newWorld(t)
		w.personPushes(map[string]string{"fabric/raw/.gitkeep": "keep", "a": "1"})
		c := w.clone()
		save(t, w.dir, map[string]string{"fabric/raw/dropped": "new"})
		w.personPushes(map[string]string{"fabric/raw/.gitkeep": "", at: "a file", "a": "2"})
		head := w.fetch(c)
		w.advance(c, head)
		w.has(map[string]string{"fabric/raw/dropped": "new", "fabric/raw/.gitkeep": "", "a": "2"})
		for _, dir := range []string{"fabric/raw", "fabric/raw/below"} {
			if got, err := c.NoDirectory(head, dir); err != nil || got != at {
				t.Errorf("in the place of %s is %q, %v; want %s", dir, got, err, at)
			}
		}
		w.personPushes(map[string]string{at: "", "a": "3"})
		head = w.fetch(c)
		w.advance(c, head)
		w.has(map[string]string{"fabric/raw/dropped": "new", "a": "3"})
		if got, err := c.NoDirectory(head, "fabric/raw"); err != nil || got != "" {
			t.Errorf("in the place of the directory is %q, %v", got, err)
		}
	}
}

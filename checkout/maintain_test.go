// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// maintain calls Maintain until there is nothing to do, and returns how often
// there was something.
func (w *world) maintain(c *Clone) int {
	w.Helper()
	for n := range 1000 {
		worked, err := c.Maintain(w.ctx())
		if err != nil {
			w.Fatal(err)
		}
		if !worked {
			return n
		}
	}
	w.Fatal("there is no end to maintenance")
	return 0
}

// objects returns the objects that git finds in our clone, in order, and the
// number of loose ones and of packs.
func (w *world) objects() (all string, loose, packs int) {
	w.Helper()
	all = git(w, w.dir, "cat-file", "--batch-check", "--batch-all-objects")
	for _, line := range strings.Split(git(w, w.dir, "count-objects", "-v"), "\n") {
		fmt.Sscanf(line, "count: %d", &loose)
		fmt.Sscanf(line, "packs: %d", &packs)
	}
	return all, loose, packs
}

// live makes n commits, each of the given number of files in a directory of
// 400. After each tenth they are pushed, and somebody else's is fetched.
func (w *world) live(c *Clone, n, files int) {
	w.Helper()
	h := w.head(c)
	from := h[:8]
	for i := range n {
		changes := make([]Change, files)
		for k := range changes {
			changes[k] = put(fmt.Sprintf("managed/vpcs/vpc-%03d.yaml", (i*files+k)*7%400), fmt.Sprintf("since: %s\nround: %d\nfile: %d\n", from, i, k))
		}
		var err error
		if h, err = c.WriteCommit(h, changes, us, us, fmt.Sprintf("Commit %d", i)); err != nil {
			w.Fatal(err)
		}
		if i%10 == 9 || i == n-1 {
			w.advance(c, h)
			w.push(c)
			w.personPushes(map[string]string{"desk/note": fmt.Sprint("note ", i)})
			h = w.fetch(c)
			w.advance(c, h)
		}
	}
}

func TestMaintain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	if n := w.maintain(c); n != 0 {
		t.Errorf("%d pieces of work in a new clone", n)
	}
	// Nothing refers to this, and yet it may not go.
	stray := gitIn(t, w.dir, "a person's, staged and reset\n", "hash-object", "-w", "--stdin")
	dead, err := c.WriteCommit(w.head(c), []Change{put("dead", "planned anew")}, us, us, "Dead")
	if err != nil {
		t.Fatal(err)
	}

	// Small commits, of up to packLimit objects, leave loose objects.
	w.live(c, 60, 26)
	before, loose, _ := w.objects()
	if loose < looseLimit {
		t.Fatalf("only %d loose objects", loose)
	}
	size := du(t, filepath.Join(w.dir, ".git", "objects"))
	if n := w.maintain(c); n == 0 {
		t.Error("nothing was done")
	}
	after, loose, packs := w.objects()
	if after != before {
		t.Errorf("objects before:\n%s\nafter:\n%s", before, after)
	}
	if loose >= looseLimit/4 || packs > 3 {
		t.Errorf("%d loose objects and %d packs are left", loose, packs)
	}
	if now := du(t, filepath.Join(w.dir, ".git", "objects")); now > size/2 {
		t.Errorf("the objects take %d KiB, before %d KiB", now, size)
	}
	w.clean()

	// Larger ones leave packs. Whoever reads meanwhile is not disturbed.
	w.live(c, 20, 50)
	before, _, packs = w.objects()
	if packs < 20 {
		t.Fatalf("only %d packs", packs)
	}
	reader, err := OpenReader(w.dir, "main")
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	n := 0
	for commit, err := range reader.Commits() {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := reader.Files(commit.Hash, ""); err != nil {
			t.Fatal(err)
		}
		if n++; n == 5 && w.maintain(c) == 0 {
			t.Error("the packs were not merged")
		}
	}
	after, _, packs = w.objects()
	if after != before {
		t.Errorf("objects before:\n%s\nafter:\n%s", before, after)
	}
	if packs >= packsLimit {
		t.Errorf("%d packs are left", packs)
	}
	w.clean()
	for _, id := range []string{stray, string(dead)} {
		git(t, w.dir, "cat-file", "-e", id)
	}
	// And on with it.
	w.live(fresher(w, c), 10, 3)
	w.clean()
	git(t, w.dir, "gc", "-q")
	w.clean()
}

// fresher opens the clone again.
func fresher(w *world, c *Clone) *Clone {
	w.Helper()
	if err := c.Close(); err != nil {
		w.Fatal(err)
	}
	return w.open()
}

// du returns what the files below dir hold, in KiB.
func du(t testing.TB, dir string) int {
	t.Helper()
	n := 0
	for _, content := range tree(t, dir) {
		n += len(content)
	}
	return n >> 10
}

// TestMaintainLeavesAlone has what a person may want to stay as it is.
func TestMaintainLeavesAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	w.live(c, packsLimit+4, 50)
	git(t, w.dir, "gc", "-q")
	w.live(c, packsLimit+4, 40)
	packed := func() map[string]string { return tree(t, filepath.Join(w.dir, ".git", "objects", "pack")) }
	pack := func(ext string) string {
		names, err := filepath.Glob(filepath.Join(w.dir, ".git", "objects", "pack", "*"+ext))
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		return strings.TrimSuffix(names[0], ext)
	}
	mark := func(name string) func() {
		save(t, filepath.Dir(name), map[string]string{filepath.Base(name): "123 here\n"})
		return func() { os.Remove(name) }
	}
	before := packed()

	undo := mark(filepath.Join(w.dir, ".git", "gc.pid"))
	if n := w.maintain(c); n != 0 {
		t.Error("a git gc that runs was not heeded")
	}
	undo()
	undo = mark(filepath.Join(w.dir, ".git", "objects", "pack", "multi-pack-index"))
	if n := w.maintain(c); n != 0 {
		t.Error("packs with a multi-pack-index were merged")
	}
	undo()
	c.opts.Waiting = func() bool { return true }
	if n := w.maintain(c); n != 0 {
		t.Error("it did not make way")
	}
	c.opts.Waiting = nil
	same(t, "packs", packed(), before)

	kept := pack(".pack")
	mark(kept + ".keep")
	if w.maintain(c) == 0 {
		t.Error("nothing was done at last")
	}
	if _, err := os.Stat(kept + ".pack"); err != nil {
		t.Errorf("a pack that is to be kept: %v", err)
	}
	w.clean()
}

// TestMaintainAfterCrash puts the object store into each state that a crash in
// Maintain can leave, and goes on from there.
func TestMaintainAfterCrash(t *testing.T) {
	t.Parallel()
	for _, life := range []struct {
		name     string
		n, files int
	}{{"loose", 60, 26}, {"packs", packsLimit + 4, 50}} {
		t.Run(life.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.personPushes(map[string]string{"a": "1"})
			c := w.clone()
			w.live(c, life.n, life.files)
			objects := filepath.Join(w.dir, ".git", "objects")
			all, _, _ := w.objects()
			before := tree(t, objects)
			if w.maintain(c) == 0 {
				t.Fatal("nothing was done")
			}
			after := tree(t, objects)
			c.Close()
			var gone, come []string
			for name := range before {
				if _, ok := after[name]; !ok {
					gone = append(gone, name)
				}
			}
			for name := range after {
				if _, ok := before[name]; !ok {
					come = append(come, name)
				}
			}
			if len(come) < 2 || len(gone) < 2*packsLimit {
				t.Fatalf("%d files came and %d went", len(come), len(gone))
			}
			states := map[string]func(){
				"half a pack": func() { put1(t, objects, "tmp_pack_1.pack", after[ending(come, ".pack")][:100]) },
				"no name yet": func() {
					put1(t, objects, "tmp_pack_1.pack", after[ending(come, ".pack")])
					put1(t, objects, "tmp_pack_1.idx", after[ending(come, ".idx")])
				},
				"without index": func() { put1(t, objects, ending(come, ".pack"), after[ending(come, ".pack")]) },
				"there twice": func() {
					for _, name := range come {
						put1(t, objects, name, after[name])
					}
				},
				"half removed": func() {
					for _, name := range come {
						put1(t, objects, name, after[name])
					}
					for i, name := range gone {
						if i%2 == 0 && !strings.HasSuffix(name, ".pack") {
							os.Remove(filepath.Join(objects, name))
						}
					}
				},
			}
			for name, make := range states {
				if err := os.RemoveAll(objects); err != nil {
					t.Fatal(err)
				}
				for name, content := range before {
					put1(t, objects, name, content)
				}
				make()
				long := time.Now().Add(-2 * time.Hour)
				left, _ := filepath.Glob(filepath.Join(objects, "tmp_*"))
				for _, l := range left {
					os.Chtimes(l, long, long)
				}
				w.clean()
				c := w.open()
				w.maintain(c)
				w.clean()
				got, loose, packs := w.objects()
				if got != all || loose > looseLimit*5/4 || packs >= packsLimit {
					t.Errorf("%s: %d loose objects, %d packs, or objects are missing", name, loose, packs)
				}
				if left, _ := filepath.Glob(filepath.Join(objects, "tmp_*")); len(left) > 0 {
					t.Errorf("%s: %q is left", name, left)
				}
				c.Close()
			}
		})
	}
}

func put1(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o444); err != nil {
		t.Fatal(err)
	}
}

func ending(names []string, suffix string) string {
	for _, name := range names {
		if strings.HasSuffix(name, suffix) {
			return name
		}
	}
	return ""
}

// TestMaintainDamaged: what cannot be read is not lost for good by being taken
// for packed.
func TestMaintainDamaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	w.live(c, 60, 26)
	torn := gitIn(t, w.dir, "torn\n", "hash-object", "-w", "--stdin")
	name := filepath.Join(w.dir, ".git", "objects", torn[:2], torn[2:])
	os.Chmod(name, 0o644)
	if err := os.Truncate(name, 5); err != nil {
		t.Fatal(err)
	}
	w.maintain(c)
	if _, err := os.Stat(name); err != nil {
		t.Error(err)
	}
	os.Remove(name)
	w.clean()

	// In packs: the new one is not installed, the old ones stay.
	w.live(c, packsLimit+4, 50)
	names, _ := filepath.Glob(filepath.Join(w.dir, ".git", "objects", "pack", "*.pack"))
	for _, name := range names {
		os.Chmod(name, 0o644)
		data := []byte(readAll(t, name))
		data[len(data)/2] ^= 0x55
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, filepath.Join(w.dir, ".git", "objects"))
	if _, err := c.Maintain(t.Context()); err == nil {
		t.Error("damaged packs were merged")
	}
	same(t, "objects", tree(t, filepath.Join(w.dir, ".git", "objects")), before)
}

// TestYearOfPolls: after thousands of small commits and fetches an operation
// touches no more files than in a new clone. (How long it takes is measured by
// make bench-git.)
func TestYearOfPolls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	for i := range 8 {
		w.live(c, 20, 26+i%2*10)
		w.maintain(c)
	}
	_, loose, packs := w.objects()
	if loose > looseLimit+looseLimit/4 || packs > packsLimit+1 {
		t.Errorf("%d loose objects, %d packs", loose, packs)
	}
	w.clean()
	if got := git(t, w.dir, "rev-list", "--count", "HEAD"); got != fmt.Sprint(1+8*22) {
		t.Errorf("%s commits", got)
	}
}

// TestTwofoldPack: a pack that has an object twice is read, and left alone.
func TestTwofoldPack(t *testing.T) {
	t.Parallel()
	dir, s := newStore(t)
	hand := func(n int, data ...string) {
		p := newHandPack(t, n)
		for _, d := range data {
			p.blob([]byte(d))
		}
		gitIn(t, dir, string(p.end()), "index-pack", "--stdin")
	}
	hand(3, "x", "y", "x")
	for i := range packsLimit {
		hand(1, fmt.Sprint(i))
	}
	packs, err := s.mergeable()
	if err != nil || len(packs) != packsLimit || slices.ContainsFunc(packs, (*pack).twofold) {
		t.Errorf("%d packs are to be merged, %v", len(packs), err)
	}
	if o, err := s.get(blobID([]byte("x"))); err != nil || string(o.data) != "x" {
		t.Errorf("%q, %v", o.data, err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"
)

// newStore makes an empty repository and opens its store.
func newStore(t testing.TB) (dir string, s *store) {
	t.Helper()
	dir = t.TempDir()
	git(t, dir, "init", "-q", "--bare", ".")
	s, err := openStore(filepath.Join(dir, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	return dir, s
}

// fresh opens the store anew, with nothing in memory.
func fresh(t testing.TB, s *store) *store {
	t.Helper()
	s, err := openStore(s.dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	return s
}

// write stores one blob.
func write(s *store, data []byte) (oid, error) {
	b := &batch{s: s, objects: make(map[oid]object)}
	return b.add(plumbing.BlobObject, data), b.store()
}

func TestLooseObjects(t *testing.T) {
	t.Parallel()
	dir, s := newStore(t)
	for _, data := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("0123456789"), 1<<17)} {
		id, err := write(s, data)
		if err != nil {
			t.Fatal(err)
		}
		if want := gitIn(t, dir, string(data), "hash-object", "--stdin"); id.String() != want || BlobHash(data) != Hash(want) {
			t.Errorf("%s, git: %s", id, want)
		}
		o, err := fresh(t, s).get(id)
		if err != nil || o.typ != plumbing.BlobObject || !bytes.Equal(o.data, data) {
			t.Errorf("read %d bytes, %v", len(o.data), err)
		}
		if _, err := s.typed(id, plumbing.TreeObject); err == nil {
			t.Error("a blob was taken for a tree")
		}
	}
	git(t, dir, "fsck", "--strict")
	if _, err := s.get(oid{1}); !errors.Is(err, ErrNotFound) || s.has(oid{1}) {
		t.Errorf("an object that is not there: %v", err)
	}
}

// TestSoundObjectStays: to write an object again does not put a file that is
// not flushed yet in the place of one that is.
func TestSoundObjectStays(t *testing.T) {
	t.Parallel()
	_, s := newStore(t)
	id, err := write(s, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(loosePath(s.dirs[0], id))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := write(fresh(t, s), []byte("x")); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(loosePath(s.dirs[0], id))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced (%v)", err)
	}
}

// TestUnfinishedPack: a crash while a pack is received or written leaves
// nothing that git takes for a pack.
func TestUnfinishedPack(t *testing.T) {
	t.Parallel()
	dir, s := newStore(t)
	p, err := s.createPack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.discard)
	for _, name := range []string{p.f.Name(), p.f.Name() + ".idx", p.f.Name() + ".pack"} {
		if err := os.WriteFile(name, []byte("half a f"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	git(t, dir, "fsck", "--strict") // fails if it finds something
}

// TestDamagedObject cuts a loose object off at every byte, and flips each: the
// damage is seen, and mended when the object is written again.
func TestDamagedObject(t *testing.T) {
	t.Parallel()
	_, s := newStore(t)
	data := []byte("kind: VPC\nname: vpc-1\n")
	id, err := write(s, data)
	if err != nil {
		t.Fatal(err)
	}
	path := loosePath(s.dirs[0], id)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(what string, bad []byte) {
		t.Helper()
		for _, err := range []error{os.Remove(path), os.WriteFile(path, bad, 0o444)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		s := fresh(t, s)
		o, err := s.get(id)
		if err == nil && !bytes.Equal(o.data, data) || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: read %q, %v", what, o.data, err)
		}
		if _, err := write(s, data); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		// A flipped bit that deflate does not use (RFC 1951) is no damage.
		if now, _ := os.ReadFile(path); err != nil && !bytes.Equal(now, good) {
			t.Errorf("%s: not mended", what)
		}
		s.close()
	}
	for i := range good {
		damage(fmt.Sprintf("cut off at %d", i), good[:i])
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		damage(fmt.Sprintf("flipped at %d", i), bad)
	}
}

// TestPacks reads what git packs, while git packs it.
func TestPacks(t *testing.T) {
	t.Parallel()
	dir, s := newStore(t)
	var ids []oid
	var want [][]byte
	base := strings.Repeat("some text that deltas are made of\n", 200)
	for i := range 60 {
		data := []byte(base + fmt.Sprint(i) + base)
		id, err := write(s, data)
		if err != nil {
			t.Fatal(err)
		}
		ids, want = append(ids, id), append(want, data)
	}
	check := func(what string, s *store) {
		t.Helper()
		for i, id := range ids {
			if o, err := s.get(id); err != nil || !bytes.Equal(o.data, want[i]) {
				t.Fatalf("%s: object %d: %v", what, i, err)
			}
		}
	}
	var names strings.Builder
	for _, id := range ids {
		fmt.Fprintln(&names, id)
	}
	old := fresh(t, s)
	if old.has(ids[0]) != true || old.has(oid{9}) {
		t.Error("has")
	}
	// With deltas by offset, by name, and without an index of our own.
	for _, args := range [][]string{{"--delta-base-offset"}, {"--no-reuse-delta"}, {"--depth=1"}} {
		gitIn(t, dir, names.String(), append(append([]string{"pack-objects", "-q"}, args...), "objects/pack/pack")...)
		git(t, dir, "prune-packed", "-q")
		check(strings.Join(args, " "), fresh(t, s))
		check("an old one, "+strings.Join(args, " "), old)
		for _, name := range mustGlob(t, dir, "objects/pack/*") {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		if again, err := fresh(t, s).get(ids[0]); !errors.Is(err, ErrNotFound) {
			t.Errorf("from where? %v, %v", again, err)
		}
		s := fresh(t, s)
		for _, data := range want {
			if _, err := write(s, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A damaged pack is seen as such, and written around.
	gitIn(t, dir, names.String(), "pack-objects", "-q", "objects/pack/pack")
	git(t, dir, "prune-packed", "-q")
	pack := mustGlob(t, dir, "objects/pack/*.pack")[0]
	raw, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw[12 : len(raw)-20] {
		raw[12+i] ^= 0xff
	}
	if err := errors.Join(os.Remove(pack), os.WriteFile(pack, raw, 0o444)); err != nil {
		t.Fatal(err)
	}
	s2 := fresh(t, s)
	if _, err := s2.get(ids[3]); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("read from a damaged pack: %v", err)
	}
	if _, err := write(s2, want[3]); err != nil {
		t.Fatal(err)
	}
	if o, err := fresh(t, s).get(ids[3]); err != nil || !bytes.Equal(o.data, want[3]) {
		t.Errorf("written beside a damaged pack: %v", err)
	}
}

func mustGlob(t testing.TB, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names
}

// An object is not taken for missing because no file can be opened, and is
// there again when one can.
func TestNoDescriptors(t *testing.T) {
	dir, s := newStore(t)
	id, err := write(s, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	gitIn(t, dir, id.String()+"\n", "pack-objects", "-q", "objects/pack/pack")
	git(t, dir, "prune-packed")
	s = fresh(t, s)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	low := unix.Rlimit{Cur: 256, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	var ballast []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if errors.Is(err, unix.EMFILE) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ballast = append(ballast, f)
	}
	// None is left, then one: enough to list the packs, and to open an index,
	// but not the pack to it. Two, and it works.
	for free := range 3 {
		if _, err := s.get(id); errors.Is(err, unix.EMFILE) != (free < 2) || errors.Is(err, ErrNotFound) {
			t.Errorf("with %d to open: %v", free, err)
		}
		ballast[free].Close()
	}
	if _, err := s.get(id); err != nil {
		t.Errorf("when it is over: %v", err)
	}
}

func TestAlternates(t *testing.T) {
	t.Parallel()
	_, s := newStore(t)
	id, err := write(s, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	_, other := newStore(t)
	if err := os.WriteFile(filepath.Join(other.dirs[0], "info", "alternates"), []byte("# from\n"+s.dirs[0]+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if o, err := fresh(t, other).get(id); err != nil || string(o.data) != "x" {
		t.Errorf("%q, %v", o.data, err)
	}
}

// TestPackTransfer writes packs, with and without deltas, and has git and us
// take them in.
func TestPackTransfer(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, unpackLimit - 1, unpackLimit} {
		dir, s := newStore(t)
		var objects []packObject
		for i := range n {
			id, err := write(s, bytes.Repeat([]byte(fmt.Sprintln("object", i)), i))
			if err != nil {
				t.Fatal(err)
			}
			objects = append(objects, packObject{id: id})
		}
		var pack bytes.Buffer
		if err := s.writePack(&pack, objects, false); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			gitIn(t, dir, pack.String(), "index-pack", "--strict", "--stdin")
		}
		to, r := newStore(t)
		whole := pack.Bytes()
		var done, total int
		if err := r.receive(t.Context(), bytes.NewReader(whole), func(_ string, d, n int) { done, total = d, n }); err != nil {
			t.Fatalf("%d objects: %v", n, err)
		}
		if done != n || total != n {
			t.Errorf("%d objects: progress %d of %d", n, done, total)
		}
		for _, o := range objects {
			if _, err := r.get(o.id); err != nil {
				t.Error(err)
			}
		}
		git(t, to, "fsck", "--strict")
		if packs, _ := filepath.Glob(filepath.Join(to, "objects/pack/*")); len(packs) != 2*min(n/unpackLimit, 1) {
			t.Errorf("%d objects: left %v", n, packs)
		}
		// Cut off or damaged, nothing is believed of it and nothing left.
		to, r = newStore(t)
		for _, bad := range [][]byte{whole[:len(whole)-1], whole[:len(whole)/2], whole[:5], nil, flipped(whole, len(whole)/2), flipped(whole, len(whole)-1)} {
			if err := r.receive(t.Context(), bytes.NewReader(bad), nil); err == nil {
				t.Errorf("%d objects: took %d of %d bytes", n, len(bad), len(whole))
			}
		}
		if left, _ := filepath.Glob(filepath.Join(to, "objects/pack/*")); len(left) > 0 {
			t.Errorf("%d objects: left %v", n, left)
		}
	}
}

func flipped(data []byte, i int) []byte {
	data = bytes.Clone(data)
	data[i] ^= 1
	return data
}

// TestThinPack sends large trees as what changed in them.
func TestThinPack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := make(map[string]string)
	for i := range 300 {
		files[fmt.Sprintf("m/%04d.yaml", i)] = fmt.Sprint(i)
	}
	w.personPushes(files)
	c := w.clone()
	w.commit(c, put("m/1000.yaml", "y"))
	h := w.commit(c, put("m/1001.yaml", "z"))
	up, err := c.Upstream()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := c.repo.newObjects(up.id(), h.id())
	if err != nil || len(objects) != 2*4 {
		t.Fatalf("%d objects, %v; want 2 commits with 2 trees and a blob each", len(objects), err)
	}
	var thin, full bytes.Buffer
	if err := errors.Join(c.repo.writePack(&thin, objects, true), c.repo.writePack(&full, objects, false)); err != nil {
		t.Fatal(err)
	}
	if thin.Len() > full.Len()/8 {
		t.Errorf("a thin pack of %d bytes, a full one of %d", thin.Len(), full.Len())
	}
	gitIn(t, w.bare, thin.String(), "index-pack", "--strict", "--stdin", "--fix-thin")
	if got := git(t, w.bare, "cat-file", "-t", string(h)); got != "commit" {
		t.Errorf("the remote has a %s", got)
	}
}

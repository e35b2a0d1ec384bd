// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// otherFS returns a directory on another file system than dir.
func otherFS(t *testing.T, dir string) string {
	t.Helper()
	var here, there unix.Stat_t
	for _, parent := range []string{"/dev/shm", "/tmp", "/var/tmp"} {
		if unix.Stat(dir, &here) == nil && unix.Stat(parent, &there) == nil && here.Dev != there.Dev && unix.Access(parent, unix.W_OK) == nil {
			other, err := os.MkdirTemp(parent, "hhwatchd-test-*")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(other) })
			return other
		}
	}
	t.Skip("there is no other file system")
	return ""
}

// TestOtherFileSystem has the work tree on another file system than the git
// directory, as with a mounted raw directory, and the aside directory too.
func TestOtherFileSystem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.opts.AsideDir = otherFS(t, t.TempDir())
	w.personPushes(map[string]string{"m/a": "1", "m/b": "1", "m/c": "1"})
	c := w.clone()
	c.work.stage = filepath.Join(w.opts.AsideDir, "stage")
	if err := os.Mkdir(c.work.stage, 0o700); err != nil {
		t.Fatal(err)
	}
	save(t, w.dir, map[string]string{"m/b": "mine"})
	h, err := c.WriteCommit(w.head(c), []Change{put("m/a", "2"), put("m/b", "2"), del("m/c"), put("m/new", "2")}, us, us, "x")
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Advance(w.ctx(), h)
	if err != nil || len(got) != 1 || got[0].Path != "m/b" {
		t.Errorf("Advance: %v, %v", got, err)
	}
	same(t, "kept", tree(t, w.opts.AsideDir), map[string]string{"m/b": "mine"})
	same(t, "the directory", tree(t, filepath.Join(w.dir, "m")), map[string]string{"a": "2", "b": "2", "new": "2"})
	w.clean()
}

// TestChangedAtTheLastMoment: a file that is not the one that was looked at
// is neither replaced nor removed.
func TestChangedAtTheLastMoment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	save(t, dir, map[string]string{"root/d/f": "old", "root/d/g": "old"})
	w, err := newWorktree(root, filepath.Join(dir, "stage"), filepath.Join(dir, "aside"), func(oid) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	defer w.forget()
	stale := func(name string) *fileStat {
		st, ok, err := w.lstat(name)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		// An editor saves: another file in the same place.
		save(t, root, map[string]string{name + ".new": "newer"})
		if err := os.Rename(filepath.Join(root, name+".new"), filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
		return &st
	}
	if _, err := w.put("d/f", ModeFile, []byte("ours"), stale("d/f"), false, nil); !errors.Is(err, errChanged) {
		t.Errorf("put: %v", err)
	}
	if err := w.take("d/g", stale("d/g"), false); !errors.Is(err, errChanged) {
		t.Errorf("take: %v", err)
	}
	if _, err := w.put("d/f", ModeFile, []byte("ours"), nil, false, nil); !errors.Is(err, errChanged) {
		t.Errorf("put into a place that was empty: %v", err)
	}
	gone := stale("d/g")
	save(t, root, map[string]string{"d/g": ""})
	if _, err := w.put("d/g", ModeFile, []byte("ours"), gone, false, nil); !errors.Is(err, errChanged) {
		t.Errorf("put in the place of nothing: %v", err)
	}
	same(t, "the files", tree(t, root), map[string]string{"d/f": "newer"})
	same(t, "left", tree(t, filepath.Join(dir, "stage")), nil)
	same(t, "kept", tree(t, filepath.Join(dir, "aside")), nil)
	if _, err := w.put("d/n/f", ModeFile, []byte("ours"), nil, false, func(path string) error { t.Error(path); return nil }); err != nil {
		t.Errorf("put: %v", err)
	}
	// What a crash left: only what git knows is thrown away.
	save(t, dir, map[string]string{"stage/taken": "a drop", "stage/.x.tmp": "known"})
	known := BlobHash([]byte("known")).id()
	if _, err := newWorktree(root, filepath.Join(dir, "stage"), filepath.Join(dir, "aside"), func(id oid) bool { return id == known }); err != nil {
		t.Fatal(err)
	}
	same(t, "left", tree(t, filepath.Join(dir, "stage")), nil)
	same(t, "kept", tree(t, filepath.Join(dir, "aside")), map[string]string{"leftover": "a drop"})
}

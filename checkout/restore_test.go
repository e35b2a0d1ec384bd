// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestRestore finds what was done by hand below a directory.
func TestRestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{
		"m/edited": "1", "m/deleted": "1", "m/touched": "1", "m/staged": "1", "m/removed": "1", "m/moded": "1", "m/sub/x": "1",
		"m/.gitignore": "*.bak\n", "other": "1",
	})
	c := w.clone()
	save(t, w.dir, map[string]string{
		"m/edited": "mine", "m/deleted": "", "m/new": "mine", "m/x.bak": "mine", "m/newdir/y": "mine", "other": "mine", "m/staged": "mine",
		"m/added": "mine", "m/sub": "", "fabric/unmanaged/z": "mine", "m/repo/.git/HEAD": "x", "m/repo/f": "x",
	})
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(w.dir, "m/touched"), later, later); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(w.dir, "m/moded"), 0o755); err != nil {
		t.Fatal(err)
	}
	git(t, w.dir, "add", "m/staged", "m/added")
	git(t, w.dir, "rm", "-q", "--cached", "m/removed")

	got, err := c.Restore(w.ctx(), []string{"m", "fabric", "absent"})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, a := range got {
		if a.Deleted {
			a.Path = "-" + a.Path
		}
		paths = append(paths, a.Path)
	}
	slices.Sort(paths)
	if want := []string{"-m/deleted", "-m/sub/x", "m/added", "m/edited", "m/new", "m/newdir/y", "m/repo", "m/staged"}; !slices.Equal(paths, want) {
		t.Errorf("found %q, want %q", paths, want)
	}
	w.has(map[string]string{
		"m/edited": "1", "m/deleted": "1", "m/touched": "1", "m/staged": "1", "m/removed": "1", "m/sub/x": "1", "m/moded": "1",
		"m/new": "", "m/added": "", "m/x.bak": "mine", "other": "mine", "fabric/unmanaged/z": "mine",
	})
	same(t, "kept", tree(t, w.opts.AsideDir), map[string]string{
		"m/edited": "mine", "m/new": "mine", "m/newdir/y": "mine", "m/staged": "mine", "m/added": "mine", "m/repo/f": "x", "m/repo/.git/HEAD": "x",
	})
	if out := git(t, w.dir, "status", "--porcelain", "-uall"); out != " M other" {
		t.Errorf("git status:\n%s", out)
	}
	if got, err := c.Restore(w.ctx(), []string{"m"}); len(got) > 0 || err != nil {
		t.Errorf("the second time: %v, %v", got, err)
	}
	save(t, w.dir, map[string]string{"other": "1"})
	w.clean()
}

// TestRestoreWithoutIndex: an index that is made anew has all files, also where
// Restore, which is asked for some only, finds that it is gone.
func TestRestoreWithoutIndex(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.opts.Inputs = []string{"f1/raw"}
	w.personPushes(map[string]string{"README": "1", "docs/x": "1", "f1/managed/a": "1", "f1/raw/.gitkeep": "1"})
	c := w.clone()
	if err := os.Remove(filepath.Join(w.dir, ".git/index")); err != nil {
		t.Fatal(err)
	}
	save(t, w.dir, map[string]string{"f1/raw/new.yaml": "dropped", "docs/x": "edited"})
	asides, err := c.Restore(w.ctx(), []string{"f1/managed"})
	if err != nil || len(asides) != 1 || asides[0].Path != "docs/x" {
		t.Errorf("set aside %v, %v", asides, err)
	}
	w.advance(c, w.head(c))
	if got, want := git(t, w.dir, "status", "--short"), "?? f1/raw/new.yaml"; got != want {
		t.Errorf("git status %q, want %q", got, want)
	}
	w.has(map[string]string{"README": "1", "docs/x": "1", "f1/managed/a": "1", "f1/raw/new.yaml": "dropped"})
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRandomLife lets us and a person change a repository in turn, with every
// odd name that git and Linux take, and looks after each step whether the real
// git agrees with what we made of it.
func TestRandomLife(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			randomLife(t, rand.New(rand.NewPCG(seed, 7)), 20)
		})
	}
}

func randomLife(t *testing.T, r *rand.Rand, steps int) {
	w := newWorld(t)
	elements := []string{
		"a", "b", "a-b", "a.b", "a0", "A", " ", "-x", "é", "e\u0301", "日本", "new\nline", "tab\t", "quote\"", "'", "back\\slash",
		"*", "[x]", ":(top)", "#", "~", ".hidden", "..x", "...", "con", strings.Repeat("n", 255), "\xff\xfe",
	}
	pick := func() string { return elements[r.IntN(len(elements))] }
	randomPath := func() string {
		parts := []string{pick()}
		for r.IntN(2) == 0 && len(parts) < 8 {
			parts = append(parts, pick())
		}
		return strings.Join(parts, "/")
	}
	content := func() string { return strings.Repeat(fmt.Sprintf("line %d\n", r.IntN(8)), r.IntN(30)) }

	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	for step := range steps {
		head := w.head(c)
		entries, err := c.Files(head, "")
		if err != nil {
			t.Fatal(err)
		}
		if r.IntN(3) > 0 {
			// We commit: a set of changes without conflicts of file and
			// directory.
			files := map[string]bool{}
			for _, e := range entries {
				files[e.Path] = true
			}
			others, err := c.Irregular(head, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range others {
				files[e.Path] = true
			}
			changes := map[string]Change{}
			for range r.IntN(4) {
				if len(entries) > 0 {
					p := entries[r.IntN(len(entries))].Path
					changes[p] = del(p)
					delete(files, p)
				}
			}
			for range 1 + r.IntN(6) {
				p := randomPath()
				if r.IntN(3) == 0 && len(entries) > 0 {
					p = entries[r.IntN(len(entries))].Path
				}
				if _, ok := changes[p]; ok || clashes(files, p) {
					continue
				}
				changes[p] = put(p, content())
				files[p] = true
			}
			list := slices.Collect(maps.Values(changes))
			h, err := c.WriteCommit(head, list, us, us, fmt.Sprintf("step %d", step))
			if err == ErrNoChange || err != nil && strings.Contains(err.Error(), ErrNoChange.Error()) {
				continue
			}
			if err != nil {
				t.Fatalf("step %d: %q: %v", step, slices.Sorted(maps.Keys(changes)), err)
			}
			if got, want := git(t, w.dir, "rev-parse", string(h)+"^{tree}"), gitTree(t, w.dir, head, list); got != want {
				t.Fatalf("step %d: tree %s, git: %s", step, got, want)
			}
			w.advance(c, h)
			w.push(c)
		} else {
			// A person commits: renames, modes, links, too.
			git(t, w.desk(), "pull", "-q", "--ff-only")
			for range 1 + r.IntN(5) {
				person(t, r, w.desk(), randomPath(), content())
			}
			git(t, w.desk(), "add", "-A")
			git(t, w.desk(), "commit", "-q", "--allow-empty", "-m", "person")
			git(t, w.desk(), "push", "-q", "origin", "HEAD:main")
			w.advance(c, w.fetch(c))
		}
		if out := git(t, w.dir, "status", "--porcelain", "-uall"); out != "" {
			t.Fatalf("step %d: git status:\n%s", step, out)
		}
		// The cached trees in the index, too, are what git would compute.
		if got, want := git(t, w.dir, "write-tree"), git(t, w.dir, "rev-parse", "HEAD^{tree}"); got != want {
			t.Fatalf("step %d: the index is %s, HEAD is %s", step, got, want)
		}
		if r.IntN(4) == 0 {
			// Maintenance, which does not wait here until it pays.
			now := func() error { return nil }
			if err := c.repo.packLoose(now); err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			if _, err := c.repo.list(); err != nil {
				t.Fatal(err)
			}
			if err := c.repo.mergePacks(slices.Clone(c.repo.packs), now); err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			w.sound()
		}
		if r.IntN(8) == 0 {
			c.Close()
			c = w.open()
		}
	}
	w.clean()
	git(t, w.bare, "fsck", "--strict")
	// All of it again, in one go.
	w.dir += "-again"
	w.opts.Dir = w.dir
	w.clone()
	w.clean()
}

// clashes reports whether path cannot be a file beside the files.
func clashes(files map[string]bool, path string) bool {
	for f := range files {
		if strings.HasPrefix(f, path+"/") || strings.HasPrefix(path, f+"/") {
			return true
		}
	}
	return false
}

// person does something to a path in a work tree.
func person(t *testing.T, r *rand.Rand, dir, path, content string) {
	t.Helper()
	full := filepath.Join(dir, path)
	var existing []string
	for name := range tree(t, dir) {
		if !strings.HasPrefix(name, ".git/") {
			existing = append(existing, name)
		}
	}
	slices.Sort(existing)
	var err error
	switch r.IntN(6) {
	case 0, 1:
		if os.MkdirAll(filepath.Dir(full), 0o777) == nil {
			os.RemoveAll(full)
			err = os.WriteFile(full, []byte(content), 0o666)
		}
	case 2:
		if os.MkdirAll(filepath.Dir(full), 0o777) == nil {
			os.RemoveAll(full)
			target := filepath.Join(t.TempDir(), "dangling")
			err = os.Symlink(target[:min(len(target), 1+r.IntN(20))]+"-nowhere", full)
		}
	case 3:
		if len(existing) > 0 {
			err = os.Chmod(filepath.Join(dir, existing[r.IntN(len(existing))]), 0o755)
		}
	case 4:
		if len(existing) > 0 {
			os.MkdirAll(filepath.Dir(full), 0o777)
			os.Rename(filepath.Join(dir, existing[r.IntN(len(existing))]), full)
		}
	case 5:
		if len(existing) > 0 {
			err = os.Remove(filepath.Join(dir, existing[r.IntN(len(existing))]))
		}
	}
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// overwrite damages a file in place, as a disk or a careless copy does.
func overwrite(t testing.TB, name string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(name, 0o644), os.WriteFile(name, change(data), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func half(data []byte) []byte { return data[:len(data)/2] }

// one returns the file that matches the pattern.
func one(t testing.TB, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) != 1 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names[0]
}

// TestBroken damages the git directory, finds that said, and makes it again.
// The last commit was not pushed; it is carried over where it can be read.
func TestBroken(t *testing.T) {
	t.Parallel()
	write := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, git string) { save(t, git, map[string]string{name: text}) }
	}
	loose := func(rev string, change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			id := git(t, dir, "rev-parse", rev)
			overwrite(t, loosePath(filepath.Join(dir, "objects"), Hash(id).id()), change)
		}
	}
	packed := func(suffix string, change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) { overwrite(t, one(t, dir+"/objects/pack/*"+suffix), change) }
	}
	zeroed := func(data []byte) []byte { return append(data[:len(data)-20], make([]byte, 20)...) }
	empty := func([]byte) []byte { return nil }
	flip := func(data []byte) []byte { data[len(data)/2] ^= 1; return data }
	for _, tt := range []struct {
		name   string
		pack   bool
		damage func(*testing.T, string)
		what   string // part of the error
		gone   bool   // the last commit cannot be carried over
	}{
		{"branch empty", false, write("refs/heads/main", "\n"), "refs/heads/main", true},
		{"branch garbage", false, write("refs/heads/main", "\x00\x00garbage"), "refs/heads/main", true},
		{"branch gone", false, write("refs/heads/main", ""), "refs/heads/main is gone", true},
		{"branch to nowhere", false, write("refs/heads/main", strings.Repeat("1", 40)+"\n"), "refs/heads/main needs", true},
		{"upstream empty", false, write("refs/remotes/origin/main", "\n"), "refs/remotes/origin/main", false},
		{"upstream gone", false, write("refs/remotes/origin/main", ""), "refs/remotes/origin/main is gone", false},
		{"base garbage", false, write("refs/hhwatchd/base", "x"), "refs/hhwatchd/base", false},
		{"packed refs cut off", false, write("packed-refs", "# pack-refs with: peeled\n1111"), "packed-refs: it is cut off", false},
		{"packed refs garbage", false, write("packed-refs", "no refs\n"), "packed-refs: it holds", false},
		{"HEAD garbage", false, write("HEAD", "main\n"), "HEAD", false},
		{"HEAD gone", false, write("HEAD", ""), "HEAD", false},
		{"config garbage", false, write("config", "[core"), "config", false},
		{"config gone", false, write("config", ""), "config is gone", false},
		{"no refs", false, write("refs", ""), "refs", true},
		{"no objects", false, write("objects", ""), "objects", true},
		{"commit half", false, loose("HEAD", half), "object", true},
		{"commit empty", false, loose("HEAD", empty), "object", true},
		{"tree flipped", false, loose("HEAD^{tree}", flip), "object", true},
		{"unpushed blob half", false, loose("HEAD:mine", half), "object", true},
		{"pack half", true, packed(".pack", half), ".pack", true},
		{"pack zeroed at its end", true, packed(".pack", zeroed), ".pack", false},
		{"pack empty", true, packed(".pack", empty), ".pack", true},
		{"index of pack half", true, packed(".idx", half), ".idx", true},
		{"index of pack flipped", true, packed(".idx", func(data []byte) []byte { data[len(data)-1] ^= 1; return data }), ".idx", false},
		{"index of pack empty", true, packed(".idx", empty), ".idx", true},
		{"pack gone", true, func(t *testing.T, dir string) {
			if err := os.Remove(one(t, dir+"/objects/pack/*.pack")); err != nil {
				t.Fatal(err)
			}
		}, ".pack", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tip := w.personPushes(map[string]string{"a": "1", "dir/b": "1"})
			c := w.clone()
			if err := c.SaveRef("base", tip); err != nil {
				t.Fatal(err)
			}
			mine := w.commit(c, put("mine", strings.Repeat("mine\n", 50)))
			gitDir := filepath.Join(w.dir, ".git")
			if tt.pack {
				git(t, w.dir, "repack", "-adq")
			}
			if err := c.Check(true); err != nil {
				t.Fatalf("before any damage: %v", err)
			}
			tt.damage(t, gitDir)

			var broken *BrokenError
			if err := c.Check(true); !errors.As(err, &broken) || !strings.Contains(broken.What, tt.what) {
				t.Errorf("Check while it is open: %v; want that %s is broken", err, tt.what)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Commit(tip); !errors.Is(err, fs.ErrClosed) {
				t.Errorf("read after Close: %v", err)
			}
			if _, err := Open(w.ctx(), w.opts); !errors.As(err, &broken) || !strings.Contains(broken.What, tt.what) {
				t.Fatalf("Open: %v; want that %s is broken", err, tt.what)
			}

			kept, err := SetAside(w.ctx(), w.dir)
			if err != nil || kept != w.dir+".broken-1" {
				t.Fatalf("SetAside: %q, %v", kept, err)
			}
			w.opts.Carry = func(ctx context.Context, c *Clone, old *Wreck) (Carried, error) {
				up, err := c.Upstream()
				if err != nil || old.Dir != kept {
					return Carried{}, fmt.Errorf("wreck %s, %v", old.Dir, err)
				}
				head := old.Ref("refs/heads/main")
				if err := old.Copy(c, up, head); head == "" || Lost(err) {
					return Carried{Head: up, WorkTree: up, Partly: true}, nil
				} else if err != nil {
					return Carried{}, err
				}
				return Carried{Head: head, WorkTree: head, Report: []byte("all")}, nil
			}
			c = w.open()
			want := mine
			if tt.gone {
				want = tip
			}
			if got := w.head(c); got != want {
				t.Fatalf("the new clone is at %s, want %s", got, want)
			}
			if report, err := c.Report(); err != nil || (string(report) == "all") == tt.gone {
				t.Errorf("report: %q, %v", report, err)
			}
			if err := c.ForgetReport(); err != nil {
				t.Error(err)
			}
			// Files that are as the commit has them are nobody's edits.
			asides, err := c.Advance(w.ctx(), want)
			if err != nil || len(asides) > 0 {
				t.Fatalf("Advance: %v, %v", asides, err)
			}
			if tt.gone {
				w.has(map[string]string{"mine": strings.Repeat("mine\n", 50)})
				w.sound()
			} else {
				w.push(c)
				w.clean()
			}
			if err := c.Check(true); err != nil {
				t.Error(err)
			}
			c.Close()

			// What gave all that it had goes with the next one; the rest stays.
			if _, err := SetAside(w.ctx(), w.dir); err != nil {
				t.Fatal(err)
			}
			left, err := filepath.Glob(w.dir + ".broken-*")
			if err != nil || (len(left) == 2) != tt.gone {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// TestGone: a git directory that is removed, or replaced, while it is open is
// not put there again in parts.
func TestGone(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(git string) error{
		"removed": os.RemoveAll,
		"emptied": func(git string) error { return errors.Join(os.RemoveAll(git), os.Mkdir(git, 0o755)) },
		"replaced": func(git string) error {
			return errors.Join(os.Rename(git, git+".x"), os.CopyFS(git, os.DirFS(git+".x")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tip := w.personPushes(map[string]string{"a": "1"})
			c := w.clone()
			gitDir := filepath.Join(w.dir, ".git")
			if err := do(gitDir); err != nil {
				t.Fatal(err)
			}
			before := tree(t, gitDir)
			var broken *BrokenError
			if err := c.Check(false); !errors.As(err, &broken) {
				t.Errorf("Check: %v", err)
			}
			if name == "replaced" {
				return
			}
			if err := c.SaveRef("x", tip); err == nil {
				t.Error("saved a ref")
			}
			if _, err := c.Fetch(w.ctx()); err == nil {
				t.Error("fetched")
			}
			same(t, "the git directory", tree(t, gitDir), before)
			if _, err := os.Stat(filepath.Join(gitDir, "refs")); err == nil {
				t.Error("refs came back")
			}
		})
	}
}

// TestCrashInRebuild stops the making of the new git directory at its steps:
// the next Open goes on, and the wreck is not forgotten.
func TestCrashInRebuild(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	mine := w.commit(c, put("mine", "1"))
	c.Close()
	save(t, w.dir, map[string]string{".git/HEAD": "garbage"})
	kept, err := SetAside(w.ctx(), w.dir)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := SetAside(w.ctx(), w.dir); again != "" || err != nil {
		t.Errorf("SetAside of nothing: %q, %v", again, err)
	}
	carry := func(_ context.Context, c *Clone, old *Wreck) (Carried, error) {
		up, err := c.Upstream()
		if err == nil {
			err = old.Copy(c, up, old.Ref("refs/heads/main"))
		}
		return Carried{Head: old.Ref("refs/heads/main"), WorkTree: mine}, err
	}
	stopped := errors.New("stopped")
	w.opts.Carry = func(ctx context.Context, c *Clone, old *Wreck) (Carried, error) {
		if _, err := carry(ctx, c, old); err != nil {
			return Carried{}, err
		}
		return Carried{}, stopped
	}
	if _, err := Open(w.ctx(), w.opts); !errors.Is(err, stopped) {
		t.Fatalf("Open: %v", err)
	}
	// The remote is away meanwhile.
	w.opts.Carry = carry
	if err := os.Rename(w.bare, w.bare+".x"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(w.ctx(), w.opts); err == nil {
		t.Fatal("opened without a remote")
	}
	if err := os.Rename(w.bare+".x", w.bare); err != nil {
		t.Fatal(err)
	}
	c = w.open()
	w.advance(c, w.head(c))
	if got := w.head(c); got != mine {
		t.Errorf("the new clone is at %s, want %s", got, mine)
	}
	// A crash right after the rename leaves the wreck unmarked, and the next
	// Open settles that.
	mark := filepath.Join(kept, carriedMark)
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	c.Close()
	w.open()
	if got := readAll(t, mark); got != carriedAll {
		t.Errorf("the wreck is marked %q", got)
	}
	w.clean()
}

// TestReplacedPack: git may remove and replace packs while the clone is open.
func TestReplacedPack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	for i := range 5 {
		w.commit(c, put("a", fmt.Sprint(i)))
		git(t, w.dir, "repack", "-adq")
		if err := c.Check(true); err != nil {
			t.Errorf("after git repack: %v", err)
		}
	}
	w.clean()
}

// TestConnectivity takes objects away: those of a commit that was rewritten
// away, which is no damage, and one that the branch needs, which is.
func TestConnectivity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1", "dir/b": "1"})
	c := w.clone()
	first := w.head(c)
	mid := w.commit(c, put("dir/b", "2"))
	gone := w.commit(c, put("dir/b", "3"))
	git(t, w.dir, "update-ref", "refs/heads/main", string(first))
	w.head(c)
	now := w.commit(c, put("dir/c", "1"))
	w.commit(c, put("a", "2"))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	remove := func(rev string) {
		id := git(t, w.dir, "rev-parse", rev)
		if err := os.Remove(loosePath(filepath.Join(w.dir, ".git", "objects"), Hash(id).id())); err != nil {
			t.Fatal(err)
		}
	}
	remove(string(gone) + "^{tree}")
	remove(string(mid))

	c = w.open()
	if is, err := c.IsAncestor(gone, w.head(c)); is || err != nil {
		t.Errorf("a commit whose parent is gone is an ancestor: %v, %v", is, err)
	}
	if _, err := c.IsAncestor(now, gone); !errors.Is(err, ErrNotFound) {
		t.Errorf("what a commit comes from, without its parent: %v", err)
	}
	if _, err := c.TreeHash(gone, "dir"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a tree that is gone: %v", err)
	}
	if err := c.CheckConnectivity(); err != nil {
		t.Error(err)
	}

	w.push(c) // Check looks at what is not
	remove(string(now) + ":dir/c")
	if err := c.Check(true); err != nil {
		t.Error(err)
	}
	var broken *BrokenError
	if err := c.CheckConnectivity(); !errors.As(err, &broken) || !strings.Contains(broken.What, "refs/heads/main needs the object ") {
		t.Errorf("without a blob: %v", err)
	}
}

// TestCutOffWhileMapped: reading a mapped index beyond the end that the file
// has by now is a fault, which must not end the process.
func TestCutOffWhileMapped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := make(map[string]string)
	for i := range 500 {
		files[fmt.Sprint("f", i)] = fmt.Sprint(i)
	}
	w.personPushes(files)
	c := w.clone()
	if err := os.Truncate(one(t, w.dir+"/.git/objects/pack/*.idx"), 100); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if _, err := c.Blob(BlobHash([]byte(content))); err == nil {
			continue // it was in memory
		} else if !Lost(err) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	var broken *BrokenError
	if err := c.Check(false); !errors.As(err, &broken) {
		t.Errorf("Check: %v", err)
	}
}

// TestOfTheMachine tells damage from what passes.
func TestOfTheMachine(t *testing.T) {
	for _, tt := range []struct {
		err             error
		machine, isLost bool
	}{
		{&fs.PathError{Op: "open", Path: "x", Err: unix.EMFILE}, true, false},
		{&fs.PathError{Op: "open", Path: "x", Err: unix.EACCES}, true, false},
		{fmt.Errorf("object: %w", &fs.PathError{Op: "read", Path: "x", Err: unix.EIO}), true, true},
		{unix.ENOSPC, true, false},
		{fs.ErrClosed, true, false},
		{&fs.PathError{Op: "open", Path: "x", Err: unix.ENOENT}, false, false},
		{&fs.PathError{Op: "open", Path: "x", Err: unix.ENOTDIR}, false, false},
		{errors.New("zlib: invalid header"), false, false},
		{&BrokenError{"d", "x"}, false, true},
		{fmt.Errorf("x: %w", ErrNotFound), false, true},
		{nil, false, false},
	} {
		if got := tt.err != nil && ofTheMachine(tt.err); got != tt.machine {
			t.Errorf("ofTheMachine(%v) = %v", tt.err, got)
		}
		if got := Lost(tt.err); got != tt.isLost {
			t.Errorf("Lost(%v) = %v", tt.err, got)
		}
	}
}

// FuzzPackedRefs: whatever packed-refs holds, it is read as git would, or
// refused; what is read can be written and is the same.
func FuzzPackedRefs(f *testing.F) {
	id := strings.Repeat("1a", 20)
	for _, text := range []string{
		"", "# pack-refs with: peeled fully-peeled sorted \n", id + " refs/heads/main\n",
		id + " refs/tags/v1\n^" + id + "\n", id + " refs/heads/ma", id, id + "\n", "^" + id + " x\n", "\n", id + " \n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		refs, err := parsePackedRefs(text)
		if err != nil {
			return
		}
		var out strings.Builder
		for name, id := range refs {
			if name == "" || strings.Contains(name, "\n") {
				t.Fatalf("a ref with the name %q", name)
			}
			fmt.Fprintf(&out, "%s %s\n", id, name)
		}
		if again, err := parsePackedRefs(out.String()); err != nil || !maps.Equal(again, refs) {
			t.Fatalf("%v became %v, %v", refs, again, err)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A commit in a git fast-import stream (git-fast-import(1)).
type imported struct {
	parents []int // earlier commits
	time    int64
	files   map[string]string // changes; an empty content deletes
}

// fastImport makes commits, and returns their names.
func fastImport(t testing.TB, dir string, commits []imported) []Hash {
	t.Helper()
	var in strings.Builder
	for i, c := range commits {
		fmt.Fprintf(&in, "commit refs/import/%d\nmark :%d\ncommitter C <c@example.net> %d +0000\ndata <<.\ncommit %d\n.\n", i, i+1, c.time, i)
		for n, p := range c.parents {
			fmt.Fprintf(&in, "%s :%d\n", []string{"from", "merge"}[min(n, 1)], p+1)
		}
		for path, content := range c.files {
			if content == "" {
				fmt.Fprintf(&in, "D %s\n", path)
			} else {
				fmt.Fprintf(&in, "M 100644 inline %s\ndata %d\n%s\n", path, len(content), content)
			}
		}
	}
	marks := writeFile(t, "")
	gitIn(t, dir, in.String(), "fast-import", "--quiet", "--force", "--export-marks="+marks)
	out := make([]Hash, len(commits))
	for line := range strings.Lines(readAll(t, marks)) {
		var n int
		var h string
		if _, err := fmt.Sscanf(line, ":%d %s", &n, &h); err == nil && n <= len(out) {
			out[n-1] = Hash(h)
		}
	}
	return out
}

// TestHistory compares what is said about random histories with what git
// says.
func TestHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	for _, clock := range []string{"right", "same", "wrong"} {
		t.Run(clock, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			commits := make([]imported, 40)
			for i := range commits {
				cm := imported{time: 1_700_000_000, files: map[string]string{}}
				switch clock {
				case "right":
					cm.time += int64(i) * 60
				case "wrong":
					cm.time += r.Int64N(100_000)
				}
				for p := i - 1; p >= 0 && p >= i-6; p-- {
					if r.IntN(3) == 0 && len(cm.parents) < 3 {
						cm.parents = append(cm.parents, p)
					}
				}
				for range 1 + r.IntN(3) {
					cm.files[fmt.Sprintf("d%d/e%d/f%d", r.IntN(2), r.IntN(2), r.IntN(4))] = fmt.Sprint(r.IntN(5))
				}
				commits[i] = cm
			}
			names := fastImport(t, w.dir, commits)
			for range 25 {
				a, b := names[r.IntN(len(names))], names[r.IntN(len(names))]
				_, err := tryGit(w.dir, "merge-base", "--is-ancestor", string(a), string(b))
				is, ierr := c.IsAncestor(a, b)
				if ierr != nil || is != (err == nil) {
					t.Errorf("IsAncestor(%s, %s): %v, %v; git: %v", a, b, is, ierr, err)
				}
				log, err := c.Log(a, b)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				done := map[Hash]bool{}
				all := map[Hash]bool{}
				for _, cm := range log {
					all[cm.Hash] = true
				}
				for _, cm := range log {
					for _, p := range cm.Parents {
						if all[p] && !done[p] {
							t.Errorf("%s comes before its parent %s", cm.Hash, p)
						}
					}
					done[cm.Hash] = true
					got = append(got, string(cm.Hash))
				}
				want := strings.Fields(git(t, w.dir, "rev-list", string(b), "^"+string(a)))
				slices.Sort(got)
				slices.Sort(want)
				// A wrong clock may let in what git, with its generations,
				// knows to leave out.
				if clock == "wrong" {
					got = slices.DeleteFunc(got, func(h string) bool { return !slices.Contains(want, h) })
				}
				if !slices.Equal(got, want) {
					t.Errorf("Log(%s, %s):\n%v\ngit:\n%v", a, b, got, want)
				}
				checkDiff(t, w, c, a, b, []string{"", "d0", "d1/e0", "absent"}[r.IntN(4)])
			}
			tip := names[len(names)-1]
			entries, err := c.Files(tip, "")
			if err != nil {
				t.Fatal(err)
			}
			paths := []string{"absent", "d0"}
			for _, e := range entries {
				paths = append(paths, e.Path)
			}
			by, err := c.Introduced(tip, paths)
			if err != nil || len(by) != len(entries) {
				t.Errorf("Introduced: %d of %d, %v", len(by), len(entries), err)
			}
			for path, cm := range by {
				want := git(t, w.dir, "log", "--first-parent", "-m", "-1", "--format=%H", string(tip), "--", path)
				if string(cm.Hash) != want {
					t.Errorf("Introduced %s: %s, git: %s", path, cm.Hash, want)
				}
			}
		})
	}
	if all, err := c.Log("", w.head(c)); err != nil || len(all) != 1 {
		t.Errorf("Log from nothing: %v, %v", all, err)
	}
	if _, err := c.Log("", Hash(strings.Repeat("1", 40))); !errors.Is(err, ErrNotFound) {
		t.Errorf("Log to nothing: %v", err)
	}
	if is, err := c.IsAncestor(Hash(strings.Repeat("1", 40)), w.head(c)); is || err != nil {
		t.Errorf("IsAncestor of nothing: %v, %v", is, err)
	}
}

// checkDiff compares Diff, Files and TreeHash with git's.
func checkDiff(t *testing.T, w *world, c *Clone, a, b Hash, dir string) {
	t.Helper()
	diffs, err := c.Diff(a, b, dir)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, d := range diffs {
		fmt.Fprintf(&got, "%06o %06o %s %s\t%s\n", d.OldMode, d.NewMode, orZero(d.Old), orZero(d.New), d.Path)
	}
	args := []string{"diff-tree", "-r", "--no-renames", "--no-abbrev", string(a), string(b), "--"}
	if dir != "" {
		args = append(args, dir)
	}
	var want strings.Builder
	for line := range strings.Lines(git(t, w.dir, args...)) {
		f := strings.Fields(strings.TrimPrefix(line, ":"))
		fmt.Fprintf(&want, "%s %s %s %s\t%s\n", f[0], f[1], f[2], f[3], f[5])
	}
	if got.String() != want.String() {
		t.Errorf("Diff(%s, %s, %q):\n%s\ngit:\n%s", a, b, dir, got.String(), want.String())
	}
	tree, err := c.TreeHash(b, dir)
	if err != nil {
		t.Fatal(err)
	}
	wantTree, gitErr := tryGit(w.dir, "rev-parse", string(b)+":"+dir)
	if gitErr != nil {
		wantTree = ""
	}
	if string(tree) != wantTree {
		t.Errorf("TreeHash(%s, %q): %s, git: %s", b, dir, tree, wantTree)
	}
}

func orZero(h Hash) string { return h.id().String() }

func TestTrailers(t *testing.T) {
	for _, tc := range []struct {
		message string
		want    []Trailer
	}{
		{"", nil},
		{"Subject: of the commit\n", nil},
		{"Subject\n\nCycle: 1\nRaw-File: a: b\n", []Trailer{{"Cycle", "1"}, {"Raw-File", "a: b"}}},
		{"Subject\n\nSome text: yes\nand more\n", nil},
		{"Subject\n\nText\n\nKey:value\n  goes on\nkey: 2\n\n\n", []Trailer{{"Key", "value goes on"}, {"key", "2"}}},
		{"Subject\n\n continued: nothing\n", nil},
	} {
		c := Commit{Message: tc.message}
		if got := c.trailers(); !slices.Equal(got, tc.want) {
			t.Errorf("%q: %q, want %q", tc.message, got, tc.want)
		}
	}
	c := Commit{Message: "S\n\nRaw: 1\nraw: 2\nOther: 3\n"}
	if got := c.Trailer("RAW"); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("Trailer: %q", got)
	}
}

// TestWriteCommit checks single commits against what git says of them.
func TestWriteCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.personPushes(map[string]string{"a": "1", "d/x": "1", "d/y": "1", "e/f/g": "1"})
	c := w.clone()
	for name, changes := range map[string][]Change{
		"the same":        {put("a", "1"), del("absent"), del("absent/x"), del("a/b")},
		"nothing":         nil,
		"removed a tree":  {del("d"), del("e/f")},
		"below a removed": {del("d/x/y")},
	} {
		if h, err := c.WriteCommit(first, changes, us, us, "x"); !errors.Is(err, ErrNoChange) {
			t.Errorf("%s: %s, %v", name, h, err)
		}
	}
	if _, err := c.WriteCommit("", nil, us, us, "x"); !errors.Is(err, ErrNoChange) {
		t.Errorf("nothing at all: %v", err)
	}
	for name, changes := range map[string][]Change{
		"twice":             {put("a", "1"), del("a")},
		"file over a tree":  {put("d", "1"), del("d/x")},
		"file and tree":     {put("n", "1"), put("n/o", "1")},
		"tree over a file":  {put("a/b", "1")},
		"tree in tree":      {put("d/x/y", "1")},
		"unsafe":            {put("d/.git/x", "1")},
		"empty path":        {put("", "1")},
		"slash at the end":  {put("d/", "1")},
		"slash in front":    {put("/d", "1")},
		"two slashes":       {put("d//x", "1")},
		"a name too long":   {put(strings.Repeat("x", 256), "1")},
		"outside of it all": {put("d/../../x", "1")},
	} {
		if h, err := c.WriteCommit(first, changes, us, us, "x"); err == nil || errors.Is(err, ErrNoChange) {
			t.Errorf("%s: %s, %v", name, h, err)
		}
	}
	for name, changes := range map[string][]Change{
		"file becomes tree": {del("a"), put("a/b", "1")},
		"tree becomes file": {del("d/x"), del("d/y"), put("d", "1")},
		"deep":              {put("n/o/p/q/r", "1")},
		"all gone":          {del("a"), del("d/x"), del("d/y"), del("e/f/g")},
	} {
		h, err := c.WriteCommit(first, changes, us, us, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, want := git(t, w.dir, "rev-parse", string(h)+"^{tree}"), gitTree(t, w.dir, first, changes); got != want {
			t.Errorf("%s: tree %s, git: %s", name, got, want)
		}
	}
	east := time.FixedZone("", 5*3600+1800)
	h, err := c.WriteCommit(first, []Change{put("z", "1")},
		Signature{"<Ev\nil> \x00", " e@<x>\n", time.Unix(-5, 0)}, Signature{"Zoë", "z@x", time.Unix(1_700_000_000, 5).In(east)}, "\xffSubject\x00\n\nT: 1\n\n\n")
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Commit(h)
	if err != nil {
		t.Fatal(err)
	}
	if got.Author.Name != "Evil" || got.Author.Email != "e@x" || got.Author.When.Unix() != 0 || got.Committer.Name != "Zoë" ||
		!got.Committer.When.Equal(time.Unix(1_700_000_000, 0)) || got.Message != "?Subject\n\nT: 1\n" || !slices.Equal(got.Parents, []Hash{first}) {
		t.Errorf("got %+v", got)
	}
	if _, offset := got.Committer.When.Zone(); offset != 5*3600+1800 {
		t.Errorf("zone %d", offset)
	}
	if h, err = c.WriteCommit(h, []Change{put("z", "2")}, Signature{}, Signature{}, ""); err != nil {
		t.Error(err)
	}
	w.advance(c, h)
	w.clean()
}

// gitTree lets git make the tree that comes of the changes.
func gitTree(t testing.TB, dir string, from Hash, changes []Change) string {
	t.Helper()
	env := "GIT_INDEX_FILE=" + writeFile(t, "") + "x"
	run := func(in string, args ...string) string { return gitEnvIn(t, dir, env, in, args...) }
	if from != "" {
		run("", "read-tree", string(from))
	}
	modes := "\x00" + run("", "ls-files", "-z", "--format=%(objectmode) %(path)")
	var info, blobs strings.Builder
	var puts []Change
	store := t.TempDir()
	for i, ch := range changes {
		if ch.Delete {
			fmt.Fprintf(&info, "0 %s\t%s\x00", strings.Repeat("0", 40), ch.Path)
			continue
		}
		name := filepath.Join(store, fmt.Sprint(i))
		if err := os.WriteFile(name, ch.Data, 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&blobs, name)
		puts = append(puts, ch)
	}
	ids := strings.Fields(run(blobs.String(), "hash-object", "-w", "--no-filters", "--stdin-paths"))
	for i, ch := range puts {
		mode := "100644"
		if strings.Contains(modes, "\x00100755 "+ch.Path+"\x00") {
			mode = "100755"
		}
		fmt.Fprintf(&info, "%s %s\t%s\x00", mode, ids[i], ch.Path)
	}
	run(info.String(), "update-index", "-z", "--index-info")
	return run("", "write-tree")
}

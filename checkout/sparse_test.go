// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"strings"
	"testing"
)

// TestSparseByConfig has a person use git sparse-checkout in a clone that is sparse.
func TestSparseByConfig(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.opts.Inputs = []string{"fabrics/f1/raw"}
	w.opts.Sparse = []string{"fabrics/f1"}
	w.personPushes(map[string]string{
		"README": "1", "fabrics/note": "1", "fabrics/f1/managed/a": "1", "fabrics/f2/managed/a": "1", "docs/deep/er/x": "1",
	})
	listed := func(want ...string) {
		t.Helper()
		if got := git(t, w.dir, "sparse-checkout", "list"); got != strings.Join(want, "\n") {
			t.Errorf("git sparse-checkout list: %q, want %q", got, want)
		}
	}
	c := w.clone()
	w.clean()
	listed("fabrics/f1")
	w.has(map[string]string{"README": "1", "fabrics/note": "1", "fabrics/f1/managed/a": "1", "fabrics/f2/managed/a": "", "docs/deep/er/x": ""})

	// Changes inside and outside, here and elsewhere.
	w.personPushes(map[string]string{
		"fabrics/f1/managed/b": "2", "fabrics/f2/managed/a": "2", "fabrics/f2/managed/b": "2", "docs/deep/er/x": "", "docs/y": "2", "fabrics/other": "2",
	})
	w.advance(c, w.fetch(c))
	w.commit(c, put("fabrics/f1/managed/c", "3"), put("fabrics/f2/managed/c", "3"))
	w.push(c)
	w.clean()
	w.has(map[string]string{"fabrics/f1/managed/b": "2", "fabrics/f1/managed/c": "3", "fabrics/other": "2",
		"fabrics/f2/managed/a": "", "fabrics/f2/managed/c": "", "docs/y": ""})
	if got, want := git(t, w.dir, "write-tree"), git(t, w.dir, "rev-parse", "HEAD^{tree}"); got != want {
		t.Errorf("the index is %s, HEAD is %s", got, want)
	}
	if asides, err := c.Restore(w.ctx(), []string{"fabrics/f1/managed"}); err != nil || len(asides) > 0 {
		t.Errorf("restored %v, %v", asides, err)
	}

	// git agrees with our marks: it finds nothing to change.
	before := git(t, w.dir, "ls-files", "-t")
	git(t, w.dir, "sparse-checkout", "reapply")
	if after := git(t, w.dir, "ls-files", "-t"); after != before {
		t.Errorf("git marks other files:\n%s\nwe:\n%s", after, before)
	}

	// A person wants more, and keeps it.
	git(t, w.dir, "sparse-checkout", "set", "fabrics/f1", "docs")
	w.has(map[string]string{"docs/y": "2"})
	c = fresher(w, c)
	w.personPushes(map[string]string{"docs/y": "4", "docs/z": "4", "fabrics/f2/managed/a": "4"})
	w.advance(c, w.fetch(c))
	w.clean()
	listed("docs", "fabrics/f1")
	w.has(map[string]string{"docs/y": "4", "docs/z": "4", "fabrics/f2/managed/a": ""})

	// Or everything.
	git(t, w.dir, "sparse-checkout", "disable")
	c = fresher(w, c)
	w.personPushes(map[string]string{"fabrics/f2/managed/a": "5", "fabrics/f3/x": "5"})
	w.advance(c, w.fetch(c))
	w.clean()
	w.has(map[string]string{"fabrics/f2/managed/a": "5", "fabrics/f3/x": "5"})

	// The config changes: that counts, and what is there stays.
	c.Close()
	w.opts.Sparse = []string{"docs", "fabrics/f1"}
	c = w.open()
	w.advance(c, w.head(c))
	w.personPushes(map[string]string{"fabrics/f4/x": "6", "fabrics/f3/x": "6"})
	w.advance(c, w.fetch(c))
	w.clean()
	listed("docs", "fabrics/f1")
	w.has(map[string]string{"fabrics/f4/x": "", "fabrics/f3/x": "6", "docs/y": "4"})
	git(t, w.dir, "sparse-checkout", "reapply")
	w.clean()

	// Back to the whole tree.
	c.Close()
	w.opts.Sparse = nil
	c = w.open()
	if asides, err := c.Restore(w.ctx(), []string{"fabrics/f1/managed"}); err != nil || len(asides) > 0 {
		t.Errorf("restored %v, %v", asides, err)
	}
	w.advance(c, w.head(c))
	w.clean()
	w.has(map[string]string{"fabrics/f4/x": "6", "fabrics/f3/x": "6", "fabrics/f2/managed/a": "5"})
}

// TestConePatterns compares the patterns with git's own.
func TestConePatterns(t *testing.T) {
	t.Parallel()
	for _, dirs := range [][]string{
		{"a"}, {"a", "b"}, {"a/b/c"}, {"a/b", "a/c/d"}, {"a", "a/b"}, {"a b/c"}, {"x*/y?", "[z]/q"}, {"a-b/c", "a/c"},
	} {
		dir := t.TempDir()
		git(t, dir, "init", "-q")
		git(t, dir, append([]string{"sparse-checkout", "set", "--cone", "--skip-checks"}, dirs...)...)
		want := readAll(t, dir+"/.git/info/sparse-checkout")
		if got := conePatterns(dirs); got != want {
			t.Errorf("%q:\n%s\ngit:\n%s", dirs, got, want)
		}
		c := parseCone(want)
		for _, d := range dirs {
			if !c.has(d+"/x") || !c.has(d+"/x/y") || !c.has("root") || c.has("elsewhere/x") || c.has("x"+d+"/y") {
				t.Errorf("%q: %v", dirs, c)
			}
		}
	}
	if parseCone("*.c\n") != nil {
		t.Error("patterns that are no cone were taken for one")
	}
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnsafePaths: a tree that would be written to where it must not is not
// checked out, and nothing of it is.
func TestUnsafePaths(t *testing.T) {
	t.Parallel()
	for _, path := range []string{".git/hooks/x", ".GIT/x", "a/.git", "git~1", ".git ", ".git.", ".git::$INDEX_ALLOCATION", ".g\u200cit", "..", "../x", ".", "a/./b", `a\.git`, `.git\x`, strings.Repeat("n", 256), "a\x00b", "a//b", "/x", ""} {
		if checkPath(path) == "" {
			t.Errorf("%q is safe", path)
		}
	}
	for _, path := range []string{"a", ".gitignore", "a.git", ".github/x", "git~2", "a b/c", `a\b`, "-x", "\xff\xfe", strings.Repeat("n", 255), "é", "...", "a\nb"} {
		if why := checkPath(path); why != "" {
			t.Errorf("%q is unsafe: %s", path, why)
		}
	}

	// git itself refuses the same, with all its protections on.
	dir := t.TempDir()
	git(t, dir, "init", "-q")
	blob := gitIn(t, dir, "x", "hash-object", "-w", "--stdin")
	for _, path := range []string{".git/x", ".GIT/x", "a/.git/x", "git~1/x", "GIT~1", ".git /x", ".git.", ".git...", ".git::$INDEX_ALLOCATION/x", ".g\u200cit", ".\ufeffGIT/x", "..", "../x", "a/../x", "a/./b", `a\.git`, `.git\x`, "a//b", "/x",
		"a", ".gitignore", "a.git", ".github/x", "git~2", "a b/c", `a\b`, "-x", "\xff\xfe", "é", "...", "a\nb", ".gitx", ".git-x/y", "x.git/y"} {
		out, err := tryGit(dir, "-c", "core.protectHFS=true", "-c", "core.protectNTFS=true", "update-index", "--add", "--cacheinfo", "100644", blob, path)
		if why := checkPath(path); (why == "") != (err == nil) {
			t.Errorf("%q: %q, git: %s", path, why, out)
		}
		os.Remove(filepath.Join(dir, ".git", "index"))
	}

	w := newWorld(t)
	first := w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	for _, name := range []string{".git", ".GiT", "..", "git~1", ".git\u200d"} {
		inner := mktree(t, w.bare, "100644 blob "+git(t, w.bare, "rev-parse", string(first)+":a")+"\tpost-commit\n")
		root := mktree(t, w.bare, "040000 tree "+inner+"\t"+name+"\n")
		commit := git(t, w.bare, "commit-tree", "-p", string(first), "-m", "evil", root)
		git(t, w.bare, "update-ref", "refs/heads/main", commit)
		to := w.fetch(c)
		var unsafe *UnsafePathError
		if _, err := c.Advance(w.ctx(), to); !errors.As(err, &unsafe) {
			t.Errorf("%q: %v, want an UnsafePathError", name, err)
		}
		if w.head(c) != first {
			t.Errorf("%q: the branch moved", name)
		}
	}
	if out := git(t, w.dir, "status", "--porcelain"); out != "" {
		t.Errorf("git status:\n%s", out)
	}
	if _, err := c.WriteCommit(first, []Change{put("../x", "1")}, us, us, "x"); err == nil {
		t.Error("WriteCommit takes an unsafe path")
	}
}

// mktree makes a tree of lines for git mktree. The names are put in as they
// are, which git would refuse.
func mktree(t testing.TB, dir, lines string) string {
	t.Helper()
	var entries []treeEntry
	for line := range strings.Lines(lines) {
		var mode Mode
		var kind, hash string
		head, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		fmt.Sscanf(head, "%o %s %s", &mode, &kind, &hash)
		entries = append(entries, treeEntry{name, mode, Hash(hash).id()})
	}
	file := writeFile(t, string(encodeTree(entries)))
	return git(t, dir, "hash-object", "-t", "tree", "-w", "--literally", file)
}

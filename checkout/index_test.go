// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestIndexVersions reads what git writes in each version, and writes it so
// that git reads the same.
func TestIndexVersions(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"2", "3", "4"} {
		t.Run(version, func(t *testing.T) {
			w := newWorld(t)
			files := map[string]string{"a": "1", "a.b": "1", "a-b/c": "1", "long/" + strings.Repeat("n", 255): "1"}
			for i := range 40 {
				files[fmt.Sprintf("d/%d/f", i)] = fmt.Sprint(i)
			}
			save(t, w.desk(), files)
			dir := w.desk()
			git(t, dir, "add", "-A")
			// Longer than the length field of an entry can tell.
			deep := strings.Repeat(strings.Repeat("e", 249)+"/", 17) + "f"
			git(t, dir, "update-index", "--add", "--cacheinfo", "100644,"+git(t, dir, "rev-parse", ":a")+","+deep)
			git(t, dir, "update-index", "--index-version", version)
			if version != "2" {
				git(t, dir, "update-index", "--skip-worktree", "a", "d/7/f")
			}
			git(t, dir, "write-tree") // fills the cached trees
			stages := git(t, dir, "ls-files", "--stage", "-t", "--debug")

			name := filepath.Join(dir, ".git/index")
			ix, err := readIndex(name, fileStat{})
			if err != nil {
				t.Fatal(err)
			}
			var buf bytes.Buffer
			if err := ix.write(&buf, nil, ix.tree); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, buf.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			if got := git(t, dir, "ls-files", "--stage", "-t", "--debug"); got != stages {
				t.Errorf("git reads\n%s\nwant\n%s", got, stages)
			}
			// Change some: replace, remove, put in.
			i, ok := ix.find("d/3/f")
			j, ok2 := ix.find("d/30/f")
			if !ok || !ok2 || i+1 >= j+1 {
				t.Fatal("find")
			}
			blob := BlobHash([]byte("7")).id()
			ix.tree.invalidate("d/3/f")
			ix.tree.invalidate("d/3a")
			splices := []splice{
				{i, i + 1, &indexEntry{path: "d/3/f", mode: ModeExecutable, id: blob}},
				{j, j + 1, nil},
				{j + 1, j + 1, &indexEntry{path: "d/30a", mode: ModeFile, id: blob, extended: extSkip}},
			}
			ix.tree.invalidate("d/30/f")
			buf.Reset()
			if err := ix.write(&buf, splices, ix.tree); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, buf.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			got := git(t, dir, "ls-files", "-s", "-t", "d/3", "d/30", "d/30a", "d/7")
			want := fmt.Sprintf("H 100755 %s 0\td/3/f\nS 100644 %s 0\td/30a\n", blob, blob)
			if !strings.HasPrefix(got, want) {
				t.Errorf("git reads\n%s\nwant\n%s", got, want)
			}
			if git(t, dir, "ls-files", "d/30/f") != "" {
				t.Error("d/30/f is still there")
			}
			git(t, dir, "write-tree") // dies of a cached tree that is wrong
		})
	}
}

// TestIndexRefused: kinds of an index that mean something else are not read.
func TestIndexRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	name := filepath.Join(w.desk(), ".git/index")
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseIndex(good, false); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if _, err := parseIndex(good[:i], false); err == nil {
			t.Errorf("took an index cut off at %d of %d", i, len(good))
		}
		if _, err := parseIndex(flipped(good, i), false); err == nil {
			t.Errorf("took an index with a wrong bit at %d of %d", i, len(good))
		}
	}
	git(t, w.desk(), "update-index", "--split-index")
	if _, err := readIndex(name, fileStat{}); err == nil {
		t.Error("took a split index")
	}
	if ix, err := readIndex(filepath.Join(w.desk(), "none"), fileStat{}); err == nil || ix.len() != 0 {
		t.Errorf("no index: %v", err)
	}
}

// TestRacyEntry: a file that is changed in the second in which the index was
// written is found, however often the index is written after that.
func TestRacyEntry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"m/a": "1", "m/b": "1"})
	c := w.clone()
	fi, err := os.Stat(filepath.Join(w.dir, "m/a"))
	if err != nil {
		t.Fatal(err)
	}
	// The same size, the same file, the same time.
	f, err := os.OpenFile(filepath.Join(w.dir, "m/a"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "X")
	f.Close()
	if err := os.Chtimes(f.Name(), fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		w.commit(c, put("m/b", fmt.Sprint(i+2)))
	}
	got, err := c.Restore(w.ctx(), []string{"m"})
	if len(got) != 1 || got[0].Path != "m/a" || err != nil {
		t.Errorf("Restore: %v, %v", got, err)
	}
	w.clean()
}

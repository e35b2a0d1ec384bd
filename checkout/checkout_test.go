// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestReaders reads from other goroutines while commits are made and git
// packs.
func TestReaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"m/a": "1"})
	c := w.clone()
	first := w.head(c)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				files, err := c.Files(first, "m")
				if err != nil || len(files) != 1 {
					t.Errorf("Files: %v, %v", files, err)
					return
				}
				if data, err := c.Blob(files[0].Blob); err != nil || string(data) != "1" {
					t.Errorf("Blob: %q, %v", data, err)
					return
				}
				if _, err := c.Upstream(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 6 {
		var many []Change
		for k := range 10 * i {
			many = append(many, put(fmt.Sprintf("m/n%d", k), fmt.Sprint(i)))
		}
		w.commit(c, append(many, put("m/a", fmt.Sprint(i+2)))...)
		git(t, w.dir, "gc", "-q", "--prune=now")
	}
	close(stop)
	readers.Wait()
	w.clean()
}

func TestInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.open()
	if _, err := Open(w.ctx(), w.opts); !errors.Is(err, ErrInUse) {
		t.Errorf("Open twice: %v", err)
	}
	c.Close()
	w.open()
}

// TestChangedOptions opens the same clone for another branch and another URL.
func TestChangedOptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	w.clone().Close()
	git(t, w.desk(), "checkout", "-q", "-b", "other")
	save(t, w.desk(), map[string]string{"a": "2", "b": "2"})
	git(t, w.desk(), "add", "-A")
	git(t, w.desk(), "commit", "-qm", "x")
	git(t, w.desk(), "push", "-q", "origin", "other")
	moved := w.bare + ".moved"
	if err := os.Rename(w.bare, moved); err != nil {
		t.Fatal(err)
	}
	w.opts.URL, w.opts.Branch = moved, "other"
	w.opts.Exclude = []string{"/x/", "*.y"}
	c := w.open()
	if w.head(c) != "" {
		t.Error("a branch that was not fetched yet is at something")
	}
	w.advance(c, w.fetch(c))
	w.has(map[string]string{"a": "2", "b": "2"})
	save(t, w.dir, map[string]string{"x/1": "1", "2.y": "1"})
	w.clean()
	if got := git(t, w.dir, "config", "remote.origin.url") + " " + git(t, w.dir, "rev-parse", "--abbrev-ref", "@{upstream}"); got != moved+" origin/other" {
		t.Errorf("the config says %s", got)
	}
	if _, err := Open(w.ctx(), Options{Dir: w.dir + "x", URL: w.url, Branch: "a..b"}); err == nil {
		t.Error("took the branch a..b")
	}
}

// TestDefaultBranch follows the remote's own.
func TestDefaultBranch(t *testing.T) {
	every(t, func(t *testing.T, w *world) {
		w.personPushes(map[string]string{"a": "1"})
		git(t, w.bare, "branch", "-m", "main", "trunk")
		git(t, w.bare, "symbolic-ref", "HEAD", "refs/heads/trunk")
		w.opts.Branch = ""
		c := w.clone()
		if c.Branch() != "trunk" || w.head(c) == "" {
			t.Errorf("branch %q at %q", c.Branch(), w.head(c))
		}
		w.clean()
		c.Close()
		if c = w.open(); c.Branch() != "trunk" {
			t.Errorf("opened again: branch %q", c.Branch())
		}
	})
}

func TestInitBare(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "deep", "remote.git")
	for range 2 {
		if err := InitBare(path, "main"); err != nil {
			t.Fatal(err)
		}
	}
	w.opts.URL = path
	c := w.open()
	w.commit(c, put("a", "1"))
	w.push(c)
	git(t, path, "fsck", "--strict")
	git(t, t.TempDir(), "clone", "-q", path)
	if err := InitBare(filepath.Join(t.TempDir(), "x"), "a b"); err == nil {
		t.Error("took the branch \"a b\"")
	}
}

func TestSaveRef(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	h, err := c.WriteCommit(w.head(c), []Change{put("a", "2")}, us, us, "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SaveRef("aside/"+string(h), h); err != nil {
		t.Fatal(err)
	}
	git(t, w.dir, "gc", "-q", "--prune=now")
	if _, err := c.Commit(h); err != nil {
		t.Error(err)
	}
	git(t, w.dir, "pack-refs", "--all")
	for _, want := range []Hash{h, "", ""} {
		if err := c.SaveRef("aside/"+string(h), want); err != nil {
			t.Error(err)
		}
		if got, err := c.Ref("aside/" + string(h)); got != want || err != nil {
			t.Errorf("Ref: %s, %v; want %q", got, err, want)
		}
	}
	if err := c.SaveRef("x", Hash(strings.Repeat("1", 40))); !errors.Is(err, ErrNotFound) {
		t.Errorf("SaveRef of nothing: %v", err)
	}
	if err := c.SaveRef("../../heads/main", h); err == nil {
		t.Error("SaveRef left its place")
	}
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sown are the files of the tests of first checkouts.
func sown() map[string]string {
	files := map[string]string{"README": "1", "a/f": "1", "a/b/c/g": "1", "d/e": "1", "fabric/raw/in.yaml": "1", "fabric/managed/x": "1"}
	for i := range 2000 {
		files[fmt.Sprintf("m/%d/%d", i%7, i)] = fmt.Sprint(i)
	}
	return files
}

// TestFirstCheckout checks out into work trees of which parts are there
// already, or come while the files are being made.
func TestFirstCheckout(t *testing.T) {
	for _, tt := range []struct {
		name          string
		before, while map[string]string // what somebody saves; "" is an empty directory
		asides        []string
		status        string
	}{
		{name: "nothing is there"},
		{name: "directories are there", before: map[string]string{"a/b/": "", "m/3/": ""}},
		{name: "the same files are there", before: map[string]string{"a/f": "1", "m/3/3": "3"}},
		{
			name: "other files are there", before: map[string]string{"a/f": "mine", "a/new": "mine", "d": "mine"},
			asides: []string{"a/f", "d"}, status: "?? a/new",
		},
		{name: "directories come", while: map[string]string{"a/b/c/": "", "m/3/": ""}},
		{
			name: "files come", while: map[string]string{"a/b/c/g": "mine", "m/3/3": "mine", "m/3/new": "mine"},
			asides: []string{"a/b/c/g", "m/3/3"}, status: "?? m/3/new",
		},
		{name: "a file comes for a directory", while: map[string]string{"m": "mine"}, asides: []string{"m"}},
		{
			name: "input comes", while: map[string]string{"fabric/raw/in.yaml": "mine", "fabric/raw/new.yaml": "mine"},
			status: " M fabric/raw/in.yaml\n?? fabric/raw/new.yaml",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			want := sown()
			w.personPushes(want)
			put := func(files map[string]string) {
				for path, text := range files {
					if strings.HasSuffix(path, "/") {
						if err := os.MkdirAll(filepath.Join(w.dir, path), 0o777); err != nil {
							t.Error(err)
						}
						continue
					}
					save(t, w.dir, map[string]string{path: text})
				}
			}
			w.opts.Progress = func(phase string, done, total int) {
				if phase == "checkout" && tt.while != nil {
					put(tt.while)
					tt.while = nil
				}
			}
			c := w.open()
			put(tt.before)
			var asides []string
			got, err := c.Advance(w.ctx(), w.head(c))
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range got {
				asides = append(asides, a.Path)
			}
			slices.Sort(asides)
			if !slices.Equal(asides, tt.asides) {
				t.Errorf("set aside %q, want %q", asides, tt.asides)
			}
			if tt.while != nil {
				t.Error("there was no progress")
			}
			status := git(t, w.dir, "status", "--porcelain", "-uall")
			if status != tt.status {
				t.Errorf("git status:\n%s\nwant:\n%s", status, tt.status)
			}
			maps.DeleteFunc(want, func(path, _ string) bool { return strings.Contains(tt.status, path) })
			w.has(want)
			if left := tree(t, c.work.stage); len(left) > 0 {
				t.Errorf("left in the staging directory: %v", left)
			}
		})
	}
}

// TestFirstCheckoutCrash: what a crash leaves of directories in the making goes.
func TestFirstCheckoutCrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(sown())
	c := w.open()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	save(t, c.work.stage, map[string]string{seedbed + "/m/3/3": "3", seedbed + "/m/0/0": "half"})
	c = w.clone()
	w.has(sown())
	w.clean()
	if left := tree(t, c.work.stage); len(left) > 0 {
		t.Errorf("left in the staging directory: %v", left)
	}
}

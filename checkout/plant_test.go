// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
		for how, checkOut := range checkOuts {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				t.Parallel()
				while := tt.while
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
					if phase == "checkout" && while != nil {
						put(while)
						while = nil
					}
				}
				c := w.open()
				put(tt.before)
				var asides []string
				got, err := checkOut(w, c)
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
				if while != nil {
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
}

// checkOuts are the ways to a first checkout: a clone that was just made, or has
// lost its index, is brought in order first.
var checkOuts = map[string]func(w *world, c *Clone) ([]Aside, error){
	"advance": func(w *world, c *Clone) ([]Aside, error) { return c.Advance(w.ctx(), w.head(c)) },
	"restore": func(w *world, c *Clone) ([]Aside, error) { return c.Restore(w.ctx(), []string{"fabric/managed"}) },
}

// TestFirstCheckoutInWhole: only what lies in a directory that is there, or below
// an input, is made by itself.
func TestFirstCheckoutInWhole(t *testing.T) {
	t.Parallel()
	for how, checkOut := range checkOuts {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			files := sown()
			files["fabric/raw/sub/in.yaml"] = "1"
			w.personPushes(files)
			c := w.open()
			raw := filepath.Join(w.dir, "fabric/raw")
			if err := os.MkdirAll(raw, 0o755); err != nil {
				t.Fatal(err)
			}
			// What an input's directory gives on to those below it, they get.
			// The group may write: linux/posix_acl_xattr.h.
			acl := "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x04\x00\x07\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff"
			err := unix.Setxattr(raw, "system.posix_acl_default", []byte(acl), 0)
			if err != nil && err != unix.EOPNOTSUPP {
				t.Fatal(err)
			}
			inherits := err == nil
			if _, err := checkOut(w, c); err != nil {
				t.Fatal(err)
			}
			if c.work.made != 3 {
				t.Errorf("%d files were made by themselves, want README and the two in raw/", c.work.made)
			}
			if info, err := os.Stat(raw + "/sub"); err != nil || inherits && info.Mode().Perm() != 0o775 {
				t.Errorf("raw/sub: %v, %v", info.Mode(), err)
			}
			w.clean()
		})
	}
}

// TestFirstCheckoutUnreadable: a directory that cannot be looked into holds up
// only what lies in it.
func TestFirstCheckoutUnreadable(t *testing.T) {
	t.Parallel()
	for how, checkOut := range checkOuts {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.personPushes(sown())
			c := w.open()
			if err := os.Mkdir(filepath.Join(w.dir, "a"), 0o000); err != nil {
				t.Fatal(err)
			}
			obeyModes(t)
			if _, err := checkOut(w, c); err == nil || !strings.Contains(err.Error(), "a/f in the work tree: ") {
				t.Errorf("the error %v does not name a/f", err)
			}
			w.has(map[string]string{"README": "1", "m/3/3": "3"})
			if err := os.Chmod(filepath.Join(w.dir, "a"), 0o755); err != nil {
				t.Fatal(err)
			}
			if asides, err := c.Advance(w.ctx(), w.head(c)); err != nil || len(asides) > 0 {
				t.Errorf("set aside %v, %v", asides, err)
			}
			w.has(sown())
			w.clean()
		})
	}
}

// obeyModes takes root's right to ignore the modes of files from the thread of
// the test, which ends with it.
func obeyModes(t *testing.T) {
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	data[0].Effective &^= 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
	if err == nil {
		err = unix.Capset(&header, &data[0])
	}
	if err != nil {
		t.Fatal(err)
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

// TestImpossibleLinks: a link that no system can make holds up nothing else.
func TestImpossibleLinks(t *testing.T) {
	t.Parallel()
	for how, checkOut := range checkOuts {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.personPushes(map[string]string{"a/f": "1", "g": "1"})
			pushLinks := func(dir string) {
				for i, target := range []string{"", "a\x00b", strings.Repeat("x", 5000)} {
					blob := gitIn(t, w.desk(), target, "hash-object", "-w", "--stdin")
					git(t, w.desk(), "update-index", "--add", "--cacheinfo", fmt.Sprintf("120000,%s,%s%d", blob, dir, i))
				}
				git(t, w.desk(), "commit", "-qm", "x")
				git(t, w.desk(), "push", "-q", "origin", "HEAD:main")
			}
			pushLinks("a/")
			c := w.open()
			if _, err := checkOut(w, c); err == nil {
				t.Error("no word of the links")
			}
			w.has(map[string]string{"a/f": "1", "g": "1"})
			w.personPushes(map[string]string{"g": "2"})
			pushLinks("")
			if _, err := c.Advance(w.ctx(), w.fetch(c)); err == nil {
				t.Error("no word of the links")
			}
			w.has(map[string]string{"a/f": "1", "g": "2"})
		})
	}
}

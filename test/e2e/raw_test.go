// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// rawFault breaks the raw directory, and returns what mends it.
type rawFault func(t *testing.T, w *world, raw string) (mend func())

// Something is wrong with one fabric's raw/, or with what its files go to. The
// other fabric goes on, status says what is wrong, log and history say it once,
// and when it is mended, what was there goes through.
func TestRawFaults(t *testing.T) {
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name  string
		fault rawFault
		says  string
		drop  string // what waits in raw/ meanwhile; empty: it cannot be dropped
	}{
		{"a file in its place", func(t *testing.T, w *world, raw string) func() {
			file := filepath.Join(t.TempDir(), "file")
			write(t, file, "x")
			must(t, unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, raw, unix.RENAME_EXCHANGE))
			return func() { must(t, os.Remove(raw)) }
		}, "/raw is not a directory; move it away", ""},
		{"a link in its place", func(t *testing.T, w *world, raw string) func() {
			link := filepath.Join(t.TempDir(), "link")
			must(t, os.Symlink(t.TempDir(), link))
			must(t, unix.Renameat2(unix.AT_FDCWD, link, unix.AT_FDCWD, raw, unix.RENAME_EXCHANGE))
			return func() { must(t, os.Remove(raw)) }
		}, "is a symbolic link, which is not followed", ""},
		{"read-only", func(t *testing.T, w *world, raw string) func() {
			must(t, unix.Mount(raw, raw, "", unix.MS_BIND, ""))
			t.Cleanup(func() { unix.Unmount(raw, unix.MNT_DETACH) })
			must(t, unix.Mount("", raw, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
			return func() { must(t, unix.Unmount(raw, 0)) }
		}, "/raw is read-only: see the kernel's log", vpc("vpc-1", 1001)},
		{"the parent is a file", func(t *testing.T, w *world, raw string) func() {
			file := filepath.Join(t.TempDir(), "file")
			write(t, file, "x")
			must(t, unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, filepath.Dir(raw), unix.RENAME_EXCHANGE))
			return func() { must(t, os.Remove(filepath.Dir(raw))) }
		}, "/fabric-1 is not a directory; move it away", ""},
		{"an immutable file", func(t *testing.T, w *world, raw string) func() {
			file := filepath.Join(raw, "a.yaml")
			if out, err := exec.Command("chattr", "+i", file).CombinedOutput(); err != nil {
				t.Skipf("chattr: %v %s", err, out)
			}
			t.Cleanup(func() { exec.Command("chattr", "-i", file).Run() })
			return func() { must(t, exec.Command("chattr", "-i", file).Run()) }
		}, "LEFT ALONE in raw/: a.yaml: not removable: it is immutable; chattr -i", vpc("vpc-1", 1001)},
		{"a file that something is mounted on", func(t *testing.T, w *world, raw string) func() {
			file := filepath.Join(raw, "a.yaml")
			must(t, unix.Mount(file, file, "", unix.MS_BIND, ""))
			t.Cleanup(func() { unix.Unmount(file, unix.MNT_DETACH) })
			return func() { must(t, unix.Unmount(file, 0)) }
		}, "LEFT ALONE in raw/: a.yaml: not removable: something is mounted on it", vpc("vpc-1", 1001)},
		{"unmanaged/ is a file", func(t *testing.T, w *world, raw string) func() {
			unmanaged := filepath.Join(filepath.Dir(raw), "unmanaged")
			write(t, unmanaged, "x")
			return func() { must(t, os.Remove(unmanaged)) }
		}, "LEFT ALONE in raw/: a.yaml: it is rejected (HH110), but cannot be moved to unmanaged/", "kind: [\n"},
		{"unmanaged/ is full", func(t *testing.T, w *world, raw string) func() {
			unmanaged := filepath.Join(filepath.Dir(raw), "unmanaged")
			mount(t, "tmpfs", unmanaged, "size=4k,mode=755")
			write(t, filepath.Join(unmanaged, "ballast"), strings.Repeat("x", 4096))
			return func() { must(t, unix.Mount("", unmanaged, "", unix.MS_REMOUNT, "size=1m")) }
		}, "/unmanaged is full: free some space there", "kind: [\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			t.Parallel()
			w := newWorld(t, options{fabrics: []string{"fabric-1", "fabric-2"}, rescan: "2s"})
			w.push("README.md", "fabrics\n")
			w.start()
			raw, err := filepath.EvalSymlinks(w.raw("fabric-1"))
			must(t, err)
			if tt.drop != "" {
				// It lies there from the first moment on that it is broken.
				w.stop()
				write(t, filepath.Join(raw, "a.yaml"), tt.drop)
			}
			mend := tt.fault(t, w, raw)
			if tt.drop != "" {
				w.launch(exec.Command(binary, "--config", w.config, "run"))
			}
			w.drop("fabric-2", "b.yaml", vpc("vpc-2", 1002))
			w.wantManaged("fabric-2", map[string]string{"vpcs/vpc-2.yaml": vpc("vpc-2", 1002)})
			w.stopsWith(tt.says)
			n := w.commits()
			for range 3 {
				w.hh("sync")
			}
			if now := w.commits(); now != n {
				t.Errorf("each cycle commits:\n%s", w.remote("log", "--oneline", "main"))
			}
			says := strings.TrimPrefix(tt.says, "LEFT ALONE in raw/: ")
			if got := strings.Count(w.daemon.output(), says); got > 2 {
				t.Errorf("the log says %q %d times", says, got)
			}
			mend()
			w.well()
			if tt.drop == "" {
				w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
			}
			if strings.HasPrefix(tt.drop, "kind: [") {
				rejected := filepath.Join(filepath.Dir(raw), "unmanaged", "a.yaml")
				w.eventually("the rejected file", func() error { _, err := os.Stat(rejected); return err })
				if got := strings.Count(w.history(), "rejected raw/a.yaml"); got != 1 {
					t.Errorf("the rejection is told %d times:\n%s", got, w.history())
				}
			} else {
				w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001)})
				w.wantLinear(vpc("vpc-1", 1001))
			}
			w.eventually("raw/ to be empty", func() error {
				if left := rawFiles(t, w, "fabric-1"); len(left) > 0 {
					return fmt.Errorf("it holds %v", left)
				}
				return nil
			})
			h := w.history()
			if !strings.Contains(tt.says, "LEFT ALONE") && (strings.Count(h, says) != 1 || strings.Count(h, "fault is over after") != 1) {
				t.Errorf("the fault and its end are not told once each:\n%s", h)
			}
		})
	}
}

// A raw/ that is a file system of its own, comes and goes while the daemon
// runs.
func TestRawOnAnotherFileSystem(t *testing.T) {
	w := newWorld(t, options{})
	w.push("README.md", "fabrics\n")
	w.start()
	raw, err := filepath.EvalSymlinks(w.raw("fabric-1"))
	if err != nil {
		t.Fatal(err)
	}
	mount(t, "tmpfs", raw, "size=1m,mode=755")
	w.drop("fabric-1", "sub/a.yaml", vpc("vpc-1", 1001))
	w.drop("fabric-1", "bad.yaml", "kind: [\n")
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001)})
	rejected := filepath.Join(filepath.Dir(raw), "unmanaged", "bad.yaml")
	w.eventually("the rejected file", func() error { _, err := os.Stat(rejected); return err })
	if text, err := os.ReadFile(rejected); err != nil || string(text) != "kind: [\n" {
		t.Errorf("the rejected file: %q, %v", text, err)
	}
	w.eventually("raw/ to be empty", func() error {
		if left := rawFiles(t, w, "fabric-1"); len(left) > 0 {
			return fmt.Errorf("it holds %v", left)
		}
		return nil
	})
	// Unmounted with a file that somebody has open for writing.
	f, err := os.Create(filepath.Join(raw, "slow.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(vpc("vpc-9", 1009)); err != nil {
		t.Fatal(err)
	}
	w.eventually("the daemon to wait for the writer", func() error {
		st, err := w.look()
		if err == nil && len(st.Fabrics[0].Waiting) == 0 {
			err = errors.New("it does not")
		}
		return err
	})
	if err := unix.Unmount(raw, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	f.Close()
	w.drop("fabric-1", "b.yaml", vpc("vpc-2", 1002))
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002)})
	w.well()
	st, err := w.look()
	if err != nil || len(st.Fabrics[0].Waiting) > 0 {
		t.Errorf("it waits for %v, %v", st.Fabrics[0].Waiting, err)
	}
	// Deleted, and replaced by another one with a file in it.
	if err := os.RemoveAll(raw); err != nil {
		t.Fatal(err)
	}
	w.eventually("raw/ to be there again", func() error { _, err := os.Stat(raw); return err })
	other := filepath.Join(t.TempDir(), "other")
	write(t, filepath.Join(other, "c.yaml"), vpc("vpc-3", 1003))
	if err := unix.Renameat2(unix.AT_FDCWD, other, unix.AT_FDCWD, raw, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	w.pushed("fabric-1", "vpcs/vpc-3.yaml")
	w.clean()
}

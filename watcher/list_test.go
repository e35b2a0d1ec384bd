// SPDX-License-Identifier: Apache-2.0

package watcher

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestList(t *testing.T) {
	dir := t.TempDir()
	outside := t.TempDir()
	write(t, outside, "secret.yaml", "s")
	for _, name := range []string{"a.yaml", "sub/b.yaml", "sub/deep/er/c.yaml", "no-input.txt",
		".hidden.yaml", ".git/config", "sub/.d/e.yaml", ".x.yaml.00000000" + SpentSuffix, "dir.yaml/f.yaml"} {
		write(t, dir, name, name)
	}
	for link, to := range map[string]string{
		"link.yaml": filepath.Join(outside, "secret.yaml"),
		"linkdir":   outside,
		"loop":      ".",
		"dangling":  "nowhere",
		".quiet":    outside,
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo.yaml"), 0o666); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "socket.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	var asked []string
	found, skipped, err := List(dir, func(p string) bool {
		asked = append(asked, p)
		return strings.HasSuffix(p, ".yaml")
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := paths(found), []string{"a.yaml", "sub/b.yaml", "sub/deep/er/c.yaml"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	if f := found[1]; f.Size != int64(len("sub/b.yaml")) || time.Since(f.Time).Abs() > time.Hour {
		t.Errorf("found %+v", f)
	}
	if want := []string{"a.yaml", "no-input.txt", "sub/b.yaml", "sub/deep/er/c.yaml"}; !slices.Equal(asked, want) {
		t.Errorf("asked about %q, want %q", asked, want)
	}
	var got []string
	for _, s := range skipped {
		got = append(got, s.Path+": "+s.Why)
	}
	want := []string{
		"dangling: a symbolic link, which is not followed; put the file itself there",
		"dir.yaml: a directory with the name of a file; rename it",
		"fifo.yaml: not a regular file; remove it",
		"link.yaml: a symbolic link, which is not followed; put the file itself there",
		"linkdir: a symbolic link, which is not followed; put the file itself there",
		"loop: a symbolic link, which is not followed; put the file itself there",
		"socket.yaml: not a regular file; remove it",
	}
	if !slices.Equal(got, want) {
		t.Errorf("skipped\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestListOrder: arrival is when a file came to lie under its name, whatever
// its own times say.
func TestListOrder(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for i, name := range []string{"z", "m/y", "a", "m/b"} {
		write(t, dir, "."+filepath.Base(name), name)
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777); err != nil {
			t.Fatal(err)
		}
		// A copy that keeps its times (cp -p) is older by its mtime.
		mtime := time.Now().Add(-time.Duration(i) * time.Hour)
		if err := os.Chtimes(filepath.Join(dir, "."+filepath.Base(name)), mtime, mtime); err != nil {
			t.Fatal(err)
		}
		old := ctime(t, filepath.Join(dir, "."+filepath.Base(name)))
		until(t, "the kernel's clock ticks", func() bool {
			write(t, dir, ".tick", "")
			return ctime(t, filepath.Join(dir, ".tick")).After(old)
		})
		if err := os.Rename(filepath.Join(dir, "."+filepath.Base(name)), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
	}
	found, _, err := List(dir, anyInput)
	if err != nil {
		t.Fatal(err)
	}
	if got := paths(found); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

func ctime(t *testing.T, path string) time.Time {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return time.Unix(st.Ctim.Unix())
}

func TestListFails(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := List(filepath.Join(dir, "absent"), anyInput); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	write(t, dir, "file", "")
	if _, _, err := List(filepath.Join(dir, "file"), anyInput); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
}

// TestListUnprivileged: what this process could not read, or could read but
// never take out again, is said instead of being tried.
func TestListUnprivileged(t *testing.T) {
	dir, child := inChild(t, nil)
	if !child {
		return
	}
	for _, name := range []string{"good.yaml", "private.yaml", "theirs/x.yaml", "closed/x.yaml", "sticky/x.yaml"} {
		write(t, dir, name, "x")
	}
	for name, mode := range map[string]os.FileMode{
		"private.yaml": 0o600, "theirs": 0o755, "closed": 0o700, "sticky": 0o777 | os.ModeSticky,
	} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	asNobody(t)
	write(t, dir, "sticky/mine.yaml", "x")
	found, skipped, err := List(dir, anyInput)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := paths(found), []string{"good.yaml", "sticky/mine.yaml"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	var got []string
	for _, s := range skipped {
		got = append(got, s.Path+": "+s.Why)
	}
	want := []string{
		"closed: the directory cannot be listed: permission denied",
		"private.yaml: not readable for this process: mode 0600, owner root",
		"sticky/x.yaml: not removable for this process: its directory is sticky, and its owner is root",
		"theirs/x.yaml: not removable for this process: writing to its directory: permission denied",
	}
	if !slices.Equal(got, want) {
		t.Errorf("skipped\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if _, _, err := List(filepath.Join(dir, "theirs"), anyInput); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a directory that holds input and cannot be written to: %v", err)
	}
	if _, _, err := List(filepath.Join(dir, "theirs"), func(string) bool { return false }); err != nil {
		t.Errorf("one that holds no input: %v", err)
	}
}

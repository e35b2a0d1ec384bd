// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// names lists dir, so that a test sees a temporary file that was left.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, tc := range []struct {
		data string
		perm fs.FileMode
	}{{"one", 0o600}, {"", 0o666}, {strings.Repeat("x", 1<<20), 0o640}} {
		if err := WriteFile(path, []byte(tc.data), tc.perm); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != tc.data {
			t.Errorf("read %d bytes, %v; want %d bytes", len(got), err, len(tc.data))
		}
		if fi, _ := os.Stat(path); fi.Mode() != tc.perm {
			t.Errorf("mode %v, want %v", fi.Mode(), tc.perm)
		}
		if got := names(t, dir); got != "f" {
			t.Errorf("directory holds %q", got)
		}
	}
}

func TestWriteFileLongName(t *testing.T) {
	dir := t.TempDir()
	name := strings.Repeat("n", 255)
	if err := WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != name {
		t.Errorf("directory holds %q", got)
	}
}

func TestWriteFileFails(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFile(filepath.Join(dir, "absent", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	// A directory cannot be replaced by a file; it and its content stay.
	if err := os.MkdirAll(filepath.Join(dir, "d", "inner"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "d"), []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if got := names(t, dir); got != "d" {
		t.Errorf("directory holds %q", got)
	}
}

// TestFillReportsWriteError: /dev/full fails each write as a full disk does.
func TestFillReportsWriteError(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	if err := fill(f, []byte("x"), 0o666); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v, want ENOSPC", err)
	}
}

func TestRename(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "sub", "b")
	if err := MkdirAll(filepath.Dir(b), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"first", "second"} {
		if err := WriteFile(a, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Rename(a, b); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(b); string(got) != content {
			t.Errorf("b holds %q", got)
		}
	}
	if err := Rename(a, b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	if err := Rename(b, filepath.Join(dir, "sub", "c")); err != nil {
		t.Errorf("within one directory: %v", err)
	}
	if got := names(t, dir) + " " + names(t, filepath.Join(dir, "sub")); got != "sub c" {
		t.Errorf("left %q", got)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("second time: %v", err)
	}
	if got := names(t, dir); got != "" {
		t.Errorf("left %q", got)
	}
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "c")
	for range 2 {
		if err := MkdirAll(path, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if fi, err := os.Stat(path); err != nil || !fi.IsDir() || fi.Mode().Perm() != 0o750 {
		t.Errorf("got %v, %v", fi, err)
	}
	file := filepath.Join(dir, "file")
	if err := WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, filepath.Join(file, "below")} {
		if err := MkdirAll(p, 0o750); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("%s: %v, want ENOTDIR", p, err)
		}
	}
	t.Chdir(dir)
	if err := MkdirAll("relative/path/", 0o750); err != nil {
		t.Error(err)
	}
}

func TestSyncDir(t *testing.T) {
	dir := t.TempDir()
	if err := SyncDir(dir); err != nil {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of an absent directory: %v", err)
	}
}

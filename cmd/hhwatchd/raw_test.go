// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMakeRaw makes a raw directory where a crash has left one half-made, and
// where somebody has pushed a link in its way.
func TestMakeRaw(t *testing.T) {
	fabric := filepath.Join(t.TempDir(), "deep", "fabric-1")
	raw, beside := filepath.Join(fabric, "raw"), filepath.Join(fabric, ".hhwatchd-raw")
	for range 2 {
		if err := makeRaw(raw); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(beside); err == nil {
			t.Error("it is still beside")
		}
		if err := os.Rename(raw, beside); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(beside); err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	if err := os.Chmod(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, beside); err != nil {
		t.Fatal(err)
	}
	if err := makeRaw(raw); err == nil {
		t.Error("a link was followed")
	}
	if info, err := os.Stat(elsewhere); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("what the link leads to: %v, %v", info.Mode(), err)
	}
}

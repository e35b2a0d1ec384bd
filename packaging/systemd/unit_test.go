// SPDX-License-Identifier: Apache-2.0

// Package systemd_test holds the unit to what systemd itself says of it.
package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const unit = "hhwatchd.service"

// analyze runs systemd-analyze(1) and returns all of its output.
func analyze(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_PAGER=cat", "SYSTEMD_COLORS=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// image lays out a root directory with text as the unit, the programs that it
// names, and sysinit.target, which every service needs.
func image(t *testing.T, text string) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range []struct {
		name, text string
		mode       os.FileMode
	}{
		{"usr/bin/hhwatchd", "#!/bin/sh\n", 0o755},
		{"etc/systemd/system/sysinit.target", "[Unit]\n", 0o644},
		{"etc/systemd/system/" + unit, text, 0o644},
	} {
		name := filepath.Join(root, f.name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(f.text), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestUnitIsValid(t *testing.T) {
	data, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	for _, tt := range []struct {
		name, text, complaint string
	}{
		{"as shipped", good, ""},
		// What follows shows that the test would see a mistake.
		{"unknown key", good + "NoSuchKey=1\n", "NoSuchKey"},
		{"no such program", strings.ReplaceAll(good, "/usr/bin/hhwatchd", "/usr/bin/other"), "is not executable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := analyze(t, "verify", "--man=no", "--root="+image(t, tt.text), unit)
			if tt.complaint == "" {
				if err != nil || out != "" {
					t.Errorf("systemd-analyze verify: %v\n%s", err, out)
				}
			} else if !strings.Contains(out, tt.complaint) {
				t.Errorf("systemd-analyze verify: %v\n%s\nwant a complaint with %q", err, out, tt.complaint)
			}
		})
	}
}

// TestSandbox keeps the exposure that systemd-analyze security computes at 1.5
// (of 10) or below; the tool wants that in tenths.
func TestSandbox(t *testing.T) {
	out, err := analyze(t, "security", "--offline=true", "--no-pager", "--threshold=15", unit)
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

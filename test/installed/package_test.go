// SPDX-License-Identifier: Apache-2.0

package installed

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The same commit gives the same bytes, whoever builds, where and when.
func TestReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages")
	}
	p := programsOnce(t)
	// Another directory, another zone, language, umask and home.
	dir := t.TempDir()
	cmd := exec.Command("sh", "-c", "umask 077; cd / && exec "+quote(filepath.Join(working(t), "../../packaging/deb/build.sh")))
	cmd.Env = append(os.Environ(), "DIST="+dir, "VERSION=1.0.0", "TZ=Pacific/Chatham", "LC_ALL=C.UTF-8", "GOMAXPROCS=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	first, err := os.ReadFile(p.older)
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(filepath.Join(dir, filepath.Base(p.older)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Errorf("two builds differ: %d and %d bytes", len(first), len(second))
	}
}

func working(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLintian(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages")
	}
	if _, err := exec.LookPath("lintian"); err != nil {
		t.Skip("lintian is not installed")
	}
	p := programsOnce(t)
	out, err := exec.Command("lintian", "--profile", "debian", "--fail-on", "error", "--allow-root", p.older).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// The package for the other architecture holds a program for it, and otherwise
// the same.
func TestOtherArchitecture(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages")
	}
	p := programsOnce(t)
	arch, machine := "arm64", elf.EM_AARCH64
	if strings.HasSuffix(p.older, "_arm64.deb") {
		arch, machine = "amd64", elf.EM_X86_64
	}
	dir := t.TempDir()
	cmd := exec.Command("../../packaging/deb/build.sh")
	cmd.Env = append(os.Environ(), "DIST="+dir, "VERSION=1.0.0", "ARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	deb := filepath.Join(dir, "hhwatchd_1.0.0_"+arch+".deb")
	names := func(deb string) string {
		out, err := exec.Command("sh", "-c", "dpkg-deb --fsys-tarfile "+quote(deb)+" | tar -t").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if one, other := names(p.older), names(deb); one != other {
		t.Errorf("the packages hold\n%s\nand\n%s", one, other)
	}
	if out, err := exec.Command("dpkg-deb", "--extract", deb, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := elf.Open(filepath.Join(dir, "usr/bin/hhwatchd"))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if program.Machine != machine {
		t.Errorf("the program in it is for %v", program.Machine)
	}
}

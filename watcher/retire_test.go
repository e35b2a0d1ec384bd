// SPDX-License-Identifier: Apache-2.0

package watcher

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

func TestRetireAndBury(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "x.yaml", "x")
	write(t, dir, "a/y.yaml", "y")
	write(t, dir, "a/b/empty.yaml", "")
	var files []*File
	for _, p := range []string{"x.yaml", "a/y.yaml", "a/b/empty.yaml"} {
		files = append(files, mustRead(t, dir, p))
	}
	spent, changed, err := Retire(files)
	if err != nil || !slices.Equal(spent, files) || changed != nil {
		t.Fatalf("retired %q, changed %q, %v", filePaths(spent), filePaths(changed), err)
	}
	wantTree(t, dir, ".x.yaml.*.spent=x", "a/.y.yaml.*.spent=y", "a/b/.empty.yaml.*.spent=")
	if found, skipped, err := List(dir, anyInput); err != nil || found != nil || skipped != nil {
		t.Errorf("spent files are listed: %v %v %v", found, skipped, err)
	}
	// The name is free: what comes now is new.
	write(t, dir, "x.yaml", "newer")
	if restored, err := Bury(spent); err != nil || restored != nil {
		t.Errorf("restored %q, %v", restored, err)
	}
	wantTree(t, dir, "x.yaml=newer")
	if restored, err := Bury(spent); err != nil || restored != nil {
		t.Errorf("buried twice: restored %q, %v", restored, err)
	}
}

// disturbances are what others can do to a file between its being read and
// being taken out. Each changes x.yaml, "content", in dir.
var disturbances = []struct {
	name string
	do   func(t *testing.T, dir string)
	want string // what is there afterwards; empty: nothing
}{
	{"overwritten", func(t *testing.T, dir string) { write(t, dir, "x.yaml", "longer content") }, "longer content"},
	{"truncated", func(t *testing.T, dir string) { write(t, dir, "x.yaml", "") }, ""},
	{"same size", func(t *testing.T, dir string) { write(t, dir, "x.yaml", "CONTENT") }, "CONTENT"},
	{"same size and time", func(t *testing.T, dir string) {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "x.yaml"), &st); err != nil {
			t.Fatal(err)
		}
		write(t, dir, "x.yaml", "CONTENT")
		if err := unix.UtimesNano(filepath.Join(dir, "x.yaml"), []unix.Timespec{st.Atim, st.Mtim}); err != nil {
			t.Fatal(err)
		}
	}, "CONTENT"},
	{"replaced", func(t *testing.T, dir string) {
		write(t, dir, ".x.tmp", "replacement")
		if err := os.Rename(filepath.Join(dir, ".x.tmp"), filepath.Join(dir, "x.yaml")); err != nil {
			t.Fatal(err)
		}
	}, "replacement"},
	{"dropped again", func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, "x.yaml")); err != nil {
			t.Fatal(err)
		}
		write(t, dir, "x.yaml", "content")
	}, "content"},
	{"open for appending", func(t *testing.T, dir string) { shell(t, dir).do("exec 3>>x.yaml") }, "content"},
}

func TestRetireChanged(t *testing.T) {
	for _, tc := range disturbances {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			leasable(t, dir)
			write(t, dir, "x.yaml", "content")
			f := mustRead(t, dir, "x.yaml")
			tc.do(t, dir)
			spent, changed, err := Retire([]*File{f})
			if err != nil || spent != nil || !slices.Equal(changed, []*File{f}) {
				t.Errorf("retired %q, changed %q, %v", filePaths(spent), filePaths(changed), err)
			}
			wantTree(t, dir, "x.yaml="+tc.want)
		})
	}
}

// TestRetireComparesContent: where the clock is coarse, a file can be written
// without any sign of it but its content.
func TestRetireComparesContent(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "x.yaml", "content")
	f := mustRead(t, dir, "x.yaml")
	write(t, dir, "x.yaml", "CONTENT")
	f.id = mustRead(t, dir, "x.yaml").id
	if spent, changed, err := Retire([]*File{f}); err != nil || spent != nil || len(changed) != 1 {
		t.Errorf("retired %q, changed %q, %v", filePaths(spent), filePaths(changed), err)
	}
	wantTree(t, dir, "x.yaml=CONTENT")
}

func TestRetireGone(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"removed", "link", "sub/x", "linked/x", "stays"} {
		write(t, dir, p, p)
	}
	var files []*File
	for _, p := range []string{"removed", "link", "sub/x", "linked/x", "stays"} {
		files = append(files, mustRead(t, dir, p))
	}
	elsewhere := filepath.Join(t.TempDir(), "linked")
	for _, err := range []error{
		os.Remove(filepath.Join(dir, "removed")),
		os.Remove(filepath.Join(dir, "link")),
		os.Symlink("stays", filepath.Join(dir, "link")),
		os.RemoveAll(filepath.Join(dir, "sub")),
		os.Rename(filepath.Join(dir, "linked"), elsewhere),
		os.Symlink(elsewhere, filepath.Join(dir, "linked")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	spent, changed, err := Retire(files)
	if err != nil || !slices.Equal(filePaths(spent), []string{"stays"}) || changed != nil {
		t.Errorf("retired %q, changed %q, %v", filePaths(spent), filePaths(changed), err)
	}
	wantTree(t, elsewhere, "x=linked/x")
}

// TestRetireStops: when the earlier of two files cannot be taken out, the
// later one is not either.
func TestRetireStops(t *testing.T) {
	dir, child := inChild(t, nil)
	if !child {
		return
	}
	for _, p := range []string{"first", "theirs/second", "third"} {
		write(t, dir, p, p)
	}
	asNobody(t)
	var files []*File
	for _, p := range []string{"first", "theirs/second", "third"} {
		files = append(files, mustRead(t, dir, p))
	}
	spent, changed, err := Retire(files)
	if !errors.Is(err, fs.ErrPermission) || !slices.Equal(filePaths(spent), []string{"first"}) || changed != nil {
		t.Errorf("retired %q, changed %q, %v", filePaths(spent), filePaths(changed), err)
	}
	wantTree(t, dir, ".first.*.spent=first", "theirs/second=theirs/second", "third=third")
}

// TestBuryRestores: a writer that got hold of the file under its old name is
// heard.
func TestBuryRestores(t *testing.T) {
	late := func(t *testing.T, dir string, do func(sh *process)) (restored []string) {
		t.Helper()
		write(t, dir, "a/x.yaml", "content")
		spent, _, err := Retire([]*File{mustRead(t, dir, "a/x.yaml")})
		if err != nil || len(spent) != 1 {
			t.Fatalf("retired %q, %v", filePaths(spent), err)
		}
		// Opening the spent name comes to the same as opening the old name
		// before it was renamed.
		sh := shell(t, filepath.Join(dir, "a"))
		sh.do("exec 3>>" + spent[0].name)
		do(sh)
		if restored, err = Bury(spent); err != nil {
			t.Fatal(err)
		}
		return restored
	}
	t.Run("written", func(t *testing.T) {
		dir := t.TempDir()
		restored := late(t, dir, func(sh *process) { sh.do("echo ' and more' >&3; exec 3>&-") })
		if want := []string{"a/x.yaml"}; !slices.Equal(restored, want) {
			t.Errorf("restored %q, want %q", restored, want)
		}
		wantTree(t, dir, "a/x.yaml=content and more\n")
	})
	t.Run("still open", func(t *testing.T) {
		dir := t.TempDir()
		leasable(t, dir)
		var sh *process
		late(t, dir, func(p *process) { sh = p })
		if _, err := Read(dir, "a/x.yaml", 0, 100); !errors.Is(err, ErrBusy) {
			t.Errorf("restored file: %v, want ErrBusy", err)
		}
		sh.do("echo ' and more' >&3; exec 3>&-")
		wantTree(t, dir, "a/x.yaml=content and more\n")
	})
	t.Run("name taken", func(t *testing.T) {
		dir := t.TempDir()
		for round, want := range [][]string{
			{"a/x.yaml=content late\n", "a/x_1.yaml=newer"},
			{"a/x.yaml=content late\n", "a/x_1.yaml=newer", "a/x_2.yaml=newer"},
		} {
			os.Remove(filepath.Join(dir, "a/x.yaml"))
			late(t, dir, func(sh *process) {
				sh.do("echo ' late' >&3; exec 3>&-")
				sh.do("printf newer >x.yaml")
			})
			wantTree(t, dir, want...)
			// The newer one is still the later arrival.
			found, _, err := List(dir, anyInput)
			if got := paths(found); err != nil || got[len(got)-1] != want[round+1][:len("a/x_1.yaml")] {
				t.Errorf("in the order of arrival: %q, %v", got, err)
			}
		}
	})
	t.Run("name taken by a directory", func(t *testing.T) {
		dir := t.TempDir()
		late(t, dir, func(sh *process) { sh.do("echo >&3; exec 3>&-; mkdir x.yaml; echo in >x.yaml/file") })
		wantTree(t, dir, "a/x.yaml/file=in\n", "a/x_1.yaml=content\n")
	})
	t.Run("directory removed", func(t *testing.T) {
		dir := t.TempDir()
		late(t, dir, func(sh *process) { sh.do("cd ..; rm -r a") })
		wantTree(t, dir)
	})
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	leasable(t, dir)
	// A crash after Retire.
	hidden := map[string]string{}
	for _, p := range []string{"known", "a/known", "a/b/unknown", "a/taken", "busy"} {
		write(t, dir, p, filepath.Base(p))
		f := mustRead(t, dir, p)
		if _, _, err := Retire([]*File{f}); err != nil {
			t.Fatal(err)
		}
		hidden[p] = f.name
	}
	write(t, dir, "a/taken", "by a newer one")
	write(t, dir, ".foreign.spent", "")
	write(t, dir, ".git/.x.00000000.spent", "")
	sh := shell(t, dir)
	sh.do("exec 3>>" + hidden["busy"])

	asked := map[string]string{}
	spent, restored, err := Sweep(dir, 7, func(p string, data []byte) bool {
		asked[p] = string(data)
		return path.Base(p) == "known" || p == "busy"
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"busy", "a/taken", "a/b/unknown"}; !slices.Equal(restored, want) {
		t.Errorf("restored %q, want %q", restored, want)
	}
	var known []string
	for _, f := range spent {
		known = append(known, f.Path+"="+string(f.Data))
	}
	if want := []string{"known=known", "a/known=known"}; !slices.Equal(known, want) {
		t.Errorf("spent are %q, want %q", known, want)
	}
	// They are there until they are buried, and a newer one can come beside.
	write(t, dir, "known", "newer")
	wantTree(t, dir, ".foreign.spent=", ".git/.x.*.spent=", ".known.*.spent=known", "a/.known.*.spent=known",
		"a/b/unknown=unknown", "a/taken=taken", "a/taken_1=by a newer one", "busy=busy", "known=newer")
	if back, err := Bury(spent); err != nil || len(back) > 0 {
		t.Errorf("burying: %q, %v", back, err)
	}
	wantTree(t, dir, ".foreign.spent=", ".git/.x.*.spent=",
		"a/b/unknown=unknown", "a/taken=taken", "a/taken_1=by a newer one", "busy=busy", "known=newer")
	if asked["a/known"] != "known" || asked["a/b/unknown"] != "unknown" || asked["busy"] != "" {
		t.Errorf("asked about %q", asked)
	}
	sh.do("exec 3>&-")

	// Larger than anything that was ever read: it was written to.
	write(t, dir, "huge", "huge")
	if _, _, err := Retire([]*File{mustRead(t, dir, "huge")}); err != nil {
		t.Fatal(err)
	}
	_, restored, err = Sweep(dir, 3, func(p string, data []byte) bool { t.Error("asked about", p); return true })
	if want := []string{"huge"}; err != nil || !slices.Equal(restored, want) {
		t.Errorf("restored %q, %v, want %q", restored, err, want)
	}
	if _, _, err := Sweep(filepath.Join(dir, "absent"), 1, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// A power loss in the middle of Retire can leave a file with both names. It is
// one file, which was not retired.
func TestSweepHalfRetired(t *testing.T) {
	dir := t.TempDir()
	leasable(t, dir)
	write(t, dir, "x", "x")
	f := mustRead(t, dir, "x")
	if _, _, err := Retire([]*File{f}); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, f.name), filepath.Join(dir, "x")); err != nil {
		t.Fatal(err)
	}
	spent, restored, err := Sweep(dir, 7, func(string, []byte) bool { return true })
	if len(spent) > 0 || len(restored) > 0 || err != nil {
		t.Errorf("spent %v, restored %q, %v", spent, restored, err)
	}
	wantTree(t, dir, "x=x")
}

func TestSweepEmptyDirectories(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "used/x", "x")
	write(t, dir, "hidden/.x", "x")
	for _, d := range []string{"old/older", "new", ".old"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	age := func() {
		long := time.Now().Add(-25 * time.Hour)
		for _, d := range []string{"", "used", "hidden", ".old", "old", "old/older"} {
			os.Chtimes(filepath.Join(dir, d), long, long)
		}
	}
	left := func() (dirs []string) {
		filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			if e.IsDir() {
				rel, _ := filepath.Rel(dir, p)
				dirs = append(dirs, rel)
			}
			return err
		})
		return dirs
	}
	for _, want := range [][]string{
		{".", ".old", "hidden", "new", "used"},
		{".", ".old", "hidden", "new", "used"},
	} {
		age()
		if _, _, err := Sweep(dir, 1, nil); err != nil {
			t.Fatal(err)
		}
		if got := left(); !slices.Equal(got, want) {
			t.Errorf("left %q, want %q", got, want)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "used")); err != nil {
		t.Fatal(err)
	}
	age()
	empty := t.TempDir()
	os.Chtimes(empty, time.Unix(0, 0), time.Unix(0, 0))
	if _, _, err := Sweep(empty, 1, nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(empty); err != nil {
		t.Errorf("the raw directory itself: %v", err)
	}
}

// otherFS is a directory on another file system than the temporary one.
func otherFS(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "watcher-test-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var a, b unix.Stat_t
	if unix.Stat(dir, &a) != nil || unix.Stat(t.TempDir(), &b) != nil || a.Dev == b.Dev {
		t.Skip("no other file system")
	}
	return dir
}

func TestMove(t *testing.T) {
	for name, other := range map[string]func(*testing.T) string{
		"same file system":    func(t *testing.T) string { return t.TempDir() },
		"another file system": otherFS,
	} {
		t.Run(name, func(t *testing.T) {
			dir, out := t.TempDir(), other(t)
			write(t, dir, "a/x.yaml", "content")
			if err := os.Chmod(filepath.Join(dir, "a/x.yaml"), 0o640); err != nil {
				t.Fatal(err)
			}
			if err := mustRead(t, dir, "a/x.yaml").Move(filepath.Join(out, "y.yaml")); err != nil {
				t.Fatal(err)
			}
			wantTree(t, dir)
			wantTree(t, out, "y.yaml=content")
			if fi, err := os.Stat(filepath.Join(out, "y.yaml")); err != nil || fi.Mode() != 0o640 {
				t.Errorf("moved as %v, %v", fi.Mode(), err)
			}

			t.Run("too big to read", func(t *testing.T) {
				write(t, dir, "big", "12345")
				f, err := Read(dir, "big", 0, 4)
				if !errors.Is(err, ErrTooBig) {
					t.Fatal(err)
				}
				if err := f.Move(filepath.Join(out, "big")); err != nil {
					t.Fatal(err)
				}
				wantTree(t, dir)
				wantTree(t, out, "big=12345", "y.yaml=content")
			})
			t.Run("never overwrites", func(t *testing.T) {
				write(t, dir, "x.yaml", "second")
				if err := mustRead(t, dir, "x.yaml").Move(filepath.Join(out, "y.yaml")); !errors.Is(err, fs.ErrExist) {
					t.Errorf("got %v, want fs.ErrExist", err)
				}
				if err := mustRead(t, dir, "x.yaml").Move(filepath.Join(out, "absent/y.yaml")); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("got %v, want fs.ErrNotExist", err)
				}
				wantTree(t, dir, "x.yaml=second")
				wantTree(t, out, "big=12345", "y.yaml=content")
			})
			for _, tc := range disturbances {
				t.Run(tc.name, func(t *testing.T) {
					dir := t.TempDir()
					leasable(t, dir)
					write(t, dir, "x.yaml", "content")
					f := mustRead(t, dir, "x.yaml")
					tc.do(t, dir)
					if err := f.Move(filepath.Join(out, "z.yaml")); !errors.Is(err, ErrChanged) {
						t.Errorf("got %v, want ErrChanged", err)
					}
					wantTree(t, dir, "x.yaml="+tc.want)
					wantTree(t, out, "big=12345", "y.yaml=content")
				})
			}
			t.Run("gone", func(t *testing.T) {
				f := mustRead(t, dir, "x.yaml")
				if err := os.Remove(filepath.Join(dir, "x.yaml")); err != nil {
					t.Fatal(err)
				}
				if err := f.Move(filepath.Join(out, "z.yaml")); !errors.Is(err, ErrGone) {
					t.Errorf("got %v, want ErrGone", err)
				}
			})
		})
	}
}

func TestSpentName(t *testing.T) {
	long := strings.Repeat("ä", 127)
	for _, tc := range []struct{ own, back string }{
		{"x.yaml", "x.yaml"},
		{"x", "x"},
		{"a.b.c.spent", "a.b.c.spent"},
		{"x.00000000.spent", "x.00000000.spent"},
		{"no valid \xff UTF-8", "no valid \xff UTF-8"},
		{long + "x", long[:238]},
		{long[:250] + ".yaml", long[:234] + ".yaml"},
		{"x." + strings.Repeat("y", 253), "x." + strings.Repeat("y", 237)},
	} {
		spent := spentName(tc.own)
		if len(spent) > nameMax || spent[0] != '.' || !strings.HasSuffix(spent, SpentSuffix) {
			t.Errorf("spent name of %q: %q", tc.own, spent)
		}
		if got, ok := ownName(spent); !ok || got != tc.back || utf8.ValidString(got) != utf8.ValidString(tc.own) {
			t.Errorf("%q came back as %q, want %q", tc.own, got, tc.back)
		}
		if again := spentName(tc.own); again == spent {
			t.Errorf("the same spent name twice: %q", spent)
		}
	}
	for _, s := range []string{"", ".", ".spent", "..spent", "x.00000000.spent", ".00000000.spent", "..00000000.spent",
		".x.0000000.spent", ".x.000000000.spent", ".x.0000000g.spent", ".x.00000000.spent~", ".x.00000000"} {
		if own, ok := ownName(s); ok {
			t.Errorf("%q taken for the spent name of %q", s, own)
		}
	}
}

// TestRetireLongName: the longest name that a file can have goes out and, if
// need be, comes back.
func TestRetireLongName(t *testing.T) {
	dir := t.TempDir()
	name := strings.Repeat("n", nameMax-5) + ".yaml"
	write(t, dir, name, "x")
	spent, _, err := Retire([]*File{mustRead(t, dir, name)})
	if err != nil || len(spent) != 1 {
		t.Fatal(spent, err)
	}
	_, restored, err := Sweep(dir, 100, func(string, []byte) bool { return false })
	if err != nil || len(restored) != 1 || !strings.HasSuffix(restored[0], "n.yaml") {
		t.Errorf("restored %q, %v", restored, err)
	}
}

// TestRenameNoReplaceByLink: file systems without RENAME_NOREPLACE.
func TestRenameNoReplaceByLink(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", "a")
	write(t, dir, "b", "b")
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := renameByLink(d, "a", d, "b"); !errors.Is(err, unix.EEXIST) {
		t.Errorf("got %v, want EEXIST", err)
	}
	wantTree(t, dir, "a=a", "b=b")
	if err := renameByLink(d, "a", d, "c"); err != nil {
		t.Error(err)
	}
	wantTree(t, dir, "b=b", "c=a")
}

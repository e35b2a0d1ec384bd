// SPDX-License-Identifier: Apache-2.0

package watcher

import (
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "sub/x.yaml", "content\n")
	f, err := Read(dir, "sub/x.yaml", time.Hour, 8)
	leasable(t, dir) // otherwise it is busy for an hour
	if err != nil {
		t.Fatal(err)
	}
	if f.Path != "sub/x.yaml" || string(f.Data) != "content\n" || f.Size != 8 {
		t.Errorf("read %+v", f)
	}
	uid := uint32(os.Geteuid())
	if me, err := login(uid); err != nil || f.UID != uid || f.Owner != me {
		t.Errorf("owner %q (%d), want %q (%d), %v", f.Owner, f.UID, me, uid, err)
	}
	if want := ctime(t, filepath.Join(dir, "sub/x.yaml")); !f.Time.Equal(want) {
		t.Errorf("arrived %v, want %v", f.Time, want)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(dir, "sub/x.yaml"), 3999999999, -1); err != nil {
			t.Fatal(err)
		}
		if f := mustRead(t, dir, "sub/x.yaml"); f.Owner != "3999999999" {
			t.Errorf("owner without a name: %q", f.Owner)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	outside := t.TempDir()
	write(t, outside, "x.yaml", "secret")
	write(t, dir, "sub/x.yaml", "x")
	write(t, dir, "big.yaml", "12345")
	write(t, dir, "empty.yaml", "")
	for link, to := range map[string]string{
		"link.yaml": "sub/x.yaml", "out.yaml": filepath.Join(outside, "x.yaml"),
		"linkdir": "sub", "outdir": outside, "loop.yaml": "loop.yaml",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo.yaml"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		dir, path string
		want      error
	}{
		{dir, "absent.yaml", ErrGone},
		{dir, "absent/x.yaml", ErrGone},
		{dir, "big.yaml/x.yaml", ErrGone},
		{dir, "link.yaml", ErrGone},
		{dir, "out.yaml", ErrGone},
		{dir, "linkdir/x.yaml", ErrGone},
		{dir, "outdir/x.yaml", ErrGone},
		{dir, "loop.yaml", ErrGone},
		{dir, "sub", ErrGone},
		{dir, "fifo.yaml", ErrGone},
		{dir, "../" + filepath.Base(outside) + "/x.yaml", unix.EXDEV},
		{dir, filepath.Join(outside, "x.yaml"), unix.EXDEV},
		{dir, "empty.yaml", ErrBusy},
		{dir, "big.yaml", ErrTooBig},
		{filepath.Join(dir, "absent"), "x.yaml", fs.ErrNotExist},
		{filepath.Join(dir, "outdir"), "x.yaml", unix.ENOTDIR}, // a link in place of the directory
	} {
		f, err := Read(tc.dir, tc.path, time.Hour, 4)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.path, err, tc.want)
		}
		if (f != nil) != (tc.want == ErrTooBig) {
			t.Errorf("%s: file %v", tc.path, f)
		}
	}
	if f := mustRead(t, dir, "empty.yaml"); f.Data == nil || len(f.Data) != 0 {
		t.Errorf("an empty file that is old: %q", f.Data)
	}
}

// TestReadSlowWriter: a file that somebody has open for writing is busy,
// however long ago he last wrote, until he closes it. The quiet period is
// zero, so the lease alone decides.
func TestReadSlowWriter(t *testing.T) {
	dir := t.TempDir()
	leasable(t, dir)
	sh := shell(t, dir)
	busy := func(when string) {
		t.Helper()
		if f, err := Read(dir, "x.yaml", 0, 100); !errors.Is(err, ErrBusy) {
			t.Errorf("%s: %v, %v, want ErrBusy", when, f, err)
		}
	}
	sh.do("exec 3>x.yaml")
	busy("created")
	sh.do("echo first >&3")
	busy("half")
	sh.do("exec 4>>x.yaml 3>&-") // a second descriptor takes over
	busy("reopened")
	sh.do("echo second >&4")
	sh.do("exec 4>&-")
	if f := mustRead(t, dir, "x.yaml"); string(f.Data) != "first\nsecond\n" {
		t.Errorf("read %q", f.Data)
	}
	sh.do("exec 3<>x.yaml")
	busy("opened for both")
	sh.do("exec 3<&-")
	sh.do("exec 3<x.yaml") // a reader is no writer
	mustRead(t, dir, "x.yaml")
}

// TestReadMapped: a writable mapping outlives the descriptor it was made
// from.
func TestReadMapped(t *testing.T) {
	dir := t.TempDir()
	leasable(t, dir)
	write(t, dir, "x.yaml", "abc")
	f, err := os.OpenFile(filepath.Join(dir, "x.yaml"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 3, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, "x.yaml", 0, 100); !errors.Is(err, ErrBusy) {
		t.Errorf("mapped: %v, want ErrBusy", err)
	}
	if err := unix.Munmap(m); err != nil {
		t.Fatal(err)
	}
	mustRead(t, dir, "x.yaml")
}

// TestWriterKilled: half a file of a writer that died is a whole file, there
// is nobody left who could complete it.
func TestWriterKilled(t *testing.T) {
	dir := t.TempDir()
	leasable(t, dir)
	sh := shell(t, dir)
	sh.do("exec 3>x.yaml; echo half >&3")
	if _, err := Read(dir, "x.yaml", 0, 100); !errors.Is(err, ErrBusy) {
		t.Errorf("open: %v, want ErrBusy", err)
	}
	sh.cmd.Process.Kill()
	sh.cmd.Wait()
	if f := mustRead(t, dir, "x.yaml"); string(f.Data) != "half\n" {
		t.Errorf("read %q", f.Data)
	}
}

// TestLeaseBreak: an open for writing waits while a file is held, which the
// holder sees; the signal that comes with it harms nobody.
func TestLeaseBreak(t *testing.T) {
	dir := t.TempDir()
	leasable(t, dir)
	write(t, dir, "x.yaml", "old")
	hold := func() *held {
		root, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		h, err := hold(int(root.Fd()), "x.yaml", 0)
		if err != nil || !h.leased || !h.undisturbed() {
			t.Fatalf("held %+v, %v", h, err)
		}
		return h
	}
	sh := shell(t, dir)
	broken := func(h *held) {
		t.Helper()
		sh.start("echo new >x.yaml")
		until(t, "the lease is being broken", func() bool { return !h.undisturbed() })
		if data, err := h.content(); err != nil || !strings.Contains("old new\n", string(data)) {
			t.Errorf("while a writer waits: %q, %v", data, err)
		}
		h.release()
		sh.wait()
	}

	// As the process is: the runtime disregards SIGIO.
	broken(hold())

	// That there is a signal to disregard.
	sigio := make(chan os.Signal, 1)
	signal.Notify(sigio, unix.SIGIO)
	defer signal.Stop(sigio)
	broken(hold())
	select {
	case <-sigio:
	case <-time.After(30 * time.Second):
		t.Error("no SIGIO")
	}

	// With O_NONBLOCK the writer does not wait, it fails; the lease is being
	// broken nevertheless.
	h := hold()
	defer h.release()
	if _, err := os.OpenFile(filepath.Join(dir, "x.yaml"), os.O_WRONLY|unix.O_NONBLOCK, 0); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("non-blocking open: %v, want EAGAIN", err)
	}
	if h.undisturbed() {
		t.Error("undisturbed")
	}
}

// TestReadOthersFile: without CAP_LEASE there is no lease on the files of
// others, and the quiet period has to do. On one's own there is.
func TestReadOthersFile(t *testing.T) {
	dir, child := inChild(t, nil)
	if !child {
		return
	}
	write(t, dir, "theirs.yaml", "x")
	asNobody(t)
	write(t, dir, "mine.yaml", "x")
	if _, err := Read(dir, "theirs.yaml", time.Hour, 100); !errors.Is(err, ErrBusy) {
		t.Errorf("somebody else's young file: %v, want ErrBusy", err)
	}
	if f, err := Read(dir, "theirs.yaml", 0, 100); err != nil || f.Owner != "root" {
		t.Errorf("somebody else's quiet file: %+v, %v", f, err)
	}
	leasable(t, dir)
	if _, err := Read(dir, "mine.yaml", time.Hour, 100); err != nil {
		t.Errorf("one's own file: %v", err)
	}
	if err := os.Chmod(filepath.Join(dir, "mine.yaml"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, "mine.yaml", 0, 100); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("an unreadable file: %v, want fs.ErrPermission", err)
	}
}

// TestUndisturbedWithoutLease: the file itself has to tell.
func TestUndisturbedWithoutLease(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "x.yaml", "x")
	f, err := os.Open(filepath.Join(dir, "x.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h := &held{f: f}
	defer h.release()
	if err := unix.Fstat(int(f.Fd()), &h.st); err != nil {
		t.Fatal(err)
	}
	if !h.undisturbed() {
		t.Error("disturbed by nobody")
	}
	write(t, dir, "x.yaml", "longer")
	if h.undisturbed() {
		t.Error("undisturbed by a writer")
	}
	write(t, dir, "x.yaml", "")
	if _, err := h.content(); !errors.Is(err, ErrBusy) {
		t.Errorf("content of a file that shrank: %v, want ErrBusy", err)
	}
}

// TestClockSetBack: a file whose time is in the future is not waited for until
// that comes. The clock of a test in a bubble stands at the year 2000.
func TestClockSetBack(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "empty.yaml", "")
	write(t, dir, "full.yaml", "x")
	synctest.Test(t, func(t *testing.T) {
		const quiet = 500 * time.Millisecond
		for name, want := range map[string]time.Duration{"empty.yaml": quiet, "full.yaml": 0} {
			start := time.Now()
			if f, err := Read(dir, name, quiet, 10); err != nil || f.Size != int64(len(f.Data)) {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(start); took != want {
				t.Errorf("%s was looked at for %v, want %v", name, took, want)
			}
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// memDir returns a directory in memory where there is one: tests that open
// thousands of journals need not wait for a disk.
func memDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "journal-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func mustOpen(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func mustAppend(t testing.TB, j *Journal, recs ...Record) []Record {
	t.Helper()
	if err := j.Append(recs...); err != nil {
		t.Fatal(err)
	}
	return recs
}

func mustClose(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// mustRead returns all records; anything else that Read yields fails the test.
func mustRead(t testing.TB, dir string, from uint64) []Record {
	t.Helper()
	recs, damage := readAll(t, dir, from)
	for _, d := range damage {
		t.Errorf("damage: %v", &d)
	}
	return recs
}

func readAll(t testing.TB, dir string, from uint64) (recs []Record, damage []Damage) {
	t.Helper()
	for r, err := range Read(dir, from) {
		var d *Damage
		switch {
		case errors.As(err, &d):
			damage = append(damage, *d)
		case err != nil:
			t.Fatal(err)
		default:
			recs = append(recs, r)
		}
	}
	return recs, damage
}

// mustVerify fails the test unless the journal is whole.
func mustVerify(t testing.TB, dir string) Report {
	t.Helper()
	r, err := Verify(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range r.Damage {
		t.Errorf("damage: %v", &d)
	}
	if r.Tail != nil {
		t.Errorf("tail: %v", r.Tail)
	}
	return r
}

var day = time.Date(2026, 11, 23, 6, 34, 0, 123_000_000, time.UTC)

// note is a small record.
func note(i int) Record {
	return Record{Time: day, Step: StepReload, Note: fmt.Sprint("note ", i)}
}

func TestAppendRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "journal")
	j := mustOpen(t, dir)
	if seq, hash := j.Head(); seq != 0 || hash != zeroHash {
		t.Errorf("head of an empty journal: %d, %s", seq, hash)
	}
	var want []Record
	for _, batch := range life() {
		want = append(want, mustAppend(t, j, batch...)...)
	}
	if err := j.Append(); err != nil {
		t.Errorf("appending nothing: %v", err)
	}
	for i, r := range want {
		if r.Seq != uint64(i+1) {
			t.Errorf("record %d has number %d", i+1, r.Seq)
		}
	}
	if got := mustRead(t, dir, 0); !reflect.DeepEqual(got, want) {
		t.Errorf("read\n%v\nwant\n%v", got, want)
	}
	if got := mustRead(t, dir, 5); !reflect.DeepEqual(got, want[4:]) {
		t.Errorf("from 5: read\n%v\nwant\n%v", got, want[4:])
	}

	report := mustVerify(t, dir)
	seq, hash := j.Head()
	last := want[len(want)-1]
	if seq != last.Seq || hash != last.Hash || report.Last != seq || report.Head != hash ||
		report.First != 1 || report.Records != len(want) || report.Segments != 1 {
		t.Errorf("head %d %s, report %+v; the last record is %d %s", seq, hash, report, last.Seq, last.Hash)
	}
	if size := segmentSizes(t, dir); report.Bytes != size {
		t.Errorf("report says %d bytes, the segments have %d", report.Bytes, size)
	}

	mustClose(t, j)
	if err := j.Append(note(0)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("append to a closed journal: %v", err)
	}
	j = mustOpen(t, dir)
	if s, h := j.Head(); s != seq || h != hash {
		t.Errorf("head after reopening: %d %s, want %d %s", s, h, seq, hash)
	}
}

// newest returns the path of the newest segment.
func newest(t testing.TB, dir string) string {
	t.Helper()
	names, err := segments(dir)
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	return filepath.Join(dir, names[len(names)-1])
}

// told leaves the checkpoints out, which tell nothing new.
func told(recs []Record) []Record {
	return slices.DeleteFunc(recs, func(r Record) bool { return r.Checkpoint != nil })
}

func segmentSizes(t *testing.T, dir string) (sum int64) {
	names, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sum += fi.Size()
	}
	return sum
}

func TestAppendFills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		j := mustOpen(t, dir)
		recs := mustAppend(t, j,
			Record{Step: StepStart, Seq: 99, Prev: "x", Hash: "y", Part: 7},
			Record{Step: StepDrop, Time: day.Add(456 * time.Microsecond).In(time.FixedZone("", 3600)),
				File: &File{Path: "raw/\xff<&>\n.yaml"}})
		if want := time.Now().UTC().Truncate(time.Millisecond); !recs[0].Time.Equal(want) {
			t.Errorf("time %v, want %v", recs[0].Time, want)
		}
		if r := recs[1]; r.Time != day || r.File.Path != "raw/\uFFFD<&>\n.yaml" {
			t.Errorf("time %v, path %q", r.Time, r.File.Path)
		}
		if recs[0].Prev != zeroHash || recs[1].Prev != recs[0].Hash || recs[0].Part != 1 || recs[1].Of != 2 {
			t.Errorf("not filled in: %+v", recs)
		}
		if got := mustRead(t, dir, 0); !reflect.DeepEqual(got, recs) {
			t.Errorf("read\n%+v\nwant\n%+v", got, recs)
		}
	})
}

func TestAppendRefusesUnencodable(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	bad := note(2)
	bad.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) // RFC 3339 has four digits
	if err := j.Append(note(1), bad); err == nil {
		t.Error("no error")
	}
	if r := mustVerify(t, dir); r.Records != 0 || r.Bytes != 0 {
		t.Errorf("something was written: %+v", r)
	}
}

func TestReadNoJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	for _, err := range Read(dir, 0) {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Read: %v", err)
		}
	}
	if _, err := Verify(dir, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Verify: %v", err)
	}
	if _, err := ReadInventory(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadInventory: %v", err)
	}
}

func TestOpenLocked(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	if _, err := Open(dir); !errors.Is(err, errLocked) {
		t.Errorf("second Open: %v", err)
	}
	mustClose(t, j)
	mustOpen(t, dir)
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	j.segmentSize = 1000
	big := note(0)
	big.Note = strings.Repeat("x", 3000)
	for i := range 10 {
		mustAppend(t, j, note(i))
	}
	mustAppend(t, j, note(10), big, note(11)) // never split
	mustAppend(t, j, note(12))
	mustClose(t, j)

	names, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{segmentName(1), segmentName(5), segmentName(10), segmentName(13), segmentName(17)}
	if !slices.Equal(names, want) {
		t.Errorf("segments %q, want %q", names, want)
	}
	if r := mustVerify(t, dir); r.Segments != 5 || r.Records != 18 || r.Bytes != segmentSizes(t, dir) {
		t.Errorf("report %+v", r)
	}
	for from := range uint64(20) {
		if got := mustRead(t, dir, from); len(got) != 19-max(1, int(from)) {
			t.Errorf("from %d: %d records", from, len(got))
		}
	}
	for range Read(dir, 0) {
		break // must not go on
	}

	// An empty segment gets its checkpoint.
	if err := os.WriteFile(filepath.Join(dir, segmentName(19)), nil, 0o640); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, dir)
	mustAppend(t, j, note(13))
	if r := mustVerify(t, dir); r.Segments != 6 || r.Last != 20 {
		t.Errorf("report %+v", r)
	}
}

// TestVerifyScript has the journal checked by a program that shares nothing
// with this one but the documentation of the format.
func TestVerifyScript(t *testing.T) {
	script, err := filepath.Abs("testdata/verify.sh")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("sha256sum"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	j := mustOpen(t, dir)
	j.segmentSize = 2000
	for _, batch := range life() {
		mustAppend(t, j, batch...)
	}
	out, err := exec.Command("sh", script, dir).CombinedOutput()
	if _, head := j.Head(); err != nil || string(out) != head+"\n" {
		t.Errorf("%v: %swant %s", err, out, head)
	}

	if _, err := j.Expire(Retention{MaxSize: 1}); err != nil {
		t.Fatal(err)
	}
	out, err = exec.Command("sh", script, dir).CombinedOutput()
	if _, head := j.Head(); err != nil || string(out) != head+"\n" {
		t.Errorf("with old segments removed: %v: %swant %s", err, out, head)
	}

	path := newest(t, dir)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte(`"site-a"`), []byte(`"site-b"`), 1)
	if err := os.WriteFile(path, data, 0o640); err != nil {
		t.Fatal(err)
	}
	if out, err = exec.Command("sh", script, dir).CombinedOutput(); err == nil || !strings.Contains(string(out), "does not match its hash") {
		t.Errorf("a changed journal: %v: %s", err, out)
	}
}

// TestReadWhileAppending reads the journal over and over while it grows and
// rotates: each read sees an unbroken beginning of it.
func TestReadWhileAppending(t *testing.T) {
	const appends, each = 300, 3
	dir := memDir(t)
	j := mustOpen(t, dir)
	j.segmentSize = 4 << 10
	done := make(chan error, 1)
	go func() {
		for i := range appends {
			// The inventory and the head are read at the same time, too.
			if err := j.Append(step(StepPull, fmt.Sprint(i)), note(i), note(i)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	defer func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for seen := 0; seen < appends*each; {
		recs := mustRead(t, dir, 0)
		if t.Failed() {
			return
		}
		for i, r := range recs {
			if r.Seq != uint64(i+1) {
				t.Fatalf("record %d has number %d", i+1, r.Seq)
			}
		}
		if seq, _ := j.Head(); seq < uint64(len(recs)) {
			// Read may be ahead by a checkpoint and the append that is being synced.
			if uint64(len(recs))-seq > 2+each {
				t.Fatalf("head %d, but %d records", seq, len(recs))
			}
		}
		recs = told(recs)
		if n, err := strconv.Atoi(cmp.Or(j.Inventory().Recorded("site-a"), "0")); err != nil || n+1 < seen/each {
			t.Fatalf("inventory at append %d, %v; %d records", n, err, seen)
		}
		if len(recs) < seen || len(recs)%each != 0 {
			t.Fatalf("%d records after %d", len(recs), seen)
		}
		seen = len(recs)
	}
}

func TestFollow(t *testing.T) {
	dir := memDir(t)
	synctest.Test(t, func(t *testing.T) {
		j := mustOpen(t, dir)
		j.segmentSize = 1000
		mustAppend(t, j, note(1))
		mustAppend(t, j, note(2))

		var got []uint64
		ctx := t.Context()
		go func() {
			for r, err := range Follow(ctx, dir, 2) {
				if err != nil {
					t.Error(err)
				}
				if r.Checkpoint == nil {
					got = append(got, r.Seq)
				}
			}
		}()
		expect := func(want ...uint64) {
			t.Helper()
			time.Sleep(pollInterval)
			synctest.Wait()
			if !slices.Equal(got, want) {
				t.Errorf("followed %d, want %d", got, want)
			}
		}
		expect(2)
		mustAppend(t, j, note(3))
		expect(2, 3)
		want := []uint64{2, 3}
		for i := range 20 { // over several segments
			recs := mustAppend(t, j, note(i), note(i))
			want = append(want, recs[0].Seq, recs[1].Seq)
			if i%5 == 0 {
				expect(want...)
			}
		}
		expect(want...)

		// What is half written is not there yet.
		f, err := os.OpenFile(newest(t, dir), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r := note(99)
		r.Seq, r.Prev = j.at.seq+1, j.at.hash
		line, err := appendLine(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range [][]byte{line[:40], line[40 : len(line)-1]} {
			if _, err := f.Write(part); err != nil {
				t.Fatal(err)
			}
			expect(want...)
		}
		if _, err := f.Write(line[len(line)-1:]); err != nil {
			t.Fatal(err)
		}
		expect(append(want, r.Seq)...)
		// The bubble's end requires that the follower ends with its context.
	})
}

func TestFollowStops(t *testing.T) {
	dir := memDir(t)
	j := mustOpen(t, dir)
	mustAppend(t, j, note(1))
	n := 0
	for r, err := range Follow(t.Context(), dir, 0) {
		if err != nil || r.Seq != 1 {
			t.Errorf("%v, %v", r, err)
		}
		n++
		break
	}
	for _, err := range Follow(t.Context(), filepath.Join(dir, "none"), 0) {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
		n++
	}
	if n != 2 {
		t.Errorf("yielded %d times", n)
	}
}

// TestDiskFull fills a small file system with the journal and other things.
func TestDiskFull(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 128<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	jdir := filepath.Join(dir, "journal")
	j := mustOpen(t, jdir)
	batch := func() []Record {
		big := note(1)
		big.Note = strings.Repeat("x", 9000)
		return []Record{big, note(2)}
	}
	var err error
	n := 0
	for err == nil {
		if err = j.Append(batch()...); err == nil {
			n += 2
		}
	}
	if !errors.Is(err, syscall.ENOSPC) || n == 0 {
		t.Fatalf("after %d records: %v", n, err)
	}
	for range 3 {
		if err := j.Append(batch()...); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("again: %v", err)
		}
		if r := mustVerify(t, jdir); r.Records != n {
			t.Errorf("%d records, want %d", r.Records, n)
		}
	}
	if seq, _ := j.Head(); seq != uint64(n) {
		t.Errorf("head %d, want %d", seq, n)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, j, batch()...)
	mustClose(t, j)
	j = mustOpen(t, jdir)
	mustAppend(t, j, note(3))
	if r := mustVerify(t, jdir); r.Records != n+3 {
		t.Errorf("%d records, want %d", r.Records, n+3)
	}
}

// TestCannotRollBack: while the remains of a failed write cannot be cut off,
// nothing is appended behind them.
func TestCannotRollBack(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	mustAppend(t, j, note(1))
	good := j.f
	readOnly, err := os.Open(good.Name())
	if err != nil {
		t.Fatal(err)
	}
	j.f = readOnly // neither write nor truncate work
	for range 2 {
		if err := j.Append(note(2)); err == nil {
			t.Error("append through a read-only file")
		}
	}
	if _, err := good.WriteString(`{"seq":2,"ti`); err != nil {
		t.Fatal(err)
	}
	j.f = good
	readOnly.Close()
	mustAppend(t, j, note(2))
	if r := mustVerify(t, dir); r.Records != 2 {
		t.Errorf("report %+v", r)
	}
}

// inNamespace reports whether the test runs in a mount namespace of its own.
// Where it does not, inNamespace runs it once more as a process that does, and
// passes that one's verdict on. Without root that takes a user namespace; where
// the kernel gives none, the test is skipped.
func inNamespace(t *testing.T) bool {
	const env = "JOURNAL_TEST_NAMESPACE"
	if os.Getenv(env) == t.Name() {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v=" + fmt.Sprint(testing.Verbose())}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), env+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("no mount namespace: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	return false
}

// TestSize: it is that of the segments, and of nothing else that lies there.
func TestSize(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j := mustOpen(t, dir)
	j.segmentSize = 1
	for i := range 3 {
		mustAppend(t, j, note(i))
	}
	if err := os.WriteFile(filepath.Join(dir, segmentName(1)+".torn-1"), []byte("torn"), 0o640); err != nil {
		t.Fatal(err)
	}
	names, err := segments(dir)
	if err != nil || len(names) != 3 {
		t.Fatal(names, err)
	}
	var want int64
	for _, name := range names {
		want += int64(len(files(t, dir)[name]))
	}
	if n, bytes, err := j.Size(); n != 3 || bytes != want || err != nil {
		t.Errorf("%d segments, %d bytes, %v; want 3, %d", n, bytes, err, want)
	}
	mustClose(t, j)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, _, err := j.Size(); err == nil {
		t.Error("no error where there is no journal")
	}
}

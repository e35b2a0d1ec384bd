// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden file")

func TestLoads(t *testing.T) {
	const files = 50
	for _, test := range []struct {
		load    *load
		objects int
		again   bool // each file has the objects of the one before
	}{
		{oneObject(files), 1, false},
		{manyObjects(), 46, true},
	} {
		seen := map[object]bool{}
		for n := 1; n <= 3; n++ {
			f, err := test.load.next()
			if err != nil {
				t.Fatal(err)
			}
			if len(f.objects) != test.objects {
				t.Fatalf("%s: file %d has %d objects, want %d", test.load.title, n, len(f.objects), test.objects)
			}
			if got := strings.Count(string(f.text), runAnnotation+`: "`+f.run+`"`); got != test.objects {
				t.Errorf("%s: file %d has %d annotations of its own", test.load.title, n, got)
			}
			if strings.Contains(string(f.text), "namespace: default") {
				t.Errorf("%s: file %d names the namespace", test.load.title, n)
			}
			for _, o := range f.objects {
				if seen[o] != (test.again && n > 1) {
					t.Errorf("%s: file %d: %v was dropped before: %v", test.load.title, n, o, seen[o])
				}
				seen[o] = true
			}
		}
	}
}

// TestImportStream has git read it.
func TestImportStream(t *testing.T) {
	const n = 50
	dir := t.TempDir()
	git := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...)
		if args[0] == "fast-import" {
			cmd.Stdin = bytes.NewReader(importStream(tenants(n)))
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	git("init", "--quiet", "--bare")
	git("fast-import", "--quiet")
	files := strings.Fields(git("ls-tree", "-r", "--name-only", "main"))
	if len(files) != n {
		t.Errorf("the branch has %d files, want %d", len(files), n)
	}
	const vpc = "gitops/hedgehog/fabric-1/managed/vpcs/vpc-00002.yaml"
	if got := git("show", "main:"+vpc); !strings.HasPrefix(got, "# Tenant 2\n") || !strings.HasSuffix(got, "\n") {
		t.Errorf("%s is\n%s", vpc, got)
	}
}

func TestTenants(t *testing.T) {
	for _, n := range []int{8, 9, 10, 11, 50, 10_000, 20_000} {
		if got := len(tenants(n)); got != n {
			t.Errorf("%d tenants are %d", n, got)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		in   series
		want time.Duration
	}{
		{series{7}, 7},
		{series{9, 1}, 5},
		{series{9, 1, 2}, 2},
		{series{9, 1, 2, 4}, 3},
	} {
		before := append(series(nil), test.in...)
		if got := test.in.median(); got != test.want {
			t.Errorf("the median of %v is %v, want %v", before, int64(got), int64(test.want))
		}
		if string(mustJSON(t, before)) != string(mustJSON(t, test.in)) {
			t.Errorf("%v was sorted in place", before)
		}
	}
}

func mustJSON(t *testing.T, s series) []byte {
	t.Helper()
	b, err := s.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestProc(t *testing.T) {
	m, err := residentMemory(os.Getpid())
	if err != nil || m.RSS < 1<<20 || m.Anon <= 0 || m.Anon > m.RSS {
		t.Errorf("memory: %+v, %v", m, err)
	}
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	after := before
	for deadline := time.Now().Add(time.Minute); after == before && time.Now().Before(deadline); {
		if after, err = cpuTime(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if after <= before {
		t.Errorf("a busy process took no time: %v, then %v", before, after)
	}
	if got := fileSystem("/proc/self"); got != "proc" {
		t.Errorf("the file system of /proc/self is %q", got)
	}
	if text := machine(); !strings.Contains(text, " cores") || !strings.Contains(text, "Linux ") {
		t.Errorf("machine: %s", text)
	}
}

func TestPrint(t *testing.T) {
	r := &result{
		Machine:  "2 cores, Linux 6.1",
		Software: "hhwatchd v1",
		Settings: settings{Runs: 3, Idle: 2 * time.Minute},
	}
	for i, files := range []int{50, 10000} {
		s := siteResult{Files: files, IdleCPU: time.Duration(i+1) * 100 * time.Millisecond, IdlePercent: float64(i+1) / 12}
		for j, title := range []string{"one new object", "one file of 46 objects, all of them changed"} {
			l := loadResult{Title: title}
			for n := range 3 {
				at := func(base int) time.Duration {
					return time.Duration((j+1)*(base+10*n+i)) * time.Millisecond
				}
				l.add(times{arrival{500*time.Millisecond + at(20), 500*time.Millisecond + at(109-10*n), 500*time.Millisecond + at(300-n)}, at(200), at(400), at(350)})
			}
			s.Loads = append(s.Loads, l)
		}
		s.Memory.Start = memory{30 << 20, 10 << 20}
		s.Memory.Loaded = memory{38<<20 + 1<<19, 18 << 20}
		s.Memory.Idle = memory{int64(32+10*i) << 20, 12 << 20}
		r.Sites = append(r.Sites, s)
	}
	var got bytes.Buffer
	r.print(&got)
	golden := filepath.Join("testdata", "table.txt")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("with -update the golden file becomes\n%s", &got)
	}
}

func TestPrintBadDay(t *testing.T) {
	ms := func(n ...time.Duration) (s series) {
		for _, d := range n {
			s = append(s, d*time.Millisecond)
		}
		return s
	}
	r := badDayResult{Files: 100, Outage: 30 * time.Second, Up: ms(500, 400, 600),
		Git: recovery{ms(9000, 1000, 30_000), ms(8500, 0, 29_300)}, API: recovery{ms(2000, 2500, 2400), ms(1250, 1000, 1000)}}
	var b bytes.Buffer
	r.print(&b)
	const want = `
a bad day: 100 files with a new object each, dropped while a server is away for 30s;
until the remote and the API server have all of them
  with both servers there            500 ms  400–600
  the git server away, once back    9000 ms  1000–30000
    until it is asked again         8500 ms  0–29300
    from then on                     700 ms  500–1000  1.4×
  the API server away, once back    2400 ms  2000–2500
    until it is asked again         1000 ms  1000–1250
    from then on                    1400 ms  750–1500  2.8×
`
	if b.String() != want {
		t.Errorf("it is\n%s", &b)
	}
}

func TestSizes(t *testing.T) {
	var s sizes
	if err := s.Set("50,10000"); err != nil || s.String() != "50,10000" {
		t.Errorf("50,10000 is %v, %v", s.String(), err)
	}
	for _, bad := range []string{"", "50,", "0", "7", "x", "-1"} {
		if err := s.Set(bad); err == nil {
			t.Errorf("%q is %v", bad, s)
		}
	}
}

// TestJournalBench measures a small journal: each figure is there.
func TestJournalBench(t *testing.T) {
	r, err := measureJournal(t.Context(), "", 1200, 2)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]series{"read": r.Read, "verified": r.Verified, "opened": r.Opened, "empty": r.EmptyOpen} {
		if len(s) != 2 {
			t.Errorf("%s: measured %d times", name, len(s))
		}
	}
	if len(r.Appended) != journalAppends || len(r.Bare) != journalAppends || r.Records != 1200 || r.Bytes == 0 {
		t.Errorf("%d appends, %d bare ones, %d records in %d bytes", len(r.Appended), len(r.Bare), r.Records, r.Bytes)
	}
	var b bytes.Buffer
	r.print(&b)
	if n := strings.Count(b.String(), "\n"); n != 8 {
		t.Errorf("%d lines:\n%s", n, &b)
	}
}

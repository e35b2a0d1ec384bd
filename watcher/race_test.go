// SPDX-License-Identifier: Apache-2.0

package watcher

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var raceWrites = flag.Int("race.writes", 150, "how many lines each process of TestRace writes")

// TestMain lets the test binary be a writer: see startWriter.
func TestMain(m *testing.M) {
	flag.Parse()
	if kind := os.Getenv("WATCHER_TEST_WRITER"); kind != "" {
		if err := beWriter(kind, flag.Arg(0), flag.Arg(1), *raceWrites); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// beWriter writes numbered lines to dir/x.yaml.
func beWriter(kind, dir, id string, lines int) error {
	name := filepath.Join(dir, "x.yaml")
	for i := range lines {
		line := fmt.Appendf(nil, "%s %d\n", id, i)
		var err error
		switch kind {
		case "append", "truncate":
			mode := os.O_WRONLY | os.O_CREATE | os.O_APPEND
			if kind == "truncate" {
				mode = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
			}
			var f *os.File
			if f, err = os.OpenFile(name, mode, 0o666); err == nil {
				if rand.IntN(4) == 0 { // linger
					time.Sleep(rand.N(100 * time.Microsecond))
				}
				_, err = f.Write(line)
				f.Close()
			}
		case "place", "replace":
			tmp := filepath.Join(dir, "."+id+".tmp")
			if err = os.WriteFile(tmp, line, 0o666); err == nil && kind == "replace" {
				err = os.Rename(tmp, name)
			} else if err == nil {
				// Not over a file that nobody has read yet: that would lose
				// it with nobody else's help.
				err = unix.EEXIST
				for err == unix.EEXIST {
					err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, name, unix.RENAME_NOREPLACE)
				}
			}
		}
		if err != nil {
			return err
		}
		time.Sleep(rand.N(200 * time.Microsecond))
	}
	return nil
}

func startWriter(t *testing.T, kind, dir, id string) (done <-chan error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], fmt.Sprintf("-race.writes=%d", *raceWrites), dir, id)
	cmd.Env = append(os.Environ(), "WATCHER_TEST_WRITER="+kind)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := make(chan error, 1)
	go func() { c <- cmd.Wait() }()
	return c
}

// A ledger is where the lines end up that were read.
type ledger struct {
	seen  []bool // by line number
	order bool   // lines must come in order
	last  int
}

// TestRace empties a directory as fast as it can while processes write to one
// name in it, and sees that every line that was written has been read, whole.
// Of a process that overwrites its own lines, they have to come in order, and
// the last one must be among them.
func TestRace(t *testing.T) {
	for _, kinds := range [][]string{
		{"append", "append", "append"},
		{"place", "place"},
		{"append", "place", "append"},
		{"truncate"},
		{"replace"},
	} {
		t.Run(strings.Join(kinds, " "), func(t *testing.T) {
			dir := t.TempDir()
			leasable(t, dir)
			ledgers := map[string]*ledger{}
			var running []<-chan error
			for i, kind := range kinds {
				id := strconv.Itoa(i)
				ledgers[id] = &ledger{seen: make([]bool, *raceWrites), order: kind == "truncate" || kind == "replace"}
				running = append(running, startWriter(t, kind, dir, id))
			}
			var counts struct{ read, busy, changed, restored int }
			for {
				// The last look begins after the last writer is done.
				last := true
				for i, done := range running {
					select {
					case err := <-done:
						if err != nil {
							t.Fatal(err)
						}
						running[i] = nil
					default:
						last = last && done == nil
					}
				}
				found, _, err := List(dir, anyInput)
				if err != nil {
					t.Fatal(err)
				}
				if last && len(found) == 0 {
					break
				}
				var files []*File
				for _, e := range found {
					// The quiet period is for files that were created and
					// not opened yet: open(2) does that in two steps.
					f, err := Read(dir, e.Path, 10*time.Millisecond, 1<<20)
					switch {
					case err == nil:
						counts.read++
						files = append(files, f)
						enter(t, ledgers, string(f.Data))
					case errors.Is(err, ErrBusy):
						counts.busy++
					case !errors.Is(err, ErrGone):
						t.Fatal(err)
					}
				}
				spent, changed, err := Retire(files)
				if err != nil {
					t.Fatal(err)
				}
				restored, err := Bury(spent)
				if err != nil {
					t.Fatal(err)
				}
				counts.changed += len(changed)
				counts.restored += len(restored)
			}
			for id, l := range ledgers {
				for n, ok := range l.seen {
					if !ok && (!l.order || n == *raceWrites-1) {
						t.Errorf("writer %s: line %d was lost", id, n)
					}
				}
			}
			wantTree(t, dir)
			t.Logf("%+v", counts)
		})
	}
}

func enter(t *testing.T, ledgers map[string]*ledger, data string) {
	for line := range strings.Lines(data) {
		var id string
		var n int
		if _, err := fmt.Sscanf(line, "%s %d\n", &id, &n); err != nil || ledgers[id] == nil || !strings.HasSuffix(line, "\n") {
			t.Errorf("half a line: %q", line)
			continue
		}
		l := ledgers[id]
		if l.order && n < l.last {
			t.Errorf("writer %s: line %d came after line %d", id, n, l.last)
		}
		l.seen[n], l.last = true, n
	}
}

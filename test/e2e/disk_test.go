// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mount mounts a file system of the given type, for the length of the test.
func mount(t *testing.T, fstype, dir, opts string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("hhwatchd-test", dir, fstype, 0, opts); err != nil {
		t.Skipf("mounting a %s: %v", fstype, err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

// look is the status of the one repository, whether all is well or not.
func (w *world) look() (repositoryStatus, error) {
	w.t.Helper()
	var st struct{ Repositories []repositoryStatus }
	out, _ := w.hh("status", "-o", "json")
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return repositoryStatus{}, fmt.Errorf("status: %v: %s", err, out)
	}
	return st.Repositories[0], nil
}

// repositoryStatus is the part of a status that tests of faults look at.
type repositoryStatus struct {
	Down, Error string
	Cycles      int
	Fabrics     []struct {
		Name, Error      string
		Skipped, Waiting []string
	}
}

// stopsWith waits until status says that cycles are stopped, in these words.
func (w *world) stopsWith(words string) {
	w.t.Helper()
	w.eventually("status to say "+words, func() error {
		out, code := w.hh("status")
		if code != 1 || !strings.Contains(out, words) {
			return fmt.Errorf("exit code %d:\n%s", code, out)
		}
		return nil
	})
}

// well waits until status has no complaint.
func (w *world) well() {
	w.t.Helper()
	w.eventually("all to be well", func() error {
		if out, code := w.hh("status"); code != 0 {
			return fmt.Errorf("exit code %d:\n%s", code, out)
		}
		return nil
	})
}

// A shortage takes something away from the daemon until only keep of it are
// left. What it returns gives it back.
type shortage func(t *testing.T, w *world, keep int) (over func())

// noSpace leaves keep pages of 4 KiB on the state directory's file system.
func noSpace(t *testing.T, w *world, keep int) (over func()) {
	name := filepath.Join(w.state, "ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, pages := make([]byte, 4096), 0
	for ; err == nil; pages++ {
		_, err = f.Write(page)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Truncate(int64(max(0, pages-1-keep)) * 4096); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// noInodes leaves keep inodes on the state directory's file system.
func noInodes(t *testing.T, w *world, keep int) (over func()) {
	dir := filepath.Join(w.state, "ballast")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	n := 0
	for ; err == nil; n++ {
		err = os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), nil, 0o644)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	for i := range keep {
		if err := os.Remove(filepath.Join(dir, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// noDescriptors lets the daemon open keep more files than it has open, some of
// which it may be about to close.
func noDescriptors(t *testing.T, w *world, keep int) (over func()) {
	pid := w.daemon.cmd.Process.Pid
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	low := unix.Rlimit{Cur: uint64(max(4, len(open)-4+keep)), Max: old.Max}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &low, nil); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// vpcsIn is a file with n VPCs, and what managed/ holds for it.
func vpcsIn(first, n int) (text string, managed map[string]string) {
	managed = map[string]string{}
	var docs []string
	for i := range n {
		name := fmt.Sprintf("vpc-%d", first+i)
		docs = append(docs, vpc(name, first+i))
		managed["vpcs/"+name+".yaml"] = docs[i]
	}
	return strings.Join(docs, "---\n"), managed
}

// Something runs short, and each time at another step: first nothing of it is
// left, then a little more, up to enough. A file that was dropped, and one
// that is to be rejected, wait, and then go through, by themselves and once.
func TestShortages(t *testing.T) {
	for _, tt := range []struct {
		name   string
		opts   string // of the tmpfs below the state directory
		short  shortage
		says   string
		step   int
		rounds int
		worlds int // share the rounds
	}{
		{"space", "size=8m,mode=755", noSpace, "is full: free some space there", 3, 12, 2},
		{"inodes", "size=64m,nr_inodes=1k,mode=755", noInodes, "is out of inodes: remove files there", 3, 7, 1},
		{"descriptors", "", noDescriptors, "hhwatchd has too many files open", 1, 9, 1},
	} {
		for n := range tt.worlds {
			t.Run(fmt.Sprintf("%s %d", tt.name, n), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, options{})
				if tt.opts != "" {
					mount(t, "tmpfs", w.state, tt.opts)
				}
				w.push("README.md", "fabrics\n")
				w.start()
				want := map[string]string{}
				var raw []string
				hit := 0
				for round := n; round < tt.rounds; round += tt.worlds {
					text, managed := vpcsIn(1000+10*round, 4)
					good, bad := filepath.Join(w.state, "good"), filepath.Join(w.state, "bad")
					write(t, good, text)
					write(t, bad, fmt.Sprintf("kind: [%d\n", round))
					for p, text := range managed {
						want[p] = text
					}
					raw = append(raw, text)
					before := strings.Count(w.daemon.output(), "fault: ")
					over := tt.short(t, w, round*tt.step)
					for from, to := range map[string]string{good: fmt.Sprintf("good-%d.yaml", round), bad: fmt.Sprintf("bad-%d.yaml", round)} {
						if err := os.Rename(from, filepath.Join(w.raw("fabric-1"), to)); err != nil {
							t.Fatal(err)
						}
					}
					w.eventually("the drop to go through, or to be held up", func() error {
						if strings.Count(w.daemon.output(), "fault: ") > before {
							hit++
							return nil
						}
						if !maps.Equal(w.managed("fabric-1"), want) {
							return errors.New("neither")
						}
						return nil
					})
					over()
					w.wantManaged("fabric-1", want)
					w.well()
					w.eventually("raw/ to be empty", func() error {
						if left := rawFiles(t, w, "fabric-1"); len(left) > 0 {
							return fmt.Errorf("it holds %v", left)
						}
						return nil
					})
					for _, name := range []string{"", ".reason"} {
						if _, err := os.Stat(filepath.Join(w.clone(), fmt.Sprintf("gitops/hedgehog/fabric-1/unmanaged/bad-%d.yaml%s", round, name))); err != nil {
							t.Errorf("with %d left: %v", round*tt.step, err)
						}
					}
				}
				if hit == 0 {
					t.Error("nothing was ever held up")
				}
				w.wantLinear(raw...)
				w.clean()
				h := w.history()
				for round := n; round < tt.rounds; round += tt.worlds {
					for _, words := range []string{fmt.Sprintf("ingested raw/good-%d.yaml", round), fmt.Sprintf("rejected raw/bad-%d.yaml", round)} {
						if got := strings.Count(h, words); got != 1 {
							t.Errorf("the history says %q %d times:\n%s", words, got, h)
						}
					}
				}
				faults, over := strings.Count(h, "fault: "), strings.Count(h, "fault is over after")
				if faults < over || over < hit || strings.Count(h, tt.says) != faults {
					t.Errorf("%d drops were held up; the history tells of %d faults, and %d times that one is over:\n%s", hit, faults, over, h)
				}
				if said := strings.Count(w.daemon.output(), tt.says); said > 2*faults {
					t.Errorf("the log says it %d times:\n%s", said, w.daemon.output())
				}
				w.restarts()
			})
		}
	}
}

// restarts starts the daemon again: it finds nothing to do.
func (w *world) restarts() {
	w.t.Helper()
	n, h := w.commits(), w.history()
	w.stop()
	w.start()
	if now := w.commits(); now != n {
		w.t.Errorf("after a restart there are %s commits instead of %s", now, n)
	}
	if now := w.history(); now != h {
		w.t.Errorf("a restart is told as\n%s", strings.TrimPrefix(now, h))
	}
}

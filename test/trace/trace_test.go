// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets this program be the one that is traced.
func TestMain(m *testing.M) {
	if do, ok := helpers[os.Args[0]]; ok {
		if err := do(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helpers are what the traced program can do, by its name; the argument is a
// directory, or an address.
var helpers = map[string]func(string) error{
	"files":   files,
	"steps":   steps,
	"threads": threads,
	"child":   child,
	"send":    send,
	"wait":    wait,
}

// files makes one call of each kind.
func files(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	fd, err := unix.Open("a", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	d, err := unix.Open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0) // changes nothing
	if err != nil {
		return err
	}
	appending, err := unix.Open("a", unix.O_WRONLY|unix.O_APPEND, 0) // neither
	if err != nil {
		return err
	}
	two := func(s string) error {
		_, err := unix.Writev(fd, [][]byte{[]byte(s[:2]), []byte(s[2:])})
		return err
	}
	write := func(fd int, s string) error { _, err := unix.Write(fd, []byte(s)); return err }
	pwrite := func(s string, at int64) error { _, err := unix.Pwrite(fd, []byte(s), at); return err }
	errs := []error{
		write(fd, "hello"), two("world"), pwrite("J", 0), write(appending, "!"),
		unix.Ftruncate(fd, 8), unix.Fsync(fd), unix.Fchmod(fd, 0o600),
		unix.Mkdirat(d, "sub", 0o755), unix.Renameat(d, "a", d, "sub/b"), unix.Linkat(d, "sub/b", d, "c", 0),
		unix.Symlinkat("c", d, "l"), unix.Unlinkat(d, "l", 0), unix.Unlinkat(d, "c", 0), write(fd, "."), unix.Syncfs(d),
	}
	if err := unix.Unlinkat(d, "c", 0); err != unix.ENOENT {
		errs = append(errs, fmt.Errorf("unlinking twice: %v", err))
	}
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return fmt.Errorf("%d: %w", i, errs[i])
	}
	return nil
}

const stepCount = 10

func steps(dir string) error {
	for i := range stepCount {
		if err := unix.Mkdirat(unix.AT_FDCWD, fmt.Sprintf("%s/%02d", dir, i), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func threads(dir string) error {
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for i := range cap(errs) {
		wg.Go(func() {
			for j := range 50 {
				if err := os.WriteFile(fmt.Sprintf("%s/%d", dir, i), bytes.Repeat([]byte{'x'}, j), 0o644); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

func child(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Args = []string{"steps", dir}
	return cmd.Run()
}

func send(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	if _, err := c.Write([]byte("over the wire")); err != nil {
		return err
	}
	return c.Close()
}

func wait(dir string) error {
	if err := os.Mkdir(dir+"/ready", 0o755); err != nil {
		return err
	}
	select {}
}

// below keeps the calls that have to do with dir, with it cut off.
func below(dir string, calls []string) []string {
	var out []string
	for _, c := range calls {
		if strings.Contains(c, dir) {
			out = append(out, strings.ReplaceAll(c, dir+"/", ""))
		}
	}
	return out
}

// run traces a helper until it has ended.
func run(t *testing.T, name, arg string, enter, exit func(*Call) Verdict) unix.WaitStatus {
	t.Helper()
	p := start(t, name, arg, enter, exit)
	ws, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return ws
}

func start(t *testing.T, name, arg string, enter, exit func(*Call) Verdict) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(Command{Path: self, Args: []string{name, arg}, Env: os.Environ(), Output: os.Stderr, Enter: enter, Exit: exit})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCallsAreDecoded(t *testing.T) {
	dir := t.TempDir()
	var entered, left []string
	var inode uint64
	ws := run(t, "files", dir, func(c *Call) Verdict {
		entered = append(entered, c.String())
		return Continue
	}, func(c *Call) Verdict {
		s := c.String()
		data, err := c.Data()
		if err != nil {
			t.Errorf("data of %v: %v", c, err)
		}
		if data != nil {
			s += fmt.Sprintf(" %q@%d", data, c.Offset)
		}
		if strings.Contains(c.Path, dir) && c.FD >= 0 && c.Regular {
			if inode == 0 {
				inode = c.Inode
			} else if c.Inode != inode {
				t.Errorf("%v: inode %d, want %d", c, c.Inode, inode)
			}
			if c.Name == "openat" {
				s = strings.Replace(s, fmt.Sprintf("= %d", c.FD), "= FD", 1)
			}
		}
		left = append(left, s)
		return Continue
	})
	if !ws.Exited() || ws.ExitStatus() != 0 {
		t.Fatalf("it ended with %v", ws)
	}
	want := []string{
		`openat(a) = FD`,
		`write(a) = 5 "hello"@0`,
		`writev(a) = 5 "world"@5`,
		`pwrite64(a) = 1 "J"@0`,
		`write(a) = 1 "!"@10`,
		`ftruncate(a) = 0`,
		`fsync(a) = 0`,
		`fchmod(a) = 0`,
		`mkdirat(sub) = 0`,
		`renameat(a, sub/b) = 0`,
		`linkat(sub/b, c) = 0`,
		`symlinkat(l, c) = 0`,
		`unlinkat(l) = 0`,
		`unlinkat(c) = 0`,
		`write(sub/b) = 1 "."@10`,
		`unlinkat(c): no such file or directory`,
	}
	// syncfs is on the directory itself, whose name ends there.
	got := below(dir, left)
	i := slices.Index(got, "syncfs("+dir+") = 0")
	if i < 0 || i != len(got)-2 {
		t.Fatalf("no syncfs where it belongs in %q", got)
	}
	if got = slices.Delete(got, i, i+1); !slices.Equal(got, want) {
		t.Errorf("traced\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(entered) != len(left) {
		t.Errorf("%d calls entered, %d left", len(entered), len(left))
	}
	if data, err := os.ReadFile(filepath.Join(dir, "sub/b")); err != nil || string(data) != "Jellowor\x00\x00." {
		t.Errorf("the file has %q, %v", data, err)
	}
}

// TestKillAtEachStep wants a kill at the k-th call's entry to leave just the
// calls before it done, and one at its exit that call too.
func TestKillAtEachStep(t *testing.T) {
	for _, atExit := range []bool{false, true} {
		for k := 1; k <= stepCount+1; k++ {
			dir, n := t.TempDir(), 0
			at := func(c *Call) Verdict {
				if strings.HasPrefix(c.Path, dir) {
					if n++; n == k {
						return Kill
					}
				}
				return Continue
			}
			enter, exit, want := at, (func(*Call) Verdict)(nil), k-1
			if atExit {
				enter, exit, want = nil, at, min(k, stepCount)
			}
			ws := run(t, "steps", dir, enter, exit)
			if killed := ws.Signaled() && ws.Signal() == syscall.SIGKILL; killed != (k <= stepCount) {
				t.Fatalf("step %d of %d, at exit %v: it ended with %v", k, stepCount, atExit, ws)
			}
			if found, err := os.ReadDir(dir); err != nil || len(found) != want {
				t.Errorf("killed at step %d, at exit %v: %d directories, %v, want %d", k, atExit, len(found), err, want)
			}
		}
	}
}

func TestThreadsAreFollowed(t *testing.T) {
	dir := t.TempDir()
	count := map[string]int{}
	tids := map[int]bool{}
	ws := run(t, "threads", dir, nil, func(c *Call) Verdict {
		if strings.HasPrefix(c.Path, dir) {
			count[c.Name]++
			tids[c.TID] = true
		}
		return Continue
	})
	if !ws.Exited() || ws.ExitStatus() != 0 {
		t.Fatalf("it ended with %v", ws)
	}
	// The first of each file's fifty writes is empty, and Go makes it all the same.
	if count["openat"] != 400 || count["write"] != 400 || len(tids) < 2 {
		t.Errorf("traced %v on %d threads, want 400 openat and 400 write on several", count, len(tids))
	}
}

func TestChildrenAreFollowed(t *testing.T) {
	dir := t.TempDir()
	n, pid := 0, 0
	p := start(t, "child", dir, func(c *Call) Verdict {
		if strings.HasPrefix(c.Path, dir) {
			n, pid = n+1, c.PID
		}
		return Continue
	}, nil)
	ws, err := p.Wait()
	if err != nil || !ws.Exited() || ws.ExitStatus() != 0 || n != stepCount || pid == p.PID {
		t.Errorf("traced %d calls of process %d, whose parent is %d, which ended with %v, %v", n, pid, p.PID, ws, err)
	}
}

// TestOtherChildrenAreLeftAlone starts other programs beside, on threads of
// which one or the other will trace later, and waits for them.
func TestOtherChildrenAreLeftAlone(t *testing.T) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				if err := exec.Command("true").Run(); err != nil {
					t.Errorf("running true: %v", err)
				}
			}
		})
		wg.Go(func() {
			for range 10 {
				p, err := Start(Command{Path: "/bin/true", Args: []string{"true"}, Env: os.Environ()})
				if err != nil {
					t.Error(err)
					return
				}
				if ws, err := p.Wait(); err != nil || !ws.Exited() || ws.ExitStatus() != 0 {
					t.Errorf("it ended with %v, %v", ws, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestSockets(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan string, 1)
	go func() {
		defer close(received)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var b bytes.Buffer
		b.ReadFrom(c)
		received <- b.String()
	}()
	defer func() { ln.Close(); <-received }()
	addr := ln.Addr().String()
	var got []string
	run(t, "send", addr, func(c *Call) Verdict {
		if c.Path == "tcp:"+addr {
			data, err := c.Data()
			got = append(got, fmt.Sprintf("%s %q %v", c.Name, data, err))
		}
		return Continue
	}, nil)
	if want := []string{`connect "" <nil>`, `write "over the wire" <nil>`}; !slices.Equal(got, want) {
		t.Errorf("traced %q, want %q", got, want)
	}
	if got := <-received; got != "over the wire" {
		t.Errorf("received %q", got)
	}
}

func TestSignal(t *testing.T) {
	dir := t.TempDir()
	p := start(t, "wait", dir, nil, nil)
	deadline := time.Now().Add(time.Minute)
	for _, err := os.Stat(dir + "/ready"); err != nil; _, err = os.Stat(dir + "/ready") {
		if time.Now().After(deadline) {
			t.Fatal("the helper does not come up")
		}
		time.Sleep(time.Millisecond)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if ws, err := p.Wait(); err != nil || !ws.Signaled() || ws.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v, %v", ws, err)
	}
	if err := p.Signal(syscall.SIGTERM); err != os.ErrProcessDone {
		t.Errorf("a signal afterwards: %v", err)
	}
}

func TestNoSuchProgram(t *testing.T) {
	p, err := Start(Command{Path: filepath.Join(t.TempDir(), "none"), Args: []string{"none"}})
	if err != nil {
		t.Fatal(err)
	}
	if ws, err := p.Wait(); err != nil || !ws.Exited() || ws.ExitStatus() != 127 {
		t.Errorf("it ended with %v, %v", ws, err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package watcher

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// write puts content into dir/name, making directories as needed.
func write(t testing.TB, dir, name, content string) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
}

func anyInput(string) bool { return true }

// tree lists the regular files below dir with their content, hidden ones
// included, as "path=content", sorted. Random parts of names are masked.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	out := []string{}
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		if own, ok := ownName(e.Name()); ok {
			p = filepath.Join(filepath.Dir(p), "."+own+".*"+SpentSuffix)
		}
		rel, _ := filepath.Rel(dir, p)
		out = append(out, rel+"="+string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantTree(t *testing.T, dir string, want ...string) {
	t.Helper()
	if got := tree(t, dir); !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func paths(found []Found) (out []string) {
	for _, f := range found {
		out = append(out, f.Path)
	}
	return out
}

func filePaths(files []*File) (out []string) {
	for _, f := range files {
		out = append(out, f.Path)
	}
	return out
}

// mustRead reads a file that nobody writes to.
func mustRead(t *testing.T, dir, name string) *File {
	t.Helper()
	f, err := Read(dir, name, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// A process is a child under the test's control: it reads commands from its
// standard input and answers each with a line.
type process struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
}

// shell starts a shell that executes the lines it is sent.
func shell(t *testing.T, dir string) *process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-e")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t, in, bufio.NewReader(out), cmd}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	return p
}

// start executes a line without waiting for it.
func (p *process) start(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\necho done\n"); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits for a line that was started.
func (p *process) wait() {
	p.t.Helper()
	if s, err := p.out.ReadString('\n'); err != nil || s != "done\n" {
		p.t.Fatalf("shell: %q, %v", s, err)
	}
}

func (p *process) do(line string) {
	p.t.Helper()
	p.start(line)
	p.wait()
}

// inChild runs the calling test again in a child process with attr, and fails
// it if the child does. In the child it returns true, and a directory that
// every user may use; the parent removes it.
func inChild(t *testing.T, attr *syscall.SysProcAttr) (dir string, child bool) {
	t.Helper()
	const env = "WATCHER_TEST_DIR"
	if dir = os.Getenv(env); dir != "" {
		return dir, true
	}
	dir = t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), env+"="+dir)
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	if os.IsPermission(err) {
		t.Skip("not allowed here:", err)
	}
	if err != nil {
		t.Errorf("in a child process: %v\n%s", err, out)
	} else if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("in a child process:\n%s", out)
	} else {
		t.Logf("in a child process:\n%s", out)
	}
	return dir, false
}

// asNobody makes this process an unprivileged one for good.
func asNobody(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("must be root to become somebody else")
	}
	if err := syscall.Setgroups(nil); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setgid(65534); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setuid(65534); err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition that another process or goroutine brings
// about.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// leasable skips the test where the file system of dir gives no leases.
func leasable(t *testing.T, dir string) {
	t.Helper()
	write(t, dir, ".probe", "")
	defer os.Remove(filepath.Join(dir, ".probe"))
	f, err := os.Open(filepath.Join(dir, ".probe"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		t.Skip("no leases in", dir, err)
	}
	unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
}

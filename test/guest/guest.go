// SPDX-License-Identifier: Apache-2.0

// Package guest boots Debian machines for tests: a real systemd as process 1,
// with journald, a cgroup v2 tree and a network of its own, in less than a
// second.
//
//	m := guest.Boot(t, "bookworm")
//	m.Copy("dist/hhwatchd_1.2.0_amd64.deb", "/root/hhwatchd.deb")
//	m.Must("apt-get install -y /root/hhwatchd.deb")
//	m.Must("systemctl start hhwatchd")
//
// A machine is systemd-nspawn(1) on an overlay of a cached root, see [Image].
// It shares the kernel with the host and nothing else: nspawn runs in mount,
// pid and cgroup namespaces that were made for it, with a cgroup v2 tree mounted
// there whatever the host's looks like, and has only loopback for a network.
// All of it is gone when the process that holds the namespaces is killed, and
// that is how a machine ends.
package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bootTime bounds how long a machine may take to be up.
const bootTime = time.Minute

// script is what runs in the namespaces. $1 is the image, $2 a directory for
// what the machine writes.
const script = `set -e
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
exec systemd-nspawn --register=no --keep-unit --private-network --quiet --boot \
	--directory="$2/root" --machine=guest --link-journal=no --resolv-conf=off --console=pipe
`

// A Machine is booted and belongs to one test.
type Machine struct {
	t    testing.TB
	init int // the process id of its process 1, on the host
}

// For returns the same machine for a subtest, whose failures are its own.
func (m *Machine) For(t testing.TB) *Machine { return &Machine{t, m.init} }

// Boot boots a machine of the Debian release, which ends with the test. It
// skips the test, with the reason, where this host can boot none: without root
// or without systemd-container and mmdebstrap.
func Boot(t testing.TB, release string) *Machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("booting a machine needs root")
	}
	for _, program := range []string{"systemd-nspawn", "mmdebstrap", "unshare", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("booting a machine needs %s; test/setup.sh installs it", program)
		}
	}
	image, err := Image(t.Context(), release, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	group, err := newGroup()
	if err != nil {
		t.Skipf("booting a machine needs a cgroup v2 tree to write to: %v", err)
	}
	t.Cleanup(group.remove)
	dir := t.TempDir()
	for _, name := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	m := &Machine{t: t}
	var console bytes.Buffer
	cmd := exec.Command("unshare", "--mount", "--cgroup", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", script, "sh", image, dir)
	// The host's cgroup may be of version 1; whether there is a second one for
	// nspawn to lock is then not known to it.
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_NSPAWN_LOCK=0")
	cmd.Stdout, cmd.Stderr = &console, &console
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.dir.Fd()), Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("booting a machine: %v", err)
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	t.Cleanup(func() {
		// With process 1 of the namespace, the kernel kills all that is in it.
		_ = cmd.Process.Kill()
		<-gone
		if t.Failed() {
			t.Logf("the console of the machine:\n%s", console.String())
		}
	})

	ctx, cancel := context.WithTimeout(t.Context(), bootTime)
	defer cancel()
	for m.init == 0 {
		select {
		case err := <-gone:
			gone <- err
			t.Fatalf("booting a machine: %v", err)
		case <-ctx.Done():
			t.Fatalf("no machine within %v", bootTime)
		case <-time.After(10 * time.Millisecond):
			m.init = grandchild(cmd.Process.Pid)
		}
	}
	for {
		out, err := m.command(ctx, "systemctl is-system-running --wait").CombinedOutput()
		if err == nil {
			return m
		}
		// Before process 1 listens there is nobody to ask.
		if s := strings.TrimSpace(string(out)); s == "degraded" || ctx.Err() != nil {
			t.Fatalf("the machine is not up: %s\n%s", out, m.Try("systemctl --failed"))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// grandchild returns the child of pid's child once it is process 1 of a pid
// namespace of its own, two below this one; 0 until then. unshare forks nspawn,
// and nspawn the machine's init.
func grandchild(pid int) int {
	for _, nspawn := range children(pid) {
		for _, child := range children(nspawn) {
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", child))
			for line := range strings.Lines(string(status)) {
				if f := strings.Fields(line); len(f) == 4 && f[0] == "NSpid:" && f[3] == "1" {
					return child
				}
			}
		}
	}
	return 0
}

// children returns the children of a process that has one thread.
func children(pid int) []int {
	list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	var pids []int
	for f := range strings.FieldsSeq(string(list)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// command is a shell command in the machine, run by its root.
func (m *Machine) command(ctx context.Context, shell string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", "--target="+strconv.Itoa(m.init),
		"--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wdns=/root",
		"/bin/sh", "-c", shell)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0"}
	return cmd
}

// Run runs a shell command as root and returns all that it printed, without
// space at the end, and its exit code.
func (m *Machine) Run(shell string) (out string, code int) {
	m.t.Helper()
	b, err := m.command(context.WithoutCancel(m.t.Context()), shell).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("%s: %v", shell, err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return strings.TrimSpace(string(b)), code
}

// Must is Run for a command that ends with 0; with another code it ends the
// test.
func (m *Machine) Must(shell string) (out string) {
	m.t.Helper()
	out, code := m.Run(shell)
	if code != 0 {
		m.t.Fatalf("%s: exit code %d\n%s", shell, code, out)
	}
	return out
}

// Try is Run for a command whose exit code does not matter.
func (m *Machine) Try(shell string) (out string) {
	m.t.Helper()
	out, _ = m.Run(shell)
	return out
}

// Write makes a file of root's, and the directories that it takes.
func (m *Machine) Write(name, text string, perm fs.FileMode) {
	m.t.Helper()
	m.install(name, perm, []byte(text))
}

// Copy copies a file of the host's into the machine, as a file of root's.
func (m *Machine) Copy(from, to string, perm fs.FileMode) {
	m.t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		m.t.Fatal(err)
	}
	m.install(to, perm, data)
}

func (m *Machine) install(name string, perm fs.FileMode, data []byte) {
	m.t.Helper()
	cmd := m.command(m.t.Context(), fmt.Sprintf("install -D -m %o /dev/stdin '%s'", perm, name))
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("writing %s in the machine: %v\n%s", name, err, out)
	}
}

// Eventually runs a shell command until it ends with 0, and returns what it
// printed then. After a minute it ends the test with what was said last.
func (m *Machine) Eventually(shell string) (out string) {
	m.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		out, code := m.Run(shell)
		if code == 0 {
			return out
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: not within a minute; exit code %d\n%s", shell, code, out)
		}
	}
}

// A group is a cgroup of version 2 for one machine, so that what the machine
// makes in it does not stay on the host.
type group struct{ dir *os.File }

// newGroup makes a group below the one that this process is in.
func newGroup() (*group, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	top := ""
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			top = f[1]
			break
		}
	}
	if top == "" {
		return nil, errors.New("none is mounted")
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(self)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			top = filepath.Join(top, path)
		}
	}
	name, err := os.MkdirTemp(top, "hhwatchd-guest-")
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return &group{dir}, nil
}

// remove removes the group with those below it. Nothing runs there any more,
// but the kernel may take a moment to know.
func (g *group) remove() {
	defer g.dir.Close()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var dirs []string
		_ = filepath.WalkDir(g.dir.Name(), func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, name)
			}
			return nil
		})
		for i := range dirs {
			_ = os.Remove(dirs[len(dirs)-1-i]) // the innermost first
		}
		if _, err := os.Stat(g.dir.Name()); err != nil {
			return
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package trace runs a program and shows each system call by which it changes
// the world (files, directories, what it sends over a network), before and
// after it happens, to functions that may kill the program there and then.
//
//	p, err := trace.Start(trace.Command{
//		Path: "bin/hhwatchd", Args: []string{"hhwatchd", "run"}, Env: os.Environ(),
//		Enter: func(c *trace.Call) trace.Verdict {
//			if n++; n == 37 {
//				return trace.Kill // the 37th call does not happen
//			}
//			return trace.Continue
//		},
//	})
//	state, err := p.Wait()
//
// All threads and all children of the program are followed. They run at nearly
// full speed: a seccomp filter (seccomp(2), SECCOMP_RET_TRACE) lets the kernel
// stop them at those calls only; reading, waiting, mapping memory and locking
// are not among them. With ptrace(2) the program is stopped until the function
// has returned, and nothing outlives the process that traces
// (PTRACE_O_EXITKILL). The program has a process group of its own; a child that
// leaves it is lost sight of.
//
// What is not seen: changes through a shared mapping (mmap) and io_uring.
//
// The filter has to be installed in the program's process before the program
// starts, so the test binary runs itself for that, under the name that
// [shim] gives, and becomes the program: an init function of this package does
// it, before main.
//
// It needs Linux 5.3 (PTRACE_GET_SYSCALL_INFO), and either root or
// a process without restrictions of ptrace.
package trace

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Verdict says how the program goes on from a call.
type Verdict int

const (
	Continue Verdict = iota
	// Kill sends SIGKILL to the traced program: to its first process, that
	// is, as a supervisor or the kernel would. A call at whose entry it is
	// killed does not happen, but another thread may still be within one.
	Kill
)

// Command is a program to be traced.
type Command struct {
	Path string   // of the program
	Args []string // with its name
	Env  []string
	Dir  string // "" for the current one
	// Output takes its standard output and error; nil discards them.
	Output *os.File

	// Enter, if not nil, is called before each call happens, Exit after it
	// was made. They are called one at a time, in the order in which the
	// calls begin and end. A call during which its process ends (or which
	// the kernel restarts after a signal) has no Exit.
	Enter, Exit func(*Call) Verdict
}

// Process is a traced program.
type Process struct {
	PID int

	cmd   Command
	done  chan struct{} // closed when all of its processes have ended
	state unix.WaitStatus
	err   error

	mu     sync.Mutex
	reaped bool // the PID may be somebody else's

	threads map[int]*thread // of the tracing goroutine
}

// A thread of one of the processes.
type thread struct {
	pid  int   // of its process
	call *Call // that it is in
}

// Start starts the program. It runs until it ends or is killed; the caller
// waits for that with [Process.Wait].
func Start(cmd Command) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{}), threads: make(map[int]*thread)}
	started := make(chan error)
	go func() {
		defer close(p.done)
		// Only the thread that traces may wait, and may continue what it
		// traces. It ends with this goroutine (it is not unlocked), and
		// with it, by PTRACE_O_EXITKILL, whatever is left of the program.
		runtime.LockOSThread()
		err := p.start()
		started <- err
		if err == nil {
			p.err = p.trace()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("tracing %s: %w", cmd.Path, err)
	}
	return p, nil
}

// Wait waits until the program and all of its children have ended, and returns
// how the program did.
func (p *Process) Wait() (unix.WaitStatus, error) {
	<-p.done
	return p.state, p.err
}

// Done is closed when the program and all of its children have ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal to the program's first process.
func (p *Process) Signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return os.ErrProcessDone
	}
	return unix.Kill(p.PID, s)
}

const options = unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACESECCOMP |
	unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC

// start runs the shim as far as its becoming the program.
func (p *Process) start() (err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	out := p.cmd.Output
	if out == nil {
		out = null
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	pid, err := syscall.ForkExec(self, slices.Concat([]string{shim, p.cmd.Path}, p.cmd.Args), &syscall.ProcAttr{
		Dir: p.cmd.Dir, Env: p.cmd.Env,
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
	})
	if err != nil {
		return fmt.Errorf("starting it: %w", err)
	}
	p.PID = pid
	defer func() {
		if err != nil {
			unix.Kill(pid, unix.SIGKILL)
			unix.Wait4(pid, nil, 0, nil)
		}
	}()
	// With Ptrace its first stop is the exec of the shim.
	var ws unix.WaitStatus
	if _, err := wait4(pid, &ws); err != nil {
		return err
	} else if !ws.Stopped() {
		return fmt.Errorf("it ended at once: %v", ws)
	}
	if err := unix.PtraceSetOptions(pid, options); err != nil {
		return os.NewSyscallError("PTRACE_SETOPTIONS", err)
	}
	p.threads[pid] = &thread{pid: pid}
	return resume(pid, false, 0)
}

// trace follows the threads until the last of them has ended.
func (p *Process) trace() error {
	running := false // the program, that is, not the shim any more
	for {
		var ws unix.WaitStatus
		tid, err := wait4(-p.PID, &ws)
		if errors.Is(err, unix.ECHILD) {
			return nil
		} else if err != nil {
			return err
		}
		t := p.threads[tid]
		if ws.Exited() || ws.Signaled() {
			delete(p.threads, tid)
			if tid == p.PID {
				p.mu.Lock()
				p.reaped, p.state = true, ws
				p.mu.Unlock()
			}
			continue
		}
		signal, leave := 0, false // leave: stop again when the call is made
		switch sig := ws.StopSignal(); {
		case t == nil:
			// A new one: it begins with SIGSTOP, which is not for it.
			p.threads[tid] = &thread{pid: tgid(tid)}
			if sig != unix.SIGSTOP {
				signal = int(sig)
			}
		case sig == unix.SIGTRAP && ws.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
			if running {
				leave, err = p.enter(tid, t)
			}
		case sig == unix.SIGTRAP|0x80: // PTRACE_O_TRACESYSGOOD
			err = p.exit(tid, t)
		case sig == unix.SIGTRAP && ws.TrapCause() == unix.PTRACE_EVENT_EXEC:
			running = true
		case sig == unix.SIGTRAP && ws.TrapCause() > 0:
			// A clone or fork; the new one tells of itself.
		default:
			signal = int(sig)
		}
		if err == nil {
			err = resume(tid, leave, signal)
		}
		// ESRCH: it is being killed.
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("tracing %d: %w", tid, err)
		}
	}
}

// enter shows the call that the thread is about to make.
func (p *Process) enter(tid int, t *thread) (leave bool, err error) {
	info, err := syscallInfo(tid)
	if err != nil {
		return false, err
	}
	s, ok := byNumber[info.u[0]]
	if !ok || info.op != unix.PTRACE_SYSCALL_INFO_SECCOMP {
		return false, fmt.Errorf("the filter let system call %d stop", info.u[0])
	}
	t.call = decode(t.pid, tid, s, [6]uint64(info.u[1:7]))
	if p.cmd.Enter != nil && p.cmd.Enter(t.call) == Kill {
		return false, p.kill()
	}
	return p.cmd.Exit != nil, nil
}

// exit shows the call that the thread has made.
func (p *Process) exit(tid int, t *thread) error {
	info, err := syscallInfo(tid)
	if err != nil || t.call == nil || info.op != unix.PTRACE_SYSCALL_INFO_EXIT {
		return err
	}
	c := t.call
	t.call = nil
	c.finish(int64(info.u[0]), info.u[1]&0xff != 0)
	if p.cmd.Exit(c) == Kill {
		return p.kill()
	}
	return nil
}

func (p *Process) kill() error {
	if err := p.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// wait4 waits for what this thread traces, one or, by the negative number of its
// process group, all. Other children are not to be reaped: those of other
// threads, and those that this very thread has started before it became the
// one that traces.
func wait4(pid int, ws *unix.WaitStatus) (int, error) {
	for {
		got, err := unix.Wait4(pid, ws, unix.WALL|unix.WNOTHREAD, nil)
		if !errors.Is(err, unix.EINTR) {
			return got, os.NewSyscallError("wait4", err)
		}
	}
}

func resume(tid int, leave bool, signal int) error {
	if leave {
		return unix.PtraceSyscall(tid, signal)
	}
	return unix.PtraceCont(tid, signal)
}

// tgid returns the process that a thread belongs to (Tgid of
// proc_pid_status(5)), the thread itself if that cannot be read any more.
func tgid(tid int) int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "Tgid:"); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(rest)); err == nil {
				return n
			}
		}
	}
	return tid
}

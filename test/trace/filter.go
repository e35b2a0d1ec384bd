// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// shim is the name under which a program that has this package runs itself to
// become the program to be traced: "shim PATH NAME ARGUMENT...".
const shim = "trace: becoming the traced program"

func init() {
	if len(os.Args) < 3 || os.Args[0] != shim {
		return
	}
	runtime.LockOSThread() // the filter is the thread's, and stays over an exec
	err := installFilter()
	if err == nil {
		err = syscall.Exec(os.Args[1], os.Args[2:], os.Environ())
	}
	fmt.Fprintf(os.Stderr, "tracing %s: %v\n", os.Args[1], err)
	os.Exit(127)
}

// installFilter makes the kernel stop this thread, and all that comes of it,
// at the calls that change the world.
func installFilter() error {
	// Without it only root may install a filter (seccomp(2)).
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("PR_SET_NO_NEW_PRIVS", err)
	}
	code := filter()
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(code)
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}

// Offsets in struct seccomp_data (seccomp(2)). An argument's low half comes
// first: both architectures are little-endian.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
)

// filter is a program in classic BPF (seccomp(2)).
func filter() []unix.SockFilter {
	load := func(at int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(at)}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	// Each jump skips so many instructions if the test fails.
	jump := func(test uint16, k uint64, orSkip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: uint32(k), Jf: orSkip}
	}
	allow, stop := answer(unix.SECCOMP_RET_ALLOW), answer(unix.SECCOMP_RET_TRACE)

	code := []unix.SockFilter{
		load(dataArch),
		// Another architecture numbers its calls otherwise: not to be misread.
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: auditArch, Jt: 1},
		answer(unix.SECCOMP_RET_KILL_PROCESS),
		load(dataNumber),
	}
	for _, s := range shapes() {
		if s.flags == 0 {
			code = append(code, jump(unix.BPF_JEQ, s.number, 1), stop)
			continue
		}
		code = append(code,
			jump(unix.BPF_JEQ, s.number, 4),
			load(dataArgs+8*s.flags),
			jump(unix.BPF_JSET, opens, 1),
			stop, allow)
	}
	return append(code, allow)
}

// syscallStop is struct ptrace_syscall_info (ptrace(2)): at an entry, u is the
// number and the arguments; at an exit, the result and whether it is an error.
type syscallStop struct {
	op   uint8
	_    [3]uint8
	arch uint32
	_    [2]uint64 // instruction and stack pointer
	u    [8]uint64
}

func syscallInfo(tid int) (syscallStop, error) {
	var info syscallStop
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return info, os.NewSyscallError("PTRACE_GET_SYSCALL_INFO", errno)
	}
	return info, nil
}

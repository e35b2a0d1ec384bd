// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Call is one system call. A function that is shown one may keep it; only
// [Call.Data] has to be called at once.
type Call struct {
	PID, TID int
	Name     string    // as in section 2 of the manual, such as "pwrite64"
	Args     [6]uint64 // as they were passed

	// FD is the file descriptor that the call works on, -1 if it names its
	// file, or none. Of calls that copy between two it is the one that is
	// written to.
	FD int
	// Path is the file that the call works on: the one named first, joined
	// with the directory that it was relative to, not resolved further; or
	// that of FD, as readlink of /proc/PID/fd/FD has it, which ends in
	// " (deleted)" when it was unlinked. For a socket it is the peer, such as
	// "tcp:127.0.0.1:443" or "unix:/run/x.sock", with nothing after the
	// colon when it has none.
	Path string
	// To is the new name given to a file that is renamed or linked, and the
	// target of a symbolic link.
	To string
	// Regular says that FD is a regular file, which then is Inode on Dev.
	// After a call that opened or created a file, these and FD describe it.
	Regular    bool
	Dev, Inode uint64
	// Offset is where in a regular file the call has written, from its exit
	// on; -1 if it has not.
	Offset int64

	// Result is what the call returned, from its exit on, and Err why it
	// failed, 0 if it did not.
	Result int64
	Err    unix.Errno

	shape shape
	done  bool
}

// String shows the call for people.
func (c *Call) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s(%s", c.Name, c.Path)
	if c.To != "" {
		fmt.Fprintf(&b, ", %s", c.To)
	}
	b.WriteString(")")
	switch {
	case c.Err != 0:
		fmt.Fprintf(&b, ": %v", c.Err)
	case c.done:
		fmt.Fprintf(&b, " = %d", c.Result)
	}
	return b.String()
}

// Flags returns the flags with which open, openat or openat2 was called.
func (c *Call) Flags() (int, error) {
	switch c.Name {
	case "open":
		return int(c.Args[1]), nil
	case "openat":
		return int(c.Args[2]), nil
	case "openat2": // struct open_how begins with them
		b, err := peek(c.TID, c.Args[2], 8)
		if err != nil {
			return 0, err
		}
		return int(binary.NativeEndian.Uint64(b)), nil
	case "creat":
		return unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC, nil
	}
	return 0, fmt.Errorf("%s has no flags of open", c.Name)
}

// decode finds out what a call is about while its thread is stopped. What
// cannot be found out (a wrong address, a closed descriptor) stays empty: the
// call is going to fail.
func decode(pid, tid int, s shape, args [6]uint64) *Call {
	c := &Call{PID: pid, TID: tid, Name: s.name, Args: args, FD: -1, Offset: -1, shape: s}
	path := func(dirArg, pathArg int) string {
		dir := unix.AT_FDCWD
		if dirArg >= 0 {
			dir = int(int32(args[dirArg]))
		}
		return resolve(tid, dir, args[pathArg])
	}
	switch s.kind {
	case onFD:
		c.setFD(int(int32(args[s.arg])))
	case onPath:
		c.Path = path(-1, 0)
	case onPathAt:
		if args[1] == 0 { // utimensat without a path is about the descriptor
			c.setFD(int(int32(args[0])))
		} else {
			c.Path = path(0, 1)
		}
	case onPaths:
		c.Path, c.To = path(-1, 0), path(-1, 1)
	case onPathsAt:
		c.Path, c.To = path(0, 1), path(2, 3)
	case symlink:
		c.To, _ = text(tid, args[0])
		c.Path = path(-1, 1)
	case symlinkAt:
		c.To, _ = text(tid, args[0])
		c.Path = path(1, 2)
	}
	if c.Name == "connect" {
		if b, err := peek(tid, args[1], int(min(args[2], 128))); err == nil {
			c.Path = peer(b, c.Path)
		}
	}
	return c
}

func (c *Call) setFD(fd int) {
	c.FD = fd
	file := fmt.Sprintf("/proc/%d/fd/%d", c.TID, fd)
	c.Path, _ = os.Readlink(file)
	var st unix.Stat_t
	if unix.Stat(file, &st) != nil {
		return
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		c.Regular, c.Dev, c.Inode = true, st.Dev, st.Ino
	case unix.S_IFSOCK:
		c.Path = socket(c.PID, fd)
	}
}

// finish notes how the call went.
func (c *Call) finish(result int64, failed bool) {
	c.done, c.Result = true, result
	if failed {
		c.Err = unix.Errno(-result)
		return
	}
	switch c.Name {
	case "open", "openat", "openat2", "creat":
		named := c.Path
		c.setFD(int(result))
		if flags, err := c.Flags(); err == nil && flags&unix.O_TMPFILE != unix.O_TMPFILE {
			c.Path = named
		}
	case "pwrite64", "pwritev", "pwritev2":
		c.Offset = int64(c.Args[3])
		if c.Name == "pwritev2" && c.Offset == -1 {
			c.Offset = c.position() - result
		}
	case "write", "writev", "copy_file_range", "sendfile", "splice":
		if c.Regular {
			c.Offset = c.position() - result
		}
	}
	if flags, err := statusFlags(c.TID, c.FD); c.Offset >= 0 && err == nil && flags&unix.O_APPEND != 0 {
		// Whatever it asked for (see BUGS in pwrite(2)), it went to the end.
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", c.TID, c.FD), &st) == nil {
			c.Offset = st.Size - result
		}
	}
}

// position is the file offset of the descriptor, after the call.
func (c *Call) position() int64 {
	n, err := fdinfo(c.TID, c.FD, "pos:", 10)
	if err != nil {
		return c.Result - 1
	}
	return n
}

// statusFlags are those that the file was opened with.
func statusFlags(tid, fd int) (int64, error) { return fdinfo(tid, fd, "flags:", 8) }

// fdinfo reads a number of proc_pid_fdinfo(5).
func fdinfo(tid, fd int, key string, base int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", tid, fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key); ok {
			return strconv.ParseInt(strings.TrimSpace(v), base, 64)
		}
	}
	return 0, fmt.Errorf("no %s of descriptor %d", key, fd)
}

// maxData bounds what Data returns in bytes.
const maxData = 1 << 30

// Data returns what the call has written or sent, at its exit; at its entry,
// what it is about to. It is nil for calls that write nothing.
func (c *Call) Data() ([]byte, error) {
	limit := int64(maxData)
	if c.done {
		if c.Err != 0 {
			return nil, nil
		}
		limit = c.Result
	}
	switch c.Name {
	case "write", "pwrite64", "sendto":
		return peek(c.TID, c.Args[1], int(min(limit, int64(c.Args[2]))))
	case "writev", "pwritev", "pwritev2":
		return peekVector(c.TID, c.Args[1], int(c.Args[2]), limit)
	case "sendmsg":
		var h unix.Msghdr
		b, err := peek(c.TID, c.Args[1], int(unsafe.Sizeof(h)))
		if err != nil {
			return nil, err
		}
		at := unsafe.Offsetof(h.Iov)
		n := at + unsafe.Sizeof(h.Iov)
		return peekVector(c.TID, binary.NativeEndian.Uint64(b[at:]), int(binary.NativeEndian.Uint64(b[n:])), limit)
	case "copy_file_range", "sendfile", "splice":
		if !c.done || !c.Regular {
			return nil, fmt.Errorf("%s: its data can only be read from a regular file after the call", c.Name)
		}
		f, err := os.Open(fmt.Sprintf("/proc/%d/fd/%d", c.TID, c.FD))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.NewSectionReader(f, c.Offset, c.Result))
	}
	return nil, nil
}

// resolve joins the path at an address with the directory that it is relative
// to.
func resolve(tid, dir int, addr uint64) string {
	p, err := text(tid, addr)
	if err != nil || filepath.IsAbs(p) {
		return p
	}
	link := fmt.Sprintf("/proc/%d/cwd", tid)
	if dir != unix.AT_FDCWD {
		link = fmt.Sprintf("/proc/%d/fd/%d", tid, dir)
	}
	base, err := os.Readlink(link)
	if err != nil {
		return p
	}
	return filepath.Join(base, p)
}

// text reads a string that a zero byte ends.
func text(tid int, addr uint64) (string, error) {
	var s []byte
	for len(s) < unix.PathMax {
		// Not across a page at once: the next may not be there.
		page := 4096 - addr%4096
		b, err := peek(tid, addr, int(page))
		if err != nil {
			return "", err
		}
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return string(append(s, b[:i]...)), nil
		}
		s, addr = append(s, b...), addr+page
	}
	return "", unix.ENAMETOOLONG
}

// peek reads the memory of a process.
func peek(tid int, addr uint64, n int) ([]byte, error) {
	if n <= 0 {
		return nil, nil
	}
	b := make([]byte, n)
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(n)
	got, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: n}}, 0)
	if err == nil && got != n {
		err = unix.EFAULT
	}
	if err != nil {
		return nil, os.NewSyscallError("process_vm_readv", err)
	}
	return b, nil
}

// peekVector reads what count iovecs at addr refer to, limit bytes at most.
func peekVector(tid int, addr uint64, count int, limit int64) ([]byte, error) {
	if count < 0 || count > 1024 { // UIO_MAXIOV
		return nil, unix.EINVAL
	}
	v, err := peek(tid, addr, count*16)
	var data []byte
	for ; err == nil && len(v) > 0 && limit > 0; v = v[16:] {
		n := int64(min(binary.NativeEndian.Uint64(v[8:]), uint64(limit)))
		var b []byte
		b, err = peek(tid, binary.NativeEndian.Uint64(v), int(n))
		data, limit = append(data, b...), limit-n
	}
	return data, err
}

// socket names the peer of a socket.
func socket(pid, fd int) string {
	own, err := borrow(pid, fd)
	if err != nil {
		return "socket:"
	}
	defer unix.Close(own)
	kind := "socket:"
	domain, _ := unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_DOMAIN)
	proto, _ := unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	switch {
	case domain == unix.AF_UNIX:
		kind = "unix:"
	case proto == unix.IPPROTO_TCP:
		kind = "tcp:"
	case proto == unix.IPPROTO_UDP:
		kind = "udp:"
	}
	switch sa, _ := unix.Getpeername(own); sa := sa.(type) {
	case *unix.SockaddrInet4:
		return kind + endpoint(sa.Addr[:], sa.Port)
	case *unix.SockaddrInet6:
		return kind + endpoint(sa.Addr[:], sa.Port)
	case *unix.SockaddrUnix:
		return kind + sa.Name
	}
	return kind
}

// borrow duplicates a descriptor of another process.
func borrow(pid, fd int) (int, error) {
	p, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(p)
	return unix.PidfdGetfd(p, fd, 0)
}

// peer reads the address that connect(2) was given; kind is what the socket is
// called without one.
func peer(sa []byte, kind string) string {
	if len(sa) < 2 {
		return kind
	}
	switch family := binary.NativeEndian.Uint16(sa); {
	case family == unix.AF_INET && len(sa) >= 8:
		return kind + endpoint(sa[4:8], int(binary.BigEndian.Uint16(sa[2:])))
	case family == unix.AF_INET6 && len(sa) >= 24:
		return kind + endpoint(sa[8:24], int(binary.BigEndian.Uint16(sa[2:])))
	case family == unix.AF_UNIX:
		return kind + string(bytes.TrimRight(sa[2:], "\x00"))
	}
	return kind
}

func endpoint(ip []byte, port int) string {
	return net.JoinHostPort(net.IP(ip).String(), strconv.Itoa(port))
}

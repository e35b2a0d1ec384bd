// SPDX-License-Identifier: Apache-2.0

package trace

import "golang.org/x/sys/unix"

// A shape is a system call that changes the world, and where it names what it
// changes.
type shape struct {
	number uint64
	name   string
	kind   kind
	arg    int // of onFD: which argument is the descriptor
	flags  int // which argument has the flags of open, 0 if none
}

type kind int

const (
	onFD      kind = iota
	onPath         // path
	onPathAt       // directory, path
	onPaths        // old path, new path
	onPathsAt      // directory, old path, directory, new path
	symlink        // target, path
	symlinkAt      // target, directory, path
)

// opens are the flags with which opening a file changes something. (Those of
// openat2 are not within reach of a filter, so it always counts.)
const opens = unix.O_CREAT | unix.O_TRUNC | unix.O_TMPFILE&^unix.O_DIRECTORY

// modern are the calls that all architectures have.
var modern = []shape{
	{unix.SYS_OPENAT, "openat", onPathAt, 0, 2},
	{unix.SYS_OPENAT2, "openat2", onPathAt, 0, 0},
	{unix.SYS_WRITE, "write", onFD, 0, 0},
	{unix.SYS_PWRITE64, "pwrite64", onFD, 0, 0},
	{unix.SYS_WRITEV, "writev", onFD, 0, 0},
	{unix.SYS_PWRITEV, "pwritev", onFD, 0, 0},
	{unix.SYS_PWRITEV2, "pwritev2", onFD, 0, 0},
	{unix.SYS_COPY_FILE_RANGE, "copy_file_range", onFD, 2, 0},
	{unix.SYS_SENDFILE, "sendfile", onFD, 0, 0},
	{unix.SYS_SPLICE, "splice", onFD, 2, 0},
	{unix.SYS_CONNECT, "connect", onFD, 0, 0},
	{unix.SYS_SENDTO, "sendto", onFD, 0, 0},
	{unix.SYS_SENDMSG, "sendmsg", onFD, 0, 0},
	{unix.SYS_SENDMMSG, "sendmmsg", onFD, 0, 0},
	{unix.SYS_RENAMEAT2, "renameat2", onPathsAt, 0, 0},
	{unix.SYS_LINKAT, "linkat", onPathsAt, 0, 0},
	{unix.SYS_SYMLINKAT, "symlinkat", symlinkAt, 0, 0},
	{unix.SYS_UNLINKAT, "unlinkat", onPathAt, 0, 0},
	{unix.SYS_MKDIRAT, "mkdirat", onPathAt, 0, 0},
	{unix.SYS_MKNODAT, "mknodat", onPathAt, 0, 0},
	{unix.SYS_TRUNCATE, "truncate", onPath, 0, 0},
	{unix.SYS_FTRUNCATE, "ftruncate", onFD, 0, 0},
	{unix.SYS_FALLOCATE, "fallocate", onFD, 0, 0},
	{unix.SYS_FSYNC, "fsync", onFD, 0, 0},
	{unix.SYS_FDATASYNC, "fdatasync", onFD, 0, 0},
	{unix.SYS_SYNC_FILE_RANGE, "sync_file_range", onFD, 0, 0},
	{unix.SYS_SYNCFS, "syncfs", onFD, 0, 0},
	{unix.SYS_FCHMOD, "fchmod", onFD, 0, 0},
	{unix.SYS_FCHMODAT, "fchmodat", onPathAt, 0, 0},
	{unix.SYS_FCHMODAT2, "fchmodat2", onPathAt, 0, 0},
	{unix.SYS_FCHOWN, "fchown", onFD, 0, 0},
	{unix.SYS_FCHOWNAT, "fchownat", onPathAt, 0, 0},
	{unix.SYS_UTIMENSAT, "utimensat", onPathAt, 0, 0},
	{unix.SYS_SETXATTR, "setxattr", onPath, 0, 0},
	{unix.SYS_LSETXATTR, "lsetxattr", onPath, 0, 0},
	{unix.SYS_FSETXATTR, "fsetxattr", onFD, 0, 0},
	{unix.SYS_REMOVEXATTR, "removexattr", onPath, 0, 0},
	{unix.SYS_LREMOVEXATTR, "lremovexattr", onPath, 0, 0},
	{unix.SYS_FREMOVEXATTR, "fremovexattr", onFD, 0, 0},
}

var byNumber = func() map[uint64]shape {
	m := make(map[uint64]shape)
	for _, s := range shapes() {
		m[s.number] = s
	}
	return m
}()

func shapes() []shape { return append(modern[:len(modern):len(modern)], legacy...) }

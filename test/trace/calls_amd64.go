// SPDX-License-Identifier: Apache-2.0

package trace

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// legacy are the calls that newer architectures do without.
var legacy = []shape{
	{unix.SYS_OPEN, "open", onPath, 0, 1},
	{unix.SYS_CREAT, "creat", onPath, 0, 0},
	{unix.SYS_RENAME, "rename", onPaths, 0, 0},
	{unix.SYS_RENAMEAT, "renameat", onPathsAt, 0, 0},
	{unix.SYS_LINK, "link", onPaths, 0, 0},
	{unix.SYS_SYMLINK, "symlink", symlink, 0, 0},
	{unix.SYS_UNLINK, "unlink", onPath, 0, 0},
	{unix.SYS_RMDIR, "rmdir", onPath, 0, 0},
	{unix.SYS_MKDIR, "mkdir", onPath, 0, 0},
	{unix.SYS_MKNOD, "mknod", onPath, 0, 0},
	{unix.SYS_CHMOD, "chmod", onPath, 0, 0},
	{unix.SYS_CHOWN, "chown", onPath, 0, 0},
	{unix.SYS_LCHOWN, "lchown", onPath, 0, 0},
	{unix.SYS_UTIME, "utime", onPath, 0, 0},
	{unix.SYS_UTIMES, "utimes", onPath, 0, 0},
	{unix.SYS_FUTIMESAT, "futimesat", onPathAt, 0, 0},
}

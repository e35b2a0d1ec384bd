// SPDX-License-Identifier: Apache-2.0

package trace

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// legacy are the calls that newer architectures do without; of those arm64 has
// one.
var legacy = []shape{
	{unix.SYS_RENAMEAT, "renameat", onPathsAt, 0, 0},
}

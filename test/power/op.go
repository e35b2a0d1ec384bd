// SPDX-License-Identifier: Apache-2.0

package power

import (
	"fmt"
	"io/fs"
)

// An Op is one change of the files below a directory, or a flush. Paths are
// slash-separated and relative to it; "." is the directory itself.
type Op struct {
	Kind OpKind
	Path string
	// To is the new name of Rename, Exchange and Link, and what the new
	// link of Symlink points to.
	To   string
	Mode fs.FileMode // of Create, Mkdir and Chmod: the permissions
	Off  int64       // of Write
	Data []byte      // of Write
	Size int64       // of Truncate
	// Called is, for a flush, how many operations had been done when it was
	// called. Those are what it covers.
	Called int
}

func (op Op) String() string {
	switch op.Kind {
	case Write:
		return fmt.Sprintf("write %s, %d bytes at %d", op.Path, len(op.Data), op.Off)
	case Truncate:
		return fmt.Sprintf("truncate %s to %d", op.Path, op.Size)
	case Rename, Exchange, Link, Symlink:
		return fmt.Sprintf("%s %s %s", op.Kind, op.Path, op.To)
	case Create, Mkdir, Chmod:
		return fmt.Sprintf("%s %s %o", op.Kind, op.Path, op.Mode)
	case SyncAll:
		return string(op.Kind)
	}
	return fmt.Sprintf("%s %s", op.Kind, op.Path)
}

// An OpKind says what an [Op] does.
type OpKind string

// The operations. Sync is fsync(2) and fdatasync(2) of a file or a directory,
// SyncAll is syncfs(2) and sync(2).
const (
	Create   OpKind = "create"
	Write    OpKind = "write"
	Truncate OpKind = "truncate"
	Chmod    OpKind = "chmod"
	Mkdir    OpKind = "mkdir"
	Symlink  OpKind = "symlink"
	Link     OpKind = "link"
	Rename   OpKind = "rename"
	Exchange OpKind = "exchange"
	Unlink   OpKind = "unlink"
	Rmdir    OpKind = "rmdir"
	Sync     OpKind = "sync"
	SyncAll  OpKind = "syncall"
)

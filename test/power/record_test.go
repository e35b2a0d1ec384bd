// SPDX-License-Identifier: Apache-2.0

package power

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/test/trace"
)

// A recorder writes down what a traced daemon, and who drops files on its
// host, do to the files below a directory.
type recorder struct {
	dir    string
	remote func() string // what the remote branch is at

	mu     sync.Mutex
	begin  Tree
	ops    []Op
	byHand map[int]bool // those that are not the daemon's
	seen   []sight
	calls  map[int]entering // by thread
	err    error
}

// A sight is the commit that the remote branch was seen at, and how many
// operations had been done by then.
type sight struct {
	after int
	head  string
}

// entering is what has to be known of a call before it is made.
type entering struct {
	called int
	path   string // with the links in its directory resolved
	to     string
	exists bool
}

func newRecorder(dir string, remote func() string) (*recorder, error) {
	begin, err := ReadTree(dir)
	return &recorder{dir: dir, remote: remote, begin: begin, byHand: map[int]bool{}, calls: map[int]entering{}}, err
}

// look notes what the remote is at. The caller holds mu.
func (r *recorder) look() {
	s := sight{len(r.ops), r.remote()}
	if n := len(r.seen); n == 0 || r.seen[n-1] != s {
		r.seen = append(r.seen, s)
	}
}

func (r *recorder) add(op Op) {
	r.ops = append(r.ops, op)
	r.look()
}

func (r *recorder) fail(c *trace.Call, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %s", c, fmt.Sprintf(format, args...))
	}
}

// below returns the path of a file relative to the directory, or reports that
// it is not in there.
func (r *recorder) below(path string) (string, bool) {
	if path == r.dir {
		return ".", true
	}
	return strings.CutPrefix(path, r.dir+"/")
}

// resolved resolves the links in the directory of path, but not its last
// element.
func resolved(path string) string {
	if path == "" || filepath.Clean(path) == "/" {
		return path
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return path
	}
	return filepath.Join(dir, filepath.Base(path))
}

func (r *recorder) enter(c *trace.Call) trace.Verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look()
	e := entering{called: len(r.ops), path: c.Path, to: c.To}
	if c.FD < 0 {
		e.path = resolved(c.Path)
		if !strings.HasPrefix(c.Name, "symlink") {
			e.to = resolved(c.To)
		}
		_, err := os.Lstat(e.path)
		e.exists = err == nil
	}
	r.calls[c.TID] = e
	return trace.Continue
}

func (r *recorder) exit(c *trace.Call) trace.Verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.calls[c.TID]
	delete(r.calls, c.TID)
	r.look()
	if c.Err == 0 {
		r.done(c, e)
	}
	return trace.Continue
}

// done writes down a call that went well. What it does not know, and what
// would get past it, is an error of the recording.
func (r *recorder) done(c *trace.Call, e entering) {
	if strings.HasSuffix(e.path, " (deleted)") {
		return // it has no name to be found by
	}
	path, in := r.below(e.path)
	to, toIn := r.below(e.to)
	if strings.HasPrefix(c.Name, "symlink") {
		to, toIn = c.To, in
	}
	switch c.Name {
	case "rename", "renameat", "renameat2", "link", "linkat":
		if in != toIn {
			r.fail(c, "it crosses the border of what is recorded")
			return
		}
	}
	if !in {
		return
	}
	if maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", c.PID)); err == nil {
		for line := range bytes.Lines(maps) {
			if f := bytes.Fields(line); len(f) > 5 && bytes.HasSuffix(f[1], []byte("s")) && bytes.Contains(f[1], []byte("w")) && bytes.HasPrefix(f[5], []byte(r.dir+"/")) {
				r.fail(c, "a file is mapped for writing, which is not recorded: %s", line)
			}
		}
	}
	switch c.Name {
	case "open", "openat", "openat2", "creat":
		r.opened(c, e, path)
	case "write", "pwrite64", "writev", "pwritev", "pwritev2", "copy_file_range", "sendfile":
		data, err := c.Data()
		if err != nil || c.Offset < 0 {
			r.fail(c, "what it wrote cannot be read: %v", err)
		}
		r.add(Op{Kind: Write, Path: path, Off: c.Offset, Data: data})
	case "ftruncate", "truncate":
		r.add(Op{Kind: Truncate, Path: path, Size: int64(c.Args[1])})
	case "mkdir", "mkdirat":
		r.add(Op{Kind: Mkdir, Path: path, Mode: r.perm(c, e.path)})
	case "chmod", "fchmod", "fchmodat", "fchmodat2":
		r.add(Op{Kind: Chmod, Path: path, Mode: r.perm(c, e.path)})
	case "setxattr", "lsetxattr", "fsetxattr":
		r.add(Op{Kind: Chmod, Path: path, Mode: r.perm(c, e.path)}) // an ACL changes it
	case "symlink", "symlinkat":
		r.add(Op{Kind: Symlink, Path: path, To: to})
	case "link", "linkat":
		r.add(Op{Kind: Link, Path: path, To: to})
	case "rename", "renameat":
		r.add(Op{Kind: Rename, Path: path, To: to})
	case "renameat2":
		kind := Rename
		if c.Args[4]&unix.RENAME_EXCHANGE != 0 {
			kind = Exchange
		}
		r.add(Op{Kind: kind, Path: path, To: to})
	case "unlink":
		r.add(Op{Kind: Unlink, Path: path})
	case "rmdir":
		r.add(Op{Kind: Rmdir, Path: path})
	case "unlinkat":
		kind := Unlink
		if c.Args[2]&unix.AT_REMOVEDIR != 0 {
			kind = Rmdir
		}
		r.add(Op{Kind: kind, Path: path})
	case "fsync", "fdatasync":
		r.add(Op{Kind: Sync, Path: path, Called: e.called})
	case "syncfs":
		r.add(Op{Kind: SyncAll, Called: e.called})
	case "chown", "lchown", "fchown", "fchownat", "utime", "utimes", "futimesat", "utimensat",
		"removexattr", "lremovexattr", "fremovexattr", "sync_file_range": // of no concern to the model, and no promise
	default:
		r.fail(c, "the model does not know this call")
	}
}

func (r *recorder) opened(c *trace.Call, e entering, path string) {
	flags, err := c.Flags()
	switch {
	case err != nil:
		r.fail(c, "%v", err)
	case flags&unix.O_TMPFILE == unix.O_TMPFILE:
		r.fail(c, "a file without a name is not recorded")
	case flags&unix.O_CREAT != 0 && !e.exists:
		r.add(Op{Kind: Create, Path: path, Mode: r.perm(c, e.path)})
	case flags&unix.O_TRUNC != 0:
		r.add(Op{Kind: Truncate, Path: path})
	}
}

func (r *recorder) perm(c *trace.Call, path string) fs.FileMode {
	info, err := os.Lstat(path)
	if err != nil {
		r.fail(c, "%v", err)
		return 0
	}
	return info.Mode().Perm()
}

// recording is what a recorder has written down.
type recording struct {
	dir     string
	begin   Tree
	ops     []Op
	byHand  map[int]bool
	remotes []sight
}

// end ends the recording. The model, having done all of it, must have just
// what the directory has: nothing got past the recorder.
func (r *recorder) end() (*recording, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look()
	if r.err != nil {
		return nil, r.err
	}
	rec := &recording{r.dir, r.begin, r.ops, r.byHand, r.seen}
	d, err := rec.replay(len(rec.ops))
	if err != nil {
		return nil, err
	}
	now, err := ReadTree(r.dir)
	if err != nil {
		return nil, err
	}
	if diff := d.After(Nothing, nil).Diff(now); diff != "" {
		return nil, fmt.Errorf("the recording (-) does not lead to what is there (+):\n%s", diff)
	}
	return rec, nil
}

// replay returns a disk to which the first n operations were done.
func (rec *recording) replay(n int) (*Disk, error) {
	d, err := NewDisk(rec.begin)
	for _, op := range rec.ops[:n] {
		err = errors.Join(err, d.Do(op))
	}
	return d, err
}

// heads returns the commits that the remote branch was seen at between the
// first n operations and the next.
func (rec *recording) heads(n int) []string {
	var out []string
	for _, s := range rec.remotes {
		if s.after == n {
			out = append(out, s.head)
		}
	}
	return out
}

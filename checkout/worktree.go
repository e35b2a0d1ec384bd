// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"
)

// A worktree does the file operations of a work tree. Paths are relative to
// its root, with slashes.
//
// No operation follows a symbolic link, in no element of a path: each
// directory is opened on its own, from the root down, with O_NOFOLLOW. A path
// below something that is not a directory is not there.
//
// A file comes into its place by a rename, from a staging directory on the
// same file system, and is on disk before: no power loss leaves half a file
// under its name. Where another file is in that place, the two are exchanged,
// so that what was there can still be looked at: whoever changed it at the last
// moment does not lose what they wrote.
type worktree struct {
	root  string // the directory
	stage string // the staging directory
	aside string // where files are set aside

	staged map[string]string // by path: files in stage that were prepared
	made   int               // the number of names made in stage

	// The last directory that was opened, as neighbours come in a row.
	dir string
	fd  int // -1 if none is open
}

// In the staging directory, files of our own have names that begin with newFile
// until they change places with another: then what is under the name can be
// somebody's.
const (
	newFile = ".hhwatchd-new-"
	oldFile = ".hhwatchd-old-"
)

// newWorktree returns the work tree below root. What a crash left in the
// staging directory goes: what is ours or known to git is removed, the rest is
// set aside.
func newWorktree(root, stage, aside string, known func(blob oid) bool) (*worktree, error) {
	w := &worktree{root: root, stage: stage, aside: aside, fd: -1, staged: make(map[string]string)}
	if err := os.MkdirAll(stage, 0o700); err != nil {
		return nil, err
	}
	if err := w.clearBed(); err != nil {
		return nil, err
	}
	left, err := os.ReadDir(stage)
	if err != nil {
		return nil, err
	}
	for _, e := range left {
		name := filepath.Join(stage, e.Name())
		ours := strings.HasPrefix(e.Name(), newFile)
		id, err := hashAt(unix.AT_FDCWD, name)
		if ours || err == nil && known(id) {
			err = os.Remove(name)
		} else {
			err = w.keep(unix.AT_FDCWD, name, "leftover", nil)
		}
		if err != nil {
			return nil, err
		}
	}
	return w, nil
}

// forget closes the directory that is kept open.
func (w *worktree) forget() {
	if w.fd >= 0 {
		unix.Close(w.fd)
		w.fd = -1
	}
}

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// open opens the directory dir, "" is the root, and keeps it open: the
// descriptor is good until the next call of a method. block is as in walk.
func (w *worktree) open(dir string, block func(path string) error) (fd int, err error) {
	if w.fd >= 0 && w.dir == dir {
		return w.fd, nil
	}
	w.forget()
	if fd, err = w.walk(dir, block); err == nil {
		w.dir, w.fd = dir, fd
	}
	return fd, err
}

// walk opens the directory dir. If block is not nil, directories that are not
// there are made; where something else stands in their place, block is called
// to clear it away.
func (w *worktree) walk(dir string, block func(path string) error) (fd int, err error) {
	if fd, err = unix.Open(w.root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return -1, &fs.PathError{Op: "open", Path: w.root, Err: err}
	}
	for i := 0; dir != "" && i < len(dir); {
		j := strings.IndexByte(dir[i:], '/')
		if j < 0 {
			j = len(dir) - i
		}
		name, upTo := dir[i:i+j], dir[:i+j]
		i += j + 1
		next, err := unix.Openat(fd, name, dirFlags, 0)
		if err != nil && block != nil && absent(err) {
			if err = nil; !missing(fd, name) {
				err = block(upTo)
			}
			if err == nil {
				if err = unix.Mkdirat(fd, name, 0o777); err == nil || err == unix.EEXIST {
					next, err = unix.Openat(fd, name, dirFlags, 0)
				}
			}
		}
		unix.Close(fd)
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: filepath.Join(w.root, upTo), Err: err}
		}
		fd = next
	}
	return fd, nil
}

func missing(fd int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == unix.ENOENT
}

// absent reports whether err says that a path is not there.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// split returns the directory and the last element of a path.
func split(p string) (dir, name string) {
	dir, name = path.Split(p)
	return strings.TrimSuffix(dir, "/"), name
}

// lstat returns the state of the file at path, and whether there is one.
func (w *worktree) lstat(path string) (st fileStat, ok bool, err error) {
	dir, name := split(path)
	fd, err := w.open(dir, nil)
	if err != nil {
		if absent(err) {
			err = nil
		}
		return fileStat{}, false, err
	}
	return w.lstatAt(fd, name)
}

func (w *worktree) lstatAt(fd int, name string) (st fileStat, ok bool, err error) {
	var s unix.Stat_t
	switch err := unix.Fstatat(fd, name, &s, unix.AT_SYMLINK_NOFOLLOW); {
	case err == unix.ENOENT:
		return fileStat{}, false, nil
	case err != nil:
		return fileStat{}, false, &fs.PathError{Op: "lstat", Path: filepath.Join(w.root, w.dir, name), Err: err}
	}
	return statOf(&s), true, nil
}

// hash returns the name of the blob that the file or link at path would be.
// Anything else has none.
func (w *worktree) hash(path string) (oid, error) {
	dir, name := split(path)
	fd, err := w.open(dir, nil)
	if err != nil {
		return oid{}, err
	}
	return hashAt(fd, name)
}

func hashAt(dirfd int, name string) (oid, error) {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ELOOP {
		buf := make([]byte, maxPath+1)
		n, err := unix.Readlinkat(dirfd, name, buf)
		if err != nil {
			return oid{}, &fs.PathError{Op: "readlink", Path: name, Err: err}
		}
		return plumbing.ComputeHash(plumbing.BlobObject, buf[:n]), nil
	}
	if err == unix.ENXIO { // a socket
		return oid{}, nil
	}
	if err != nil {
		return oid{}, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return oid{}, err
	}
	// A file that grows meanwhile has no hash worth knowing: it is changed.
	h := plumbing.NewHasher(plumbing.BlobObject, fi.Size())
	if n, err := io.Copy(h, io.LimitReader(f, fi.Size()+1)); err != nil || n != fi.Size() {
		return oid{}, err
	}
	return h.Sum(), nil
}

// errChanged says that a file is not the one that was looked at before.
var errChanged = errors.New("changed at the last moment")

// put brings a file with the content of a blob into the place path. old is
// the file that it replaces; nil if the place is empty. If there is another
// one by then, nothing is changed and the error is errChanged. Otherwise it
// returns the state of the new file. With guard, a file that somebody has open
// for writing counts as another one.
//
// block is called, if the way to path is blocked by something that is not a
// directory, to clear it.
func (w *worktree) put(path string, mode Mode, data []byte, old *fileStat, guard bool, block func(path string) error) (fileStat, error) {
	dir, name := split(path)
	fd, err := w.open(dir, block)
	if err != nil {
		return fileStat{}, err
	}
	tmp, ready := w.staged[path]
	delete(w.staged, path)
	if !ready {
		if tmp, err = w.create(w.stage, mode, data, true); err != nil {
			return fileStat{}, err
		}
	}
	// From here on it can be another's.
	from := tmp
	if old != nil {
		tmp = filepath.Join(w.stage, oldFile+strings.TrimPrefix(filepath.Base(from), newFile))
		if err := os.Rename(from, tmp); err != nil {
			return fileStat{}, err
		}
	}
	err = w.swap(tmp, fd, name, old, guard)
	if errors.Is(err, unix.EXDEV) {
		// A part of the work tree is another file system: the file has to be
		// made there, under a hidden name, in the directory that is open.
		if ready {
			if data, err = content(tmp); err != nil {
				return fileStat{}, err
			}
		}
		os.Remove(tmp)
		if tmp, err = w.create(fmt.Sprintf("/proc/self/fd/%d", fd), mode, data, true); err != nil {
			return fileStat{}, err
		}
		err = w.swap(tmp, fd, name, old, guard)
	}
	if err != nil {
		os.Remove(tmp)
		return fileStat{}, err
	}
	st, ok, err := w.lstatAt(fd, name)
	if err == nil && !ok {
		err = errChanged
	}
	return st, err
}

// prepare makes the file that put will bring into the place path. Until then
// it has to be flushed, with all others that were prepared.
func (w *worktree) prepare(path string, mode Mode, data []byte) error {
	name, err := w.create(w.stage, mode, data, false)
	if err == nil {
		w.staged[path] = name
	}
	return err
}

// discard removes the prepared files that were not needed.
func (w *worktree) discard() {
	for path, name := range w.staged {
		os.Remove(name)
		delete(w.staged, path)
	}
}

// create makes a file or link with a temporary name in the directory dir, and
// flushes it if it is told to.
func (w *worktree) create(dir string, mode Mode, data []byte, sync bool) (name string, err error) {
	perm := os.FileMode(0o666)
	if mode == ModeExecutable {
		perm = 0o777
	}
	for {
		w.made++
		name = filepath.Join(dir, fmt.Sprintf("%s%d-%d.tmp", newFile, os.Getpid(), w.made))
		if mode == ModeLink {
			if err = os.Symlink(string(data), name); !errors.Is(err, fs.ErrExist) {
				return name, err
			}
			continue
		}
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		_, err = f.Write(data)
		if err == nil && sync {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(name)
			return "", err
		}
		return name, nil
	}
}

// noLink reports whether err says that there cannot be a link with such a target:
// an empty or very long one, or one with a NUL, which git may hold.
func noLink(mode Mode, err error) bool {
	return mode == ModeLink && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.EINVAL))
}

// content reads a file or link of ours as git has it.
func content(name string) ([]byte, error) {
	if to, err := os.Readlink(name); err == nil {
		return []byte(to), nil
	}
	return os.ReadFile(name)
}

// swap moves the file tmp to name in the directory fd. What was there comes
// out under the name tmp, is checked to be the file old, and removed; if it is
// not, it goes back. With guard it goes back, too, if somebody has it open for
// writing. A file system that cannot exchange files is trusted to hold old.
func (w *worktree) swap(tmp string, fd int, name string, old *fileStat, guard bool) error {
	if old == nil {
		err := unix.Renameat2(unix.AT_FDCWD, tmp, fd, name, unix.RENAME_NOREPLACE)
		switch {
		case err == unix.EEXIST:
			return errChanged
		case noFlags(err):
			err = unix.Renameat(unix.AT_FDCWD, tmp, fd, name)
		}
		return named("rename", name, err)
	}
	var ours unix.Stat_t
	if err := unix.Lstat(tmp, &ours); err != nil {
		return named("lstat", tmp, err)
	}
	err := unix.Renameat2(unix.AT_FDCWD, tmp, fd, name, unix.RENAME_EXCHANGE)
	switch {
	case err == unix.ENOENT:
		return errChanged
	case noFlags(err):
		return named("rename", name, unix.Renameat(unix.AT_FDCWD, tmp, fd, name))
	case err != nil:
		return named("rename", name, err)
	}
	if w.same(tmp, old, guard) {
		return os.Remove(tmp)
	}
	// Back. Should ours be gone from the place by now, what comes out is one
	// more file of somebody's.
	err = unix.Renameat2(unix.AT_FDCWD, tmp, fd, name, unix.RENAME_EXCHANGE)
	var out unix.Stat_t
	if err != nil || unix.Lstat(tmp, &out) == nil && out.Ino != ours.Ino {
		if err := w.keep(unix.AT_FDCWD, tmp, filepath.Join(w.dir, name), nil); err != nil {
			return err
		}
	}
	return errChanged
}

// take removes the file at path, which is the file old; if it is not, by
// then, it stays and the error is errChanged.
func (w *worktree) take(path string, old *fileStat, guard bool) error {
	dir, name := split(path)
	fd, err := w.open(dir, nil)
	if err != nil {
		return err
	}
	tmp := filepath.Join(w.stage, "taken")
	os.Remove(tmp)
	switch err := unix.Renameat(fd, name, unix.AT_FDCWD, tmp); {
	case err == unix.EXDEV:
		return named("unlink", path, unix.Unlinkat(fd, name, 0))
	case err != nil:
		return named("rename", path, err)
	}
	if w.same(tmp, old, guard) {
		return os.Remove(tmp)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, fd, name, unix.RENAME_NOREPLACE); err != nil {
		// Somebody was quick to put a further file there: both are kept.
		if err := w.keep(unix.AT_FDCWD, tmp, path, nil); err != nil {
			return err
		}
	}
	return errChanged
}

// same reports whether the file tmp, that was just moved there, is still the
// file old, and with guard that nobody has it open for writing. Its change
// time is no part of that: moving it changed it.
func (w *worktree) same(tmp string, old *fileStat, guard bool) bool {
	var st unix.Stat_t
	if unix.Lstat(tmp, &st) != nil {
		return false
	}
	now := statOf(&st)
	if now.mtime != old.mtime || now.ino != old.ino || now.len != old.len || now.mode != old.mode {
		return false
	}
	return !guard || !openForWriting(tmp)
}

// openForWriting reports whether a process has the file open for writing, as
// far as it can be told: a read lease is refused then (fcntl(2), F_SETLEASE),
// but also on files of others and on some file systems.
func openForWriting(name string) bool {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	return err == unix.EAGAIN
}

// noFlags reports whether a file system does not know the flags of
// renameat2(2).
func noFlags(err error) bool { return err == unix.EINVAL || err == unix.ENOSYS }

func named(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// names lists the directory dir.
func (w *worktree) names(dir string) ([]string, error) {
	fd, err := w.open(dir, nil)
	if err != nil {
		return nil, err
	}
	again, err := unix.Openat(fd, ".", dirFlags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(w.root, dir), Err: err}
	}
	f := os.NewFile(uintptr(again), filepath.Join(w.root, dir))
	defer f.Close()
	return f.Readdirnames(-1)
}

// mkdir makes the directory at path, for a submodule; it may be there.
func (w *worktree) mkdir(path string, block func(path string) error) (fileStat, error) {
	if _, err := w.open(path, block); err != nil {
		return fileStat{}, err
	}
	st, _, err := w.lstat(path)
	return st, err
}

// prune removes the directory dir if it is empty, then its parents likewise,
// up to one for which keep says no.
func (w *worktree) prune(dir string, keep func(dir string) bool) {
	for dir != "" && !keep(dir) {
		w.forget()
		parent, name := split(dir)
		fd, err := w.open(parent, nil)
		if err != nil || unix.Unlinkat(fd, name, unix.AT_REMOVEDIR) != nil {
			return
		}
		dir = parent
	}
}

// read returns the content of the regular file at path; nothing if there is
// none.
func (w *worktree) read(path string) ([]byte, error) {
	dir, name := split(path)
	fd, err := w.open(dir, nil)
	if err == nil {
		fd, err = unix.Openat(fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		if absent(err) {
			return nil, nil
		}
		return nil, named("open", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, err
	}
	return io.ReadAll(f)
}

// SPDX-License-Identifier: Apache-2.0

package watcher

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Found is a regular file that List found.
type Found struct {
	Path string    // slash-separated, below the listed directory
	Size int64     // in bytes
	Time time.Time // of arrival: see File.Time
}

// Skipped is something in a raw directory that cannot become input as it is.
type Skipped struct {
	Path string // slash-separated, below the listed directory
	Why  string // what it is, and what to do about it
}

// List returns the input files below the directory dir, recursively, in the
// order of their arrival; files that arrived in the same instant are in the
// order of their paths. A name that begins with a dot is never input, neither
// is anything below a directory of such a name; of the other files, input
// decides by the path below dir.
//
// What looks like input and cannot be taken in is returned apart: symbolic
// links, devices, FIFOs and sockets (none is followed or opened), directories
// that have an input file's name, and files that this process may not read or
// may not remove.
//
// The error says that dir itself could not be listed ([fs.ErrNotExist] if it
// is not there), or holds input and may not be written to, so that none of it
// could be taken out.
func List(dir string, input func(path string) bool) ([]Found, []Skipped, error) {
	var found []Found
	var skipped []Skipped
	var closed error
	skip := func(path, why string) { skipped = append(skipped, Skipped{path, why}) }
	err := walk(dir, func(e entry) bool {
		switch {
		case e.err != nil:
			skip(e.path, fmt.Sprintf("the directory cannot be listed: %v", e.err))
		case e.name[0] == '.':
		case e.isDir() && fileExts[path.Ext(e.name)]:
			skip(e.path, "a directory with the name of a file; rename it")
		case e.isDir():
			return true
		case e.st.Mode&unix.S_IFMT == unix.S_IFLNK:
			skip(e.path, "a symbolic link, which is not followed; put the file itself there")
		case e.st.Mode&unix.S_IFMT != unix.S_IFREG:
			skip(e.path, "not a regular file; remove it")
		case !input(e.path):
		case unix.Faccessat(int(e.dir.f.Fd()), e.name, unix.R_OK, unix.AT_EACCESS) != nil:
			skip(e.path, fmt.Sprintf("not readable for this process: mode %04o, owner %s", e.st.Mode&0o7777, e.owner()))
		case e.dir.readOnly != nil && e.path == e.name:
			closed = &fs.PathError{Op: "writing to", Path: dir, Err: e.dir.readOnly}
		case e.dir.readOnly != nil:
			skip(e.path, fmt.Sprintf("not removable for this process: writing to its directory: %v", e.dir.readOnly))
		case e.dir.sticky && e.st.Uid != uint32(os.Geteuid()):
			skip(e.path, fmt.Sprintf("not removable for this process: its directory is sticky, and its owner is %s", e.owner()))
		case e.pinned() != "":
			skip(e.path, "not removable: "+e.pinned())
		default:
			found = append(found, Found{e.path, e.st.Size, time.Unix(e.st.Ctim.Unix())})
		}
		return false
	})
	if err = cmp.Or(err, closed); err != nil {
		return nil, nil, err
	}
	slices.SortFunc(found, func(a, b Found) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Path, b.Path))
	})
	slices.SortFunc(skipped, func(a, b Skipped) int { return cmp.Compare(a.Path, b.Path) })
	return found, skipped, nil
}

// fileExts are the extensions that make a directory look like a file that
// was meant to be dropped.
var fileExts = map[string]bool{".yaml": true, ".yml": true, ".json": true}

// A folder is an open directory.
type folder struct {
	f        *os.File
	readOnly error // why this process may not rename or unlink in it; nil if it may
	sticky   bool  // it may so only with files of its own (unlink(2), EPERM)
}

// An entry is one name that walk comes across.
type entry struct {
	path string // below the walked directory
	name string // the last element of path
	dir  folder // the directory that holds it
	st   unix.Stat_t
	err  error // why this directory cannot be listed
}

func (e entry) isDir() bool { return e.st.Mode&unix.S_IFMT == unix.S_IFDIR }

func (e entry) owner() string {
	name, _ := login(e.st.Uid) // at least its number
	return name
}

// pinned says why nobody, whatever his rights, can take the file out of its
// directory, "" if that is not so: an attribute of it or of the directory
// forbids that (ioctl_iflags(2)), or something is mounted on it.
func (e entry) pinned() string {
	attr := func(name string) uint64 {
		var st unix.Statx_t
		if unix.Statx(int(e.dir.f.Fd()), name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, 0, &st) != nil {
			return 0
		}
		return st.Attributes & st.Attributes_mask
	}
	own := attr(e.name)
	switch {
	case own&unix.STATX_ATTR_MOUNT_ROOT != 0:
		return "something is mounted on it; unmount that"
	case own&unix.STATX_ATTR_IMMUTABLE != 0:
		return "it is immutable; chattr -i"
	case own&unix.STATX_ATTR_APPEND != 0:
		return "it is append-only; chattr -a"
	case attr(".")&unix.STATX_ATTR_APPEND != 0:
		return "its directory is append-only; chattr -a"
	}
	return ""
}

// walk calls visit for everything below dir, a directory before what is in
// it; visit says whether to go into it. A directory that cannot be listed is
// visited once more, with the error. Links are not followed, so that walk
// stays below dir. Names that vanish meanwhile are passed over.
func walk(dir string, visit func(entry) (descend bool)) error {
	d, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return walkFolder(d, "", visit)
}

func walkFolder(d *os.File, below string, visit func(entry) bool) error {
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	me := uint32(os.Geteuid())
	dir := folder{
		f:        d,
		readOnly: unix.Faccessat(int(d.Fd()), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS),
		sticky:   st.Mode&unix.S_ISVTX != 0 && me != 0 && me != st.Uid,
	}
	slices.Sort(names)
	for _, name := range names {
		e := entry{path: path.Join(below, name), name: name, dir: dir}
		if err := unix.Fstatat(int(d.Fd()), name, &e.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			continue
		}
		if !visit(e) || !e.isDir() {
			continue
		}
		fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			sub := os.NewFile(uintptr(fd), e.path)
			err = walkFolder(sub, e.path, visit)
			sub.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			e.err = err
			visit(e)
		}
	}
	return nil
}

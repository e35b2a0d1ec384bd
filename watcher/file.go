// SPDX-License-Identifier: Apache-2.0

package watcher

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrBusy says that somebody has the file open for writing, or that this
	// cannot be known and the file changed less than a quiet period ago.
	ErrBusy = errors.New("still being written")

	// ErrGone says that there is no regular file of that name (any more).
	ErrGone = errors.New("no longer there")

	// ErrChanged says that the file is not, or will not stay, the one that
	// was read.
	ErrChanged = errors.New("changed since it was read")

	// ErrTooBig says that the file is larger than allowed.
	ErrTooBig = errors.New("too big")
)

// File is a raw file that nobody was writing when it was read.
type File struct {
	Path  string    // slash-separated, below the raw directory
	Data  []byte    // nil if the file was too big
	Size  int64     // in bytes
	Owner string    // login name of its owner, or the user ID where it has none
	UID   uint32    // user ID of its owner
	Time  time.Time // of arrival: its ctime, which neither cp -p nor mv can set to the past

	dir  string   // the raw directory
	name string   // what it is called now: the last element of Path, or its spent name
	id   identity // as it is now
	sum  []byte   // SHA-256 of Data; nil if the file was too big
}

// An identity tells whether a file is the one that was read. Each write and
// each rename moves ctime, but in steps of the kernel's clock tick before
// Linux 6.13, so where it matters the content is compared as well.
type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func identify(st *unix.Stat_t) identity {
	return identity{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
}

// Read reads the file path below the raw directory dir. Nothing in path is
// followed out of dir: a symbolic link anywhere in it is ErrGone.
//
// Errors that callers tell apart: [ErrBusy] (try again, see
// [Watcher.Await]), [ErrGone], [fs.ErrPermission]. A file larger than max
// bytes is not read: the File is returned without Data, for [File.Move], along
// with [ErrTooBig]. An empty file is ErrBusy until it has been empty for the
// quiet period: most are about to be filled, and a file that open(2) has just
// created is there for a moment before it is open, without a writer to see.
// So quiet should not be zero.
func Read(dir, path string, quiet time.Duration, max int64) (*File, error) {
	root, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	h, err := hold(int(root.Fd()), path, quiet)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(dir, path), err)
	}
	defer h.release()

	owner, err := login(h.st.Uid)
	if err != nil {
		return nil, fmt.Errorf("reading %s: looking its owner up: %w", filepath.Join(dir, path), err)
	}
	f := &File{
		Path: path, Size: h.st.Size, UID: h.st.Uid, Owner: owner,
		Time: time.Unix(h.st.Ctim.Unix()),
		dir:  dir, id: identify(&h.st), name: filepath.Base(path),
	}
	if h.st.Size == 0 && h.young(quiet) {
		return nil, fmt.Errorf("reading %s: empty: %w", filepath.Join(dir, path), ErrBusy)
	}
	if (h.st.Size == 0 || !h.leased) && h.ahead(quiet) {
		time.Sleep(quiet)
		var now unix.Stat_t
		if err := unix.Fstat(int(h.f.Fd()), &now); err != nil {
			return nil, os.NewSyscallError("fstat", err)
		}
		if identify(&now) != identify(&h.st) {
			return nil, fmt.Errorf("reading %s: %w", filepath.Join(dir, path), ErrBusy)
		}
	}
	if h.st.Size > max {
		return f, fmt.Errorf("reading %s: %w: %d bytes, allowed are %d", filepath.Join(dir, path), ErrTooBig, h.st.Size, max)
	}
	if f.Data, err = h.content(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(dir, path), err)
	}
	if !h.undisturbed() {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(dir, path), ErrBusy)
	}
	sum := sha256.Sum256(f.Data)
	f.sum = sum[:]
	return f, nil
}

// A held file is open for reading, and nobody had it open for writing when
// it was opened, as far as that can be known.
type held struct {
	f      *os.File
	st     unix.Stat_t // when it was opened
	leased bool        // it is kept so: opens for writing wait
}

// hold opens the regular file path below the open directory root. Its errors are
// ErrBusy, ErrGone and those of the file system.
func hold(root int, path string, quiet time.Duration) (*held, error) {
	// O_NONBLOCK so that neither a FIFO without a writer nor another
	// process's lease (a Samba server's) keeps us.
	fd, err := openBeneath(root, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil, ErrBusy
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO):
		return nil, ErrGone
	case err != nil:
		return nil, err
	}
	h := &held{f: os.NewFile(uintptr(fd), path)}
	if err := h.secure(quiet); err != nil {
		h.release()
		return nil, err
	}
	return h, nil
}

func (h *held) secure(quiet time.Duration) error {
	fd := int(h.f.Fd())
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if !remote(int64(fs.Type)) {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
		switch {
		case err == nil:
			h.leased = true
		case errors.Is(err, unix.EAGAIN):
			return ErrBusy
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM): // another user's file
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS): // no leases here
		default:
			return os.NewSyscallError("fcntl F_SETLEASE", err)
		}
	}
	// Not before the lease: now the file stays as it is seen here.
	if err := unix.Fstat(fd, &h.st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if h.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return ErrGone
	}
	if !h.leased && h.young(quiet) {
		return ErrBusy
	}
	return nil
}

// remote reports whether writers on other hosts, or behind a process in user
// space, can have a file of this file system open without this kernel
// knowing. A lease there proves nothing or is refused to all alike (NFSv4
// says EAGAIN unless it happens to hold a delegation).
func remote(fsType int64) bool {
	switch fsType {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC,
		unix.CEPH_SUPER_MAGIC, unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC, unix.CODA_SUPER_MAGIC,
		unix.OCFS2_SUPER_MAGIC, unix.V9FS_MAGIC, unix.FUSE_SUPER_MAGIC,
		0x01161970, // GFS2_MAGIC, linux/magic.h does not have it
		0x0BD00BD0: // Lustre
		return true
	}
	return false
}

// young reports whether the file changed less than quiet ago. One that seems to
// have changed in the future is not: see ahead.
func (h *held) young(quiet time.Duration) bool {
	age := time.Since(time.Unix(h.st.Ctim.Unix()))
	return -quiet < age && age < quiet
}

// ahead reports whether the file's time is in the future, by quiet or more: the
// clock was set back, or is a server's. Nothing can be told from it then, and
// to wait until the clock is there could take years: only looking twice helps.
func (h *held) ahead(quiet time.Duration) bool {
	return time.Since(time.Unix(h.st.Ctim.Unix())) <= -quiet
}

// content reads the whole file.
func (h *held) content() ([]byte, error) {
	data := make([]byte, h.st.Size)
	if _, err := h.f.ReadAt(data, 0); err == io.EOF {
		return nil, ErrBusy // it has become shorter, which a lease excludes
	} else if err != nil {
		return nil, err
	}
	return data, nil
}

// undisturbed reports whether nobody has begun to write since hold: no
// process waits for the lease or has outwaited it (F_GETLEASE then gives the
// type that the lease is to become, see fcntl(2)), and without a lease the
// file looks as it did.
func (h *held) undisturbed() bool {
	if h.leased {
		typ, err := unix.FcntlInt(h.f.Fd(), unix.F_GETLEASE, 0)
		return err == nil && typ == unix.F_RDLCK
	}
	var st unix.Stat_t
	err := unix.Fstat(int(h.f.Fd()), &st)
	return err == nil && st.Size == h.st.Size && st.Mtim == h.st.Mtim
}

// release gives the lease back and closes the file. Closing alone would not
// do: a child process that is about to call exec shares the open file for a
// moment, and the lease lives until the last of them is closed.
func (h *held) release() {
	if h.leased {
		unix.FcntlInt(h.f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}
	h.f.Close()
}

// openRoot opens a raw directory, which is no link: who looked before it came
// here may have seen another one.
func openRoot(dir string) (*os.File, error) {
	return os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// openBeneath opens path below the open directory root, through no link and
// never above root: element by element, because openat2(2), which does that at
// once, is ENOSYS in a service with RestrictSUIDSGID= (systemd.exec(5)) and in
// many containers.
func openBeneath(root int, path string, flags int) (int, error) {
	if !filepath.IsLocal(path) {
		return -1, unix.EXDEV
	}
	path = filepath.Clean(path)
	dir := root
	for {
		name, rest, below := strings.Cut(path, "/")
		how := flags | unix.O_NOFOLLOW | unix.O_CLOEXEC
		if below {
			how = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		fd, err := openat(dir, name, how)
		if dir != root {
			unix.Close(dir)
		}
		if err != nil || !below {
			return fd, err
		}
		dir, path = fd, rest
	}
}

// openat is openat(2), also where a signal comes.
func openat(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// login returns the login name of a user, or its number where it has none. The
// error says that this process could not look: it has too many files open.
func login(uid uint32) (string, error) {
	id := strconv.FormatUint(uint64(uid), 10)
	u, err := user.LookupId(id)
	switch {
	case err == nil:
		return u.Username, nil
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return id, err
	}
	return id, nil
}

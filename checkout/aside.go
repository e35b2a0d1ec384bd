// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// setAside moves what is at path to a free name below the aside directory,
// and returns that name.
func (w *worktree) setAside(path string) (kept string, err error) {
	w.forget() // it may be of a directory that is moved now
	dir, name := split(path)
	at, err := w.walk(dir, nil)
	if err != nil {
		return "", err
	}
	defer unix.Close(at)
	err = w.keep(at, name, path, &kept)
	return kept, err
}

// keep moves the file name in the directory fd below the aside directory, as
// path; kept, if not nil, is set to where it is then.
func (w *worktree) keep(fd int, name, path string, kept *string) error {
	target := filepath.Join(w.aside, filepath.FromSlash(path))
	if err := durable.MkdirAll(filepath.Dir(target), 0o777); err != nil {
		return fmt.Errorf("setting %s aside: %w", path, err)
	}
	for i := 0; ; i++ {
		to := target
		if i > 0 {
			to = fmt.Sprintf("%s.%d", target, i)
		}
		err := unix.Renameat2(fd, name, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
		if noFlags(err) {
			if _, lerr := os.Lstat(to); lerr == nil {
				err = unix.EEXIST
			} else {
				err = unix.Renameat(fd, name, unix.AT_FDCWD, to)
			}
		}
		if err == unix.EXDEV {
			err = copyOver(fd, name, to)
		}
		switch {
		case errors.Is(err, fs.ErrExist):
			continue
		case err != nil:
			return fmt.Errorf("setting %s aside as %s: %w", path, to, err)
		}
		if kept != nil {
			*kept = to
		}
		return durable.SyncDir(filepath.Dir(to))
	}
}

// copyOver moves a regular file to another file system.
func copyOver(fd int, name, to string) error {
	in, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(in), name)
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file, and the directory is on another file system", name)
	}
	if _, err := os.Lstat(to); err == nil {
		return fs.ErrExist
	}
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(f); err != nil {
		return err
	}
	if err := durable.WriteFile(to, buf.Bytes(), fi.Mode().Perm()); err != nil {
		return err
	}
	return unix.Unlinkat(fd, name, 0)
}

// SPDX-License-Identifier: Apache-2.0

// Package durable holds the file operations whose result must outlive a power
// loss.
//
// On Linux a write is in the page cache until something flushes it, and a
// name (created, renamed, removed) is in the cached directory until the
// directory is flushed. fsync(2) says it plainly: calling fsync on a file
// "does not necessarily ensure that the entry in the directory containing the
// file has also reached disk. For that an explicit fsync() on a file
// descriptor for the directory is also needed."
//
// Each function here returns nil only when what it did is on stable storage,
// as far as the kernel can tell: a device that lies about its write cache is
// beyond it. After an error the operation may have happened or not, and may
// be lost again by a power loss; nothing is ever left half-done under the
// final name. An error of fsync is not to be retried on the same file: the
// kernel reports it once and may have thrown the dirty pages away.
package durable

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WriteFile puts data into the file path, in place of what may be there, with
// exactly the permissions perm (the umask does not apply). It writes a
// temporary file beside path, flushes it, renames it and flushes the
// directory.
//
// After a crash or power loss at any moment, path holds either all of its
// former content (or is absent, if it was) or all of data; once WriteFile has
// returned nil, it holds data. A crash can leave a temporary file named
// ".durable-*.tmp" in the directory, which nothing refers to; the next
// WriteFile of the same path, such as the one that makes up for the crash,
// takes it away. No two may write the same path at once.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	tmp := temporary(path)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := fill(f, data, perm); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// temporary names the file beside path that WriteFile fills: always the same
// one, and never longer than the name of a file may be.
func temporary(path string) string {
	sum := sha256.Sum256([]byte(filepath.Base(path)))
	return filepath.Join(filepath.Dir(path), fmt.Sprintf(".durable-%x.tmp", sum[:8]))
}

// fill writes, flushes and closes f.
func fill(f *os.File, data []byte, perm fs.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Rename moves oldpath to newpath, in place of a file that may be there, and
// flushes both directories.
//
// After a crash or power loss the file is found under one of the two names;
// once Rename has returned nil, under newpath. The content of the file is not
// flushed: a file that was just written must be synced before.
func Rename(oldpath, newpath string) error {
	if err := os.Rename(oldpath, newpath); err != nil {
		return err
	}
	// The directory that gained the name goes first: a file system without
	// an atomic rename then shows the file twice rather than not at all.
	from, to := filepath.Dir(oldpath), filepath.Dir(newpath)
	if err := SyncDir(to); err != nil || from == to {
		return err
	}
	return SyncDir(from)
}

// Remove removes the file or empty directory path and flushes the directory
// that held it. Once it has returned nil, the name does not come back after a
// power loss. A name that is not there is an error ([fs.ErrNotExist]).
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// MkdirAll makes the directory path and the parents that it lacks, with the
// permissions perm before the umask, and flushes the directory in which each
// of them was made. Once it has returned nil, what it made is there after a
// power loss. Directories that it found are taken to be durable already.
func MkdirAll(path string, perm fs.FileMode) error {
	path = filepath.Clean(path)
	if fi, err := os.Stat(path); err == nil {
		if fi.IsDir() {
			return nil
		}
		return &fs.PathError{Op: "mkdir", Path: path, Err: unix.ENOTDIR}
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, perm); err != nil {
		// Somebody else may have made it in the meantime.
		if fi, serr := os.Stat(path); serr != nil || !fi.IsDir() {
			return err
		}
	}
	return SyncDir(parent)
}

// SyncDir flushes the entries of the directory dir: once it has returned nil,
// the names made, renamed and removed in it before the call are so after a
// power loss. The content of its files is not flushed.
//
// A file system that cannot flush a directory says EINVAL (fsync(2)); there a
// name is as durable as that file system makes it, and SyncDir returns nil.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

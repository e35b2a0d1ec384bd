// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// layRaw makes a fabric's raw directory, which git does not keep when it is
// empty, and the short way to it, <stateDir>/raw/<fabric>.
func (r *repository) layRaw(f *fabric) error {
	dir := r.onDisk(f.cfg.raw())
	if err := r.noLinks(f.cfg.raw()); err != nil {
		return err
	}
	if info, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := makeRaw(dir); err != nil {
			return fmt.Errorf("making %s: %w", dir, err)
		}
	} else if err != nil {
		return fmt.Errorf("looking at %s: %w", dir, err)
	} else if !info.IsDir() {
		return fmt.Errorf("%s is not a directory; move it away, and the directory is made again", dir)
	}
	link := filepath.Join(r.stateDir, "raw", f.cfg.Name)
	if to, err := os.Readlink(link); err == nil && to == dir {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return fmt.Errorf("making %s: %w", filepath.Dir(link), err)
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replacing %s: %w", link, err)
	}
	return os.Symlink(dir, link)
}

// noLinks wants no symbolic link on the way from the clone to p: somebody who
// can push could lead us out of the clone by one.
func (r *repository) noLinks(p string) error {
	for i := range len(p) + 1 {
		if i < len(p) && p[i] != '/' {
			continue
		}
		info, err := os.Lstat(r.onDisk(p[:i]))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return fmt.Errorf("%s is a symbolic link, which is not followed; make it a directory", p[:i])
		}
		if i < len(p) && !info.IsDir() {
			return fmt.Errorf("%s is not a directory; move it away, and the directory is made again", r.onDisk(p[:i]))
		}
	}
	return nil
}

// makeRaw makes a raw directory that the group may write to. It is made beside
// and then renamed: a crash in between must not leave it without those rights,
// as one that is there is left alone.
func makeRaw(dir string) error {
	if err := durable.MkdirAll(filepath.Dir(dir), 0o775); err != nil {
		return err
	}
	// What a crash left goes. Anything but an empty directory is not ours, such
	// as a link that somebody pushed.
	beside := filepath.Join(filepath.Dir(dir), ".hhwatchd-raw")
	if err := unix.Rmdir(beside); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "rmdir", Path: beside, Err: err}
	}
	if err := os.Mkdir(beside, 0o775); err != nil {
		return err
	}
	if err := letGroupDrop(beside); err != nil {
		return fmt.Errorf("letting the group write to it: %w", err)
	}
	if err := durable.SyncDir(beside); err != nil {
		return err
	}
	return durable.Rename(beside, dir)
}

// letGroupDrop lets the directory's group put files into it and into what is
// made below it, whatever the umask of whoever makes it. It is done by POSIX
// ACLs, because chmod(2) would clear the setgid bit that the directory has
// from its parent, and setting that bit is what a hardened unit forbids
// (RestrictSUIDSGID). The attribute's format is that of
// linux/posix_acl_xattr.h: a version, and an entry each for user, group and
// others.
func letGroupDrop(dir string) error {
	acl := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][2]uint16{{0x01, 7}, {0x04, 7}, {0x20, 5}} {
		acl = binary.LittleEndian.AppendUint16(acl, e[0])
		acl = binary.LittleEndian.AppendUint16(acl, e[1])
		acl = binary.LittleEndian.AppendUint32(acl, 0xffffffff) // no one in particular
	}
	for _, attr := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
		if err := unix.Setxattr(dir, attr, acl, 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package watcher

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// SpentSuffix ends the names of files between Retire and Bury, which begin
// with a dot.
const SpentSuffix = ".spent"

// nameMax is the length in bytes that Linux's file systems allow for a name
// (NAME_MAX in limits.h).
const nameMax = 255

// Retire takes files out of their raw directories, in the order given, by
// hiding them. It returns those that are out now (spent), to be buried later,
// and those that are not what was read any more, or are being written to
// (changed): these stay where they are, as new input. Files that somebody else
// removed are in neither.
//
// At the first other error it stops, so that of two files that arrived one
// after the other never just the earlier one is left. What is spent by then
// is returned along with the error.
//
// When Retire has returned, no power loss brings a spent file's own name
// back.
func Retire(files []*File) (spent, changed []*File, err error) {
	dirs := make(map[string]bool)
	for _, f := range files {
		err = f.retire()
		if errors.Is(err, ErrChanged) {
			changed, err = append(changed, f), nil
		} else if errors.Is(err, ErrGone) {
			err = nil
		} else if err != nil {
			err = fmt.Errorf("taking %s out: %w", filepath.Join(f.dir, f.Path), err)
			break
		} else {
			spent = append(spent, f)
			dirs[filepath.Dir(filepath.Join(f.dir, f.Path))] = true
		}
	}
	for dir := range dirs {
		if serr := durable.SyncDir(dir); serr != nil && !errors.Is(serr, fs.ErrNotExist) {
			err = errors.Join(err, serr)
		}
	}
	return spent, changed, err
}

func (f *File) retire() error {
	dir, err := f.parent()
	if err != nil {
		return err
	}
	defer dir.Close()
	h, err := f.verify(dir)
	if err != nil {
		return err
	}
	defer h.release()
	return f.hide(dir, h)
}

// hide renames the held file to a spent name.
func (f *File) hide(dir *os.File, h *held) error {
	spent := spentName(f.name)
	if err := renameat2(dir, f.name, dir, spent, 0); errors.Is(err, unix.ENOENT) {
		return ErrGone
	} else if err != nil {
		return err
	}
	// Crash from here on: Sweep finds it.
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), spent, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return ErrGone
	} else if err != nil {
		return os.NewSyscallError("fstatat", err)
	}
	if st.Dev != h.st.Dev || st.Ino != h.st.Ino || !h.undisturbed() {
		// Another file had taken the name, or somebody has begun to write;
		// with a lease it is only going to, once the lease is given back.
		if _, err := putBack(dir, spent, f.name); err != nil {
			return err
		}
		return ErrChanged
	}
	f.id, f.name = identify(&st), spent // renaming has moved its ctime
	return nil
}

// Bury unlinks files that Retire took out. A file that somebody has written
// to, or has open for writing, goes back into its raw directory as new input;
// the paths of those are returned. Bury goes on after an error; files that it
// could not deal with stay spent, for Sweep.
//
// The longer ago Retire was, the surer a late writer is noticed; a push over
// the network is ample.
func Bury(spent []*File) (restored []string, err error) {
	var errs []error
	for _, f := range spent {
		back, err := f.bury()
		if err != nil && !errors.Is(err, ErrGone) {
			errs = append(errs, fmt.Errorf("removing %s: %w", filepath.Join(f.dir, path.Dir(f.Path), f.name), err))
		}
		if back != "" {
			restored = append(restored, path.Join(path.Dir(f.Path), back))
		}
	}
	return restored, errors.Join(errs...)
}

func (f *File) bury() (back string, err error) {
	dir, err := f.parent()
	if err != nil {
		return "", err
	}
	defer dir.Close()
	h, err := f.verify(dir)
	if errors.Is(err, ErrChanged) {
		return putBack(dir, f.name, path.Base(f.Path))
	} else if err != nil {
		return "", err
	}
	defer h.release()
	if !h.undisturbed() {
		return putBack(dir, f.name, path.Base(f.Path))
	}
	return "", unix.Unlinkat(int(dir.Fd()), f.name, 0)
}

// emptyAge is for how long a sub-directory of a raw directory has to have
// been empty until Sweep removes it. Removing it at once would pull it from
// under a copying program that has made it and is about to fill it.
const emptyAge = 24 * time.Hour

// Sweep deals with what a crash between Retire and Bury has left below the
// raw directory dir. A spent file whose content is known (safe elsewhere) is
// returned, to be buried; any other, one larger than max bytes included, goes
// back under its own name as new input: the paths of those are returned. The
// path that known is given, and that a spent file has, is that own name, below
// dir (a very long one has been shortened). A spent file that still has its own
// name as well keeps that one only.
//
// Sub-directories that have been empty for a day are removed; dir itself never
// is.
//
// It goes on after an error. Between Retire and Bury it returns what Retire
// did, too.
func Sweep(dir string, max int64, known func(path string, data []byte) bool) (spent []*File, restored []string, err error) {
	var errs []error
	var old []string // sub-directories, each before those in it
	err = walk(dir, func(e entry) bool {
		if e.isDir() {
			if e.err != nil || e.name[0] == '.' {
				return false
			}
			if time.Since(time.Unix(e.st.Mtim.Unix())) > emptyAge {
				old = append(old, e.path)
			}
			return true
		}
		own, ok := ownName(e.name)
		if !ok {
			return false
		}
		p := path.Join(path.Dir(e.path), own)
		f, back, err := sweep(e.dir.f, e.name, own, max, func(data []byte) bool { return known(p, data) })
		if err != nil && !errors.Is(err, ErrGone) {
			errs = append(errs, fmt.Errorf("removing %s: %w", filepath.Join(dir, e.path), err))
		}
		if back != "" {
			restored = append(restored, path.Join(path.Dir(e.path), back))
		}
		if f != nil {
			f.dir, f.Path = dir, p
			spent = append(spent, f)
		}
		return false
	})
	for _, p := range slices.Backward(old) {
		if parent, err := openBelow(dir, path.Dir(p)); err == nil {
			unix.Unlinkat(int(parent.Fd()), path.Base(p), unix.AT_REMOVEDIR) // ENOTEMPTY: it is in use
			parent.Close()
		}
	}
	return spent, restored, errors.Join(append(errs, err)...)
}

func sweep(dir *os.File, name, own string, max int64, known func([]byte) bool) (f *File, back string, err error) {
	// One file by both names: a power loss kept half of the renaming. Then it
	// was not retired; it is no second file that was dropped since.
	var st, st2 unix.Stat_t
	if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		unix.Fstatat(int(dir.Fd()), own, &st2, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Dev == st2.Dev && st.Ino == st2.Ino {
		return nil, "", unix.Unlinkat(int(dir.Fd()), name, 0)
	}
	h, err := hold(int(dir.Fd()), name, 0)
	if errors.Is(err, ErrBusy) {
		back, err = putBack(dir, name, own)
		return nil, back, err
	} else if err != nil {
		return nil, "", err
	}
	defer h.release()
	if h.st.Size <= max {
		data, err := h.content()
		if err != nil && !errors.Is(err, ErrBusy) {
			return nil, "", err
		}
		if err == nil && known(data) && h.undisturbed() {
			sum := sha256.Sum256(data)
			return &File{Data: data, Size: h.st.Size, name: name, id: identify(&h.st), sum: sum[:]}, "", nil
		}
	}
	back, err = putBack(dir, name, own)
	return nil, back, err
}

// Move takes the file out of its raw directory by moving it to dst, on the
// same file system or another one, where the copy belongs to the user of this
// process. The directory of dst must exist; what dst names must not
// ([fs.ErrExist]).
//
// [ErrChanged] says that the file is not what was read any more, or is being
// written to, and stays, as new input; [ErrGone] that somebody else removed
// it. When Move has returned nil, the file is at dst for good. A crash leaves
// it in one of the two places, and between two file systems possibly in both.
func (f *File) Move(dst string) error {
	err := f.move(dst)
	if err != nil {
		return fmt.Errorf("moving %s to %s: %w", filepath.Join(f.dir, f.Path), dst, err)
	}
	return nil
}

func (f *File) move(dst string) error {
	from, err := f.parent()
	if err != nil {
		return err
	}
	defer from.Close()
	h, err := f.verify(from)
	if err != nil {
		return err
	}
	defer h.release()
	to, err := os.Open(filepath.Dir(dst))
	if err != nil {
		return err
	}
	defer to.Close()

	// In one step where that can be done: a crash leaves a rejected file as it
	// was found, so that it is known again, or where it belongs.
	err = f.rename(h, from, to, filepath.Base(dst))
	if errors.Is(err, unix.EXDEV) {
		err = f.carry(h, from, to, filepath.Base(dst))
	}
	if err != nil {
		return err
	}
	// The directory that gained the name goes first.
	if err := durable.SyncDir(filepath.Dir(dst)); err != nil {
		return err
	}
	return durable.SyncDir(from.Name())
}

// rename moves the held file in from to name in to, or fails and leaves it
// where it is.
func (f *File) rename(h *held, from, to *os.File, name string) error {
	if err := renameNoReplace(from, f.name, to, name); errors.Is(err, unix.ENOENT) {
		return ErrGone
	} else if err != nil {
		return err
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(to.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return ErrGone
	} else if err != nil {
		return os.NewSyscallError("fstatat", err)
	}
	if st.Dev == h.st.Dev && st.Ino == h.st.Ino && h.undisturbed() {
		return nil
	}
	// As in hide: another file had taken the name, or somebody writes.
	spent := spentName(f.name)
	if err := renameNoReplace(to, name, from, spent); err != nil {
		return err
	}
	if _, err := putBack(from, spent, f.name); err != nil {
		return err
	}
	return ErrChanged
}

// carry is rename between two file systems: it hides the file, so that its name
// is nobody else's, copies it and unlinks it. If it fails it puts it back.
func (f *File) carry(h *held, from, to *os.File, name string) error {
	if err := f.hide(from, h); err != nil {
		return err
	}
	err := copyTo(h, to, name)
	if err == nil {
		// Crash here: the file is in both places.
		if err = ErrChanged; h.undisturbed() {
			err = unix.Unlinkat(int(from.Fd()), f.name, 0)
		}
		if err == nil {
			return nil
		}
		unix.Unlinkat(int(to.Fd()), name, 0)
	}
	if _, berr := putBack(from, f.name, path.Base(f.Path)); berr != nil {
		return errors.Join(err, berr)
	}
	return err
}

// copyTo copies the held file to a new file name in the directory to, and
// flushes both.
func copyTo(h *held, to *os.File, name string) (err error) {
	tmp := "." + random() + ".tmp"
	fd, err := unix.Openat(int(to.Fd()), tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), tmp)
	n, err := io.Copy(out, io.NewSectionReader(h.f, 0, h.st.Size))
	if err == nil && n != h.st.Size {
		err = ErrChanged
	}
	if err == nil {
		err = out.Chmod(fs.FileMode(h.st.Mode).Perm())
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = renameNoReplace(to, tmp, to, name)
	}
	if err != nil {
		unix.Unlinkat(int(to.Fd()), tmp, 0)
		return err
	}
	return to.Sync()
}

// parent opens the directory that holds the file.
func (f *File) parent() (*os.File, error) {
	dir, err := openBelow(f.dir, path.Dir(f.Path))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, ErrGone
	}
	return dir, err
}

// verify holds the file if it is still the very one that was read, with the
// very content.
func (f *File) verify(dir *os.File) (*held, error) {
	h, err := hold(int(dir.Fd()), f.name, 0)
	if errors.Is(err, ErrBusy) {
		return nil, ErrChanged
	} else if err != nil {
		return nil, err
	}
	if err := f.compare(h); err != nil {
		h.release()
		return nil, err
	}
	return h, nil
}

func (f *File) compare(h *held) error {
	if identify(&h.st) != f.id {
		return ErrChanged
	}
	if f.sum == nil {
		return nil
	}
	data, err := h.content()
	if errors.Is(err, ErrBusy) {
		return ErrChanged
	} else if err != nil {
		return err
	}
	if sum := sha256.Sum256(data); !bytes.Equal(sum[:], f.sum) {
		return ErrChanged
	}
	return nil
}

// putBack renames the file name in dir to its own name, and returns the name
// that it got. If a newer file has that name by now, that one must remain the
// later arrival, or an old word would be heard after a new one: the older file
// takes its own name, and then the newer one moves to a free name beside.
func putBack(dir *os.File, name, own string) (got string, err error) {
	if err := renameNoReplace(dir, name, dir, own); err == nil {
		return own, nil
	} else if !errors.Is(err, unix.EEXIST) {
		return "", err
	}
	var st unix.Stat_t
	err = unix.Fstatat(int(dir.Fd()), own, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		if err = renameat2(dir, name, dir, own, unix.RENAME_EXCHANGE); err == nil {
			got = own
			// Crash here: Sweep finds the newer one.
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return putBack(dir, name, own) // the newer one has just gone
	}
	// What is called name now moves beside. Without the exchange, which some
	// file systems (NFS) do not have, it is the older one.
	for n := 1; ; n++ {
		// The underscore sorts after the dot: x_1.yaml comes after x.yaml
		// even when both are renamed in the same clock tick.
		mark := fmt.Sprintf("_%d", n)
		stem, ext := fit(own, nameMax-len(mark))
		beside := stem + mark + ext
		err := renameNoReplace(dir, name, dir, beside)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err == nil && got == "" {
			got = beside
		}
		return got, err
	}
}

// renameNoReplace renames a file unless the new name is taken (EEXIST).
func renameNoReplace(from *os.File, name string, to *os.File, as string) error {
	err := renameat2(from, name, to, as, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	return renameByLink(from, name, to, as)
}

// renameByLink is for file systems that do not have RENAME_NOREPLACE (EINVAL,
// see rename(2)): a link does not replace either.
func renameByLink(from *os.File, name string, to *os.File, as string) error {
	if err := unix.Linkat(int(from.Fd()), name, int(to.Fd()), as, 0); err != nil {
		return err
	}
	return unix.Unlinkat(int(from.Fd()), name, 0)
}

func renameat2(from *os.File, name string, to *os.File, as string, flags uint) error {
	return unix.Renameat2(int(from.Fd()), name, int(to.Fd()), as, flags)
}

// openBelow opens the directory path below dir.
func openBelow(dir, path string) (*os.File, error) {
	root, err := openRoot(dir)
	if err != nil || path == "." {
		return root, err
	}
	defer root.Close()
	fd, err := openBeneath(int(root.Fd()), path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir, path), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir, path)), nil
}

// spentName makes the name under which a file lies between Retire and Bury:
// ".NAME.XXXXXXXX.spent" with eight random hexadecimal digits.
func spentName(own string) string {
	tail := "." + random() + SpentSuffix
	stem, ext := fit(own, nameMax-1-len(tail))
	return "." + stem + ext + tail
}

// ownName returns the name that spentName was given.
func ownName(spent string) (own string, ok bool) {
	s, ok := strings.CutSuffix(spent, SpentSuffix)
	if !ok || !strings.HasPrefix(s, ".") {
		return "", false
	}
	dot := strings.LastIndexByte(s, '.')
	if dot < 2 || len(s)-dot-1 != 8 {
		return "", false
	}
	if _, err := hex.DecodeString(s[dot+1:]); err != nil {
		return "", false
	}
	return s[1:dot], true
}

// fit splits a name at its extension and shortens it to n bytes.
func fit(name string, n int) (stem, ext string) {
	if ext = path.Ext(name); len(ext) > 16 {
		ext = ""
	}
	stem = strings.TrimSuffix(name, ext)
	if over := len(stem) + len(ext) - n; over > 0 {
		stem = strings.ToValidUTF8(stem[:len(stem)-over], "")
	}
	return stem, ext
}

func random() string {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

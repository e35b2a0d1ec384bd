// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/journal"
)

// machineTrouble tells whether err is a trouble of the machine: one that
// concerns whatever is done there, no file in particular, and that passes
// without anybody touching a file of ours. The text is one line that says what
// is wrong, where, and what to do; it is the same from try to try. stateDir is
// where it happened if err does not say.
func machineTrouble(err error, stateDir string) (text string, ok bool) {
	where := func() string {
		var pe *fs.PathError
		var le *os.LinkError
		switch {
		case errors.As(err, &pe) && filepath.IsAbs(pe.Path):
			return mountPoint(pe.Path)
		case errors.As(err, &le) && filepath.IsAbs(le.New):
			return mountPoint(le.New)
		}
		return mountPoint(stateDir)
	}
	switch {
	case errors.Is(err, unix.ENOSPC):
		at := where()
		var st unix.Statfs_t
		if unix.Statfs(at, &st) == nil && st.Files > 0 && st.Ffree == 0 {
			text = fmt.Sprintf("the file system %s is out of inodes: remove files there", at)
		} else {
			text = fmt.Sprintf("the file system %s is full: free some space there", at)
		}
	case errors.Is(err, unix.EDQUOT):
		text = fmt.Sprintf("the quota on the file system %s is used up: free some space there, or raise it", where())
	case errors.Is(err, unix.EROFS):
		text = fmt.Sprintf("the file system %s is read-only: see the kernel's log (dmesg) for the cause, and remount it", where())
	case errors.Is(err, unix.EIO):
		text = fmt.Sprintf("the file system %s fails (%v): see the kernel's log (dmesg), the disk may be broken", where(), err)
	case errors.Is(err, unix.EMFILE):
		text = "hhwatchd has too many files open: raise its limit (LimitNOFILE= in the unit)"
	case errors.Is(err, unix.ENFILE):
		text = "the system has too many files open: raise sysctl fs.file-max"
	case errors.Is(err, unix.ENOMEM):
		text = "the system is out of memory"
	}
	return text, text != ""
}

// inWords is what a person is told of err.
func (r *repository) inWords(err error) string {
	if text, ok := machineTrouble(err, r.stateDir); ok {
		return text
	}
	return err.Error()
}

// mountPoint returns the directory on which the file system of path is
// mounted, path itself if it cannot be told. What of path is not there (a file
// that could not be made) does not matter.
func mountPoint(path string) string {
	at := filepath.Clean(path)
	var st, up unix.Statx_t
	for unix.Statx(unix.AT_FDCWD, at, 0, unix.STATX_TYPE, &st) != nil {
		if at == filepath.Dir(at) {
			return path
		}
		at = filepath.Dir(at)
	}
	for at != filepath.Dir(at) && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		if unix.Statx(unix.AT_FDCWD, filepath.Dir(at), 0, unix.STATX_TYPE, &up) != nil ||
			up.Dev_major != st.Dev_major || up.Dev_minor != st.Dev_minor { // before Linux 5.8
			break
		}
		at, st = filepath.Dir(at), up
	}
	return at
}

// A fault is what keeps the cycle as a whole, or one fabric's raw/, from going
// on. It may change its face while it lasts.
type fault struct {
	since    time.Time
	faces    []string
	recorded int // of faces, in the journal
}

// noteFaults tells the log and the journal of faults that began, changed
// their face, or are over; once each, however often the cycle is tried. A
// fault of the disk can be one of the journal, too: then only the log hears
// of it for now, and the journal when it can be written again.
func (r *repository) noteFaults(rep *report) {
	r.noteFault(rep.Cycle, "", rep.Error, "the cycle runs through again")
	for _, f := range rep.Fabrics {
		// A cycle that stopped early did not come to look at raw/.
		if f.Error != "" || rep.Error == "" {
			r.noteFault(rep.Cycle, f.Name, f.Error, "raw/ can be used again")
		}
	}
}

func (r *repository) noteFault(cycle, fabric, text, over string) {
	f := r.faults[fabric]
	if text == "" && f == nil {
		return
	}
	if f == nil {
		f = &fault{since: time.Now()}
		r.faults[fabric] = f
	}
	isNew := text != "" && !slices.Contains(f.faces, text)
	if isNew {
		f.faces = append(f.faces, text)
	}
	var recs []journal.Record
	for i, face := range f.faces[f.recorded:] {
		rec := journal.Record{Cycle: cycle, Fabric: fabric, Step: journal.StepFault, Error: face}
		if !isNew || f.recorded+i < len(f.faces)-1 {
			rec.Note = "recorded late, as the journal could not be written; it began at " + f.since.UTC().Format(time.RFC3339)
		}
		recs = append(recs, rec)
	}
	if text == "" {
		recs = append(recs, journal.Record{Cycle: cycle, Fabric: fabric, Step: journal.StepClear, Took: time.Since(f.since), Note: over})
	}
	switch err := r.record(recs...); {
	case err == nil:
		f.recorded = len(f.faces)
		if text == "" {
			delete(r.faults, fabric)
		}
	case isNew:
		r.log.Error("fault: "+text, "cycle", cycle, "fabric", fabric)
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/journal"
)

// A broken clone is made again from the remote, in steps that a crash may come
// between:
//
//  1. The journal is told what is broken, and the git directory is moved away.
//     raw/ and the rest of the work tree stay where they are.
//  2. A new git directory is fetched beside. Until the remote can be reached
//     this is tried again, and nothing else is done; drops wait in raw/.
//  3. Before it is put into its place, by one rename, carry brings over what
//     was never pushed. Crash before the rename: this step is done again.
//  4. The journal is told what was carried over, and what was not. The new
//     git directory keeps that report until then.
//
// The cycle that follows finds a clone with commits that wait to be pushed,
// and files in raw/, as after any crash.

// isBroken reports whether err says that the clone is broken. That an object is
// not in it does not: it may be of a commit that nothing keeps, such as one that
// the journal knows and the remote has rewritten away. See suspect.
func isBroken(err error) bool {
	var broken *checkout.BrokenError
	return errors.As(err, &broken)
}

// isLocal reports whether err is of this host or of the clone, and says nothing
// of the remote, whatever was asked of it.
func (r *repository) isLocal(err error) bool {
	_, machine := machineTrouble(err, r.stateDir)
	var locked *checkout.LockedError
	return machine || isBroken(err) || errors.Is(err, checkout.ErrNotFound) || errors.As(err, &locked)
}

// suspect looks, after an error of the clone, whether it is broken. After a
// missing object it looks at everything that a ref needs.
func (r *repository) suspect(err error) error {
	if err == nil || isBroken(err) || r.clone == nil {
		return err
	}
	why := r.clone.Check(true)
	if why == nil && errors.Is(err, checkout.ErrNotFound) {
		why = r.clone.CheckConnectivity()
	}
	if isBroken(why) {
		return why
	}
	return err
}

// giveUp sets the git directory of the broken clone aside. It does not if the
// clone was just made again because of the same damage: then that comes from
// elsewhere, and making it again and again would not help.
func (r *repository) giveUp(ctx context.Context, rep *report, why error) error {
	var broken *checkout.BrokenError
	if errors.As(why, &broken) {
		if broken.What == r.remade {
			return fmt.Errorf("%w; the clone was made again because of that, and the new one is no better: look at the remote and the disk, then restart hhwatchd", why)
		}
		r.remade = broken.What
	}
	if r.clone != nil {
		// A cluster that is reading it stops, and waits for the new one.
		if err := r.clone.Close(); err != nil {
			r.log.Error("closing the broken clone", "err", err)
		}
		r.clone = nil
	}
	if err := r.sayBroken(rep, why.Error()); err != nil {
		return err
	}
	_, err := checkout.SetAside(ctx, r.cloneDir)
	return err
}

func (r *repository) sayBroken(rep *report, what string) error {
	r.broken = what
	return r.record(journal.Record{
		Cycle: rep.Cycle, Step: journal.StepFault,
		Error: what + "; the clone is made again from the remote, raw/ and unmanaged/ stay as they are",
	})
}

// noticeMissing tells the journal of a clone that it knows and that is gone.
func (r *repository) noticeMissing(rep *report) error {
	git := filepath.Join(r.cloneDir, ".git")
	if r.clone != nil || r.broken != "" || r.book.inventory().Recorded(r.cfg.Name) == "" {
		return nil
	}
	if _, err := os.Lstat(git); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return r.sayBroken(rep, "the git directory "+git+" is gone")
}

// A rebuilt is the report of a clone that was made again.
type rebuilt struct {
	Kept    string   `json:"kept,omitempty"`    // the broken git directory
	Commits []string `json:"commits,omitempty"` // carried over as they were, oldest first
	Files   []string `json:"files,omitempty"`   // raw files that are said again
	Refs    []string `json:"refs,omitempty"`    // a person's commits that were kept
	Lost    []string `json:"lost,omitempty"`    // what was not carried over, a line each
	Again   bool     `json:"again,omitempty"`   // what the last commits did is still to be done again
}

// tellRebuilt tells the journal how the clone was made again.
func (r *repository) tellRebuilt(rep *report) error {
	data, err := r.clone.Report()
	if err != nil || len(data) == 0 {
		return err
	}
	var did rebuilt
	if err := json.Unmarshal(data, &did); err != nil {
		return fmt.Errorf("reading the report of how the clone was made again: %w", err)
	}
	var carried []string
	if n := len(did.Commits); n > 0 {
		carried = append(carried, plural(n, "commit"))
	}
	if n := len(did.Files); n > 0 {
		carried = append(carried, plural(n, "file")+" ("+strings.Join(did.Files[:min(n, 10)], ", ")+")")
	}
	if n := len(did.Refs); n > 0 {
		carried = append(carried, strings.Join(did.Refs, ", "))
	}
	note := "the clone was made again from the remote; "
	if len(carried) > 0 {
		note += "carried over what was not pushed: " + strings.Join(carried, ", ")
	} else if len(did.Lost) == 0 {
		note += "everything was pushed"
	} else {
		note += "nothing could be carried over"
	}
	if did.Kept != "" {
		note += "; the broken one lies in " + did.Kept
	}
	recs := []journal.Record{{Cycle: rep.Cycle, Step: journal.StepClear, Commits: did.Commits, Note: note}}
	for _, lost := range did.Lost {
		recs = append(recs, journal.Record{Cycle: rep.Cycle, Step: journal.StepFault, Error: "lost with the broken clone: " + lost})
	}
	if err := r.record(recs...); err != nil {
		return err
	}
	r.resaid = did.Again
	return r.clone.ForgetReport()
}

// cloneWaits says why there is no clone to work with.
func (r *repository) cloneWaits(err error) string {
	if r.broken == "" {
		return err.Error()
	}
	return fmt.Sprintf("%s; it is made again when the remote can be had, and raw/ waits: %v", r.broken, err)
}

// damaged notes that a cluster's goroutine met err in the clone, and wakes the
// cycle, which owns it.
func (r *repository) damaged(err error) {
	r.mu.Lock()
	r.met = err
	r.mu.Unlock()
	r.watch.Wake(0)
}

func (r *repository) takeMet() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.met
	r.met = nil
	return err
}

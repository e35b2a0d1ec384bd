// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hhwatchd/hhwatchd/journal"
)

func historyCommand(o *options) *cobra.Command {
	var f journal.Filter
	var since, until string
	var follow bool
	var last int
	cmd := &cobra.Command{
		Use:   "history [--since TIME] [--until TIME] [--repo NAME] [--fabric NAME] [--object KIND/NAME] [--file PATH] [--commit ID] [--cycle ID] [--last N] [--follow]",
		Short: "Tell what came in and what became of it",
		Long: `Tell what came in and what became of it, from the journal, oldest first. The
conditions are combined. TIME is a time as 2006-01-02T15:04:05Z, a date, or a
duration ago such as 2h.

With --object it tells the story of one object: who dropped or pushed which file
that it stands in, and where; the commits; when they were pushed; what the
cluster made of it; and how it is now.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			now := time.Now()
			if f.Since, err = parseTime(since, now); err != nil {
				return &exitError{exitUsage, fmt.Errorf("--since: %w", err)}
			}
			if f.Until, err = parseTime(until, now); err != nil {
				return &exitError{exitUsage, fmt.Errorf("--until: %w", err)}
			}
			if _, err := os.Stat(cfg.journalDir()); err != nil {
				return noJournal(cfg, err)
			}
			h := history{w: cmd.OutOrStdout(), dir: cfg.journalDir(), filter: f, json: o.output == "json"}
			return h.print(cmd.Context(), last, follow)
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "from `TIME` on")
	cmd.Flags().StringVar(&until, "until", "", "before `TIME`")
	cmd.Flags().StringVar(&f.Repository, "repo", "", "of the repository `NAME`")
	cmd.Flags().StringVar(&f.Fabric, "fabric", "", "of the fabric `NAME`")
	cmd.Flags().StringVar(&f.Object, "object", "", "of the object `KIND/NAME`")
	cmd.Flags().StringVar(&f.File, "file", "", "of the file `PATH`")
	cmd.Flags().StringVar(&f.Commit, "commit", "", "of the commit `ID`")
	cmd.Flags().StringVar(&f.Cycle, "cycle", "", "of the cycle `ID`")
	cmd.Flags().IntVarP(&last, "last", "n", 0, "only the last `N`")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as more comes in")
	o.outputFlag(cmd)
	return cmd
}

// parseTime reads a point in time, or a duration before now. "" is none.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a time (2006-01-02T15:04:05Z), a date, nor a duration (2h)", s)
}

// A history prints the records that a filter selects.
type history struct {
	w      io.Writer
	dir    string
	filter journal.Filter
	json   bool

	// What the story of an object needs of records that do not name it.
	pulled   map[string]bool // commits of the last pull
	unpushed map[string]bool // commits about the object that have not been pushed yet
}

func (h *history) print(ctx context.Context, last int, follow bool) error {
	h.unpushed = map[string]bool{}
	from, err := journal.Since(h.dir, h.filter.Since)
	if err != nil {
		return err
	}
	var held [][]string // the last ones, each as its lines
	var seq uint64
	for r, err := range journal.Read(h.dir, from) {
		if err := ctx.Err(); err != nil {
			return err
		}
		seq = max(seq, r.Seq)
		lines, err := h.lines(r, err)
		if err != nil {
			return err
		}
		if last > 0 && len(lines) > 0 {
			if held = append(held, lines); len(held) > last {
				held = held[1:]
			}
		} else if err := h.write(lines); err != nil {
			return err
		}
	}
	if err := h.write(slices.Concat(held...)); err != nil {
		return err
	}
	if !follow {
		return h.now()
	}
	for r, err := range journal.Follow(ctx, h.dir, seq+1) {
		lines, err := h.lines(r, err)
		if err == nil {
			err = h.write(lines)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *history) write(lines []string) error {
	for _, l := range lines {
		if _, err := fmt.Fprintln(h.w, l); err != nil {
			return err
		}
	}
	return nil
}

// lines is what there is to say of a record, nothing where it is not selected.
// Damage, which comes in place of a record, is reported on stderr.
func (h *history) lines(r journal.Record, err error) ([]string, error) {
	var d *journal.Damage
	if errors.As(err, &d) {
		fmt.Fprintln(os.Stderr, "hhwatchd:", err)
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	selected := h.filter.Match(r)
	if h.filter.Object != "" {
		selected = h.track(r) || selected
	}
	switch {
	case !selected:
		return nil, nil
	case h.json:
		line, err := json.Marshal(r)
		return []string{string(line)}, err
	case h.filter.Object != "":
		return h.story(r), nil
	}
	return []string{stamp(r.Time) + " " + r.String()}, nil
}

func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// track follows the commits that are about the object, and reports whether r,
// without naming the object, tells what became of one of them.
func (h *history) track(r journal.Record) bool {
	about := h.filter
	about.Object = ""
	switch r.Step {
	case journal.StepPull:
		h.pulled = map[string]bool{}
		for _, c := range r.Commits {
			h.pulled[c] = true
		}
	case journal.StepIngest, journal.StepManaged:
		if r.To != "" && !h.pulled[r.To] && (journal.Filter{Object: h.filter.Object, Fabric: h.filter.Fabric}).Match(r) {
			h.unpushed[r.To] = true
		}
	case journal.StepPush, journal.StepReplan:
		if r.Error != "" {
			break
		}
		hit := false
		for c := range h.unpushed {
			in := slices.Contains(r.Commits, c)
			if in == (r.Step == journal.StepPush) {
				delete(h.unpushed, c) // pushed, or given up for another one
				hit = true
			}
		}
		about.Fabric = "" // they are about a repository
		return hit && about.Match(r)
	}
	return false
}

// story tells the object's part in a record, a line an event.
func (h *history) story(r journal.Record) []string {
	var lines []string
	say := func(event, format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		lines = append(lines, fmt.Sprintf("%s  %-9s  %-9s  %s", stamp(r.Time), cmp.Or(r.Fabric, r.Repository), event, journal.Printable(what)))
	}
	switch r.Step {
	case journal.StepPush:
		say("pushed", "%s to %s", short(r.To), r.Branch)
		return lines
	case journal.StepReplan:
		say("replanned", "another clone had pushed first; the commits up to %s became those up to %s", short(r.From), short(r.To))
		return lines
	}
	for _, o := range r.Objects {
		if !o.Key().Match(h.filter.Object) {
			continue
		}
		switch r.Step {
		case journal.StepApply, journal.StepDrift, journal.StepPrune:
			sayCluster(say, r, o)
		default:
			if f := r.File; f != nil {
				if f.Origin == journal.Pulled {
					say("came", "%s, pushed by %s in commit %s", f.Path, f.Owner, short(f.Commit))
				} else {
					say("came", "%s, dropped by %s%s", f.Path, f.Owner, inCommit(f.Commit))
				}
			}
			sayManaged(say, r, o)
		}
	}
	return lines
}

func inCommit(c string) string {
	if c == "" {
		return ""
	}
	return ", kept in commit " + short(c)
}

// sayManaged tells what a commit did with the object's managed file.
func sayManaged(say func(event, format string, args ...any), r journal.Record, o journal.Object) {
	what := o.Key().String()
	if r.File != nil && o.Document > 0 {
		what += fmt.Sprintf(", document %d, line %d", o.Document, o.Line)
	}
	switch {
	case o.Outcome == journal.Removed:
		what += " with " + o.Path
	case o.Path != "":
		what += " → " + o.Path
	}
	if r.To != "" {
		what += " in commit " + short(r.To)
	}
	if r.Step == journal.StepManaged && r.Note != "" {
		what += ", edited " + r.Note
	}
	if r.Step == journal.StepRecovered {
		what += "; the inventory did not agree with git"
	}
	say(o.Outcome, "%s", what)
}

// sayCluster tells what the cluster made of the object.
func sayCluster(say func(event, format string, args ...any), r journal.Record, o journal.Object) {
	outcome := o.Outcome
	if outcome == journal.Pruned {
		outcome = "deleted"
	}
	what := o.Key().String() + " " + outcome + " in the cluster"
	if o.ResourceVersion != "" {
		what += ", resourceVersion " + o.ResourceVersion
	}
	if r.To != "" {
		what += ", from commit " + short(r.To)
	}
	switch {
	case o.Outcome == journal.Drifted:
		say("DRIFTED", "%s: %s", o.Key(), o.Error)
	case o.Drift != nil && o.Error == "":
		say("repaired", "%s: %s; put right in the cluster, resourceVersion %s", o.Key(), o.Drift, o.ResourceVersion)
	case o.Outcome == journal.Failed:
		say("REFUSED", "%s by the cluster, from commit %s: %s", o.Key(), short(r.To), cmp.Or(o.Error, r.Error))
	case r.Step == journal.StepPrune:
		say("pruned", "%s", what)
	default:
		say("applied", "%s", what)
	}
}

// now tells how the object is by the end of its story.
func (h *history) now() error {
	if h.filter.Object == "" || h.json || !h.filter.Until.IsZero() {
		return nil
	}
	inv, err := journal.ReadInventory(h.dir)
	if inv == nil {
		return err
	}
	var lines []string
	for _, fabric := range inv.Fabrics() {
		if h.filter.Fabric != "" && h.filter.Fabric != fabric {
			continue
		}
		for _, e := range inv.Objects(fabric) {
			if e.Key.Match(h.filter.Object) {
				what := h.state(e)
				lines = append(lines, fmt.Sprintf("%-19s  %-9s  %-9s  %s", "now", fabric, e.State(), journal.Printable(what)))
			}
		}
	}
	if len(lines) == 0 {
		lines = []string{fmt.Sprintf("%-19s  no fabric holds %s", "now", h.filter.Object)}
	}
	if inv.Expired() > 0 {
		lines = append(lines, "Records past the age and size that are kept have been removed; there may be more to the story.")
	}
	return h.write(lines)
}

func (h *history) state(e journal.Entry) string {
	what := e.Key.String()
	switch d := e.Desired; {
	case d.Blob == "":
		what += " has left " + e.Left
	case d.RawPath != "":
		what += fmt.Sprintf(" as in %s, document %d, line %d, commit %s", d.RawPath, d.Document, d.Line, short(d.Commit))
	default:
		what += fmt.Sprintf(" as edited in commit %s", short(d.Commit))
	}
	if h.unpushed[e.Desired.Commit] {
		what += ", NOT PUSHED yet"
	}
	if e.Applied.Blob != "" {
		what += fmt.Sprintf("; in the cluster since %s", stamp(e.Applied.Time))
		if e.Desired.Blob != e.Applied.Blob {
			what += ", as of commit " + short(e.Applied.Commit)
		}
	}
	if e.Error != "" {
		what += "; not as it should be: " + strings.TrimSpace(e.Error)
	}
	return what
}

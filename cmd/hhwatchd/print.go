// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hhwatchd/hhwatchd/journal"
)

// awaitApply waits until every cluster that the cycle handed work to has
// answered, and enters the answers.
func (r *report) awaitApply(ctx context.Context) error {
	for i := range r.Fabrics {
		f := &r.Fabrics[i]
		if f.applying == nil {
			continue
		}
		select {
		case f.Apply = <-f.applying:
			f.applying = nil
		case <-ctx.Done():
			f.Apply.Error = "still going on"
			return fmt.Errorf("waiting for the cluster of %s: %w", f.Name, ctx.Err())
		}
	}
	return nil
}

// printReport shows a cycle to a person, a line a step.
func printReport(w io.Writer, r *report) {
	head := "cycle " + r.Cycle
	if r.DryRun {
		head = "dry run, nothing is written"
	}
	fmt.Fprintf(w, "%s: %s, %v\n", r.Repository, head, r.Took.Round(time.Millisecond))
	line := func(step, format string, args ...any) {
		fmt.Fprintf(w, "  %-9s %s\n", step, fmt.Sprintf(format, args...))
	}
	switch p := r.Pull; {
	case p.Error != "":
		line("pull", "FAILED: %s", p.Error)
	case p.Skipped != "":
		line("pull", "skipped: %s", p.Skipped)
	case p.From == p.To && p.To == "" && r.Error != "":
		// It did not come to that.
	case p.From == p.To:
		line("pull", "up to date at %s", orNone(short(p.To)))
	case r.DryRun:
		line("pull", "the remote has %s, beyond %s; a dry run does not fetch it", short(p.To), orNone(short(p.From)))
	default:
		line("pull", "%s..%s", orNone(short(p.From)), short(p.To))
	}
	for _, a := range r.Aside {
		line("aside", "%s was changed by hand; restored from git%s", a.Path, kept(a.Kept))
	}
	if r.Import != nil {
		r.Import.print(line)
	}
	for _, f := range r.Fabrics {
		for _, file := range f.Files {
			printFile(w, line, f, file)
		}
		for _, p := range f.Waiting {
			line("ingest", "%s: %s waits: it is still being written", f.Name, p)
		}
		if f.Deferred > 0 {
			line("ingest", "%s: %s for the next cycle (limits.cycle)", f.Name, waits(f.Deferred))
		}
		for _, p := range f.Skipped {
			line("ingest", "%s: LEFT ALONE: %s", f.Name, p)
		}
		if f.Error != "" {
			line("ingest", "%s: FAILED: %s", f.Name, f.Error)
		}
	}
	if len(r.Commits) > 0 {
		line("commit", "%s: %s", plural(len(r.Commits), "commit"), short(r.Commits[len(r.Commits)-1]))
	}
	switch p := r.Push; {
	case p.Error != "":
		line("push", "FAILED: %s", p.Error)
	case p.Skipped != "" && !r.DryRun:
		line("push", "skipped: %s", p.Skipped)
	case p.Commits > 0:
		line("push", "%s, the remote is at %s", plural(p.Commits, "commit"), short(p.Head))
	}
	for _, f := range r.Fabrics {
		printApply(line, f.Name, f.Apply, r.DryRun)
	}
	if r.Error != "" {
		line("STOPPED", "%s", r.Error)
	}
}

func kept(path string) string {
	if path == "" {
		return ""
	}
	return ", the change is in " + path
}

func orNone(s string) string {
	if s == "" {
		return "an empty branch"
	}
	return s
}

func printFile(w io.Writer, line func(string, string, ...any), f fabricReport, file fileReport) {
	by := file.Origin
	if file.Owner != "" {
		by += " by " + file.Owner
	}
	switch file.Outcome {
	case journal.Rejected:
		where := ""
		if file.Kept != "" {
			where = ", see " + file.Kept + reasonSuffix
		}
		line("ingest", "%s: %s (%s) REJECTED%s", f.Name, file.Path, by, where)
		for _, p := range file.Problems {
			fmt.Fprintf(w, "            %s\n", problemLine(p))
		}
	case journal.Already:
		line("ingest", "%s: %s (%s) is ingested already", f.Name, file.Path, by)
	default:
		line("ingest", "%s: %s (%s): %s", f.Name, file.Path, by, counts(file.Objects))
		for _, o := range file.Plan {
			fmt.Fprintf(w, "            %-10s %s → %s\n", o.Outcome, o.Object, o.Path)
		}
		for _, p := range file.Warnings {
			fmt.Fprintf(w, "            warning: %s\n", problemLine(p))
		}
	}
}

func printApply(line func(string, string, ...any), name string, a applyReport, dryRun bool) {
	switch {
	case dryRun:
	case a.Error != "":
		line("apply", "%s: FAILED: %s", name, a.Error)
	case a.Commit == "" && a.Skipped == "":
		// It did not come to that.
	case a.Skipped != "":
		line("apply", "%s: skipped: %s", name, a.Skipped)
	default:
		what := counts(a.Objects)
		if what == "" {
			what = "nothing to do"
		}
		line("apply", "%s: %s at %s", name, what, short(a.Commit))
	}
	for _, f := range a.Failed {
		line("", "%s", f)
	}
	for _, d := range a.Drifts {
		line("drift", "%s: LEFT: %s", name, d)
	}
	if a.Held != "" {
		line("prune", "%s: HELD: %s", name, a.Held)
	}
}

// well reports whether status has nothing for a person to do.
func (s *statusDoc) well() bool {
	for _, r := range s.Repositories {
		if r.Down != "" || r.Error != "" || r.Aside > 0 {
			return false
		}
		for _, f := range r.Fabrics {
			if f.Health != nil && f.Health.Error != "" {
				return false
			}
			if f.Down != "" || f.Held != "" || f.Error != "" || len(f.Failed)+len(f.Drifts) > 0 || len(f.Skipped) > 0 {
				return false
			}
		}
	}
	return true
}

// printStatus shows the daemon to a person: what is wrong comes in words, on
// a line of its own.
func printStatus(w io.Writer, s statusDoc, now time.Time) {
	ago := func(t time.Time) string { return now.Sub(t).Round(time.Second).String() + " ago" }
	fmt.Fprintf(w, "hhwatchd %s, pid %d, up %s\n", s.Version, s.PID, now.Sub(s.Started).Round(time.Second))
	for _, r := range s.Repositories {
		fmt.Fprintf(w, "\n%s  %s (%s)\n", r.Name, r.URL, r.Branch)
		if r.Cycles == 0 {
			fmt.Fprintf(w, "  remote    not looked at yet\n")
			continue
		}
		if r.Down != "" {
			fmt.Fprintf(w, "  remote    DOWN for %s, %s: %s; next try %s\n", now.Sub(r.DownSince).Round(time.Second), plural(r.Tries, "attempt"), r.Down, r.Next.Local().Format(time.TimeOnly))
		} else {
			fmt.Fprintf(w, "  remote    at %s, looked %s\n", orNone(short(r.Remote)), ago(r.Looked))
		}
		if waits := now.Sub(r.Asked); r.Asking != "" && waits > 2*time.Second {
			fmt.Fprintf(w, "  waiting   for the remote, which is %s for %s\n", r.Asking, waits.Round(time.Second))
		}
		if r.Unpushed > 0 {
			fmt.Fprintf(w, "  unpushed  %s, local branch at %s\n", plural(r.Unpushed, "commit"), short(r.Head))
		}
		if r.Aside > 0 {
			fmt.Fprintf(w, "  ASIDE     %s made in the clone, which the remote went on without: git -C %s log --no-walk --glob=refs/hhwatchd/%s; push what is missed from another clone, then git update-ref -d REF\n",
				plural(r.Aside, "commit"), r.Clone, strings.TrimSuffix(asideRef, "/"))
		}
		if r.Error != "" {
			fmt.Fprintf(w, "  STOPPED   for %s: %s; next try %s\n", now.Sub(r.Stopped).Round(time.Second), r.Error, r.Retry.Local().Format(time.TimeOnly))
		}
		for _, f := range r.Fabrics {
			objects := plural(f.Objects, "object")
			switch {
			case f.Cluster == "":
				objects += ", no cluster"
			case f.Down != "":
				objects += fmt.Sprintf(", %d applied to %s", f.Applied, f.Cluster)
			case f.Commit == "":
				objects += ", not applied yet to " + f.Cluster
			default:
				objects += fmt.Sprintf(", %d applied at %s to %s", f.Applied, short(f.Commit), f.Cluster)
			}
			fmt.Fprintf(w, "  %-9s %s\n", f.Name, objects)
			if f.Ahead {
				fmt.Fprintf(w, "            AHEAD of the remote, which does not have %s yet\n", short(f.Commit))
			}
			if f.Down != "" {
				fmt.Fprintf(w, "            cluster DOWN for %s, %s: %s; next try %s\n",
					now.Sub(f.DownSince).Round(time.Second), plural(f.Tries, "attempt"), strings.TrimPrefix(f.Down, "cluster "), f.Next.Local().Format(time.TimeOnly))
			}
			f.Health.print(w, f.Down != "", ago)
			for _, e := range f.Failed {
				fmt.Fprintf(w, "            NOT APPLIED %s\n", e)
			}
			for _, d := range few(f.Drifts) {
				fmt.Fprintf(w, "            DRIFTED %s\n", d)
			}
			if f.Repaired != "" && now.Sub(f.RepairAt) < 24*time.Hour {
				fmt.Fprintf(w, "            drift put right %s: %s\n", ago(f.RepairAt), f.Repaired)
			}
			if f.Unwatched != "" {
				fmt.Fprintf(w, "            drift: %s\n", f.Unwatched)
			}
			for _, d := range few(f.Deleting) {
				fmt.Fprintf(w, "            deleting %s\n", d)
			}
			if f.Held != "" {
				fmt.Fprintf(w, "            prune HELD: %s\n", f.Held)
			}
			if f.Unchecked != "" {
				fmt.Fprintf(w, "            schemas: %s\n", f.Unchecked)
			}
			if f.Unheard != "" && f.Down == "" && now.Sub(f.UnheardAt) < 24*time.Hour {
				fmt.Fprintf(w, "            admission: not all objects were judged before they were committed, %s: %s\n", ago(f.UnheardAt), f.Unheard)
			}
			for _, s := range few(f.Skipped) {
				fmt.Fprintf(w, "            LEFT ALONE in raw/: %s\n", s)
			}
			if f.Error != "" {
				fmt.Fprintf(w, "            raw/ FAILED: %s\n", f.Error)
			}
			if len(f.Waiting) > 0 {
				fmt.Fprintf(w, "            waiting for the writer of %s\n", strings.Join(f.Waiting, ", "))
			}
			fmt.Fprintf(w, "            drop files into %s\n", f.Raw)
		}
	}
}

// few shortens a list of lines that one cause can make very long.
func few(lines []string) []string {
	const most = 10
	if len(lines) <= most {
		return lines
	}
	return append(lines[:most:most], fmt.Sprintf("and %d more; all of them: hhwatchd status -o json", len(lines)-most))
}

// problemLine is a problem without its file, which stands above it.
func problemLine(p journal.Problem) string {
	var where []string
	if p.Document > 0 {
		where = append(where, fmt.Sprintf("document %d", p.Document))
	}
	if p.Line > 0 {
		where = append(where, fmt.Sprintf("line %d", p.Line))
	}
	s := fmt.Sprintf("%s %s: %s", p.Code, p.Message, p.Hint)
	if len(where) > 0 {
		s = strings.Join(where, ", ") + ": " + s
	}
	return s
}

func waits(n int) string {
	if n == 1 {
		return "1 file waits"
	}
	return fmt.Sprintf("%d files wait", n)
}

// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// String tells the record as one line for people, without its time and number:
//
//	fabric-1  ingested raw/prepop.yaml (dropped by alice): 46 objects: 46 created
//
// Characters that a terminal would not print are escaped as in Go strings.
func (r Record) String() string {
	s := r.sentence()
	if r.Note != "" {
		s += "; " + r.Note
	}
	if r.Took > 0 && r.Step != StepClear {
		s += " (" + duration(r.Took) + ")"
	}
	if subject := cmp.Or(r.Fabric, r.Repository); subject != "" {
		s = subject + "  " + s
	}
	return Printable(s)
}

func (r *Record) sentence() string {
	branch := cmp.Or(r.Branch, "the branch")
	commits := count(len(r.Commits), "commit")
	if r.Error != "" {
		switch r.Step {
		case StepPull, StepCommit, StepReplan, StepPrune, StepReload:
			return string(r.Step) + " failed: " + r.Error
		case StepApply:
			return "apply of " + short(r.To) + " failed: " + r.Error
		case StepRollout:
			return "rollout of " + short(r.To) + " is not through: " + r.Error
		case StepPush:
			return "push to " + branch + " failed: " + r.Error
		case StepFault:
			return "fault: " + r.Error
		}
		// The others say what was attempted, too.
	}
	s := ""
	switch r.Step {
	case StepPull:
		switch {
		case r.From == "":
			s = "cloned " + branch + " at " + short(r.To)
		case len(r.Commits) == 0:
			s = "pulled " + branch + ": " + short(r.From) + ".." + short(r.To)
		default:
			s = "pulled " + commits + " from " + branch + ": " + short(r.From) + ".." + short(r.To)
		}
		s += r.tally()
	case StepManaged:
		s = "managed/ was changed by " + short(r.To) + r.tally()
		if len(r.Objects) == 0 {
			s = "no object changed in managed/ by " + short(r.To)
		}
	case StepAside:
		s = "set aside local work"
		if r.File != nil {
			s = "set aside a local edit of " + r.file()
		}
	case StepDrop:
		s = "committed " + r.file() + " as it was dropped"
		if r.File != nil {
			s += ": " + short(r.File.Commit)
		}
	case StepReject:
		s = "rejected " + r.file() + r.reasons()
	case StepIngest:
		if r.File != nil && r.File.Outcome == Already {
			s = "nothing new in " + r.file() + r.tally()
		} else {
			s = "ingested " + r.file() + r.tally()
		}
	case StepCommit:
		s = "made " + commits + " on " + branch + ": " + short(r.To)
	case StepReplan:
		s = "another clone pushed to " + branch + " first: planned anew, " + short(r.From) + " became " + short(r.To)
	case StepPush:
		s = "pushed " + commits + " to " + branch + ": " + short(r.To)
	case StepApply:
		s = "applied " + short(r.To) + r.tally()
	case StepDrift:
		s = "drift" + r.drift()
	case StepPrune:
		s = "prune" + r.tally()
	case StepRollout:
		s = "rolled out " + short(r.To) + " to the switches"
	case StepRecovered:
		s = "the inventory did not agree with managed/ in git and follows it again" + r.tally()
	case StepClear:
		s = "fault is over"
		if r.Took > 0 {
			s += " after " + duration(r.Took)
		}
	case StepStart:
		s = "started"
	case StepReload:
		s = "reread the configuration"
	case StepStop:
		s = "stopped"
	case StepTorn:
		s = "the journal's last append was torn by a crash and cut off" + r.place()
	case StepDamaged:
		s = "the journal is damaged" + r.place()
	case StepExpired:
		s = "removed the oldest part of the journal"
		if e := r.Expired; e != nil {
			s += fmt.Sprintf(", records %d to %d", e.First, e.Last)
		}
	default:
		s = string(r.Step)
		if r.File != nil {
			s += " " + r.file()
		}
		s += r.tally()
	}
	if r.Error != "" {
		s += ": " + r.Error
	}
	return s
}

// file names the file and tells where it came from and lies.
func (r *Record) file() string {
	f := r.File
	if f == nil {
		return "a file"
	}
	path := f.Path
	// The fabric is named before it, so its directory can be left out.
	for _, dir := range []string{"raw/", "managed/"} {
		if i := strings.Index("/"+path, "/"+dir); i >= 0 {
			path = path[i:]
			break
		}
	}
	from := f.Origin
	if from == Pulled {
		from = "pushed"
	}
	if from != "" && f.Owner != "" {
		from += " by " + f.Owner
	}
	if f.Origin == Pulled && f.Commit != "" {
		from += " in " + short(f.Commit)
	}
	if from != "" {
		path += " (" + from + ")"
	}
	if f.PartOf != "" {
		path = "a part of " + path
	}
	if f.Kept != "" {
		path += ", kept as " + f.Kept
	}
	return path
}

// reasons tells the first problem, and how many there are.
func (r *Record) reasons() string {
	if len(r.Problems) == 0 {
		return ""
	}
	p := r.Problems[0]
	s := ": "
	if p.Document > 0 {
		s += fmt.Sprintf("document %d, ", p.Document)
	}
	if p.Line > 0 {
		s += fmt.Sprintf("line %d, ", p.Line)
	}
	s = strings.TrimSuffix(s, ", ")
	if s != ": " {
		s += ": "
	}
	s += p.Code + " " + p.Message
	if more := len(r.Problems) - 1; more > 0 {
		s += " (and " + count(more, "more problem") + ")"
	}
	return s
}

// outcomes is the order in which tally tells them.
var outcomes = []string{Created, Updated, Configured, Removed, Pruned, Gone, Skipped, Unchanged, Drifted, Failed}

// tally tells what became of the objects: by number, or by name where there is
// only one. The first that failed is told in full.
func (r *Record) tally() string {
	if len(r.Objects) == 0 {
		return ""
	}
	number := make(map[string]int)
	failed, message := "", ""
	for _, o := range r.Objects {
		number[o.Outcome]++
		if failed == "" && (o.Outcome == Failed || o.Error != "") {
			failed, message = o.Key().String(), o.Error
			if o.From != "" {
				message += " (" + o.From + ")"
			}
		}
	}
	var s string
	if len(r.Objects) == 1 {
		s = ": " + r.Objects[0].Key().String() + " " + r.Objects[0].Outcome
		if message != "" {
			s += ": " + message
		}
		return s
	}
	var parts []string
	for _, o := range outcomes {
		if n := number[o]; n > 0 {
			parts = append(parts, strconv.Itoa(n)+" "+o)
		}
	}
	switch r.Step {
	case StepApply, StepPrune:
		s = ": "
	default:
		s = ": " + count(len(r.Objects), "object") + ": "
	}
	s += strings.Join(parts, ", ")
	if failed != "" {
		s += ": " + failed + ": " + message
		if more := number[Failed] - 1; more > 0 {
			s += fmt.Sprintf(" (and %d more)", more)
		}
	}
	return s
}

// drift tells what others did to objects, and what became of that: of the
// first one in full.
func (r *Record) drift() string {
	if len(r.Objects) == 0 {
		return ""
	}
	o := r.Objects[0]
	s := ": " + o.Key().String() + ": "
	if o.Error != "" {
		s += o.Error // which says it all
	} else if o.Drift != nil {
		s += o.Drift.String() + "; put right"
	}
	if more := len(r.Objects) - 1; more > 0 {
		s += " (and " + count(more, "more object") + ")"
	}
	return s
}

func (r *Record) place() string {
	if r.Damage == nil {
		return ""
	}
	s := ": " + strings.TrimPrefix(r.Damage.Error(), "journal ")
	if r.Damage.Kept != "" {
		s += fmt.Sprintf("; its %s are kept as %s", count(int(r.Damage.Bytes), "byte"), r.Damage.Kept)
	}
	return s
}

// short abbreviates a commit id, as git does.
func short(id string) string { return id[:min(len(id), 7)] }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func duration(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// Printable escapes what would break the line or steer a terminal: file names
// and the words of servers are not ours.
func Printable(s string) string {
	if !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return s
	}
	var b strings.Builder
	for _, c := range s {
		if unicode.IsPrint(c) {
			b.WriteRune(c)
		} else {
			q := strconv.QuoteRune(c)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/internal/durable"
	"github.com/hhwatchd/hhwatchd/journal"
)

// The trailers of hhwatchd's commits. With them any clone, on any host, can
// tell what a commit did and to which raw file.
const (
	trailerStep   = "Hhwatchd-Step"
	trailerCycle  = "Hhwatchd-Cycle"
	trailerFabric = "Hhwatchd-Fabric"
	trailerFile   = "Raw-File" // path in the repository; its blob follows
	trailerBlob   = "Raw-Blob"
	trailerKept   = "Rejected-File" // where a rejected one of them went; its reason lies beside it

	// For a file in the commit that is only a part of a raw one: the blob of
	// that and the path. It is a Raw-File, the documents of a drop that were
	// taken in, or a Rejected-File, what is left of a pushed one.
	trailerPart = "Part-Of"

	// What the journal was when the commit was made, see witness. The remote,
	// which has the commit, thus vouches for the journal up to there.
	trailerJournal = "Hhwatchd-Journal"
)

// The values of trailerStep.
const (
	stepDrop   = "drop"   // raw files as they were dropped
	stepIngest = "ingest" // raw files become managed ones
	stepLayout = "layout" // hhwatchd init
)

// stepOf tells which step of hhwatchd made a commit, "" if none did.
func stepOf(c checkout.Commit) string { return first(c.Trailer(trailerStep)) }

// commit writes the cycle's commits, unreferenced still, and returns the last
// one (b.tip if there is nothing to commit), with the work that is in them.
func (r *repository) commit(b base, work []planned, t trigger, rep *report) (checkout.Hash, []planned, error) {
	tip := b.tip
	for _, c := range b.foreign {
		if err := r.setAside(c.Hash, rep); err != nil {
			return "", nil, err
		}
	}
	if len(b.again) > 0 {
		rep.replanned = b.head
	}
	total := 0
	for _, p := range work {
		total += len(p.plan.Writes)
	}
	t.progress.report("commit", 0, total)
	var done []planned
	short := map[*fabric]bool{} // of a file that was planned with
	for i := range work {
		p := &work[i]
		if short[p.fabric] {
			again, err := r.planBatch(p.came, tip, nil)
			if err != nil {
				return "", nil, err
			}
			*p = again
		}
		next, err := r.commitBatch(tip, p, rep)
		if err == nil {
			tip, done = next, append(done, *p)
			continue
		}
		if !filesFault(err) {
			return "", nil, err
		}
		// A file that git cannot take (it clashes with a directory, say) must
		// not hold up the others: they go one by one, and it stays in raw/.
		short[p.fabric] = true
		for _, in := range p.came.inputs {
			one, err := r.planBatch(batch{fabric: p.fabric, origin: p.origin, inputs: []input{in}, refused: p.came.refused}, tip, nil)
			if err == nil {
				next, err = r.commitBatch(tip, &one, rep)
			}
			if err == nil {
				tip, done = next, append(done, one)
				continue
			}
			if !filesFault(err) {
				return "", nil, err
			}
			if err := r.leaveOut(p, in, err, rep); err != nil {
				return "", nil, err
			}
		}
	}
	return tip, done, nil
}

// filesFault tells a file that git can never take where it is from troubles
// of the machine, which pass.
func filesFault(err error) bool {
	var unsafe *checkout.UnsafePathError
	return errors.Is(err, checkout.ErrClash) || errors.As(err, &unsafe)
}

// leaveOut reports a file that could not be committed. One that lies in raw/,
// or in the remote's tree, stays there; one that was to be said again goes to
// unmanaged/.
func (r *repository) leaveOut(p *planned, in input, why error, rep *report) error {
	fr := rep.fabric(p.fabric.cfg.Name)
	fr.Files = slices.DeleteFunc(fr.Files, func(f fileReport) bool { return f.Path == in.Path && f.Origin == p.origin })
	if p.origin != journal.Dropped || in.disk != nil {
		fr.Skipped = append(fr.Skipped, fmt.Sprintf("%s: %v", in.Path, why))
		return nil
	}
	kept, err := r.freeUnmanaged(p.fabric, in)
	if err != nil {
		return err
	}
	dst := r.onDisk(kept)
	reason := fmt.Sprintf("%s was not taken in: the remote has moved on, and it has no place there any more.\n%v\n", quotePath(in.Path), why)
	if err := durable.WriteFile(dst+reasonSuffix, []byte(reason), 0o664); err != nil {
		return err
	}
	data, err := r.content(in)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(dst, data, 0o664); err != nil {
		return err
	}
	fr.Files = append(fr.Files, fileReport{Path: in.Path, Origin: p.origin, Owner: in.author.Name, Outcome: journal.Rejected, Kept: kept})
	return r.record(journal.Record{
		Cycle: rep.Cycle, Fabric: p.fabric.cfg.Name, Step: journal.StepReject, Note: why.Error(),
		File: &journal.File{
			Path: p.fabric.rawPath(in.Path), Blob: string(in.blob), Origin: p.origin, Owner: in.author.Name,
			Size: in.size(), Outcome: journal.Rejected, Kept: kept,
		},
	})
}

// setAside keeps a local commit that the remote went on without.
func (r *repository) setAside(c checkout.Hash, rep *report) error {
	if err := r.clone.SaveRef(asideRef+string(c), c); err != nil {
		return err
	}
	rep.setAside = true
	return r.record(journal.Record{
		Cycle: rep.Cycle, Step: journal.StepAside, Commits: []string{string(c)},
		Note: fmt.Sprintf("the remote moved on without the local commit %s; it is kept as refs/hhwatchd/%s%s", short(string(c)), asideRef, c),
	})
}

// managedAt looks managed files of a fabric up in a commit.
func (r *repository) managedAt(f *fabric, tip checkout.Hash) func(string) ([]byte, bool, error) {
	return func(p string) ([]byte, bool, error) {
		blob, ok, err := r.clone.Lookup(tip, path.Join(f.cfg.Path, p))
		if err != nil || !ok {
			return nil, false, err
		}
		data, err := r.clone.Blob(blob)
		return data, true, err
	}
}

// commitBatch writes the commits of one batch: for dropped files one that
// records them as they were dropped, by their owner, and one that moves them
// on; for pulled files, which history has already, only the second.
func (r *repository) commitBatch(tip checkout.Hash, p *planned, rep *report) (_ checkout.Hash, err error) {
	made := len(rep.Commits)
	defer func() {
		if err != nil {
			rep.Commits = rep.Commits[:made]
		}
	}()
	var moved []input
	var changes []checkout.Change
	var rejected strings.Builder
	taken := map[string]bool{}
	for i, in := range p.inputs {
		outcome := p.outcome(i)
		if p.origin == journal.Dropped && outcome != journal.Ingested {
			continue // a rejected drop never reaches git; one that is there already need not
		}
		if outcome == journal.Ingested || in.whole == "" {
			if p.origin == journal.Pulled {
				in.blob = cmp.Or(in.whole, in.blob)
			}
			moved = append(moved, in)
			changes = append(changes, checkout.Change{Path: p.fabric.rawPath(in.Path), Delete: true})
		}
		if outcome == journal.Rejected {
			kept, err := r.unmanagedInTree(tip, p.fabric, in, taken)
			if err != nil {
				return "", err
			}
			file := checkout.Change{Path: kept, Blob: in.blob} // which was perhaps not read
			if in.whole != "" {
				file = checkout.Change{Path: kept, Data: in.Data}
			}
			changes = append(changes, file,
				checkout.Change{Path: kept + reasonSuffix, Data: ingest.Reason(p.plan.Files[i].Verdict)})
			fmt.Fprintf(&rejected, "%s: %s\n", trailerKept, quotePath(kept))
			if in.whole != "" {
				fmt.Fprintf(&rejected, "%s: %s %s\n", trailerPart, in.whole, quotePath(kept))
			}
		}
	}
	if len(moved) == 0 {
		return tip, nil
	}
	if p.origin == journal.Dropped {
		for rest := moved; len(rest) > 0; {
			n := 1
			for n < len(rest) && sameAuthor(rest[n], rest[0]) {
				n++
			}
			if tip, err = r.commitDrop(tip, p, rest[:n], rep); err != nil {
				return "", err
			}
			rest = rest[n:]
		}
	}
	for name, data := range p.plan.Writes {
		changes = append(changes, checkout.Change{Path: path.Join(p.fabric.cfg.Path, name), Data: data, Delete: data == nil})
	}
	slices.SortFunc(changes, func(a, b checkout.Change) int { return strings.Compare(a.Path, b.Path) })
	subject := fmt.Sprintf("Ingest %s into %s: %s", fileNames(moved), p.fabric.cfg.Name, p.summary())
	return r.write(tip, changes, r.author(), r.message(subject, stepIngest, rep.Cycle, p.fabric, moved)+rejected.String(), rep)
}

func (r *repository) commitDrop(tip checkout.Hash, p *planned, files []input, rep *report) (checkout.Hash, error) {
	changes := make([]checkout.Change, len(files))
	for i, in := range files {
		changes[i] = checkout.Change{Path: p.fabric.rawPath(in.Path), Data: in.Data}
	}
	author := files[len(files)-1].author
	subject := fmt.Sprintf("Drop %s for %s", fileNames(files), p.fabric.cfg.Name)
	return r.write(tip, changes, author, r.message(subject, stepDrop, rep.Cycle, p.fabric, files), rep)
}

// write makes one commit; without a difference there is none to make.
func (r *repository) write(tip checkout.Hash, changes []checkout.Change, author checkout.Signature, message string, rep *report) (checkout.Hash, error) {
	commit, err := r.clone.WriteCommit(tip, changes, author, r.author(), message)
	if errors.Is(err, checkout.ErrNoChange) {
		return tip, nil
	}
	if err != nil {
		return "", err
	}
	rep.Commits = append(rep.Commits, string(commit))
	return commit, nil
}

// sameAuthor reports whether two dropped files belong into one commit.
// Files that are said again keep the commit, and so the time, that they had.
func sameAuthor(a, b input) bool {
	return a.author.Name == b.author.Name && a.author.Email == b.author.Email &&
		(a.disk != nil || a.author.When.Equal(b.author.When))
}

// message builds a commit message: a subject, and the trailers as the last
// paragraph (git-interpret-trailers(1)).
func (r *repository) message(subject, step, cycle string, f *fabric, files []input) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", subject)
	for _, in := range files {
		fmt.Fprintf(&b, "%s: %s\n%s: %s\n", trailerFile, quotePath(f.rawPath(in.Path)), trailerBlob, in.blob)
	}
	for _, in := range files {
		if in.whole != "" && in.whole != in.blob {
			fmt.Fprintf(&b, "%s: %s %s\n", trailerPart, in.whole, quotePath(f.rawPath(in.Path)))
		}
	}
	fmt.Fprintf(&b, "%s: %s\n%s: %s\n%s: %s\n", trailerFabric, f.cfg.Name, trailerStep, step, trailerCycle, cycle)
	if w := r.book.witness(); w.seq > 0 {
		fmt.Fprintf(&b, "%s: %s\n", trailerJournal, w)
	}
	return b.String()
}

// quotePath quotes a path that would not survive in a line of text.
func quotePath(p string) string {
	if quoted := strconv.Quote(p); len(quoted) != len(p)+2 {
		return quoted
	}
	return p
}

// unquotePath undoes quotePath.
func unquotePath(s string) string {
	if p, err := strconv.Unquote(s); err == nil {
		return p
	}
	return s
}

// fileNames names files for a subject line: the name, or how many.
func fileNames(files []input) string {
	if len(files) == 1 {
		return quotePath(files[0].Path)
	}
	return fmt.Sprintf("%d files", len(files))
}

// summary counts what becomes of a batch's objects and files, in few words.
func (p *planned) summary() string {
	count := map[string]int{}
	rejected := 0
	for i := range p.inputs {
		switch p.outcome(i) {
		case journal.Rejected:
			if p.origin == journal.Pulled { // a rejected drop is not in the commit
				rejected++
			}
		case journal.Ingested:
			for _, o := range p.plan.Files[i].Outcomes {
				count[string(o)]++
			}
		}
	}
	s := counts(count)
	if rejected > 0 {
		if s != "" {
			s += ", "
		}
		s += plural(rejected, "file") + " rejected"
	}
	if s == "" {
		s = "no objects"
	}
	return s
}

// outcomeOrder is the order in which outcomes are listed everywhere.
var outcomeOrder = []string{"created", "updated", "configured", "unchanged", "removed", "pruned", "gone", "failed"}

// counts renders outcome counts as "3 created, 1 unchanged".
func counts(m map[string]int) string {
	var parts []string
	for _, k := range outcomeOrder {
		if m[k] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", m[k], k))
		}
	}
	var rest []string
	for k, n := range m {
		if n > 0 && !slices.Contains(outcomeOrder, k) {
			rest = append(rest, fmt.Sprintf("%d %s", n, k))
		}
	}
	slices.Sort(rest)
	return strings.Join(append(parts, rest...), ", ")
}

// plural renders "1 file", "2 files".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// author is hhwatchd's own signature, now.
func (r *repository) author() checkout.Signature {
	return checkout.Signature{Name: r.cfg.Author.Name, Email: r.cfg.Author.Email, When: time.Now()}
}

// commitLayout makes a fabric's directories, and moves YAML that lies loose
// in the fabric's directory into raw/, where the same cycle finds it.
func (r *repository) commitLayout(tip checkout.Hash, f *fabric, rep *report) (checkout.Hash, error) {
	var changes []checkout.Change
	for _, dir := range []string{f.cfg.raw(), f.cfg.managed(), f.cfg.unmanaged()} {
		keep := path.Join(dir, ".gitkeep")
		if _, ok, err := r.clone.Lookup(tip, keep); err != nil {
			return "", err
		} else if !ok {
			changes = append(changes, checkout.Change{Path: keep, Data: []byte{}})
		}
	}
	entries, err := r.clone.Files(tip, f.cfg.Path)
	if err != nil {
		return "", err
	}
	taken := map[string]bool{}
	for _, e := range entries {
		taken[e.Path] = true
	}
	for _, e := range entries {
		name := below(e.Path, f.cfg.Path)
		if strings.Contains(name, "/") || !ingest.IsInput(name) || !slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(name)) {
			continue
		}
		data, err := r.clone.Blob(e.Blob)
		if err != nil {
			return "", err
		}
		to := f.rawPath(name)
		for n := 1; taken[to]; n++ {
			to = f.rawPath(numbered(name, n))
		}
		changes = append(changes, checkout.Change{Path: e.Path, Delete: true}, checkout.Change{Path: to, Data: data})
	}
	if len(changes) == 0 {
		return tip, nil
	}
	return r.write(tip, changes, r.author(), r.message("Lay out "+f.cfg.Name, stepLayout, rep.Cycle, f, nil), rep)
}

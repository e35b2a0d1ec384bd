// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/journal"
)

// A salvage is the work of carry.
type salvage struct {
	r   *repository
	new *checkout.Clone // not in its place yet
	old *checkout.Wreck
	up  checkout.Hash // the remote's commit
	log journalled
	did rebuilt
}

// carry brings the unpushed work of a broken clone into the new one; see
// checkout.Options.
//
// Commits that can be read with all that they need are copied, up to the last
// such one. For those after it, the raw files that they recorded are committed
// once more as they were dropped: their blobs are named by the commit, or, if
// that cannot be read, by the journal. Where even the blob is lost, the
// managed files that came of it may still lie in the work tree.
func (r *repository) carry(ctx context.Context, c *checkout.Clone, old *checkout.Wreck) (checkout.Carried, error) {
	up, err := c.Upstream()
	if err != nil {
		return checkout.Carried{}, err
	}
	s := &salvage{r: r, new: c, old: old, up: up, did: rebuilt{Kept: old.Dir}}
	if r.book.inventory().Recorded(r.cfg.Name) == "" && old.Dir == "" {
		return checkout.Carried{Head: up}, nil // the first clone
	}
	if up == "" && r.book.inventory().Pushed(r.cfg.Name) != "" {
		// As with a sound clone: a branch that is gone is not made anew, least
		// of all without what it had.
		return checkout.Carried{}, fmt.Errorf("branch %s is gone from %s; nothing is pulled or pushed until it is back", r.cfg.Branch, r.cfg.URL)
	}
	if s.log, err = readJournalled(r.journalDir, r.cfg.Name); err != nil {
		return checkout.Carried{}, err
	}
	head, err := s.run(ctx)
	if err != nil {
		return checkout.Carried{}, err
	}
	out := checkout.Carried{Head: head, Partly: len(s.did.Lost) > 0}
	if out.Report, err = json.Marshal(s.did); err != nil {
		return checkout.Carried{}, err
	}
	// The work tree is where the journal, or the old branch, was last.
	for _, h := range []checkout.Hash{old.Ref(s.branch()), checkout.Hash(r.book.inventory().Recorded(r.cfg.Name)), up} {
		if ok, err := s.has(h); err != nil {
			return out, err
		} else if ok {
			out.WorkTree = h
			break
		}
	}
	return out, nil
}

func (s *salvage) branch() string { return "refs/heads/" + s.new.Branch() }

// has reports whether the new clone has the commit h.
func (s *salvage) has(h checkout.Hash) (bool, error) {
	if h == "" {
		return false, nil
	}
	_, err := s.new.Commit(h)
	if errors.Is(err, checkout.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (s *salvage) run(ctx context.Context) (checkout.Hash, error) {
	waiting, err := s.unpushed()
	if err != nil {
		return "", err
	}
	// As many as can be read, as they are.
	head, rest := s.up, waiting
	for i, h := range slices.Backward(waiting) {
		err := s.old.Copy(s.new, s.up, h)
		if checkout.Lost(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		head, rest = h, waiting[i+1:]
		for _, c := range waiting[:i+1] {
			s.did.Commits = append(s.did.Commits, string(c))
		}
		break
	}
	s.did.Again = len(rest) > 0
	tip, err := s.refs(head)
	if err != nil {
		return "", err
	}
	for _, h := range rest {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if tip, err = s.again(tip, h); err != nil {
			return "", err
		}
	}
	return tip, s.others(head)
}

// unpushed lists the commits that the broken clone had and the remote has
// not, oldest first: those that can be read back from its branch, and before
// them those that the journal knows of.
func (s *salvage) unpushed() ([]checkout.Hash, error) {
	var failed error
	known := func(h checkout.Hash) bool {
		ok, err := s.ancestor(h, s.up)
		failed = errors.Join(failed, err)
		return ok || err != nil || s.log.pushed[string(h)]
	}
	head := s.old.Ref(s.branch())
	var line []checkout.Commit
	for _, h := range []checkout.Hash{head, checkout.Hash(last(s.log.waiting)), s.old.Ref("refs/hhwatchd/" + archivedRef)} {
		var err error
		if line, err = s.old.Line(h, known); err != nil || failed != nil {
			return nil, errors.Join(err, failed)
		}
		if len(line) > 0 || h == head && h != "" && known(h) {
			break
		}
	}
	var out []checkout.Hash
	for _, h := range s.log.waiting {
		if h := checkout.Hash(h); !known(h) && !slices.ContainsFunc(line, func(c checkout.Commit) bool { return c.Hash == h }) {
			out = append(out, h)
		}
	}
	for _, c := range line {
		out = append(out, c.Hash)
	}
	if head != "" && !known(head) && !slices.Contains(out, head) {
		out = append(out, head) // named by the branch, and not to be read
	}
	return out, failed
}

// refs saves the refs that the cycle keeps beside the branch, which is going
// to be at head.
func (s *salvage) refs(head checkout.Hash) (tip checkout.Hash, err error) {
	// Without the ref: what the journal knows to have been pushed last.
	base := s.up
	if head != s.up {
		base = ""
		for _, h := range []checkout.Hash{s.old.Ref("refs/hhwatchd/" + baseRef), checkout.Hash(s.r.book.inventory().Pushed(s.r.cfg.Name))} {
			if is, err := s.ancestor(h, head); err != nil {
				return "", err
			} else if is {
				base = h
				break
			}
		}
	}
	archived := s.old.Ref("refs/hhwatchd/" + archivedRef)
	if is, err := s.ancestor(archived, head); err != nil {
		return "", err
	} else if !is {
		if archived, err = s.beforeLastCycle(head); err != nil {
			return "", err
		}
	}
	for name, h := range map[string]checkout.Hash{baseRef: base, archivedRef: archived} {
		if err := s.new.SaveRef(name, h); err != nil {
			return "", err
		}
	}
	return head, nil
}

// ancestor reports whether h can be reached from head, in the new clone.
func (s *salvage) ancestor(h, head checkout.Hash) (bool, error) {
	if h == "" || head == "" {
		return false, nil
	}
	return s.new.IsAncestor(h, head)
}

// beforeLastCycle stands in for a lost archivedRef. What a crash can have left
// in raw/ was committed by the last cycle, if that made the last commits of
// the branch. A file that was dropped since with the same name and bytes is
// taken for such a leftover; that is no loss, as it had the last word anyway.
func (s *salvage) beforeLastCycle(head checkout.Hash) (checkout.Hash, error) {
	cycle := ""
	for h := head; h != ""; {
		c, err := s.new.Commit(h)
		if err != nil {
			return "", err
		}
		of := first(c.Trailer(trailerCycle))
		if stepOf(c) == "" || of == "" || cycle != "" && of != cycle {
			return h, nil
		}
		cycle = of
		h = first(c.Parents)
	}
	return "", nil
}

// again commits once more, on tip, the raw files that the commit h recorded,
// which cannot be copied.
func (s *salvage) again(tip, h checkout.Hash) (checkout.Hash, error) {
	c, err := s.old.Commit(h)
	if err != nil && !checkout.Lost(err) {
		return "", err
	}
	known := s.log.files[string(h)]
	if err != nil {
		switch {
		case len(known) > 0:
		case s.log.ours[string(h)]:
			return tip, nil // it moved raw files on that other commits recorded
		default:
			s.lost("the commit %s, and with it what nobody else knows", h)
			return tip, nil
		}
		for _, k := range known {
			who := checkout.Signature{Name: k.File.Owner, Email: k.File.Owner + "@localhost", When: k.Time}
			of := input{blob: checkout.Hash(k.File.Blob), whole: checkout.Hash(k.File.PartOf), author: who}
			if tip, err = s.drop(tip, k.Fabric, k.File.Path, of, known); err != nil {
				return "", err
			}
		}
		return tip, nil
	}
	switch stepOf(c) {
	case stepIngest, stepLayout:
		return tip, nil
	case stepDrop:
	default:
		s.lost("the commit %s by %s: %s", h, c.Author.Name, firstLine(c.Message))
		return tip, nil
	}
	blobs, parts := c.Trailer(trailerBlob), partsIn(c)
	for i, name := range c.Trailer(trailerFile) {
		if i >= len(blobs) {
			break
		}
		name = unquotePath(name)
		of := input{blob: checkout.Hash(blobs[i]), whole: parts[name], author: c.Author}
		if tip, err = s.drop(tip, first(c.Trailer(trailerFabric)), name, of, known); err != nil {
			return "", err
		}
	}
	return tip, nil
}

// drop commits one raw file, or the part of one, as it was dropped. If its
// bytes are gone, the managed files that the journal knows to have come of it
// are taken, as far as they are still what the fabric should hold.
func (s *salvage) drop(tip checkout.Hash, fabric, name string, in input, known []journal.Record) (checkout.Hash, error) {
	f := s.r.fabricNamed(fabric)
	if f == nil {
		s.lost("%s of the fabric %s, which is configured no more", name, fabric)
		return tip, nil
	}
	data, err := s.old.Blob(in.blob)
	if err == nil {
		in.Data = data
		return s.commit(tip, f, name, in)
	}
	if !checkout.Lost(err) {
		return "", err
	}
	i := slices.IndexFunc(known, func(k journal.Record) bool { return k.File.Path == name && k.File.Blob == string(in.blob) })
	if i < 0 || len(known[i].Objects) == 0 {
		s.lost("%s, dropped by %s (its bytes are the blob %s)", name, in.author.Name, in.blob)
		return tip, nil
	}
	for _, o := range known[i].Objects {
		if o.Outcome != journal.Created && o.Outcome != journal.Updated {
			continue // it was said before, or has been said since
		}
		now, ok := s.r.book.inventory().Get(fabric, o.Key())
		if !ok || now.Desired.Blob != o.Blob {
			continue // a later file has the last word
		}
		data, err := s.managed(o)
		if err != nil {
			return "", err
		}
		if data == nil {
			s.lost("%s of %s, dropped by %s", o.Key(), name, in.author.Name)
			continue
		}
		if tip, err = s.commit(tip, f, f.rawPath(path.Base(o.Path)), input{File: ingest.File{Data: data}, blob: checkout.Hash(o.Blob), author: in.author}); err != nil {
			return "", err
		}
	}
	return tip, nil
}

// managed reads a managed file, from the work tree or from the broken store,
// if it is exactly what the journal says that it was; else nil.
func (s *salvage) managed(o journal.Object) ([]byte, error) {
	data, err := os.ReadFile(s.r.onDisk(o.Path))
	if err == nil && checkout.BlobHash(data) == checkout.Hash(o.Blob) {
		return data, nil
	}
	data, err = s.old.Blob(checkout.Hash(o.Blob))
	if checkout.Lost(err) {
		return nil, nil
	}
	return data, err
}

// commit makes a commit like that of a drop. A name that an earlier one has is
// numbered, so that both are read, in their order.
func (s *salvage) commit(tip checkout.Hash, f *fabric, name string, in input) (checkout.Hash, error) {
	to := name
	for n := 1; ; n++ {
		if blob, taken, err := s.new.Lookup(tip, to); err != nil {
			return "", err
		} else if !taken {
			break
		} else if blob == in.blob {
			return tip, nil
		}
		to = numbered(name, n)
	}
	in.Path = below(to, f.cfg.raw())
	files := []input{in}
	subject := fmt.Sprintf("Drop %s for %s", fileNames(files), f.cfg.Name)
	message := s.r.message(subject, stepDrop, newCycleID(), f, files)
	h, err := s.new.WriteCommit(tip, []checkout.Change{{Path: to, Data: in.Data}}, in.author, s.r.author(), message)
	if filesFault(err) {
		s.lost("%s, dropped by %s: %v", name, in.author.Name, err)
		return tip, nil
	}
	if err == nil {
		s.did.Files = append(s.did.Files, in.Path)
	}
	return h, err
}

// others keeps the commits that a person's refs held and that are neither on
// the remote nor on the way to head.
func (s *salvage) others(head checkout.Hash) error {
	for _, name := range slices.Concat(s.old.Refs("refs/heads/"), s.old.Refs("refs/stash"), s.old.Refs("refs/hhwatchd/aside/"), s.old.Refs("refs/hhwatchd/detached/")) {
		h := s.old.Ref(name)
		if name == s.branch() || s.log.pushed[string(h)] {
			continue
		}
		kept, err := s.ancestor(h, head)
		if err == nil && !kept {
			kept, err = s.ancestor(h, s.up)
		}
		if err != nil {
			return err
		}
		if kept {
			continue
		}
		err = s.old.Copy(s.new, s.up, h)
		if checkout.Lost(err) {
			s.lost("what %s was at, %s", name, h)
			continue
		}
		if err != nil {
			return err
		}
		if err := s.new.SaveRef("aside/"+string(h), h); err != nil {
			return err
		}
		s.did.Refs = append(s.did.Refs, fmt.Sprintf("%s as refs/hhwatchd/aside/%s", name, h))
	}
	return nil
}

func (s *salvage) lost(format string, args ...any) {
	s.did.Lost = append(s.did.Lost, fmt.Sprintf(format, args...))
}

// journalled is what the journal tells of commits of this host.
type journalled struct {
	waiting []string                    // not pushed, oldest first
	pushed  map[string]bool             // by this host, or found on the remote
	ours    map[string]bool             // that took raw files in
	files   map[string][]journal.Record // by the commit that recorded them as dropped
}

// readJournalled reads the whole journal. What is damaged in it is passed by.
func readJournalled(dir, repository string) (journalled, error) {
	out := journalled{pushed: map[string]bool{}, ours: map[string]bool{}, files: map[string][]journal.Record{}}
	for rec, err := range journal.Read(dir, 0) {
		var damage *journal.Damage
		if errors.As(err, &damage) {
			continue
		}
		if err != nil {
			return out, fmt.Errorf("reading the journal: %w", err)
		}
		if rec.Repository != repository {
			continue
		}
		switch rec.Step {
		case journal.StepCommit:
			out.waiting = append(out.waiting, rec.Commits...)
		case journal.StepReplan:
			out.waiting = slices.Clone(rec.Commits)
		case journal.StepClear:
			if rec.Note != "" { // the clone was made again: these still waited
				out.waiting = slices.Clone(rec.Commits)
			}
		case journal.StepPush, journal.StepPull:
			for _, c := range rec.Commits {
				out.pushed[c] = true
			}
			if rec.To != "" {
				out.pushed[rec.To] = true
			}
			out.waiting = slices.DeleteFunc(out.waiting, func(c string) bool { return out.pushed[c] })
		case journal.StepIngest:
			if rec.To != "" {
				out.ours[rec.To] = true
			}
			if rec.File != nil && rec.File.Origin == journal.Dropped && rec.File.Outcome == journal.Ingested && rec.File.Commit != "" {
				out.files[rec.File.Commit] = append(out.files[rec.File.Commit], rec)
			}
		}
	}
	return out, nil
}

func last[T any](s []T) T {
	var zero T
	if len(s) == 0 {
		return zero
	}
	return s[len(s)-1]
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

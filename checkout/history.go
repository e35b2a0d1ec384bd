// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	gitobject "github.com/go-git/go-git/v5/plumbing/object"
)

// A Signature says who did something, and when.
type Signature struct {
	Name, Email string
	When        time.Time // to the second; its zone is kept
}

// A Commit is one state of the repository, and how it came about.
type Commit struct {
	Hash              Hash
	Parents           []Hash
	Tree              Hash
	Author, Committer Signature
	Message           string
}

// A Trailer is a line "Key: value" at the end of a commit's message
// (git-interpret-trailers(1)).
type Trailer struct {
	Key, Value string
}

// trailers returns the trailers of the message, in their order: the lines of
// its last paragraph, if that is not the first one and holds nothing else. A
// line that begins with a space continues the one before it.
func (c Commit) trailers() []Trailer {
	paragraphs := strings.Split(strings.TrimRight(c.Message, "\n"), "\n\n")
	if len(paragraphs) < 2 {
		return nil
	}
	var out []Trailer
	for line := range strings.SplitSeq(strings.Trim(paragraphs[len(paragraphs)-1], "\n"), "\n") {
		if line != "" && (line[0] == ' ' || line[0] == '\t') && len(out) > 0 {
			out[len(out)-1].Value += " " + strings.TrimSpace(line)
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok || !isTrailerKey(key) {
			return nil
		}
		out = append(out, Trailer{key, strings.TrimSpace(value)})
	}
	return out
}

func isTrailerKey(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return s != ""
}

// Trailer returns the values of the trailers with the key, which is taken in
// any case, in their order.
func (c Commit) Trailer(key string) []string {
	var out []string
	for _, t := range c.trailers() {
		if strings.EqualFold(t.Key, key) {
			out = append(out, t.Value)
		}
	}
	return out
}

// commit reads the commit id.
func (s *store) commit(id oid) (*gitobject.Commit, error) {
	data, err := s.typed(id, plumbing.CommitObject)
	if err != nil {
		return nil, err
	}
	var m plumbing.MemoryObject
	m.SetType(plumbing.CommitObject)
	m.Write(data) // never fails
	c := new(gitobject.Commit)
	if err := c.Decode(&m); err != nil {
		return nil, fmt.Errorf("commit %s: %w", id, err)
	}
	c.Hash = id
	return c, nil
}

func exported(c *gitobject.Commit) Commit {
	out := Commit{
		Hash: hashOf(c.Hash), Tree: hashOf(c.TreeHash), Message: c.Message,
		Author:    Signature(c.Author),
		Committer: Signature(c.Committer),
	}
	for _, p := range c.ParentHashes {
		out.Parents = append(out.Parents, hashOf(p))
	}
	return out
}

// Commit returns the commit h.
func (c *Clone) Commit(h Hash) (Commit, error) {
	commit, err := c.repo.commit(h.id())
	if err != nil {
		return Commit{}, err
	}
	return exported(commit), nil
}

// Log returns the commits that can be reached from the commit to and not from
// the commit from (which may be empty), parents before their children. Its
// cost follows their number.
func (c *Clone) Log(from, to Hash) ([]Commit, error) {
	commits, err := c.repo.between(from.id(), to.id())
	if err != nil {
		return nil, fmt.Errorf("listing the commits from %s to %s: %w", cmp.Or(string(from), "the first"), to, err)
	}
	out := make([]Commit, len(commits))
	for i, commit := range commits {
		out[i] = exported(commit)
	}
	return out, nil
}

// IsAncestor reports whether the commit ancestor can be reached from the commit
// of; each commit can from itself. An ancestor that the clone does not have
// cannot. For commits that are near each other it is fast.
func (c *Clone) IsAncestor(ancestor, of Hash) (bool, error) {
	is, err := c.repo.isAncestor(ancestor.id(), of.id())
	if err != nil {
		return false, fmt.Errorf("comparing %s with %s: %w", ancestor, of, err)
	}
	return is, nil
}

// A walk visits commits, the latest first, each once. Every commit has marks
// that its parents inherit.
type walk struct {
	s     *store
	queue commitQueue
	marks map[oid]uint8
	open  map[oid]bool // those in the queue
	gaps  uint8        // commits with just these marks may lack their parents
}

// The marks of a commit in a walk.
const (
	left  uint8 = 1 << iota // can be reached from the one side
	right                   // can be reached from the other
	both  = left | right
)

func newWalk(s *store) *walk {
	return &walk{s: s, marks: make(map[oid]uint8), open: make(map[oid]bool)}
}

// mark adds marks to the commit id, and puts it into the queue if it has not
// had them before.
func (w *walk) mark(id oid, marks uint8) error {
	old, seen := w.marks[id]
	if seen && old|marks == old {
		return nil
	}
	w.marks[id] = old | marks
	if w.open[id] {
		return nil
	}
	c, err := w.s.commit(id)
	if err != nil {
		return err
	}
	w.open[id] = true
	heap.Push(&w.queue, c)
	return nil
}

// next takes the latest commit out of the queue; its parents get its marks.
func (w *walk) next() (*gitobject.Commit, error) {
	c := heap.Pop(&w.queue).(*gitobject.Commit)
	delete(w.open, c.Hash)
	for _, p := range c.ParentHashes {
		marks := w.marks[c.Hash]
		if err := w.mark(p, marks); errors.Is(err, ErrNotFound) && marks == w.gaps {
			delete(w.marks, p)
		} else if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// pending reports whether a commit in the queue lacks some of the marks.
func (w *walk) pending(marks uint8) bool {
	return slices.ContainsFunc(w.queue, func(c *gitobject.Commit) bool { return w.marks[c.Hash]&marks != marks })
}

// isAncestor reports whether a can be reached from b. A commit that is not
// there is nobody's ancestor. Nor need be there what a comes from: nothing keeps
// that of a commit that was rewritten away, and git prune removes it in any
// order.
//
// It walks from both at once, the latest commits first, until it has met a or
// all that is left to visit is common to both. The usual cases, where one is
// a near ancestor of the other, visit what lies between them. The dates only
// guide the walk: the answer does not depend on them.
func (s *store) isAncestor(a, b oid) (bool, error) {
	if a == b {
		return true, nil
	}
	w := newWalk(s)
	if err := w.mark(b, right); err != nil {
		return false, err
	}
	if err := w.mark(a, left); err != nil {
		if errors.Is(err, ErrNotFound) {
			return false, nil
		}
		return false, err
	}
	w.gaps = left
	for w.pending(both) {
		if _, err := w.next(); err != nil {
			return false, err
		}
		if w.marks[a]&right != 0 {
			return true, nil
		}
		if w.marks[b]&left != 0 {
			return false, nil
		}
	}
	return false, nil
}

// between returns the commits that can be reached from to and not from from,
// parents first. The zero oid reaches nothing.
func (s *store) between(from, to oid) ([]*gitobject.Commit, error) {
	if to == (oid{}) || from == to {
		return nil, nil
	}
	w := newWalk(s)
	if err := w.mark(to, left); err != nil {
		return nil, err
	}
	if from != (oid{}) {
		if err := w.mark(from, right); err != nil {
			return nil, err
		}
	}
	found := make(map[oid]*gitobject.Commit)
	var oldest time.Time
	for w.queue.Len() > 0 {
		// Once all that is left can be reached from from, it is done, but for
		// a clock that went wrong: a commit on from's side may be older than
		// its own parents, which are then visited too late. As long as there
		// are such that are later than the oldest one found, go on.
		if !w.pending(right) && !(len(found) > 0 && !w.queue[0].Committer.When.Before(oldest)) {
			break
		}
		c, err := w.next()
		if err != nil {
			return nil, err
		}
		if w.marks[c.Hash]&right != 0 {
			delete(found, c.Hash)
			continue
		}
		found[c.Hash] = c
		if oldest.IsZero() || c.Committer.When.Before(oldest) {
			oldest = c.Committer.When
		}
	}
	// Marks may have come after the visit.
	for id := range found {
		if w.marks[id]&right != 0 {
			delete(found, id)
		}
	}
	return parentsFirst(found, to), nil
}

// parentsFirst orders the commits, all of which can be reached from tip, so
// that each comes after its parents, and the first parent's line before what
// was merged into it.
func parentsFirst(commits map[oid]*gitobject.Commit, tip oid) []*gitobject.Commit {
	out := make([]*gitobject.Commit, 0, len(commits))
	type step struct {
		c    *gitobject.Commit
		next int // the parent to go to next
	}
	var stack []step
	push := func(id oid) {
		if c := commits[id]; c != nil {
			delete(commits, id)
			stack = append(stack, step{c: c})
		}
	}
	push(tip)
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.next < len(top.c.ParentHashes) {
			top.next++
			push(top.c.ParentHashes[top.next-1])
			continue
		}
		out = append(out, top.c)
		stack = stack[:len(stack)-1]
	}
	return out
}

// commitQueue is a heap with the latest commit on top.
type commitQueue []*gitobject.Commit

func (q commitQueue) Len() int           { return len(q) }
func (q commitQueue) Less(i, j int) bool { return q[i].Committer.When.After(q[j].Committer.When) }
func (q commitQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *commitQueue) Push(x any)        { *q = append(*q, x.(*gitobject.Commit)) }
func (q *commitQueue) Pop() any {
	old := *q
	c := old[len(old)-1]
	*q = old[:len(old)-1]
	return c
}

// Introduced returns, for each of the paths, the commit that gave it the
// content that it has in the commit h: the latest one on the line of first
// parents before which the path was absent or had another content. Paths that
// are not in h are left out. It reads what differs between the commits that it
// passes, and stops as soon as all are found.
func (c *Clone) Introduced(h Hash, paths []string) (map[string]Commit, error) {
	out := make(map[string]Commit, len(paths))
	wanted := make(map[string]bool)
	above := make(map[string]int) // the number of wanted paths below a directory
	count := func(path string, n int) {
		for i, r := range path {
			if r == '/' {
				above[path[:i]] += n
			}
		}
	}
	for _, p := range paths {
		if !wanted[p] {
			wanted[p] = true
			count(p, 1)
		}
	}
	// Those that are not there would be looked for to the very first commit.
	tree, err := c.repo.treeOf(h)
	if err != nil {
		return nil, err
	}
	there := make(map[string]bool, len(wanted))
	err = c.repo.diff(oid{}, tree, "", func(path string, _, e treeEntry) (bool, error) {
		if wanted[path] && e.mode != modeDir {
			there[path] = true
		}
		return above[path] > 0, nil
	})
	if err != nil {
		return nil, err
	}
	for p := range wanted {
		if !there[p] {
			delete(wanted, p)
			count(p, -1)
		}
	}
	for id := h.id(); len(wanted) > 0; {
		commit, err := c.repo.commit(id)
		if err != nil {
			return nil, err
		}
		var before oid
		if len(commit.ParentHashes) > 0 {
			id = commit.ParentHashes[0]
			parent, err := c.repo.commit(id)
			if err != nil {
				return nil, err
			}
			before = parent.TreeHash
		}
		err = c.repo.diff(before, commit.TreeHash, "", func(path string, old, new treeEntry) (bool, error) {
			if new.mode != modeDir && wanted[path] && new.mode != 0 {
				out[path] = exported(commit)
				delete(wanted, path)
				count(path, -1)
			}
			return above[path] > 0, nil
		})
		if err != nil {
			return nil, err
		}
		if len(commit.ParentHashes) == 0 {
			break
		}
	}
	return out, nil
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	gitobject "github.com/go-git/go-git/v5/plumbing/object"
)

// RemoteHead asks the remote for the commit of the branch; the empty Hash if
// there is no such branch. It is one small request over a connection that is
// kept, and touches no file.
func (c *Clone) RemoteHead(ctx context.Context) (Hash, error) {
	c.net.Lock()
	defer c.net.Unlock()
	ref := branchRef(c.opts.Branch)
	l, err := c.remote.list(ctx, ref)
	if err != nil {
		return "", c.remoteError("asking", err)
	}
	return hashOf(l.refs[ref]), nil
}

// remoteError says what was being done at which remote. That a remote which is
// a directory is broken, or lacks an object, says nothing of the clone.
func (c *Clone) remoteError(doing string, err error) error {
	var broken *BrokenError
	if errors.As(err, &broken) && (c.repo == nil || broken.Dir != c.repo.dir) || errors.Is(err, ErrNotFound) {
		err = errors.New(err.Error())
	}
	return fmt.Errorf("%s %s: %w", doing, c.opts.URL, plain(err))
}

// Fetch brings what the remote's branch has into the clone and makes
// refs/remotes/origin/<branch> point to it, durably: forward, back or
// elsewhere, as the remote is the truth. It returns that commit; the empty
// Hash if the branch is not there or not there any more. The local branch and
// the work tree stay as they are.
//
// With Options.Verify, a commit that is new on the branch and not signed by an
// allowed key is an error that names it, and nothing is taken over. In a new
// clone, only the tip has to be signed: who did vouches for its history.
func (c *Clone) Fetch(ctx context.Context) (Hash, error) {
	c.net.Lock()
	defer c.net.Unlock()
	tip, err := c.fetch(ctx)
	if err != nil {
		return "", c.remoteError("fetching", err)
	}
	return hashOf(tip), nil
}

func (c *Clone) fetch(ctx context.Context) (oid, error) {
	ref, tracking := branchRef(c.opts.Branch), upstreamRef(c.opts.Branch)
	l, err := c.remote.list(ctx, ref)
	if err != nil {
		return oid{}, err
	}
	tip := l.refs[ref]
	old, err := c.repo.ref(tracking)
	if err != nil {
		return oid{}, err
	}
	if tip == old && (tip == (oid{}) || c.repo.sound(tip)) {
		return tip, nil
	}
	if tip != (oid{}) {
		if err := c.download(ctx, tip); err != nil {
			return oid{}, err
		}
	}
	if err := c.verifyNew(old, tip); err != nil {
		return oid{}, err
	}
	if err := c.vouch(tip); err != nil {
		return oid{}, err
	}
	// Crash here: what is vouched for is what the next fetch finds.
	return tip, c.repo.setRef(ctx, tracking, old, tip)
}

// download makes the clone have the commit tip and all that it needs, durably.
func (c *Clone) download(ctx context.Context, tip oid) error {
	haves, complete, err := c.haves(tip)
	if err != nil || complete {
		return err
	}
	for {
		err := c.remote.fetch(ctx, tip, haves, func(pack io.Reader) error {
			return c.repo.receive(ctx, pack, c.opts.Progress)
		})
		if err != nil {
			return err
		}
		if c.repo.sound(tip) {
			return c.repo.sync()
		}
		if haves == nil {
			return errors.New("the remote did not send what was asked for")
		}
		// We lack something that we should have: let it send everything.
		haves = nil
	}
}

// sound reports whether the commit id and its tree can be read.
func (s *store) sound(id oid) bool {
	c, err := s.commit(id)
	if err != nil {
		return false
	}
	_, err = s.tree(c.TreeHash)
	return err == nil
}

// haves returns commits to tell the remote of: what the local and the
// remote-tracking branch are at, and some of what they come from, in case the
// remote lost the latest. They are complete, as refs only ever point to
// complete commits. It also reports whether tip is among what they have.
//
// A commit that cannot be read is not told of. If the store is damaged, the
// remote is then asked for more than is missing, which mends it.
func (c *Clone) haves(tip oid) (haves []oid, complete bool, err error) {
	for _, name := range []string{upstreamRef(c.opts.Branch), branchRef(c.opts.Branch)} {
		id, err := c.repo.ref(name)
		if err != nil {
			return nil, false, err
		}
		if id == (oid{}) || !c.repo.sound(id) {
			continue
		}
		if !complete && c.repo.sound(tip) {
			if complete, err = c.repo.isAncestor(tip, id); err != nil {
				complete = false
			}
		}
		// The last 16, then ever fewer.
		for n := 0; n <= 256 && id != (oid{}); n++ {
			if n < 16 || n&(n-1) == 0 {
				haves = append(haves, id)
			}
			commit, err := c.repo.commit(id)
			if err != nil || len(commit.ParentHashes) == 0 {
				break
			}
			id = commit.ParentHashes[0]
		}
	}
	return haves, complete, nil
}

// Push sends the commits that the local branch has and the remote-tracking
// branch has not, in one pack with exactly the objects that they add, and
// moves the remote's branch from the one to the other; it is never forced. On
// success the remote-tracking branch is there, too. If the remote has the
// commits already, from a push whose answer was lost, that is success.
//
// The error is ErrRaced if the remote's branch is somewhere else by now. Others
// are those of the network and of credentials, and the remote's own words, if it
// does not want the commits.
func (c *Clone) Push(ctx context.Context) error {
	c.net.Lock()
	defer c.net.Unlock()
	if err := c.push(ctx); err != nil {
		return c.remoteError("pushing to", err)
	}
	return nil
}

func (c *Clone) push(ctx context.Context) error {
	ref, tracking := branchRef(c.opts.Branch), upstreamRef(c.opts.Branch)
	head, err := c.repo.ref(ref)
	if err != nil {
		return err
	}
	upstream, err := c.repo.ref(tracking)
	if err != nil {
		return err
	}
	if head == (oid{}) {
		return errors.New("there is no commit to push")
	}
	old := upstream
	err = c.remote.push(ctx, ref, func(at oid) (*update, error) {
		if at == head {
			return nil, nil
		}
		if old = at; at != upstream {
			return nil, ErrRaced
		}
		if at != (oid{}) {
			if ahead, err := c.repo.isAncestor(at, head); err != nil {
				return nil, err
			} else if !ahead {
				return nil, ErrRaced
			}
		}
		objects, err := c.repo.newObjects(at, head)
		if err != nil {
			return nil, err
		}
		return &update{head, func(w io.Writer, thin bool) error { return c.repo.writePack(w, objects, thin) }}, nil
	})
	if refused := (*refusedError)(nil); errors.As(err, &refused) {
		// Who was first, says the branch; the text only if it cannot be asked.
		if l, lerr := c.remote.list(ctx, ref); lerr == nil && l.refs[ref] != old || lerr != nil && overtaken(refused) {
			return fmt.Errorf("%w (%s)", ErrRaced, refused.Reason)
		}
	}
	if err != nil {
		return err
	}
	return c.repo.setRef(ctx, tracking, upstream, head)
}

// newObjects lists what is to be sent to somebody who has all of the commit
// have (or nothing, if it is the zero oid) so that they have all of want. It
// compares each commit with its first parent, so that its cost follows what
// was changed. An object that have holds in another place may be listed, unless
// that is where one of the commits took it from.
func (s *store) newObjects(have, want oid) ([]packObject, error) {
	commits, err := s.between(have, want)
	if err != nil {
		return nil, err
	}
	var out []packObject
	seen := make(map[oid]bool)
	add := func(id, base oid) (isNew bool) {
		if id == (oid{}) || seen[id] {
			return false
		}
		seen[id] = true
		out = append(out, packObject{id, base})
		return true
	}
	for _, c := range commits {
		add(c.Hash, oid{})
		before, err := s.parentTree(c)
		if err != nil {
			return nil, err
		}
		if c.TreeHash == before || !add(c.TreeHash, before) {
			continue
		}
		// What only moved is not new: the tree before had it elsewhere.
		added := len(out)
		had := make(map[oid]bool)
		err = s.diff(before, c.TreeHash, "", func(path string, old, new treeEntry) (bool, error) {
			had[old.id] = true
			if new.mode == 0 || new.mode == ModeModule || new.id == old.id {
				return new.mode == 0, nil
			}
			base := oid{}
			if old.mode == new.mode {
				base = old.id
			}
			return add(new.id, base), nil
		})
		if err != nil {
			return nil, err
		}
		out = append(out[:added], slices.DeleteFunc(out[added:], func(o packObject) bool { return had[o.id] })...)
	}
	return out, nil
}

// parentTree returns the tree of the first parent of c; the zero oid if it has
// none.
func (s *store) parentTree(c *gitobject.Commit) (oid, error) {
	if len(c.ParentHashes) == 0 {
		return oid{}, nil
	}
	p, err := s.commit(c.ParentHashes[0])
	if err != nil {
		return oid{}, err
	}
	return p.TreeHash, nil
}

// A Report is what Probe finds out about a remote.
type Report struct {
	Head    Hash   // of the branch; empty if it is not there
	Empty   bool   // no branch at all is there
	Default string // the remote's default branch, if it says so
	Push    error  // nil if a push would be allowed, as far as can be told before
}

// Probe asks the remote what it has and whether it would take a push, without
// a clone and without changing anything. Of o only URL, Proxy, Auth and
// Branch are used. The error is that of reading: ErrAuth, ErrNoRepository, or one of the
// network.
func Probe(ctx context.Context, o Options) (Report, error) {
	var r Report
	remote, err := newRemote(o, patience{limit: stallLimit})
	if err != nil {
		return r, err
	}
	defer remote.close()
	l, err := remote.list(ctx, "HEAD", "refs/heads/")
	if err != nil {
		return r, fmt.Errorf("asking %s: %w", o.URL, plain(err))
	}
	r.Default = branchName(l.head)
	if o.Branch == "" {
		o.Branch = r.Default
	}
	ref := branchRef(o.Branch)
	r.Head = hashOf(l.refs[ref])
	r.Empty = len(l.refs) == 0
	err = remote.push(ctx, ref, func(oid) (*update, error) { return nil, nil })
	if err != nil {
		r.Push = fmt.Errorf("pushing to %s: %w", o.URL, plain(err))
	}
	return r, nil
}

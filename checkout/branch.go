// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// The file "branch" in stateDir names the branch that the work tree was brought
// to last, once something of it was on the remote. As long as Options.Branch is
// another one, what the clone has to have of it (see check) is not known yet.
func (r *repository) followedPath() string { return filepath.Join(r.dir, stateDir, "branch") }

// followed returns the branch that the clone followed last, "" if that is not
// known.
func (r *repository) followed() string {
	data, err := readOptional(r.followedPath())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// follow notes that the work tree was brought to the branch.
func (c *Clone) follow() error {
	if c.repo.followed() == c.opts.Branch {
		return nil
	}
	if id, err := c.repo.ref(upstreamRef(c.opts.Branch)); err != nil || id == (oid{}) {
		return err
	}
	return durable.WriteFile(c.repo.followedPath(), []byte(c.opts.Branch+"\n"), 0o644)
}

// takeOver moves the commits that were never pushed from the branch that was
// followed before to the one that is followed from now on: that one begins at
// them, and the other goes back to what its remote has. What they stand on is
// not what the new branch's remote has, as after a lost race, and what is to be
// done is the same.
func (c *Clone) takeOver(ctx context.Context) (err error) {
	was := c.repo.followed()
	if was == "" || was == c.opts.Branch {
		return nil
	}
	refs := make(map[string]oid)
	for _, name := range []string{branchRef(was), upstreamRef(was), branchRef(c.opts.Branch), upstreamRef(c.opts.Branch)} {
		id, err := c.repo.ref(name)
		if err != nil {
			return err
		}
		refs[name] = id
	}
	head, upstream := refs[branchRef(was)], refs[upstreamRef(was)]
	if head == (oid{}) || head == upstream {
		return nil
	}
	if upstream != (oid{}) {
		if pushed, err := c.repo.isAncestor(head, upstream); err != nil || pushed {
			return err
		}
	}
	// What the new branch had here already is not thrown away.
	there := refs[branchRef(c.opts.Branch)]
	kept := there == (oid{})
	for _, by := range []oid{head, refs[upstreamRef(c.opts.Branch)]} {
		if !kept && by != (oid{}) {
			if kept, err = c.repo.isAncestor(there, by); err != nil {
				return err
			}
		}
	}
	if !kept {
		if err := c.SaveRef("aside/"+there.String(), hashOf(there)); err != nil {
			return err
		}
	}
	if err := c.repo.setRef(ctx, branchRef(c.opts.Branch), there, head); err != nil {
		return fmt.Errorf("taking over the commits of %s that were not pushed: %w", was, err)
	}
	// Crash here: the next Open does the same again.
	return c.repo.setRef(ctx, branchRef(was), head, upstream)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hhwatchd/hhwatchd/apply"
	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/journal"
)

// A prune that would delete more than this without a person's word is held:
// a tenth of what was applied, but never fewer than five objects.
const (
	prunePercent = 10
	pruneFloor   = 5
)

// toPrune lists the objects that hhwatchd put into a fabric's cluster and whose
// files have left managed/ since. Of the files there, has are the objects, and
// unread cannot be read. (The inventory follows the local branch, which may be
// ahead: what the remote still has is not to go yet.) Doubt holds them back:
// then held says why, and what a person can do. agreed is that a person's word.
// inHistory says whether a commit is in the history of the one that is applied.
func toPrune(inv *journal.Inventory, f *FabricConfig, policy ingest.Policy, has map[apply.Key]string, unread int, agreed bool, inHistory func(checkout.Hash) (bool, error)) (gone []apply.Object, held string, err error) {
	applied, moved := 0, false
	from := map[string]bool{} // commits that they were applied from
	for _, e := range inv.Objects(f.Name) {
		if e.Applied.Blob == "" {
			continue
		}
		applied++
		if _, ok := has[apply.Key(e.Key)]; ok {
			continue
		}
		if kind, ok := policy.Kind(e.Group, e.Kind); ok && e.Desired.Blob == "" {
			moved = moved || !strings.HasPrefix(e.Left, f.managed()+"/")
			from[e.Applied.Commit] = true
			gone = append(gone, apply.Object{
				Group: e.Group, Version: kind.Version, Kind: e.Kind, Plural: kind.Plural, Namespace: e.Namespace, Name: e.Name,
			})
		}
	}
	if len(gone) == 0 {
		return nil, "", nil
	}
	// Of what was applied from a commit that the branch has no more, no commit
	// says that it is to go: an older branch was pushed, say.
	rewritten := false
	for commit := range from {
		is, err := inHistory(checkout.Hash(commit))
		if err != nil {
			return nil, "", err
		}
		rewritten = rewritten || !is
	}
	limit := max(pruneFloor, applied*prunePercent/100)
	why := ""
	switch {
	case unread > 0:
		// One of them may be what is missing, under another name.
		return nil, fmt.Sprintf("%d of %s would be deleted from the cluster, but %s in managed/ cannot be read; correct or remove what cannot be read",
			len(gone), plural(applied, "object"), plural(unread, "file")), nil
	case agreed:
	case moved:
		why = "their files lay elsewhere: the fabric's path was changed"
	case len(has) == 0:
		why = "managed/ came up empty"
	case rewritten:
		why = "the branch was rewritten since they were applied"
	case len(gone) > limit:
		why = fmt.Sprintf("the limit is %d", limit)
	}
	if why != "" {
		return nil, fmt.Sprintf("%d of %s would be deleted from the cluster, but %s; if it is meant: hhwatchd sync --fabric %s --prune",
			len(gone), plural(applied, "object"), why, f.Name), nil
	}
	return gone, "", nil
}

// prune deletes what is to be pruned, or says why it is held.
func (c *cluster) prune(ctx context.Context, t target, has map[apply.Key]string, unread int, rep *applyReport) error {
	c.deleting, c.kept = false, nil
	c.going = nil
	gone, held, err := toPrune(c.repo.book.inventory(), c.fabric.cfg, c.fabric.policy(), has, unread, t.prune,
		func(commit checkout.Hash) (bool, error) { return t.clone.IsAncestor(commit, t.commit) })
	c.held = held
	if err != nil || len(gone) == 0 {
		return err
	}
	pruned := journal.Record{Cycle: t.cycle, Repository: c.repo.cfg.Name, Fabric: c.fabric.cfg.Name, Step: journal.StepPrune, To: string(t.commit)}
	err = c.api.Prune(ctx, gone, func(res apply.Result) {
		rep.Objects[string(res.Outcome)]++
		rep.changed = rep.changed || res.Outcome == apply.Pruned
		o := journal.Object{Group: res.Group, Kind: res.Kind, Namespace: res.Namespace, Name: res.Name, Outcome: string(res.Outcome)}
		if res.Outcome == apply.Deleting {
			c.deleting = true // asked again later
			c.going = append(c.going, fmt.Sprintf("%s/%s: %v", res.Kind, res.Name, res.Err))
			return
		}
		if res.Err != nil {
			o.Error = res.Err.Error()
			c.kept = append(c.kept, fmt.Sprintf("deleting %s/%s: %v", res.Kind, res.Name, res.Err))
			c.deleting = c.deleting || res.Outcome == apply.Failed && !res.Permanent
		}
		if c.news(o) {
			pruned.Objects = append(pruned.Objects, o)
		}
	})
	if len(pruned.Objects) > 0 {
		err = errors.Join(err, c.repo.book.append(pruned))
	}
	return err
}

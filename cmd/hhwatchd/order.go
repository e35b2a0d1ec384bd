// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/hhwatchd/hhwatchd/checkout"
)

// inOrder sorts paths by when the commits on the way to tip gave them their
// content, oldest first, and returns those commits. The way is that of first
// parents; what a merge brought comes in the order of the commits that it
// merged.
func (r *repository) inOrder(tip checkout.Hash, paths []string) (map[string]checkout.Commit, error) {
	by, err := r.clone.Introduced(tip, paths)
	if err != nil {
		return nil, err
	}
	age := map[checkout.Hash]int{} // in commits before tip
	for _, c := range by {
		age[c.Hash] = -1
	}
	for at, n, left := tip, 0, len(age); left > 0 && at != ""; n++ {
		if _, ok := age[at]; ok {
			age[at] = n
			left--
		}
		c, err := r.clone.Commit(at)
		if err != nil {
			return nil, err
		}
		at = first(c.Parents)
	}
	within, err := r.withinMerges(by)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(paths, func(a, b string) int {
		return cmp.Or(cmp.Compare(age[by[b].Hash], age[by[a].Hash]), cmp.Compare(within[a], within[b]), strings.Compare(a, b))
	})
	return by, nil
}

// withinMerges returns, for the paths that came by a merge, the place among
// the merged commits of the one that gave them their content.
func (r *repository) withinMerges(by map[string]checkout.Commit) (map[string]int, error) {
	within := map[string]int{}
	brought := map[checkout.Hash][]string{} // by merge
	for p, c := range by {
		if len(c.Parents) > 1 {
			brought[c.Hash] = append(brought[c.Hash], p)
		}
	}
	for merge, paths := range brought {
		if len(paths) == 1 {
			continue
		}
		merged, err := r.clone.Log(by[paths[0]].Parents[0], merge)
		if err != nil {
			return nil, err
		}
		place := map[checkout.Hash]int{}
		for i, c := range merged {
			place[c.Hash] = i
		}
		for _, p := range paths {
			c, err := r.behindMerges(by[p], p)
			if err != nil {
				return nil, err
			}
			within[p] = place[c.Hash]
		}
	}
	return within, nil
}

// behindMerges returns the commit that gave a path the content that it has in
// commit c, which brought it: another one than c if that is a merge.
func (r *repository) behindMerges(c checkout.Commit, p string) (checkout.Commit, error) {
	content, _, err := r.clone.Lookup(c.Hash, p)
	if err != nil || len(c.Parents) < 2 {
		return c, err
	}
	for _, parent := range c.Parents[1:] {
		blob, _, err := r.clone.Lookup(parent, p)
		if err != nil {
			return c, err
		}
		if blob != content {
			continue
		}
		by, err := r.clone.Introduced(parent, []string{p})
		if err != nil {
			return c, err
		}
		return r.behindMerges(by[p], p)
	}
	return c, nil // the merge itself did
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/journal"
)

// moves is how the branch moved, here and on the remote.
type moves struct {
	known  checkout.Hash // what the journal accounted for
	pulled checkout.Hash // what the remote had before this cycle's push
	tip    checkout.Hash // the local branch
	up     checkout.Hash // what the remote has now
	made   []string      // our commits from pulled to tip
	recent []string      // those of them that the journal did not know
}

// accountMoves puts around recs how the branch moved.
func (r *repository) accountMoves(recs []journal.Record, rep *report, m moves) ([]journal.Record, error) {
	known, pulled, tip, up := m.known, m.pulled, m.tip, m.up
	from := checkout.Hash(r.book.inventory().Pushed(r.cfg.Name))
	if pulled != from && pulled != "" {
		var moved []journal.Record
		sent, err := r.sentBefore(from, known, pulled)
		if err != nil {
			return nil, err
		}
		if len(sent) > 0 {
			moved = append(moved, journal.Record{Cycle: rep.Cycle, Step: journal.StepPush, Branch: r.cfg.Branch, From: string(from), To: string(known), Commits: hashes(sent)})
			from = known
		}
		if pulled != from {
			rec := journal.Record{Cycle: rep.Cycle, Step: journal.StepPull, Branch: r.cfg.Branch, From: string(from), To: string(pulled)}
			if from != "" {
				// The clone may be a new one, and not have it any more.
				ahead, err := r.clone.IsAncestor(from, pulled)
				if err != nil {
					return nil, err
				}
				if ahead {
					commits, err := r.clone.Log(from, pulled)
					if err != nil {
						return nil, err
					}
					rec.Commits = hashes(commits)
				} else {
					rec.Note = "the branch was rewritten there; what was taken back there stays so"
				}
			}
			moved = append(moved, rec)
			known = pulled
		}
		recs = append(moved, recs...)
	}
	if tip != known {
		step := journal.Record{Cycle: rep.Cycle, Step: journal.StepCommit, Branch: r.cfg.Branch, From: string(known), To: string(tip), Commits: m.recent}
		if rep.replanned != "" {
			step.Step, step.From = journal.StepReplan, string(rep.replanned)
		}
		recs = append(recs, step)
	}
	if up != pulled && up != "" {
		recs = append(recs, journal.Record{Cycle: rep.Cycle, Step: journal.StepPush, Branch: r.cfg.Branch, From: string(pulled), To: string(up), Commits: m.made})
	}
	return recs, nil
}

// sentBefore lists the commits that the remote has got from this host without
// the journal's being told, because a crash or a lost answer came before that:
// known, up to which the journal has told what this host committed, lies
// between what the remote had, as the journal tells, and what it has now.
func (r *repository) sentBefore(from, known, now checkout.Hash) ([]checkout.Commit, error) {
	if from == "" || known == "" {
		return nil, nil
	}
	// In this order: where known is not in the history of now, nothing keeps
	// what it came from.
	for _, step := range [][2]checkout.Hash{{known, now}, {from, known}} {
		if ok, err := r.clone.IsAncestor(step[0], step[1]); err != nil || !ok {
			return nil, err
		}
	}
	return r.clone.Log(from, known)
}

// pulledBefore returns up, the remote's commit, or, where up is what this host
// pushed just before a crash, of which the journal does not know, what the
// remote had before that.
//
// This host made the commits between: baseRef and then archivedRef are moved on
// after the branch and before the push, and baseRef again only when the journal
// was told of the push.
func (r *repository) pulledBefore(up checkout.Hash) (checkout.Hash, error) {
	head, err := r.clone.Head()
	if err != nil || head != up || string(up) == r.book.inventory().Pushed(r.cfg.Name) {
		return up, err
	}
	archived, err := r.clone.Ref(archivedRef)
	if err != nil || archived != head {
		return up, err
	}
	base, err := r.clone.Ref(baseRef)
	if err != nil || base == "" {
		return up, err
	}
	if ok, err := r.clone.IsAncestor(base, up); err != nil || !ok {
		return up, err
	}
	return base, nil
}

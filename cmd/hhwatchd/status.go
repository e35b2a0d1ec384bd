// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/hhwatchd/hhwatchd/checkout"
)

// repositoryStatus is what `hhwatchd status` shows of a repository.
type repositoryStatus struct {
	Name      string         `json:"name"`
	URL       string         `json:"url"`
	Clone     string         `json:"clone"` // the directory of the working clone
	Branch    string         `json:"branch"`
	Head      string         `json:"head,omitempty"`   // of the local branch
	Remote    string         `json:"remote,omitempty"` // of the remote's, when it was last seen
	Unpushed  int            `json:"unpushed"`
	Looked    time.Time      `json:"looked,omitzero"`  // the last answer of the remote
	Aside     int            `json:"aside,omitempty"`  // local commits that the remote went on without
	Asking    string         `json:"asking,omitempty"` // what the remote is doing for us just now
	Asked     time.Time      `json:"asked,omitzero"`   // since when
	Down      string         `json:"down,omitempty"`   // why the remote cannot be used
	DownSince time.Time      `json:"downSince,omitzero"`
	Tries     int            `json:"tries,omitempty"` // that failed since then
	Next      time.Time      `json:"next,omitzero"`   // the next look
	Cycle     string         `json:"cycle,omitempty"`
	Cycles    int            `json:"cycles"`
	Error     string         `json:"error,omitempty"`    // what stopped the last cycle
	Stopped   time.Time      `json:"stopped,omitzero"`   // since when none came through
	Retry     time.Time      `json:"retry,omitzero"`     // when it is tried again
	Succeeded time.Time      `json:"succeeded,omitzero"` // the end of the last cycle that went well and asked the remote
	Fabrics   []fabricStatus `json:"fabrics"`
}

type fabricStatus struct {
	Name      string    `json:"name"`
	Raw       string    `json:"raw"` // where to drop a file
	Objects   int       `json:"objects"`
	Applied   int       `json:"applied"`
	Waiting   []string  `json:"waiting,omitempty"` // files that are still being written
	Skipped   []string  `json:"skipped,omitempty"` // what in raw/ cannot be taken, and why
	Error     string    `json:"error,omitempty"`   // why its raw/ cannot be used
	Commit    string    `json:"commit,omitempty"`  // the last one that was applied
	Cluster   string    `json:"cluster,omitempty"` // its API server
	Failed    []string  `json:"failed,omitempty"`
	Drifts    []string  `json:"drifts,omitempty"`    // what others changed in the cluster and is left so
	Repaired  string    `json:"repaired,omitempty"`  // what others changed and was put right last
	RepairAt  time.Time `json:"repairAt,omitzero"`   // when that was
	Unwatched string    `json:"unwatched,omitempty"` // why its cluster cannot be watched
	Unheard   string    `json:"unheard,omitempty"`   // why its cluster gave no verdict when it was asked last what it would refuse
	UnheardAt time.Time `json:"unheardAt,omitzero"`  // when that was
	Held      string    `json:"held,omitempty"`
	Deleting  []string  `json:"deleting,omitempty"`  // what a prune waits for
	Ahead     bool      `json:"ahead,omitempty"`     // Commit is not on the remote yet
	Schemas   int       `json:"schemas"`             // kinds that are held against their schema
	Unchecked string    `json:"unchecked,omitempty"` // why there are none, or not all
	Down      string    `json:"down,omitempty"`      // why its cluster cannot be used
	DownSince time.Time `json:"downSince,omitzero"`
	Tries     int       `json:"tries,omitempty"`    // that failed since then
	Next      time.Time `json:"next,omitzero"`      // the next attempt, while something waits for it
	Succeeded time.Time `json:"succeeded,omitzero"` // when its cluster last held all that it should; without one, as the repository's

	Health *clusterHealth `json:"health,omitempty"` // of its cluster, once that was checked
}

// publish refreshes what status shows.
func (r *repository) publish(rep *report, t trigger) {
	var head, up checkout.Hash
	unpushed, aside := 0, 0
	if r.clone != nil {
		head, _ = r.clone.Head()
		up, _ = r.clone.Upstream()
		if head != up {
			commits, _ := r.clone.Log(up, head)
			unpushed = len(commits)
		}
		// It takes reading a directory: when there may be news only.
		if t.full || rep.setAside || r.status.Aside > 0 {
			refs, _ := r.clone.Refs(asideRef)
			aside = len(refs)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.status
	s.Head, s.Remote, s.Unpushed, s.Aside = string(head), string(up), unpushed, aside
	s.Next, s.Cycle, s.Error, s.Retry = r.remote.Due(), rep.Cycle, rep.Error, r.retry.Due()
	s.Stopped = time.Time{}
	if f := r.faults[""]; f != nil && rep.Error != "" {
		s.Stopped = f.since
	}
	s.Cycles++
	well := rep.Error == "" && rep.Pull.Error == "" && rep.Push.Error == "" && rep.Pull.Skipped == ""
	if well {
		s.Succeeded = time.Now()
	}
	for i, fr := range rep.Fabrics {
		s.Fabrics[i].Waiting, s.Fabrics[i].Skipped, s.Fabrics[i].Error = fr.Waiting, fr.Skipped, fr.Error
		if well && fr.Error == "" {
			s.Fabrics[i].Succeeded = s.Succeeded
		}
	}
}

// currentStatus is a copy of what status shows; any goroutine may call it.
func (r *repository) currentStatus() repositoryStatus {
	r.mu.Lock()
	s := r.status
	s.Fabrics = append([]fabricStatus(nil), s.Fabrics...)
	r.mu.Unlock()
	for i := range s.Fabrics {
		fs := &s.Fabrics[i]
		n := r.book.inventory().Counts(fs.Name)
		fs.Objects, fs.Applied = n.Pending+n.Applied+n.Failed, n.Applied
		f := r.fabricNamed(fs.Name)
		fs.Schemas, fs.Unchecked = f.schemas.state()
		if f.cluster != nil {
			f.cluster.fill(fs)
		}
	}
	return s
}

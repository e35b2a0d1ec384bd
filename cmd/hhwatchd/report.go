// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"time"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/journal"
)

// A report says how each step of one cycle went. It is what `hhwatchd sync`
// prints, and with -o json the document itself.
type report struct {
	Repository string         `json:"repository"`
	Cycle      string         `json:"cycle"`
	Trigger    string         `json:"trigger"`
	DryRun     bool           `json:"dryRun,omitempty"`
	Pull       pullReport     `json:"pull"`
	Import     *importReport  `json:"import,omitempty"`
	Fabrics    []fabricReport `json:"fabrics"`
	Commits    []string       `json:"commits,omitempty"` // new ones, oldest first
	Aside      []asideReport  `json:"aside,omitempty"`
	Push       pushReport     `json:"push"`
	Error      string         `json:"error,omitempty"` // what stopped the cycle
	Took       time.Duration  `json:"tookNanoseconds"`
	Steps      stepTimes      `json:"stepsNanoseconds,omitempty"` // of it, by step

	replanned checkout.Hash // the local branch that was planned anew
	setAside  bool          // a local commit that the remote went on without
}

// stepTimes are how long the steps of a cycle took that had something to do;
// what a lost race repeats adds up.
type stepTimes map[string]time.Duration

// begin begins a step; the function that it returns ends it.
func (s stepTimes) begin(step string) (end func()) {
	start := time.Now()
	return func() { s[step] += time.Since(start) }
}

type pullReport struct {
	Skipped string `json:"skipped,omitempty"` // why the remote was not asked
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Error   string `json:"error,omitempty"`
}

type fabricReport struct {
	Name    string       `json:"name"`
	Files   []fileReport `json:"files,omitempty"`
	Waiting []string     `json:"waiting,omitempty"` // still being written
	Skipped []string     `json:"skipped,omitempty"` // left alone in raw/, and why
	Error   string       `json:"error,omitempty"`   // why its raw/ cannot be used

	Deferred int `json:"deferred,omitempty"` // files beyond limits.cycle, which the next cycle takes

	Apply applyReport `json:"apply"`

	applying <-chan applyReport // where the cluster answers
}

type fileReport struct {
	Path     string            `json:"path"` // below raw/
	Origin   string            `json:"origin"`
	Owner    string            `json:"owner,omitempty"`
	Outcome  string            `json:"outcome"`
	Kept     string            `json:"kept,omitempty"` // where a rejected file lies
	Objects  map[string]int    `json:"objects,omitempty"`
	Plan     []objectReport    `json:"plan,omitempty"` // with a dry run
	Problems []journal.Problem `json:"problems,omitempty"`
	Warnings []journal.Problem `json:"warnings,omitempty"` // of an ingested file
}

type objectReport struct {
	Object  string `json:"object"`
	Path    string `json:"path"`
	Outcome string `json:"outcome"`
}

type asideReport struct {
	Path string `json:"path"`
	Kept string `json:"kept,omitempty"`
}

type pushReport struct {
	Commits int    `json:"commits,omitempty"`
	Head    string `json:"head,omitempty"`
	Skipped string `json:"skipped,omitempty"`
	Error   string `json:"error,omitempty"`
}

type applyReport struct {
	Skipped string         `json:"skipped,omitempty"`
	Commit  string         `json:"commit,omitempty"`
	Objects map[string]int `json:"objects,omitempty"` // by outcome
	Failed  []string       `json:"failed,omitempty"`  // a line each
	Drifts  []string       `json:"drifts,omitempty"`  // what others changed and is left so, a line each
	Held    string         `json:"held,omitempty"`    // why a prune waits for a person
	Drifted int            `json:"drifted,omitempty"` // of them, those that had been applied as they are, and changed since
	Error   string         `json:"error,omitempty"`
	Took    time.Duration  `json:"tookNanoseconds,omitempty"`

	moved   bool // the last pass changed something in the cluster
	changed bool // some pass did, or a prune
}

// failed reports whether anything in the cycle needs a person's eye: it
// decides the exit code of `hhwatchd sync`.
func (r *report) failed() bool {
	if r.Error != "" || r.Pull.Error != "" || r.Push.Error != "" {
		return true
	}
	for _, f := range r.Fabrics {
		if f.Apply.Error != "" || f.Apply.Held != "" || len(f.Apply.Failed) > 0 || len(f.Apply.Drifts) > 0 || len(f.Skipped) > 0 || f.Error != "" {
			return true
		}
		for _, file := range f.Files {
			if file.Outcome == journal.Rejected {
				return true
			}
		}
	}
	return false
}

// stopped reports whether the cycle, or what it does in one fabric's raw/,
// did not come through and is to be tried again.
func (r *report) stopped() bool {
	return r.Error != "" || slices.ContainsFunc(r.Fabrics, func(f fabricReport) bool { return f.Error != "" })
}

// only leaves one fabric in the report: the cycle is the repository's, and who
// asked for a fabric hears of that one. Empty means all.
func (r *report) only(fabric string) {
	if fabric != "" {
		r.Fabrics = slices.DeleteFunc(r.Fabrics, func(f fabricReport) bool { return f.Name != fabric })
	}
}

func (r *report) fabric(name string) *fabricReport {
	for i := range r.Fabrics {
		if r.Fabrics[i].Name == name {
			return &r.Fabrics[i]
		}
	}
	return nil
}

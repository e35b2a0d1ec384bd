// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hhwatchd/hhwatchd/test/stage"
)

// The aims, for every repository.
const (
	aimOnePushed   = 120 * time.Millisecond // beyond the quiet period
	aimOneApplied  = 150 * time.Millisecond
	aimManyApplied = 500 * time.Millisecond
	aimIdlePercent = 0.1 // of one core
	aimRSS         = 40 << 20
)

// result is all that was measured.
type result struct {
	Machine  string       `json:"machine"`
	Software string       `json:"software"`
	Settings settings     `json:"settings"`
	Sites    []siteResult `json:"sites"`

	BadDay  *badDayResult  `json:"badDay,omitempty"`
	Journal *journalResult `json:"journal,omitempty"`
}

// siteResult is what was measured with a repository of one size.
type siteResult struct {
	Files  int          `json:"files"`
	Loads  []loadResult `json:"loads"`
	Memory struct {
		Start  memory `json:"start"`  // all that the repository holds is applied
		Loaded memory `json:"loaded"` // right after the last drop
		Idle   memory `json:"idle"`   // after the idle time
	} `json:"memory"`
	IdleCPU     time.Duration `json:"idleCPUNanoseconds"`
	IdlePercent float64       `json:"idleCPUPercent"` // of one core
}

// times are one run's.
type times struct {
	arrival
	git, kubectl, unvalidated time.Duration
}

// loadResult is what was measured with the files of a load.
type loadResult struct {
	Title string `json:"title"`

	// hhwatchd, from closing the file to each place, without the quiet period.
	Committed series `json:"committed"`
	Pushed    series `json:"pushed"`
	Applied   series `json:"applied"`

	// By hand.
	Git         series `json:"git"` // add, commit, push
	Kubectl     series `json:"kubectl"`
	Both        series `json:"gitAndKubectl"`
	Unvalidated series `json:"kubectlUnvalidated"`
	BothUnval   series `json:"gitAndKubectlUnvalidated"`
}

func (r *loadResult) add(t times) {
	for _, e := range []struct {
		s *series
		d time.Duration
	}{
		{&r.Committed, t.committed - stage.Quiet},
		{&r.Pushed, t.pushed - stage.Quiet},
		{&r.Applied, t.applied - stage.Quiet},
		{&r.Git, t.git},
		{&r.Kubectl, t.kubectl},
		{&r.Both, t.git + t.kubectl},
		{&r.Unvalidated, t.unvalidated},
		{&r.BothUnval, t.git + t.unvalidated},
	} {
		*e.s = append(*e.s, e.d)
	}
}

// series is the same time, measured in each run.
type series []time.Duration

func (s series) median() time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// MarshalJSON writes milliseconds.
func (s series) MarshalJSON() ([]byte, error) {
	runs := make([]float64, len(s))
	for i, d := range s {
		runs[i] = milliseconds(d)
	}
	return json.Marshal(struct {
		Median float64   `json:"medianMilliseconds"`
		Runs   []float64 `json:"milliseconds"`
	}{milliseconds(s.median()), runs})
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// The columns of the table.
const (
	labelWidth = 36
	cellWidth  = 28
)

// print writes the figures for people, those of the sites side by side.
func (r *result) print(w io.Writer) {
	fmt.Fprintf(w, "machine    %s\nsoftware   %s\n", r.Machine, r.Software)
	fmt.Fprintf(w, "runs       %d of each, one before them not counted; medians, and from the fastest to the slowest\n", r.Settings.Runs)
	fmt.Fprintf(w, "hhwatchd   from closing the dropped file, without the quiet period of %v\n", stage.Quiet)
	fmt.Fprintf(w, "by hand    the file is there already; ×: as long as hhwatchd takes to the same point\n\n")

	row := func(label string, cell func(s *siteResult) string) string {
		line := fmt.Sprintf("%-*s", labelWidth, label)
		for i := range r.Sites {
			line += fmt.Sprintf("%-*s", cellWidth, cell(&r.Sites[i]))
		}
		return strings.TrimRight(line, " ")
	}
	fmt.Fprintln(w, row("", func(s *siteResult) string { return fmt.Sprintf("%d files in the repository", s.Files) }))
	for i := range r.Sites[0].Loads {
		fmt.Fprintln(w, r.Sites[0].Loads[i].Title)
		aim := map[string]time.Duration{"on the remote": aimOnePushed, "in the API server": aimOneApplied}
		if i > 0 {
			aim = map[string]time.Duration{"in the API server": aimManyApplied}
		}
		for _, line := range []struct {
			who, label string
			series     func(*loadResult) series
			than       func(*loadResult) series // hhwatchd's, for a ratio
		}{
			{"hhwatchd", "committed", func(l *loadResult) series { return l.Committed }, nil},
			{"", "on the remote", pushed, nil},
			{"", "in the API server", applied, nil},
			{"by hand", "git add, commit, push", func(l *loadResult) series { return l.Git }, pushed},
			{"", "kubectl apply", func(l *loadResult) series { return l.Kubectl }, nil},
			{"", "both", func(l *loadResult) series { return l.Both }, applied},
			{"", "… --validate=false", func(l *loadResult) series { return l.Unvalidated }, nil},
			{"", "both", func(l *loadResult) series { return l.BothUnval }, applied},
		} {
			text := row(fmt.Sprintf("  %-9s %s", line.who, line.label), func(s *siteResult) string {
				l := &s.Loads[i]
				cell := line.series(l).String()
				if line.than != nil {
					cell += fmt.Sprintf("  %.1f×", float64(line.series(l).median())/float64(line.than(l).median()))
				}
				return cell
			})
			if a := aim[line.label]; a > 0 {
				text += verdict(fmt.Sprintf("< %v", a), r.Sites, func(s *siteResult) bool { return line.series(&s.Loads[i]).median() < a })
			}
			fmt.Fprintln(w, text)
		}
		fmt.Fprintln(w)
	}

	fmt.Fprintf(w, "the daemon, idle for %v, polling every %v\n", r.Settings.Idle, interval)
	fmt.Fprintln(w, row("  CPU, of one core", func(s *siteResult) string {
		return fmt.Sprintf("%.3f %% (%v)", s.IdlePercent, s.IdleCPU)
	})+verdict(fmt.Sprintf("< %v %%", aimIdlePercent), r.Sites, func(s *siteResult) bool { return s.IdlePercent < aimIdlePercent }))
	fmt.Fprintln(w, row("  resident memory", func(s *siteResult) string { return s.Memory.Idle.String() })+
		verdict(fmt.Sprintf("< %d MiB", aimRSS>>20), r.Sites, func(s *siteResult) bool { return s.Memory.Idle.RSS < aimRSS }))
	fmt.Fprintln(w, row("  … after the drops", func(s *siteResult) string { return s.Memory.Loaded.String() }))
	fmt.Fprintln(w, row("  … before them", func(s *siteResult) string { return s.Memory.Start.String() }))
}

func pushed(l *loadResult) series  { return l.Pushed }
func applied(l *loadResult) series { return l.Applied }

// String is the median and the range.
func (s series) String() string {
	return fmt.Sprintf("%4.0f ms  %.0f–%.0f", milliseconds(s.median()), milliseconds(slices.Min(s)), milliseconds(slices.Max(s)))
}

func (m memory) String() string {
	return fmt.Sprintf("%.1f MiB (%.1f private)", float64(m.RSS)/(1<<20), float64(m.Anon)/(1<<20))
}

// verdict says whether all sites, or which of them, have met an aim.
func verdict(aim string, sites []siteResult, met func(*siteResult) bool) string {
	words := make([]string, len(sites))
	for i := range sites {
		words[i] = "missed"
		if met(&sites[i]) {
			words[i] = "met"
		}
	}
	return fmt.Sprintf("  aim %s: %s", aim, strings.Join(slices.Compact(words), ", "))
}

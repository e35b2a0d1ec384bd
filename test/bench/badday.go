// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hhwatchd/hhwatchd/test/stage"
)

const (
	// badDayFiles is how many files are dropped at once, each with a new object.
	badDayFiles = 100
	// outage is for how long the git server, or the API server, is away: long
	// enough for the daemon to have backed off to half a minute.
	outage = 30 * time.Second
)

// badDayResult is what was measured of files that wait for a server.
type badDayResult struct {
	Files  int           `json:"files"`
	Outage time.Duration `json:"outageNanoseconds"`
	Up     series        `json:"up"` // both servers are there: from the last drop, without the quiet period
	Git    recovery      `json:"git"`
	API    recovery      `json:"api"`
}

// A recovery is measured from when a server is back.
type recovery struct {
	All   series `json:"all"`   // until the API server has all that waited
	Asked series `json:"asked"` // until the daemon asks the server, as it had planned
}

// measureBadDay takes the servers of a site away, one after the other, while
// files are dropped.
func (s *site) measureBadDay(ctx context.Context, runs int) (*badDayResult, error) {
	r := &badDayResult{Files: badDayFiles, Outage: outage}
	st := s.stage
	for i := range runs {
		done := stage.Show(fmt.Sprintf("a bad day: run %d of %d", i+1, runs))
		took, err := s.dropMany(ctx)
		if err == nil {
			r.Up = append(r.Up, took-stage.Quiet)
			err = s.recover(ctx, &r.Git, func() error { st.Git.Down(); return nil }, func() error { st.Git.Up(); return nil })
		}
		if err == nil {
			err = s.recover(ctx, &r.API, func() error { st.API.Kill(); return nil }, st.API.Restart)
		}
		done()
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// dropMany drops the files and returns how long it then took until all was
// done.
func (s *site) dropMany(ctx context.Context) (time.Duration, error) {
	if err := s.write(); err != nil {
		return 0, err
	}
	start := time.Now()
	err := s.settled(ctx)
	return time.Since(start), err
}

// write drops the files.
func (s *site) write() error {
	for range badDayFiles {
		f, err := s.one.next()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(s.stage.Raw, f.name), f.text, 0o644); err != nil {
			return err
		}
		for _, o := range f.objects {
			s.dropped[o] = true
		}
	}
	return nil
}

// recover drops the files while a server is away, and measures from when it is
// back.
func (s *site) recover(ctx context.Context, r *recovery, down, up func() error) error {
	if err := down(); err != nil {
		return err
	}
	over := time.NewTimer(outage)
	defer over.Stop()
	if err := s.write(); err != nil {
		return err
	}
	err := s.stage.Await(ctx, "the daemon to have taken all in, and to miss the server", func(ctx context.Context) error {
		switch status, err := s.stage.Status(ctx); {
		case err != nil:
			return err
		case status.Objects != s.files+len(s.dropped):
			return fmt.Errorf("%d objects are taken in", status.Objects)
		case status.Down == "":
			return errors.New("it misses nothing")
		}
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case <-over.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := up(); err != nil {
		return err
	}
	back := time.Now()
	status, err := s.stage.Status(ctx)
	if err != nil {
		return err
	}
	asked := time.Duration(0)
	if status.Down != "" {
		asked = max(0, status.Next.Sub(back))
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	all := time.Since(back)
	r.All, r.Asked = append(r.All, all), append(r.Asked, min(asked, all)) // something else may have been first
	return nil
}

// print writes the figures for people.
func (r *badDayResult) print(w io.Writer) {
	fmt.Fprintf(w, "\na bad day: %d files with a new object each, dropped while a server is away for %v;\nuntil the remote and the API server have all of them\n", r.Files, r.Outage)
	line := func(label string, s series, more string) {
		fmt.Fprintf(w, "  %-*s%s%s\n", labelWidth-2, label, s, more)
	}
	line("with both servers there", r.Up, "")
	for _, m := range []struct {
		label string
		recovery
	}{{"the git server away, once back", r.Git}, {"the API server away, once back", r.API}} {
		var work series // without the wait
		for i := range m.All {
			work = append(work, m.All[i]-m.Asked[i])
		}
		line(m.label, m.All, "")
		line("  until it is asked again", m.Asked, "")
		line("  from then on", work, fmt.Sprintf("  %.1f×", float64(work.median())/float64(r.Up.median())))
	}
}

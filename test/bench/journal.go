// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hhwatchd/hhwatchd/journal"
)

// journalAppends is how often a record is appended, and as many bytes are
// written and synced, in turn.
const journalAppends = 1000

// journalObjects is how many objects the records of the long journal are about.
const journalObjects = 5000

// journalResult is what was measured of the journal.
type journalResult struct {
	Records   int    `json:"records"`
	Bytes     int64  `json:"bytes"`
	Segments  int    `json:"segments"`
	Appended  series `json:"appended"`  // one record, on disk
	Bare      series `json:"bare"`      // write(2) and fsync(2) of as many bytes
	Read      series `json:"read"`      // all records
	Verified  series `json:"verified"`  // all records, with the inventory that follows
	Opened    series `json:"opened"`    // from the newest checkpoint
	EmptyOpen series `json:"emptyOpen"` // a journal without records

	Ready      series `json:"ready"`      // the daemon, from exec to READY=1, with the long journal
	ReadyEmpty series `json:"readyEmpty"` // with an empty one
}

// measureJournal measures in a directory of its own; what hhwatchd is "" leaves
// the daemon out.
func measureJournal(ctx context.Context, hhwatchd string, records, runs int) (r *journalResult, err error) {
	dir, err := os.MkdirTemp("", "hhwatchd-bench-journal-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r = &journalResult{Records: records}
	if err := r.measureAppends(ctx, dir); err != nil {
		return nil, err
	}
	long, empty := filepath.Join(dir, "long"), filepath.Join(dir, "empty")
	if err := writeJournal(ctx, filepath.Join(long, "journal"), records); err != nil {
		return nil, err
	}
	for range runs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := r.measureReads(filepath.Join(long, "journal"), filepath.Join(empty, "journal")); err != nil {
			return nil, err
		}
		if hhwatchd == "" {
			continue
		}
		for _, m := range []struct {
			s     *series
			state string
		}{{&r.Ready, long}, {&r.ReadyEmpty, empty}} {
			took, err := untilReady(ctx, hhwatchd, m.state)
			if err != nil {
				return nil, err
			}
			*m.s = append(*m.s, took)
		}
	}
	return r, nil
}

// measureAppends appends records and writes as many bytes, by turns.
func (r *journalResult) measureAppends(ctx context.Context, dir string) error {
	j, err := journal.Open(filepath.Join(dir, "appends"))
	if err != nil {
		return err
	}
	defer j.Close()
	bare, err := os.OpenFile(filepath.Join(dir, "bare"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	defer bare.Close()
	segment := filepath.Join(dir, "appends", fmt.Sprintf("%020d.jsonl", 1))
	var size int64
	for i := range journalAppends {
		start := time.Now()
		if err := j.Append(aRecord(i)); err != nil {
			return err
		}
		r.Appended = append(r.Appended, time.Since(start))
		info, err := os.Stat(segment)
		if err != nil {
			return err
		}
		line := []byte(strings.Repeat("x", int(info.Size()-size)))
		size = info.Size()

		start = time.Now()
		if _, err := bare.Write(line); err != nil {
			return err
		}
		if err := bare.Sync(); err != nil {
			return err
		}
		r.Bare = append(r.Bare, time.Since(start))
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// measureReads reads, verifies and opens the long journal, and opens the empty
// one.
func (r *journalResult) measureReads(long, empty string) error {
	start := time.Now()
	for _, err := range journal.Read(long, 0) {
		if err != nil {
			return err
		}
	}
	r.Read = append(r.Read, time.Since(start))

	start = time.Now()
	report, err := journal.Verify(long, nil)
	if err != nil {
		return err
	}
	r.Verified = append(r.Verified, time.Since(start))
	r.Records, r.Bytes, r.Segments = report.Records, report.Bytes, report.Segments

	for _, m := range []struct {
		s   *series
		dir string
	}{{&r.Opened, long}, {&r.EmptyOpen, empty}} {
		start := time.Now()
		j, err := journal.Open(m.dir)
		if err != nil {
			return err
		}
		*m.s = append(*m.s, time.Since(start))
		if err := j.Close(); err != nil {
			return err
		}
	}
	return nil
}

// writeJournal makes a journal of ingestions and applies.
func writeJournal(ctx context.Context, dir string, records int) error {
	j, err := journal.Open(dir)
	if err != nil {
		return err
	}
	defer j.Close()
	const each = 500
	for i := 0; i < records; i += each {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch := make([]journal.Record, min(each, records-i))
		for k := range batch {
			batch[k] = aRecord(i + k)
		}
		if err := j.Append(batch...); err != nil {
			return err
		}
	}
	return nil
}

// aRecord is the ingestion of a file with one object, or its application.
func aRecord(i int) journal.Record {
	n := i / 2 % journalObjects
	id := func(what string, n int) string { return fmt.Sprintf("%s%032d", what, n) }
	o := journal.Object{
		Group: "vpc.githedgehog.com", Kind: "VPC", Namespace: "default", Name: fmt.Sprintf("vpc-%05d", n),
		Blob: id("b10bb10b", i/2), Outcome: journal.Updated,
	}
	r := journal.Record{
		Cycle: "20261123T063400.123Z-1f3a", Repository: "other", Fabric: "other-1", Step: journal.StepApply, To: id("c0117177", i/2),
	}
	if i%2 == 1 {
		o.Outcome, o.ResourceVersion = journal.Configured, fmt.Sprint(1000+i)
		r.Objects = []journal.Object{o}
		return r
	}
	o.Document, o.Line, o.Path = 1, 1, "gitops/hedgehog/other-1/managed/vpcs/"+o.Name+".yaml"
	r.Step, r.Objects = journal.StepIngest, []journal.Object{o}
	r.File = &journal.File{
		Path: "gitops/hedgehog/other-1/raw/" + o.Name + ".yaml", Blob: id("4aa4aa4a", i/2), Origin: journal.Dropped, Owner: "alice",
		Commit: id("d40bbed0", i/2), Size: 300, Outcome: journal.Ingested,
	}
	return r
}

// untilReady runs the daemon until it says READY=1 (sd_notify(3)), with an empty
// repository in a directory as its remote, and stops it.
func untilReady(ctx context.Context, hhwatchd, state string) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	remote := filepath.Join(state, "remote.git")
	if _, err := os.Stat(remote); errors.Is(err, fs.ErrNotExist) {
		if out, err := exec.CommandContext(ctx, "git", "init", "-q", "--bare", "-b", "main", remote).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("git init: %w: %s", err, out)
		}
	}
	config := filepath.Join(state, "hhwatchd.yaml")
	text := fmt.Sprintf("stateDir: %q\nrepositories: [{name: site-a, url: %q, fabrics: [{name: fabric-1, path: fabric-1}]}]\n", state, remote)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return 0, err
	}
	name := filepath.Join(state, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return 0, err
	}
	defer os.Remove(name)
	defer l.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := l.SetReadDeadline(deadline); err != nil {
			return 0, err
		}
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()

	var log strings.Builder
	cmd := exec.CommandContext(ctx, hhwatchd, "--config", config, "run")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+name, "RUNTIME_DIRECTORY=", "XDG_RUNTIME_DIR=")
	cmd.Stderr = &log
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if werr := cmd.Wait(); err == nil && werr != nil {
			err = fmt.Errorf("%w: %s", werr, &log)
		}
	}()
	buf := make([]byte, 4096)
	for {
		n, err := l.Read(buf)
		if err != nil {
			return 0, fmt.Errorf("waiting for the daemon to be ready: %w: %s", err, &log)
		}
		if strings.Contains(string(buf[:n]), "READY=1") {
			return time.Since(start), nil
		}
	}
}

// print writes the figures for people.
func (r *journalResult) print(w io.Writer) {
	line := func(label, format string, args ...any) {
		fmt.Fprintf(w, "  %-*s%s\n", labelWidth-2, label, fmt.Sprintf(format, args...))
	}
	rate := func(d time.Duration) string { return fmt.Sprintf("%.0f records/s", float64(r.Records)/d.Seconds()) }
	micro := func(s series) string { return fmt.Sprintf("%.0f µs", float64(s.median())/1e3) }
	fmt.Fprintf(w, "\nthe journal, %d records in %d segments, %d MiB, of %d objects\n", r.Records, r.Segments, r.Bytes>>20, journalObjects)
	line("a record appended and synced", "%s, %.0f records/s", micro(r.Appended), 1/r.Appended.median().Seconds())
	line("as many bytes, write and fsync", "%s, %.0f a second  %.2f×", micro(r.Bare), 1/r.Bare.median().Seconds(),
		float64(r.Bare.median())/float64(r.Appended.median()))
	line("read", "%s  %s", r.Read, rate(r.Read.median()))
	line("verified, all replayed", "%s  %s", r.Verified, rate(r.Verified.median()))
	line("opened, from its checkpoint", "%s  %.0f× as fast", r.Opened, float64(r.Verified.median())/float64(r.Opened.median()))
	line("… an empty one", "%s", r.EmptyOpen)
	if len(r.Ready) > 0 {
		line("the daemon until READY=1", "%s", r.Ready)
		line("… with an empty one", "%s", r.ReadyEmpty)
	}
}

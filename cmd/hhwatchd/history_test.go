// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hhwatchd/hhwatchd/journal"
)

var update = flag.Bool("update", false, "write the golden files")

// aLife is what a journal holds of a switch from its drop to its end, and of
// other objects meanwhile.
func aLife() [][]journal.Record {
	at := time.Date(2026, 11, 23, 6, 34, 0, 0, time.UTC)
	leaf := func(outcome string, change func(*journal.Object)) journal.Object {
		o := journal.Object{Group: "wiring.githedgehog.com", Kind: "Switch", Namespace: "default", Name: "leaf-01", Outcome: outcome,
			Path: "f/managed/switches/leaf-01.yaml", Blob: "b1"}
		if change != nil {
			change(&o)
		}
		return o
	}
	other := journal.Object{Kind: "Server", Namespace: "default", Name: "server-1", Outcome: journal.Created, Path: "f/managed/servers/server-1.yaml", Blob: "x", Document: 1, Line: 1}
	in := func(doc, line int, blob string) func(*journal.Object) {
		return func(o *journal.Object) { o.Document, o.Line, o.Blob = doc, line, blob }
	}
	of := func(step journal.Step, to string, objects ...journal.Object) journal.Record {
		at = at.Add(time.Second)
		return journal.Record{Time: at, Cycle: "c-" + to, Repository: "site-a", Fabric: "fabric-1", Step: step, To: to, Objects: objects}
	}
	branch := func(step journal.Step, from, to string, commits ...string) journal.Record {
		r := of(step, to)
		r.Fabric, r.Branch, r.From, r.Commits = "", "main", from, commits
		return r
	}
	file := func(r journal.Record, f journal.File) journal.Record { r.File = &f; return r }
	noted := func(r journal.Record, note string) journal.Record { r.Note = note; return r }
	dropped := journal.File{Path: "f/raw/prepop.yaml", Blob: "r1", Origin: journal.Dropped, Owner: "alice", Commit: "d111111d", Outcome: journal.Ingested}
	again := dropped
	again.Blob, again.Owner, again.Commit, again.Path = "r2", "bob", "d222222d", "f/raw/leaf.yaml"
	pushed := journal.File{Path: "f/raw/more.yaml", Blob: "r3", Origin: journal.Pulled, Owner: "Carol", Commit: "e333333e", Outcome: journal.Ingested}
	return [][]journal.Record{
		{branch(journal.StepPull, "", "a0000000")},
		{file(of(journal.StepIngest, "a1111111", other, leaf(journal.Created, in(2, 14, "b1"))), dropped),
			branch(journal.StepCommit, "a0000000", "a1111111", "d111111d", "a1111111")},
		{branch(journal.StepReplan, "a1111111", "a2222222", "d222222d", "a2222222"),
			file(of(journal.StepIngest, "a2222222", leaf(journal.Created, in(2, 14, "b1"))), dropped),
			branch(journal.StepPush, "a0000000", "a2222222", "d222222d", "a2222222")},
		{of(journal.StepApply, "a2222222", leaf(journal.Failed, func(o *journal.Object) { o.Error = "admission webhook denied the request: no\x1b[2J profile" }))},
		{of(journal.StepApply, "a2222222", other)},
		{file(of(journal.StepIngest, "a3333333", leaf(journal.Updated, in(1, 1, "b2"))), again),
			branch(journal.StepPush, "a2222222", "a3333333", "d333333d", "a3333333")},
		{of(journal.StepApply, "a3333333", leaf(journal.Created, func(o *journal.Object) { o.Blob, o.ResourceVersion = "b2", "241" }))},
		{branch(journal.StepPull, "a3333333", "a4444444", "e333333e", "a4444444"),
			file(of(journal.StepIngest, "a4444444", leaf(journal.Updated, in(1, 3, "b3"))), pushed)},
		{of(journal.StepApply, "a4444444", leaf(journal.Configured, func(o *journal.Object) { o.Blob, o.ResourceVersion = "b3", "250" }))},
		{noted(of(journal.StepManaged, "a5555555", leaf(journal.Removed, nil)), "by Dana")},
		{of(journal.StepPrune, "a5555555", leaf(journal.Pruned, nil))},
		{file(of(journal.StepIngest, "a6666666", leaf(journal.Created, in(1, 1, "b4"))), again)},
	}
}

func life(t *testing.T, batches [][]journal.Record) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "journal")
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, b := range batches {
		if err := j.Append(slices.Clone(b)...); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// utc lets local time be UTC.
func utc(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
}

// TestObjectStory is the story of one object, whole and by the time at which it
// was looked at.
func TestObjectStory(t *testing.T) {
	utc(t)
	var b bytes.Buffer
	for _, tc := range []struct {
		title   string
		filter  journal.Filter
		last, n int // the last lines; the first n appends
	}{
		{"the whole story", journal.Filter{Object: "Switch/leaf-01"}, 0, 12},
		{"the last 2 records", journal.Filter{Object: "switch/leaf-01", Fabric: "fabric-1"}, 2, 12},
		{"before the push", journal.Filter{Object: "leaf-01"}, 0, 2},
		{"refused", journal.Filter{Object: "leaf-01"}, 1, 4},
		{"applied, then changed", journal.Filter{Object: "leaf-01"}, 1, 8},
		{"in sync", journal.Filter{Object: "leaf-01"}, 1, 9},
		{"has left", journal.Filter{Object: "leaf-01"}, 1, 10},
		{"pruned", journal.Filter{Object: "leaf-01"}, 1, 11},
		{"of another fabric", journal.Filter{Object: "leaf-01", Fabric: "fabric-2"}, 0, 12},
		{"until then", journal.Filter{Object: "leaf-01", Until: time.Date(2026, 11, 23, 6, 34, 4, 0, time.UTC)}, 0, 12},
	} {
		b.WriteString("# " + tc.title + "\n")
		h := history{w: &b, dir: life(t, aLife()[:tc.n]), filter: tc.filter}
		if err := h.print(t.Context(), tc.last, false); err != nil {
			t.Fatal(err)
		}
	}
	golden := filepath.Join("testdata", "story.golden")
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", &b, want)
	}
}

// TestHistoryJSON: each selected record, as it is in the journal.
func TestHistoryJSON(t *testing.T) {
	dir := life(t, aLife())
	for _, tc := range []struct {
		filter journal.Filter
		want   string // steps
	}{
		{journal.Filter{Object: "Server/server-1"}, "ingest replan apply"},
		{journal.Filter{Commit: "a2222222"}, "replan ingest push apply apply"},
		{journal.Filter{File: "raw/more.yaml"}, "ingest"},
		{journal.Filter{Cycle: "c-a4444444"}, "pull ingest apply"},
		{journal.Filter{Since: time.Date(2026, 11, 23, 6, 34, 16, 0, time.UTC)}, "prune ingest"},
		{journal.Filter{Object: "leaf-01", Repository: "site-b"}, ""},
	} {
		var b bytes.Buffer
		h := history{w: &b, dir: dir, filter: tc.filter, json: true}
		if err := h.print(t.Context(), 0, false); err != nil {
			t.Fatal(err)
		}
		var steps []string
		d := json.NewDecoder(&b)
		for d.More() {
			var r journal.Record
			if err := d.Decode(&r); err != nil {
				t.Fatal(err)
			}
			steps = append(steps, string(r.Step))
		}
		if got := strings.Join(steps, " "); got != tc.want {
			t.Errorf("%+v: %s, want %s", tc.filter, got, tc.want)
		}
	}
}

// TestHistoryFollow goes on with what comes in, and tells of a push that comes
// after the drop was told.
func TestHistoryFollow(t *testing.T) {
	utc(t)
	batches := aLife()
	dir := life(t, batches[:2])
	synctest.Test(t, func(t *testing.T) {
		j, err := journal.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		var b bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			h := history{w: &b, dir: dir, filter: journal.Filter{Object: "leaf-01"}}
			ended <- h.print(ctx, 0, true)
		}()
		wait := func(want string) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			if !strings.HasSuffix(strings.TrimSuffix(b.String(), "\n"), want) {
				t.Errorf("got\n%s\nwant it to end with %q", &b, want)
			}
		}
		wait("in commit a111111")
		for _, batch := range batches[2:4] {
			if err := j.Append(batch...); err != nil {
				t.Fatal(err)
			}
		}
		wait(`no\x1b[2J profile`)
		if !strings.Contains(b.String(), "pushed     a222222 to main") {
			t.Errorf("no word of the push:\n%s", &b)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

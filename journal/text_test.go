// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// id returns what looks like a git object id.
func id(s string) string { return hashOf([]byte(s))[:40] }

// life returns the appends of a small, eventful life: each step is there.
func life() [][]Record {
	const dir = "gitops/hedgehog/fabric-1/"
	c := make(map[string]string)
	for _, name := range []string{"clone", "theirs", "dropped", "ingested", "dropped-2", "ingested-2", "rejected"} {
		c[name] = id(name)
	}
	object := func(kind, name string, doc int, outcome string) Object {
		return Object{Group: "wiring.githedgehog.com", Kind: kind, Namespace: "default", Name: name,
			Document: doc, Line: 10*doc - 9, Path: dir + "managed/" + strings.ToLower(kind) + "es/" + name + ".yaml",
			Blob: id(name + outcome), Outcome: outcome}
	}
	live := func(kind, name, text, outcome, err string) Object {
		return Object{Group: "wiring.githedgehog.com", Kind: kind, Namespace: "default", Name: name,
			Blob: id(name + text), Outcome: outcome, ResourceVersion: "4711", Error: err}
	}
	prepop := &File{Path: dir + "raw/prepop.yaml", Blob: id("prepop"), Origin: Dropped, Owner: "alice",
		Commit: c["dropped"], Size: 12345, Outcome: Ingested}
	again := *prepop
	again.Outcome = Already
	odd := &File{Path: dir + "raw/x\x1b[2J\n.yaml", Blob: id("odd"), Origin: Dropped, Owner: "bob",
		Outcome: Rejected, Kept: dir + "unmanaged/x.yaml"}
	pulled := &File{Path: dir + "raw/site/more.yaml", Blob: id("more"), Origin: Pulled, Owner: "Carol <carol@example.net>",
		Commit: c["theirs"], Outcome: Ingested}
	three := []Object{object("Switch", "leaf-01", 1, Created), object("Switch", "leaf-02", 2, Created), object("Server", "server-1", 3, Created)}

	appends := [][]Record{
		{{Step: StepStart, Note: "hhwatchd 0.1.0"}},
		{{Step: StepPull, Repository: "site-a", Branch: "main", To: c["clone"], Took: 1234567 * time.Microsecond}},
		{
			{Step: StepDrop, Fabric: "fabric-1", Repository: "site-a", File: &File{Path: prepop.Path, Blob: prepop.Blob,
				Origin: Dropped, Owner: "alice", Commit: c["dropped"], Size: 12345}},
			{Step: StepIngest, Fabric: "fabric-1", Repository: "site-a", File: prepop, To: c["ingested"], Objects: three, Tree: id("tree-1")},
			{Step: StepCommit, Repository: "site-a", Branch: "main", From: c["clone"], To: c["ingested"],
				Commits: []string{c["dropped"], c["ingested"]}, Took: 5123 * time.Microsecond},
		},
		{{Step: StepPush, Repository: "site-a", Branch: "main", From: c["clone"], To: c["ingested"],
			Commits: []string{c["dropped"], c["ingested"]}, Took: 41234 * time.Microsecond}},
		{{Step: StepApply, Fabric: "fabric-1", Repository: "site-a", To: c["ingested"], Took: 98765 * time.Microsecond, Objects: []Object{
			live("Switch", "leaf-01", Created, Created, ""), live("Switch", "leaf-02", Created, Configured, ""),
			live("Server", "server-1", Created, Failed, `admission webhook "vserver.kb.io" denied the request: no`)}}},
		{{Step: StepReject, Fabric: "fabric-1", Repository: "site-a", File: odd, Problems: []Problem{
			{Document: 2, Line: 14, Column: 3, Code: "HH203", Message: "the object has no metadata.name", Hint: "give it one"},
			{Line: 20, Code: "HH101", Message: "tab in indentation"},
			{Code: "HH301", Message: "kind Secret is not allowed"}}}},
		{{Step: StepReject, Fabric: "fabric-1", File: &File{Path: dir + "raw/empty.yaml", Outcome: Rejected},
			Problems: []Problem{{Code: "HH102", Message: "the file is empty"}}}},
		{
			{Step: StepPull, Repository: "site-a", Branch: "main", From: c["ingested"], To: c["theirs"], Commits: []string{c["theirs"]}},
			{Step: StepManaged, Fabric: "fabric-1", Repository: "site-a", To: c["theirs"], Tree: id("tree-2"), Objects: []Object{
				object("Switch", "leaf-02", 0, Removed), object("Switch", "leaf-01", 0, Updated)}},
			{Step: StepIngest, Fabric: "fabric-1", Repository: "site-a", File: pulled, To: c["ingested-2"], Tree: id("tree-3"),
				Objects: []Object{object("Server", "server-2", 1, Created)}},
			{Step: StepCommit, Repository: "site-a", Branch: "main", From: c["theirs"], To: c["ingested-2"], Commits: []string{c["ingested-2"]}},
		},
		{{Step: StepPush, Repository: "site-a", Branch: "main", Error: "the remote rejected it: pre-receive hook declined"}},
		{{Step: StepReplan, Repository: "site-a", Branch: "main", From: c["ingested-2"], To: c["dropped-2"], Commits: []string{c["dropped-2"]}}},
		{{Step: StepIngest, Fabric: "fabric-1", Repository: "site-a", File: &again, Objects: []Object{
			object("Switch", "leaf-01", 1, Unchanged), object("Switch", "leaf-02", 2, Unchanged)}}},
		{{Step: StepFault, Repository: "site-a", Error: "fetching https://git.example.net/net/fabrics.git: connection refused"}},
		{{Step: StepClear, Repository: "site-a", Took: 247 * time.Second}},
		{{Step: StepPull, Repository: "site-a", Branch: "main", Error: "the branch was rewritten"}},
		{{Step: StepPull, Repository: "site-a", From: c["theirs"], To: c["rejected"]}},
		{{Step: StepApply, Fabric: "fabric-1", To: c["ingested-2"], Objects: []Object{live("Server", "server-1", Created, Created, "")}}},
		{{Step: StepApply, Fabric: "fabric-1", To: c["ingested-2"], Objects: []Object{
			live("Switch", "leaf-01", Updated, Failed, "first reason"), live("Server", "server-2", Created, Failed, "second reason")}}},
		{{Step: StepApply, Fabric: "fabric-1", To: c["ingested-2"], Error: "the API server does not answer"}},
		{{Step: StepPrune, Fabric: "fabric-1", Objects: []Object{live("Switch", "leaf-02", Created, Failed, "is in use")}}},
		{{Step: StepPrune, Fabric: "fabric-1", Objects: []Object{live("Switch", "leaf-02", Created, Pruned, "")}}},
		{{Step: StepRollout, Fabric: "fabric-1", To: c["ingested-2"], Note: "leaf-01, spine-01 applied what it led to", Took: 12300 * time.Millisecond}},
		{{Step: StepRollout, Fabric: "fabric-1", To: c["ingested-2"], Error: "leaf-01 has applied generation 4 of 5", Took: 30 * time.Minute}},
		{{Step: StepAside, Fabric: "fabric-1", File: &File{Path: dir + "managed/switches/leaf-01.yaml", Kept: dir + "unmanaged/leaf-01.yaml"}}},
		{{Step: StepAside, Repository: "site-a", Note: "the remote moved on without this commit"}},
		{{Step: StepExpired, Expired: &Expired{First: 1, Last: 41_000, Segments: 2, Bytes: 33 << 20}}},
		{{Step: StepRecovered, Fabric: "fabric-1", Repository: "site-a", To: c["ingested-2"], Objects: []Object{object("VPC", "vpc-1", 1, Created)}}},
		{{Step: StepReload}},
		{{Step: StepReload, Error: "line 3: unknown key \"intervall\""}},
		{{Step: StepTorn, Damage: &Damage{Segment: segmentName(1), Offset: 4711, Bytes: 123, Seq: 42, What: errNoNewline.Error(), Kept: segmentName(1) + ".torn-1"}}},
		{{Step: StepDamaged, Damage: &Damage{Segment: segmentName(1), Offset: 815, Bytes: 300, Seq: 7, Last: 8, What: errHash.Error()}}},
		{{Step: "later", Fabric: "fabric-1", File: pulled, Note: "a step of a later version", Objects: []Object{
			{Kind: "VPC", Namespace: "other", Name: "vpc-2", Outcome: "paused"}}}},
		{{Step: StepStop}},
	}
	for i := range appends {
		for k := range appends[i] {
			appends[i][k].Time = day.Add(time.Duration(i) * time.Second)
			appends[i][k].Cycle = "c" + id(string(rune(i)))[:6]
		}
	}
	return appends
}

func TestString(t *testing.T) {
	var b strings.Builder
	seen := make(map[Step]bool)
	vpc := Object{Kind: "VPC", Namespace: "default", Name: "vpc-1", Outcome: Configured,
		Drift: &Drift{Field: ".spec.vlan", Manager: "kubectl-edit", Time: time.Date(2026, 11, 23, 12, 3, 4, 0, time.UTC)}}
	deleted, left := vpc, vpc
	deleted.Outcome, deleted.Drift = Created, &Drift{}
	left.Outcome, left.Error = Drifted, vpc.Drift.String()+"; it is left so (drift: report)"
	drifts := []Record{
		{Step: StepDrift, Fabric: "fabric-1", Objects: []Object{vpc}},
		{Step: StepDrift, Fabric: "fabric-1", Objects: []Object{deleted, vpc}},
		{Step: StepDrift, Fabric: "fabric-1", Objects: []Object{left}},
	}
	for _, batch := range append(life(), drifts) {
		for _, r := range batch {
			b.WriteString(r.String() + "\n")
			seen[r.Step] = true
		}
	}
	for step := range messageIDs {
		if !seen[step] {
			t.Errorf("step %s is not among the examples", step)
		}
	}
	got := b.String()
	const golden = "testdata/string.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestStringOfLittle: no record makes it panic or break the line, however
// little it has.
func TestStringOfLittle(t *testing.T) {
	for step := range messageIDs {
		for _, r := range []Record{
			{Step: step}, {Step: step, Error: "a\nb"}, {Step: step, File: &File{}},
			{Step: step, Objects: make([]Object, 2)}, {Step: step, Problems: make([]Problem, 2)},
		} {
			if s := r.String(); s == "" || strings.Contains(s, "\n") {
				t.Errorf("%s: %q", step, s)
			}
		}
	}
}

func TestFilter(t *testing.T) {
	var recs []Record
	for _, batch := range life() {
		recs = append(recs, batch...)
	}
	at := func(i int) time.Time { return day.Add(time.Duration(i) * time.Second) }
	for _, tc := range []struct {
		name   string
		filter Filter
		want   string // the steps
	}{
		{"time", Filter{Since: at(1), Until: at(3)}, "pull drop ingest commit"},
		{"cycle", Filter{Cycle: recs[3].Cycle}, "drop ingest commit"},
		{"repository", Filter{Repository: "site-a", Since: at(3), Until: at(6)}, "push apply reject"},
		{"fabric", Filter{Fabric: "fabric-1", Until: at(6)}, "drop ingest apply reject"},
		{"no fabric", Filter{Fabric: "fabric-2"}, ""},
		{"object", Filter{Object: "Switch/leaf-02"}, "ingest apply managed ingest prune prune"},
		{"object by name", Filter{Object: "server-2"}, "ingest apply"},
		{"object by all", Filter{Object: "switch.wiring.githedgehog.com/default/leaf-01", Until: at(6)}, "ingest apply"},
		{"object in another namespace", Filter{Object: "VPC/default/vpc-2"}, ""},
		{"object with a namespace", Filter{Object: "vpc/other/vpc-2"}, "later"},
		{"object too deep", Filter{Object: "a/vpc/other/vpc-2"}, ""},
		{"file", Filter{File: "prepop.yaml"}, "drop ingest ingest"},
		{"file, more of it", Filter{File: "raw/site/more.yaml"}, "ingest later"},
		{"file, part of a name", Filter{File: "pop.yaml"}, ""},
		{"managed file", Filter{File: "managed/serveres/server-2.yaml"}, "ingest"},
		{"kept file", Filter{File: "unmanaged/x.yaml"}, "reject"},
		{"commit", Filter{Commit: id("dropped")}, "drop ingest commit push ingest"},
		{"short commit", Filter{Commit: id("ingested")[:7]}, "ingest commit push apply"},
		{"two", Filter{Commit: id("ingested")[:7], Object: "leaf-01"}, "ingest apply"},
		{"commit by its end", Filter{Commit: id("ingested")[1:]}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, r := range recs {
				if tc.filter.Match(r) {
					got = append(got, string(r.Step))
				}
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("got %q, want %q", s, tc.want)
			}
		})
	}
}

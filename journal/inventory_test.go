// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"
)

// dump is all that an inventory knows, for comparing two of them.
func dump(inv *Inventory) map[string]any {
	out := make(map[string]any)
	for name, repo := range inv.repositories {
		out["repository "+name] = repo
	}
	for name, f := range inv.fabrics {
		out["fabric "+name] = []any{inv.Objects(name), inv.Counts(name), f.archived, f.order, f.tree, f.applied}
	}
	return out
}

// step is a short way to write a record about fabric-1.
func step(s Step, to string, objects ...Object) Record {
	return Record{Time: day, Step: s, Repository: "site-a", Fabric: "fabric-1", To: to, Objects: objects}
}

func vpcObject(name, blob, outcome string) Object {
	return Object{Group: "vpc.githedgehog.com", Kind: "VPC", Namespace: "default", Name: name,
		Path: "f/managed/vpcs/" + name + ".yaml", Blob: blob, Outcome: outcome, Document: 2, Line: 7, ResourceVersion: "5"}
}

var vpc = vpcObject("vpc-1", "", "").Key()

// from adds the raw file that a record is about.
func (r Record) from(path, blob, commit, outcome string) Record {
	r.File = &File{Path: path, Blob: blob, Commit: commit, Outcome: outcome, Origin: Dropped}
	return r
}

func failed(name, message string) Object {
	o := vpcObject(name, "", Failed)
	o.Error = message
	return o
}

func TestInventoryObject(t *testing.T) {
	ingested := step(StepIngest, "c1", vpcObject("vpc-1", "b1", Created)).from("f/raw/a.yaml", "r1", "c0", Ingested)
	desired := Desired{Path: "f/managed/vpcs/vpc-1.yaml", Blob: "b1", RawPath: "f/raw/a.yaml", RawBlob: "r1",
		Document: 2, Line: 7, Commit: "c1", Since: day}
	applied := Applied{Blob: "b1", Commit: "c1", ResourceVersion: "5", Time: day}
	direct := Desired{Path: "f/managed/vpcs/vpc-1.yaml", Blob: "b2", Document: 2, Line: 7, Commit: "c2", Since: day}
	moved := desired
	moved.Commit = "c9"

	for _, tc := range []struct {
		name  string
		recs  []Record
		want  *Entry // nil: not there
		state State
	}{
		{"ingested", []Record{ingested}, &Entry{Desired: desired}, StatePending},
		{"applied", []Record{ingested, step(StepApply, "c1", vpcObject("vpc-1", "b1", Created))},
			&Entry{Desired: desired, Applied: applied}, StateApplied},
		{"found as it should be", []Record{ingested, step(StepApply, "c1", vpcObject("vpc-1", "b1", Unchanged))},
			&Entry{Desired: desired, Applied: applied}, StateApplied},
		{"refused", []Record{ingested, step(StepApply, "c1", failed("vpc-1", "no"))},
			&Entry{Desired: desired, Error: "no"}, StateFailed},
		{"refused without a word", []Record{ingested, step(StepApply, "c1", failed("vpc-1", ""))},
			&Entry{Desired: desired, Error: "failed"}, StateFailed},
		{"refused, then applied", []Record{ingested, step(StepApply, "c1", failed("vpc-1", "no")), step(StepApply, "c1", vpcObject("vpc-1", "b1", Configured))},
			&Entry{Desired: desired, Applied: applied}, StateApplied},
		{"refused, then changed", []Record{ingested, step(StepApply, "c1", failed("vpc-1", "no")), step(StepManaged, "c2", vpcObject("vpc-1", "b2", Updated))},
			&Entry{Desired: direct}, StatePending},
		{"applied, then changed", []Record{ingested, step(StepApply, "c1", vpcObject("vpc-1", "b1", Created)), step(StepManaged, "c2", vpcObject("vpc-1", "b2", Updated))},
			&Entry{Desired: direct, Applied: applied}, StatePending},
		{"dropped again, unchanged", []Record{ingested, step(StepIngest, "", vpcObject("vpc-1", "b1", Unchanged)).from("f/raw/b.yaml", "r1", "c5", Already)},
			&Entry{Desired: desired}, StatePending},
		{"unchanged, but not known", []Record{step(StepIngest, "c1", vpcObject("vpc-1", "b1", Unchanged)).from("f/raw/a.yaml", "r1", "c0", Ingested)},
			&Entry{Desired: desired}, StatePending},
		{"planned anew", []Record{ingested, step(StepApply, "c1", failed("vpc-1", "no")),
			step(StepIngest, "c9", vpcObject("vpc-1", "b1", Created)).from("f/raw/a.yaml", "r1", "c8", Ingested)},
			&Entry{Desired: moved, Error: "no"}, StateFailed},
		{"rejected", []Record{step(StepIngest, "", vpcObject("vpc-1", "b1", Created)).from("f/raw/a.yaml", "r1", "", Rejected)}, nil, ""},
		{"removed before it was applied", []Record{ingested, step(StepManaged, "c2", vpcObject("vpc-1", "", Removed))}, nil, ""},
		{"removed, not known", []Record{step(StepManaged, "c2", vpcObject("vpc-1", "", Removed))}, nil, ""},
		{"removed", []Record{ingested, step(StepApply, "c1", vpcObject("vpc-1", "b1", Created)), step(StepManaged, "c2", vpcObject("vpc-1", "", Removed))},
			&Entry{Left: desired.Path, Applied: applied}, StatePrune},
		{"removed, prune refused", []Record{ingested, step(StepApply, "c1", vpcObject("vpc-1", "b1", Created)), step(StepManaged, "c2", vpcObject("vpc-1", "", Removed)),
			step(StepPrune, "c2", failed("vpc-1", "in use"))},
			&Entry{Left: desired.Path, Applied: applied, Error: "in use"}, StateFailed},
		{"removed, pruned", []Record{ingested, step(StepApply, "c1", vpcObject("vpc-1", "b1", Created)), step(StepManaged, "c2", vpcObject("vpc-1", "", Removed)),
			step(StepPrune, "c2", vpcObject("vpc-1", "", Pruned))}, nil, ""},
		{"removed, and back before the prune", []Record{ingested, step(StepApply, "c1", vpcObject("vpc-1", "b1", Created)), step(StepManaged, "c2", vpcObject("vpc-1", "", Removed)),
			ingested}, &Entry{Desired: desired, Applied: applied}, StateApplied},
		{"pruned, and back", []Record{ingested, step(StepApply, "c1", vpcObject("vpc-1", "b1", Created)), step(StepPrune, "c2", vpcObject("vpc-1", "", Pruned))},
			&Entry{Desired: desired}, StatePending},
		{"pruned, not known", []Record{step(StepPrune, "c2", vpcObject("vpc-1", "", Pruned))}, nil, ""},
		{"refused, not known", []Record{step(StepApply, "c2", failed("vpc-1", "no"))}, nil, ""},
		{"another fabric", []Record{func() Record { r := ingested; r.Fabric = "fabric-2"; return r }()}, nil, ""},
		{"a step that says nothing of objects", []Record{step(StepReject, "c1", vpcObject("vpc-1", "b1", Created))}, nil, ""},
		{"an attempt that failed", []Record{func() Record { r := ingested; r.Error = "disk full"; return r }()}, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inv := newInventory()
			inv.apply(tc.recs...)
			got, ok := inv.Get("fabric-1", vpc)
			all, counts := inv.Objects("fabric-1"), inv.Counts("fabric-1")
			if tc.want == nil {
				if ok || len(all) > 0 || counts != (Counts{}) {
					t.Errorf("got %+v, %+v, %+v", got, all, counts)
				}
				return
			}
			tc.want.Key = vpc
			if !ok || got != *tc.want || got.State() != tc.state {
				t.Errorf("got %s\n%+v\nwant %s\n%+v", got.State(), got, tc.state, *tc.want)
			}
			if len(all) != 1 || all[0] != got {
				t.Errorf("all: %+v", all)
			}
			want := map[State]Counts{StatePending: {Pending: 1}, StateApplied: {Applied: 1}, StateFailed: {Failed: 1}, StatePrune: {Prune: 1}}
			if counts != want[tc.state] {
				t.Errorf("counts: %+v", counts)
			}
		})
	}
}

func TestInventoryCommits(t *testing.T) {
	type commits struct{ recorded, pushed, applied, tree string }
	with := func(r Record, change func(*Record)) Record { change(&r); return r }
	for _, tc := range []struct {
		name string
		rec  Record
		want commits
	}{
		{"pull", step(StepPull, "c1"), commits{"c1", "c1", "ca", "t"}},
		{"failed pull", with(step(StepPull, "c1"), func(r *Record) { r.Error = "no" }), commits{"cr", "cp", "ca", "t"}},
		{"commit", step(StepCommit, "c1"), commits{"c1", "cp", "ca", "t"}},
		{"replan", step(StepReplan, "c1"), commits{"c1", "cp", "ca", "t"}},
		{"recovered", step(StepRecovered, "c1"), commits{"cr", "cp", "ca", "t"}},
		{"push", step(StepPush, "c1"), commits{"cr", "c1", "ca", "t"}},
		{"failed push", with(step(StepPush, "c1"), func(r *Record) { r.Error = "no" }), commits{"cr", "cp", "ca", "t"}},
		{"ingest", with(step(StepIngest, "c1"), func(r *Record) { r.Tree = "t1" }), commits{"cr", "cp", "ca", "t1"}},
		{"managed", with(step(StepManaged, "c1"), func(r *Record) { r.Tree = "t1" }), commits{"cr", "cp", "ca", "t1"}},
		{"apply", step(StepApply, "c1", vpcObject("vpc-1", "b1", Created)), commits{"cr", "cp", "c1", "t"}},
		{"apply, one refused", step(StepApply, "c1", vpcObject("vpc-1", "b1", Created), failed("vpc-2", "no")), commits{"cr", "cp", "ca", "t"}},
		{"apply, no cluster", with(step(StepApply, "c1"), func(r *Record) { r.Error = "no" }), commits{"cr", "cp", "ca", "t"}},
		{"prune", step(StepPrune, "c1"), commits{"cr", "cp", "ca", "t"}},
		{"damage", Record{Step: StepDamaged, Damage: &Damage{}}, commits{"cr", "cp", "ca", ""}},
		{"another repository", with(step(StepPull, "c1"), func(r *Record) { r.Repository = "b" }), commits{"cr", "cp", "ca", "t"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inv := newInventory()
			inv.apply(step(StepPush, "cp"), with(step(StepCommit, "cr"), func(r *Record) { r.Tree = "t" }), step(StepApply, "ca"), tc.rec)
			got := commits{inv.Recorded("site-a"), inv.Pushed("site-a"), inv.Applied("fabric-1"), inv.Tree("fabric-1")}
			if got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestInventoryOfNothing(t *testing.T) {
	inv := newInventory()
	_, archived := inv.Archived("x", "b")
	_, got := inv.Get("x", vpc)
	if archived || got || inv.Objects("x") != nil || inv.Counts("x") != (Counts{}) ||
		inv.Tree("x")+inv.Applied("x")+inv.Recorded("x")+inv.Pushed("x") != "" {
		t.Error("an empty inventory knows something")
	}
}

func TestInventoryArchived(t *testing.T) {
	inv := newInventory()
	file := func(i int, outcome string) Record {
		return step(StepIngest, "").from("f/raw/a.yaml", fmt.Sprint("r", i), fmt.Sprint("c", i), outcome)
	}
	inv.apply(file(-1, Rejected), file(0, Ingested), file(1, Ingested))
	for i := 2; i <= archivedMax; i++ {
		inv.apply(file(i, Ingested))
		if i == archivedMax/2 {
			again := file(1, Already)
			again.File.Commit = "later"
			inv.apply(again) // is one of the newest now
		}
	}
	for i := archivedMax + 1; i < archivedMax+100; i++ {
		inv.apply(file(i, Already))
	}
	for blob, want := range map[string]string{"r-1": "", "r0": "", "r1": "later", "r2": "", "r100": "",
		"r101": "c101", fmt.Sprint("r", archivedMax+99): fmt.Sprint("c", archivedMax+99)} {
		if commit, ok := inv.Archived("fabric-1", blob); commit != want || ok != (want != "") {
			t.Errorf("%s: %q, %v; want %q", blob, commit, ok, want)
		}
	}
	if f := inv.fabrics["fabric-1"]; len(f.archived) != archivedMax || len(f.order) != archivedMax {
		t.Errorf("%d and %d", len(f.archived), len(f.order))
	}
}

func TestInventoryTold(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 6, 34, 0, 123456789, time.UTC)
	file := func(i int) File {
		return File{Path: "f/raw/a.yaml", Blob: "r", Origin: Dropped, Outcome: Rejected, Arrived: at.Add(time.Duration(i))}
	}
	for i := range 101 {
		f := file(i)
		if err := j.Append(Record{Fabric: "fabric-1", Step: StepReject, File: &f}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	inv, err := ReadInventory(dir)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, other := file(0), file(0)
	elsewhere.Path, other.Blob = "f/raw/b.yaml", "s"
	for _, c := range []struct {
		fabric string
		file   File
		want   bool
	}{
		{"fabric-1", file(0), true},
		{"fabric-1", file(100), true},
		{"fabric-1", file(101), false},
		{"fabric-1", elsewhere, false},
		{"fabric-1", other, false},
		{"fabric-2", file(0), false},
	} {
		if got := inv.Told(c.fabric, c.file); got != c.want {
			t.Errorf("%s %+v: %v", c.fabric, c.file, got)
		}
	}
	for i := 101; i < 101+toldMax; i++ {
		f := file(i)
		inv.apply(Record{Fabric: "fabric-1", Step: StepReject, File: &f})
	}
	if inv.Told("fabric-1", file(100)) || !inv.Told("fabric-1", file(101)) {
		t.Error("not the last ones are remembered")
	}
}

func TestObjectsSorted(t *testing.T) {
	inv := newInventory()
	want := []Key{
		{"a", "B", "x", "n"}, {"a", "B", "y", "m"}, {"a", "B", "y", "n"}, {"a", "C", "", "a"}, {"b", "A", "", "a"}, {"b", "A", "", "b"},
	}
	for _, i := range rand.Perm(len(want)) {
		k := want[i]
		inv.apply(step(StepManaged, "c", Object{Group: k.Group, Kind: k.Kind, Namespace: k.Namespace, Name: k.Name, Blob: "b", Outcome: Created}))
	}
	var got []Key
	for _, e := range inv.Objects("fabric-1") {
		got = append(got, e.Key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// randomRecord makes up a record that means something to the inventory.
func randomRecord(r *rand.Rand) Record {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	steps := []Step{StepPull, StepManaged, StepDrop, StepReject, StepIngest, StepCommit, StepReplan, StepPush, StepApply,
		StepPrune, StepRollout, StepRecovered, StepFault, StepStart, StepDamaged}
	rec := Record{
		Time: day.Add(time.Duration(r.IntN(1e9)) * time.Millisecond), Step: steps[r.IntN(len(steps))],
		Repository: pick("", "a", "b"), Fabric: pick("", "f", "f", "g"), To: pick("", "c1", "c2", "c3"),
		Tree: pick("", "t1", "t2"), Error: pick("", "", "", "no"),
	}
	if r.IntN(2) == 0 {
		rec.File = &File{Path: pick("raw/a", "raw/b", "raw/\xff"), Blob: pick("", "r1", "r2", "r3"), Commit: pick("", "c1"),
			Outcome: pick("", Ingested, Rejected, Already)}
	}
	for range r.IntN(5) {
		rec.Objects = append(rec.Objects, Object{
			Group: pick("", "x"), Kind: pick("K", "L"), Namespace: pick("", "default"), Name: pick("n", "m", "\xfe"),
			Document: r.IntN(3), Line: r.IntN(9), Path: pick("p", "q"), Blob: pick("", "b1", "b2"), Error: pick("", "no"),
			Outcome: pick(Created, Updated, Configured, Unchanged, Removed, Pruned, Failed), ResourceVersion: pick("", "1", "2"),
		})
	}
	return rec
}

// TestInventoryIsAView: the inventory that grew with the journal is the one
// that a replay gives, at any moment, after a crash as well.
func TestInventoryIsAView(t *testing.T) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 0))
		dir := memDir(t)
		j := mustOpen(t, dir)
		j.segmentSize = 8 << 10
		for i := range 120 {
			batch := make([]Record, 1+r.IntN(3))
			for k := range batch {
				batch[k] = randomRecord(r)
			}
			mustAppend(t, j, batch...)
			want := dump(j.Inventory())
			if i%10 == 0 {
				inv, err := ReadInventory(dir)
				if err != nil {
					t.Fatal(err)
				}
				if got := dump(inv); !reflect.DeepEqual(got, want) {
					t.Fatalf("seed %d, append %d: read\n%v\nwant\n%v", seed, i, got, want)
				}
			}
			if i%30 == 0 {
				file := newest(t, dir)
				mustClose(t, j)
				if i%60 == 0 { // what the next append may have left
					f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
					if err != nil {
						t.Fatal(err)
					}
					line, err := appendLine(nil, Record{Seq: j.at.seq + 1, Prev: j.at.hash, Part: 1, Of: 2, Step: StepPull, Repository: "a", To: "cx"})
					if err != nil {
						t.Fatal(err)
					}
					if _, err := f.Write(line); err != nil {
						t.Fatal(err)
					}
					f.Close()
				}
				j = mustOpen(t, dir)
				j.segmentSize = 8 << 10
				if got := dump(j.Inventory()); !reflect.DeepEqual(got, want) {
					t.Fatalf("seed %d, append %d: reopened\n%v\nwant\n%v", seed, i, got, want)
				}
			}
		}
	}
}

// TestInventoryAfterDamage: what can be read is used, and the trees that the
// rest may have changed are not vouched for.
func TestInventoryAfterDamage(t *testing.T) {
	tree := step(StepManaged, "c3", vpcObject("vpc-3", "b", Created))
	tree.Tree = "t3"
	w := write(t,
		[]Record{step(StepIngest, "c1", vpcObject("vpc-1", "b", Created))},
		[]Record{step(StepIngest, "c2", vpcObject("vpc-2", "b", Created))},
		[]Record{tree})
	w.data[w.ends[0]+20] ^= 1
	dir := filepath.Join(memDir(t), "journal")
	put(t, dir, map[string][]byte{segmentName(1): w.data})

	inv, err := ReadInventory(dir)
	if err == nil || inv == nil || inv.Tree("fabric-1") != "t3" {
		t.Errorf("before Open has seen it: %v, %v", inv, err)
	}
	j := mustOpen(t, dir)
	inv = j.Inventory()
	if got := inv.Counts("fabric-1"); got.Pending != 2 || inv.Tree("fabric-1") != "" {
		t.Errorf("counts %+v, tree %q", got, inv.Tree("fabric-1"))
	}
	mustAppend(t, j, tree)
	mustClose(t, j)
	j = mustOpen(t, dir)
	if got := j.Inventory().Tree("fabric-1"); got != "t3" || len(j.Damage()) > 0 {
		t.Errorf("mended: tree %q, damage %v", got, j.Damage())
	}
}

// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// files reads a journal's directory.
func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][]byte)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = data
	}
	return out
}

// long is a journal of several segments whose checkpoints have several parts,
// and what its inventory is.
func long(t testing.TB) (segs []string, data map[string][]byte, inventory map[string]any) {
	t.Helper()
	longJournal.Do(func() {
		dir := filepath.Join(memDir(t), "journal")
		j := mustOpen(t, dir)
		j.segmentSize = 4 << 10
		r := rand.New(rand.NewPCG(7, 0))
		for i := range 800 {
			if i%100 != 0 {
				// More objects than one part holds.
				mustAppend(t, j, step(StepManaged, "c1", vpcObject(fmt.Sprint("vpc-", i), "b", Created)))
				continue
			}
			rec := randomRecord(r)
			if rec.Step == StepDamaged {
				rec.Step = StepClear
			}
			mustAppend(t, j, rec)
		}
		longJournal.inventory = dump(j.Inventory())
		mustClose(t, j)
		mustVerify(t, dir)
		longJournal.data = files(t, dir)
	})
	segs = slices.Sorted(maps.Keys(longJournal.data))
	if len(segs) < 4 {
		t.Fatal(segs)
	}
	return segs, maps.Clone(longJournal.data), longJournal.inventory
}

var longJournal struct {
	sync.Once
	data      map[string][]byte
	inventory map[string]any
}

// lines splits a segment.
func lines(data []byte) [][]byte { return slices.Collect(bytes.Lines(data)) }

func parts(data []byte) int {
	n := 0
	for _, line := range lines(data) {
		if r, err := parseLine(line); err != nil || r.Checkpoint == nil {
			break
		}
		n++
	}
	return n
}

// TestOpenFromCheckpoint: what stands before the newest good checkpoint is not
// read, and is not needed.
func TestOpenFromCheckpoint(t *testing.T) {
	segs, data, inventory := long(t)
	dir := filepath.Join(memDir(t), "journal")
	last := len(segs) - 1
	if n := parts(data[segs[last]]); n < 3 {
		t.Fatalf("the newest checkpoint has %d parts", n)
	}

	damaged := maps.Clone(data)
	damaged[segs[0]] = append([]byte("x"), damaged[segs[0]]...)
	put(t, dir, damaged)
	j := mustOpen(t, dir)
	if len(j.Damage()) > 0 || !reflect.DeepEqual(dump(j.Inventory()), inventory) {
		t.Errorf("damage %v", j.Damage())
	}
	mustClose(t, j)
	if r, err := Verify(dir, nil); err != nil || len(r.Damage) != 1 || r.Damage[0].Segment != segs[0] || r.Damage[0].Offset != 0 {
		t.Errorf("Verify finds %v, %v", r.Damage, err)
	}

	// A checkpoint that is damaged in any part is passed over for the one
	// before, however far back that is.
	for first := 1; first <= last; first++ {
		damaged := maps.Clone(data)
		for i := first; i <= last; i++ {
			l := lines(bytes.Clone(data[segs[i]]))
			l[i%parts(data[segs[i]])][50] ^= 4
			damaged[segs[i]] = bytes.Join(l, nil)
		}
		put(t, dir, damaged)
		inv, err := ReadInventory(dir)
		if err == nil || !reflect.DeepEqual(dump(inv), inventory) {
			t.Errorf("damaged from %d on: ReadInventory: %v", first, err)
		}
		j := mustOpen(t, dir)
		for name := range inventory {
			if fabric, ok := strings.CutPrefix(name, "fabric "); ok && j.Inventory().Tree(fabric) != "" {
				t.Errorf("damaged from %d on: the tree of %s is vouched for", first, fabric)
			}
		}
		if n := len(j.Damage()); n != last-first+1 {
			t.Errorf("damaged from %d on: damage in %d places", first, n)
		}
		want := dump(j.Inventory())
		mustClose(t, j)
		j = mustOpen(t, dir)
		if len(j.Damage()) > 0 || !reflect.DeepEqual(dump(j.Inventory()), want) {
			t.Errorf("damaged from %d on: opened again, with a good checkpoint: damage %v", first, j.Damage())
		}
		mustClose(t, j)
	}
}

// TestCrashWhileBeginning stands at the crash points of [Journal.begin].
func TestCrashWhileBeginning(t *testing.T) {
	segs, data, _ := long(t)
	last := segs[len(segs)-1]
	checkpoint := bytes.Join(lines(data[last])[:parts(data[last])], nil)
	delete(data, last)
	dir := filepath.Join(memDir(t), "journal")
	put(t, dir, data)
	inv, err := ReadInventory(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := dump(inv)
	for _, tc := range []struct {
		name string
		file string
		data []byte
	}{
		{"nothing written", last + partialSuffix, nil},
		{"half written", last + partialSuffix, checkpoint[:len(checkpoint)/2]},
		{"written", last + partialSuffix, checkpoint},
		{"renamed", last, checkpoint},
	} {
		t.Run(tc.name, func(t *testing.T) {
			state := maps.Clone(data)
			state[tc.file] = tc.data
			put(t, dir, state)
			mustVerify(t, dir)
			j := mustOpen(t, dir)
			if len(j.Damage()) > 0 || !reflect.DeepEqual(dump(j.Inventory()), want) {
				t.Errorf("damage %v, or another inventory", j.Damage())
			}
			before := segmentSizes(t, dir)
			mustClose(t, j)
			j = mustOpen(t, dir)
			if now := segmentSizes(t, dir); now != before {
				t.Errorf("to open it wrote %d bytes", now-before)
			}
			mustAppend(t, j, note(1))
			mustVerify(t, dir)
			for name := range files(t, dir) {
				if strings.HasSuffix(name, partialSuffix) {
					t.Errorf("%s is left", name)
				}
			}
		})
	}
}

// TestBeginFails: an append that cannot begin its segment leaves all as it
// was, and the next one tries again.
func TestBeginFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j := mustOpen(t, dir)
	j.segmentSize = 500
	for i := range 3 {
		mustAppend(t, j, note(i))
	}
	want, _ := j.Head()
	in := filepath.Join(dir, segmentName(want+1)+partialSuffix)
	if err := os.Mkdir(in, 0o750); err != nil {
		t.Fatal(err)
	}
	j.segmentSize = 1
	if err := j.Append(note(3)); err == nil {
		t.Fatal("no error")
	}
	j.segmentSize = 1 << 20 // it would fit into the old one now
	if err := j.Append(note(3)); err == nil {
		t.Fatal("no error")
	}
	if got, _ := j.Head(); got != want || mustVerify(t, dir).Last != want {
		t.Errorf("head %d, want %d", got, want)
	}
	if err := os.Remove(in); err != nil {
		t.Fatal(err)
	}
	if recs := mustAppend(t, j, note(3)); recs[0].Seq != want+2 {
		t.Errorf("appended as %d", recs[0].Seq)
	}
	mustVerify(t, dir)
}

// TestVerifyCheckpoint changes what a checkpoint says, with all the hashes
// after it: only the records before it can tell.
func TestVerifyCheckpoint(t *testing.T) {
	segs, data, _ := long(t)
	dir := filepath.Join(memDir(t), "journal")
	var at position
	for i, name := range segs {
		var out []byte
		for k, line := range lines(data[name]) {
			r, err := parseLine(line)
			if err != nil {
				t.Fatal(err)
			}
			if i == 2 && k == 1 {
				r.Checkpoint.Fabric.Objects[0].Blob = "forged"
			}
			if at.hash != "" {
				r.Prev = at.hash
			}
			start := len(out)
			if out, err = appendLine(out, r); err != nil {
				t.Fatal(err)
			}
			if r, err = parseLine(out[start:]); err != nil {
				t.Fatal(err)
			}
			at = position{r.Seq, r.Hash}
		}
		data[name] = out
	}
	put(t, dir, data)
	r, err := Verify(dir, nil)
	if err != nil || len(r.Damage) != 2 || r.Damage[0].Segment != segs[2] || !strings.Contains(r.Damage[0].What, "checkpoint") {
		t.Errorf("%v, %v", r.Damage, err)
	}
	// The next one does not follow from the forged one either.
	if r.Head == "" || r.Damage[1].Segment != segs[3] {
		t.Errorf("%+v", r.Damage)
	}
}

// TestIdentity: it is that of the first record for good.
func TestIdentity(t *testing.T) {
	dir := filepath.Join(memDir(t), "journal")
	j := mustOpen(t, dir)
	if id := j.Inventory().Journal(); id != "" {
		t.Errorf("empty: %q", id)
	}
	want := mustAppend(t, j, note(1), note(2))[0].Hash
	check := func(where string) {
		t.Helper()
		if got := j.Inventory().Journal(); got != want {
			t.Errorf("%s: %s, want %s", where, got, want)
		}
	}
	check("first append")
	j.segmentSize = 1
	for i := range 3 {
		mustAppend(t, j, note(i))
	}
	mustClose(t, j)
	j = mustOpen(t, dir)
	check("opened from a checkpoint")
	if _, err := j.Expire(Retention{MaxSize: 1}); err != nil {
		t.Fatal(err)
	}
	mustClose(t, j)
	j = mustOpen(t, dir)
	check("after the first segment was removed")
	mustClose(t, j)

	w := write(t, []Record{note(1)}, []Record{note(2)})
	want = w.records[0].Hash
	w.data[5] ^= 1
	put(t, dir, map[string][]byte{segmentName(1): w.data})
	j = mustOpen(t, dir)
	check("the first record is lost")
}

func TestExpire(t *testing.T) {
	for _, tc := range []struct {
		name string
		keep Retention
		left int // segments, of those that there were
	}{
		{"nothing to remove", Retention{MaxAge: 24 * time.Hour, MaxSize: 1 << 30}, 0},
		{"no bounds", Retention{}, 0},
		{"size", Retention{MaxSize: 1}, keptSegments},
		{"age", Retention{MaxAge: time.Minute}, keptSegments},
	} {
		t.Run(tc.name, func(t *testing.T) {
			segs, data, inventory := long(t)
			dir := filepath.Join(memDir(t), "journal")
			data[segs[0]+".torn-1"] = []byte("torn")
			put(t, dir, data)
			j := mustOpen(t, dir)
			seq, _ := j.Head()
			now := time.Now().Add(time.Hour)
			r, err := j.expire(tc.keep, now)
			if err != nil {
				t.Fatal(err)
			}
			if tc.left == 0 {
				if got, _ := j.Head(); r.Step != "" || got != seq {
					t.Errorf("recorded %v", r)
				}
				return
			}
			first := segmentFirst(segs[len(segs)-tc.left])
			if r.Step != StepExpired || r.Expired.First != 1 || r.Expired.Last != first-1 || r.Expired.Segments != len(segs)-tc.left {
				t.Errorf("recorded %+v", r.Expired)
			}
			if _, err := os.Stat(filepath.Join(dir, segs[0]+".torn-1")); err == nil {
				t.Error("what was torn from a removed segment is left")
			}
			report := mustVerify(t, dir)
			if report.First != first || report.Expired != first-1 {
				t.Errorf("report %+v", report)
			}
			if recs := mustRead(t, dir, 0); recs[0].Seq != first || recs[0].Checkpoint == nil {
				t.Errorf("begins with %v", recs[0])
			}
			again, err := j.expire(tc.keep, now)
			if err != nil {
				t.Fatal(err)
			}
			// The record itself may have filled a segment, never more.
			if again.Step != "" && again.Expired.Segments != 1 {
				t.Errorf("recorded again: %+v", again.Expired)
			}
			mustClose(t, j)
			j = mustOpen(t, dir)
			if !reflect.DeepEqual(dump(j.Inventory()), inventory) || len(j.Damage()) > 0 {
				t.Errorf("another inventory, or damage: %v", j.Damage())
			}
			mustVerify(t, dir)

			// Who removes segments otherwise is found out.
			names, err := segments(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(dir, names[0])); err != nil {
				t.Fatal(err)
			}
			if r, err := Verify(dir, nil); err != nil || len(r.Damage) != 1 || r.Damage[0].Last != segmentFirst(names[1])-1 {
				t.Errorf("a segment was removed: %v, %v", r.Damage, err)
			}
		})
	}
}

// TestExpireNeedsCheckpoint: a segment stays as long as what follows it does
// not begin with a whole checkpoint.
func TestExpireNeedsCheckpoint(t *testing.T) {
	segs, data, _ := long(t)
	dir := filepath.Join(memDir(t), "journal")
	n := len(segs) - keptSegments
	data[segs[n]] = append([]byte("x"), data[segs[n]]...)
	put(t, dir, data)
	j := mustOpen(t, dir)
	r, err := j.expire(Retention{MaxSize: 1}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if r.Step != StepExpired || r.Expired.Segments != n-1 {
		t.Errorf("recorded %+v, want that %d segments go", r.Expired, n-1)
	}
}

// TestCrashWhileExpiring stands behind the record, and behind each removal.
func TestCrashWhileExpiring(t *testing.T) {
	segs, data, inventory := long(t)
	dir := filepath.Join(memDir(t), "journal")
	put(t, dir, data)
	j := mustOpen(t, dir)
	r, err := j.expire(Retention{MaxSize: 1}, time.Now())
	if err != nil || r.Expired == nil {
		t.Fatal(r, err)
	}
	mustClose(t, j)
	after := files(t, dir)
	for removed := range r.Expired.Segments + 1 {
		state := maps.Clone(after)
		for _, name := range segs[removed:r.Expired.Segments] {
			state[name] = data[name]
		}
		put(t, dir, state)
		mustVerify(t, dir)
		j := mustOpen(t, dir)
		if len(j.Damage()) > 0 || !reflect.DeepEqual(dump(j.Inventory()), inventory) {
			t.Errorf("%d removed: damage %v, or another inventory", removed, j.Damage())
		}
		// With bounds that would keep them: it has been decided.
		again, err := j.expire(Retention{MaxSize: 1 << 30}, time.Now())
		if err != nil || again.Step != "" {
			t.Errorf("%d removed: recorded again %v, %v", removed, again, err)
		}
		if report := mustVerify(t, dir); report.First != r.Expired.Last+1 {
			t.Errorf("%d removed: %+v", removed, report)
		}
		mustClose(t, j)
	}
}

// TestExpireSlowJournal: a journal that hardly grows gets rid of old records,
// too, and one that does not grow at all is not written to.
func TestExpireSlowJournal(t *testing.T) {
	dir := memDir(t)
	synctest.Test(t, func(t *testing.T) {
		const month = 30 * 24 * time.Hour
		keep := Retention{MaxAge: 12 * month, MaxSize: 1 << 30}
		j := mustOpen(t, dir)
		for range 30 {
			mustAppend(t, j, Record{Step: StepStart})
			for range 30 {
				if _, err := j.Expire(keep); err != nil {
					t.Fatal(err)
				}
				time.Sleep(24 * time.Hour)
			}
		}
		if r := mustVerify(t, dir); r.First == 1 || time.Since(r.Oldest) > 16*month {
			t.Errorf("records of %v are there: %+v", r.Oldest, r)
		}
		quiet, _ := j.Head()
		for i := range 60 {
			time.Sleep(month)
			if _, err := j.Expire(keep); err != nil {
				t.Fatal(err)
			}
			if i == 20 {
				quiet, _ = j.Head() // what was there has become too old
			}
		}
		if seq, _ := j.Head(); seq != quiet {
			t.Errorf("an idle journal grew from %d to %d", quiet, seq)
		}
	})
}

// TestReadersMeetRemovals: whoever reads while segments are removed gets the
// records that are left, and no word of damage.
func TestReadersMeetRemovals(t *testing.T) {
	dir := memDir(t)
	j := mustOpen(t, dir)
	j.segmentSize = 4 << 10
	var follower scanner
	var seen []uint64
	follower = scanner{dir: dir, yield: func(r Record, err error) bool {
		if err != nil {
			t.Error(err)
		}
		seen = append(seen, r.Seq)
		return true
	}}
	for i := range 300 {
		mustAppend(t, j, note(i))
		if i%7 == 0 {
			for _, err := range Read(dir, 0) {
				if err != nil {
					t.Fatal(err)
				}
				if i%49 == 0 { // in the middle of the reading
					if _, err := j.Expire(Retention{MaxSize: 1}); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if i%60 == 0 {
			if err := follower.scan(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := follower.scan(); err != nil {
		t.Fatal(err)
	}
	if last, _ := j.Head(); !slices.IsSorted(seen) || seen[len(seen)-1] != last || len(seen) == int(last) {
		t.Errorf("followed %d", seen)
	}
}

// TestSince: reading from there on leaves out no record of that time, and few
// others.
func TestSince(t *testing.T) {
	dir := memDir(t)
	j := mustOpen(t, dir)
	j.segmentSize = 1000
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		for range 40 {
			mustAppend(t, j, Record{Step: StepStart})
			time.Sleep(time.Minute)
		}
		all := mustRead(t, dir, 0)
		for i := range 45 {
			at := start.Add(time.Duration(i)*time.Minute - 30*time.Second)
			from, err := Since(dir, at)
			if err != nil {
				t.Fatal(err)
			}
			var before, after int
			for _, r := range told(mustRead(t, dir, from)) {
				if r.Time.Before(at) {
					before++
				} else {
					after++
				}
			}
			if before > 5 || after != max(0, 40-i) {
				t.Errorf("minute %d: from %d of %d on, %d records before and %d after", i, from, len(all), before, after)
			}
		}
	})
}

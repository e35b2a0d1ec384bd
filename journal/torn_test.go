// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// written is a journal of one segment, from which tests make broken ones.
type written struct {
	data    []byte
	records []Record
	ends    []int // offset behind each record
	appends []int // index of the append that each record is from
}

func write(t testing.TB, batches ...[]Record) written {
	t.Helper()
	var w written
	dir := memDir(t)
	j := mustOpen(t, dir)
	for i, batch := range batches {
		for _, r := range mustAppend(t, j, batch...) {
			w.records = append(w.records, r)
			w.appends = append(w.appends, i)
		}
	}
	mustClose(t, j)
	data, err := os.ReadFile(filepath.Join(dir, segmentName(1)))
	if err != nil {
		t.Fatal(err)
	}
	w.data = data
	for i, c := range data {
		if c == '\n' {
			w.ends = append(w.ends, i+1)
		}
	}
	return w
}

// line returns record i as it was written.
func (w written) line(i int) []byte {
	start := 0
	if i > 0 {
		start = w.ends[i-1]
	}
	return w.data[start:w.ends[i]]
}

// complete returns how many records are in the appends that n bytes hold, and
// where the last of these ends.
func (w written) complete(n int) (records, end int) {
	for i := range w.records {
		lastOfAppend := i == len(w.records)-1 || w.appends[i+1] != w.appends[i]
		if lastOfAppend && w.ends[i] <= n {
			records, end = i+1, w.ends[i]
		}
	}
	return records, end
}

// put puts files of the given contents into dir, in place of what may be
// there.
func put(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

// ten is one record and ten more, in appends of one and of several.
func ten(t testing.TB) written {
	return write(t,
		[]Record{note(1)},
		[]Record{note(2), note(3)},
		[]Record{note(4)}, []Record{note(5)},
		[]Record{note(6), note(7), note(8)},
		[]Record{note(9)},
		[]Record{note(10), note(11)})
}

// eventful is a bit longer.
func eventful(t testing.TB) written {
	return write(t,
		[]Record{note(1)}, []Record{note(2)},
		[]Record{note(3), note(4), note(5)},
		[]Record{note(6)}, []Record{note(7)},
		[]Record{note(8), note(9)},
		[]Record{note(10)},
		[]Record{note(11), note(12), note(13)})
}

// reopened opens the broken journal in dir, appends a record, and reads it all;
// again opens it once more, which must not find anything new. It returns all
// records.
func reopened(t *testing.T, dir string, again bool) ([]Record, []Damage) {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	damage := j.Damage()
	mark := mustAppend(t, j, Record{Step: StepStart, Note: "goes on"})[0]
	mustClose(t, j)
	// Read and Open are one scanner, so this is what the second Open reads.
	recs, read := readAll(t, dir, 0)
	if len(recs) == 0 || !reflect.DeepEqual(recs[len(recs)-1], mark) {
		t.Errorf("the appended record is not the last one of %v", recs)
	}
	if !reflect.DeepEqual(read, damage) {
		t.Errorf("Read finds damage %v, Open %v", read, damage)
	}
	recs = told(recs)
	if !again {
		return recs, damage
	}
	if j, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	seq, hash := j.Head()
	if seq != mark.Seq || hash != mark.Hash {
		t.Errorf("the second Open appended: head %d, appended %d", seq, mark.Seq)
	}
	if len(j.Damage()) > 0 {
		// It began with the checkpoint that the first one wrote behind it.
		t.Errorf("the second Open finds damage %v, the first %v", j.Damage(), damage)
	}
	report, err := Verify(dir, nil)
	if err != nil || !reflect.DeepEqual(report.Damage, damage) {
		t.Errorf("Verify finds damage %v, %v; Open found %v", report.Damage, err, damage)
	}
	mustClose(t, j)
	return recs, damage
}

// TestTornTail cuts the journal at each byte of its last records.
func TestTornTail(t *testing.T) {
	t.Parallel()
	w := ten(t)
	dir := filepath.Join(memDir(t), "journal")
	for n := w.ends[0]; n < len(w.data); n++ {
		put(t, dir, map[string][]byte{segmentName(1): w.data[:n]})
		keep, end := w.complete(n)

		report, err := Verify(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if (report.Tail != nil) != (end < n) || len(report.Damage) > 0 || report.Records != keep {
			t.Errorf("cut at %d: %+v", n, report)
		}
		recs, damage := reopened(t, dir, n%7 == 0)
		if len(damage) > 0 {
			t.Errorf("cut at %d: damage %v", n, damage)
		}
		if len(recs) < keep || !reflect.DeepEqual(recs[:keep], w.records[:keep]) {
			t.Fatalf("cut at %d: kept %v", n, recs)
		}
		recs = recs[keep : len(recs)-1]
		if end == n {
			if len(recs) > 0 {
				t.Errorf("cut at %d, between appends: recorded %v", n, recs)
			}
		} else if len(recs) != 1 || recs[0].Step != StepTorn {
			t.Errorf("cut at %d: recorded %v", n, recs)
		} else {
			d := recs[0].Damage
			kept, err := os.ReadFile(filepath.Join(dir, d.Kept))
			if err != nil || !bytes.Equal(kept, w.data[end:n]) {
				t.Errorf("cut at %d: kept %q, %v; want %q", n, kept, err, w.data[end:n])
			}
			if d.Segment != segmentName(1) || d.Offset != int64(end) || d.Bytes != int64(n-end) || d.Seq != uint64(keep+1) {
				t.Errorf("cut at %d: recorded %+v", n, d)
			}
		}
		if t.Failed() {
			return
		}
	}
}

// TestBitFlip flips each bit of each byte, with -short one bit of each byte.
// In the last append that looks like a torn write, anywhere else it is damage;
// the record is never taken for good, and no other one is lost.
func TestBitFlip(t *testing.T) {
	w := ten(t)
	for shift := range 8 {
		if testing.Short() && shift > 0 {
			break
		}
		t.Run(fmt.Sprint(shift), func(t *testing.T) {
			t.Parallel()
			flipBits(t, w, shift)
		})
	}
}

// flipBits flips bit (n+shift) mod 8 of each byte n.
func flipBits(t *testing.T, w written, shift int) {
	dir := filepath.Join(memDir(t), "journal")
	lastAppend := w.appends[len(w.appends)-1]
	hit := 0 // index of the record that has the flipped bit
	for n := range w.data {
		if n == w.ends[hit] {
			hit++
		}
		data := bytes.Clone(w.data)
		data[n] ^= 1 << ((n + shift) % 8)
		put(t, dir, map[string][]byte{segmentName(1): data})
		recs, damage := reopened(t, dir, n%7 == 0)
		recs = recs[:len(recs)-1]

		var want []Record
		var notice *Damage
		if w.appends[hit] == lastAppend {
			keep, end := w.complete(w.ends[hit] - 1)
			want = w.records[:keep]
			if len(damage) > 0 {
				t.Errorf("byte %d: damage %v", n, damage)
			}
			notice = &Damage{Segment: segmentName(1), Offset: int64(end), Bytes: int64(len(data) - end), Seq: uint64(keep + 1),
				Kept: segmentName(1) + ".torn-1"}
		} else {
			want = append(append(want, w.records[:hit]...), w.records[hit+1:]...)
			if len(damage) != 1 {
				t.Fatalf("byte %d of record %d: damage %v", n, hit+1, damage)
			}
			line := w.line(hit)
			notice = &Damage{Segment: segmentName(1), Offset: int64(w.ends[hit] - len(line)), Bytes: int64(len(line)),
				Seq: uint64(hit + 1), Last: uint64(hit + 1)}
		}
		if len(recs) != len(want)+1 || !reflect.DeepEqual(recs[:len(want)], want) {
			t.Fatalf("byte %d of record %d: got %v", n, hit+1, recs)
		}
		last := recs[len(want)]
		if last.Damage == nil || last.Damage.What == "" || (last.Step == StepTorn) != (notice.Kept != "") {
			t.Fatalf("byte %d of record %d: recorded %v", n, hit+1, last)
		}
		if notice.What = last.Damage.What; *last.Damage != *notice {
			t.Errorf("byte %d of record %d: recorded %+v, want %+v", n, hit+1, last.Damage, notice)
		}
		if t.Failed() {
			return
		}
	}
}

// TestCrashWhileCutting stands at the crash points of [Journal.cut].
func TestCrashWhileCutting(t *testing.T) {
	w := eventful(t)
	keep, end := w.complete(len(w.data) - 1)
	torn := w.data[end : len(w.data)-5]
	for _, tc := range []struct {
		name  string
		files map[string][]byte
		kept  []string
	}{
		{"the tail is there twice", map[string][]byte{
			segmentName(1):             w.data[:len(w.data)-5],
			segmentName(1) + ".torn-1": torn,
		}, []string{segmentName(1) + ".torn-1"}},
		{"the cut is not recorded", map[string][]byte{
			segmentName(1):             w.data[:end],
			segmentName(1) + ".torn-1": torn,
		}, []string{segmentName(1) + ".torn-1"}},
		{"another tail was cut off before", map[string][]byte{
			segmentName(1):             w.data[:len(w.data)-5],
			segmentName(1) + ".torn-1": []byte("other"),
		}, []string{segmentName(1) + ".torn-1", segmentName(1) + ".torn-2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(memDir(t), "journal")
			put(t, dir, tc.files)
			recs, damage := reopened(t, dir, true)
			if len(damage) > 0 {
				t.Errorf("damage %v", damage)
			}
			recs = recs[keep : len(recs)-1]
			var kept []string
			for _, r := range recs {
				if r.Step != StepTorn || r.Damage.Offset != int64(end) || r.Damage.Seq != uint64(keep+1) {
					t.Errorf("recorded %v", r)
				}
				kept = append(kept, r.Damage.Kept)
			}
			if !reflect.DeepEqual(kept, tc.kept) {
				t.Errorf("recorded %q, want %q", kept, tc.kept)
			}
			mustVerify(t, dir)
		})
	}
}

// TestDamage breaks journals in ways that no crash does.
func TestDamage(t *testing.T) {
	w := eventful(t)
	const n = 13 // records
	lines := func(numbers ...int) []byte {
		var out []byte
		for _, i := range numbers {
			out = append(out, w.line(i-1)...)
		}
		return out
	}
	span := func(from, to int) []byte {
		var numbers []int
		for i := from; i <= to; i++ {
			numbers = append(numbers, i)
		}
		return lines(numbers...)
	}
	forged := func(i int, change func(*Record)) []byte {
		r := w.records[i-1]
		change(&r)
		line, err := appendLine(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	garbage := []byte("no record\n")
	body := bytes.Replace(w.line(5)[:len(w.line(5))-trailer], []byte(`"step":"reload"`), []byte(`"step":["reload"]`), 1)
	later := cat(body, []byte(hashStart), []byte(hashOf(body)), []byte(hashEnd))

	for _, tc := range []struct {
		name  string
		files map[string][]byte
		good  string // numbers of the records that are read, without those that Open wrote
		want  string // damage, as segment:offset record-last what
	}{
		{"nothing", map[string][]byte{segmentName(1): w.data}, "1-13", ""},
		{"removed", map[string][]byte{segmentName(1): cat(span(1, 5), span(7, n))},
			"1-5 7-13", "1:@5 6-6 a record is missing"},
		{"removed, several", map[string][]byte{segmentName(1): cat(span(1, 1), span(6, n))},
			"1 6-13", "1:@1 2-5 a record is missing"},
		{"removed within an append", map[string][]byte{segmentName(1): cat(span(1, 3), span(5, n))},
			"1-3 5-13", "1:@3 4-4 a record is missing"},
		{"end of an append removed", map[string][]byte{segmentName(1): cat(span(1, 4), span(6, n))},
			"1-4 6-13", "1:@4 5-0 an append of 3 records ends with its part 2\n1:@4 5-5 a record is missing"},
		{"reordered", map[string][]byte{segmentName(1): cat(span(1, 5), lines(7, 6), span(8, n))},
			"1-5 7-13", "1:@5 6-6 a record is missing\n1:@6 8-0 record 6 stands where record 8 is due"},
		{"repeated", map[string][]byte{segmentName(1): cat(span(1, 6), lines(6), span(7, n))},
			"1-13", "1:@6 7-0 record 6 stands where record 7 is due"},
		{"replaced, hash and all", map[string][]byte{segmentName(1): cat(span(1, 5),
			forged(6, func(r *Record) { r.Note = "it was not me" }), span(7, n))},
			"1-13", "1:1399 7-0 the record does not follow from the one before it: one of them was replaced"},
		{"last one replaced", map[string][]byte{segmentName(1): cat(span(1, 5),
			forged(6, func(r *Record) { r.Prev = zeroHash }))},
			"1-6", "1:@5 6-0 the record does not follow from the one before it: one of them was replaced"},
		{"foreign bytes between", map[string][]byte{segmentName(1): cat(span(1, 6), garbage, garbage, span(7, n))},
			"1-13", "1:@6 7-0 the line is not a record"},
		{"foreign bytes before the last", map[string][]byte{segmentName(1): cat(span(1, 6), garbage, lines(7))},
			"1-7", "1:@6 7-0 the line is not a record"},
		{"foreign bytes in place of records", map[string][]byte{segmentName(1): cat(span(1, 5), make([]byte, 1000), span(9, n))},
			"1-5 9-13", "1:@5 6-8 the line is not a record"},
		{"two places", map[string][]byte{segmentName(1): cat(lines(1), garbage, span(3, 5), garbage, span(7, n))},
			"1 3-5 7-13", "1:@1 2-2 the line is not a record\n1:954 6-6 the line is not a record"},
		{"and a torn tail", map[string][]byte{segmentName(1): cat(span(1, 5), garbage, span(7, 12))},
			"1-5 7-10", "1:@5 6-6 the line is not a record"},
		{"beginning", map[string][]byte{segmentName(1): cat(garbage, span(2, n))},
			"2-13", "1:0 1-1 the line is not a record"},
		{"first segment gone", map[string][]byte{segmentName(7): span(7, n)},
			"7-13", "7:0 1-6 the journal begins with a later record"},
		{"segment gone", map[string][]byte{segmentName(1): span(1, 2), segmentName(7): span(7, n)},
			"1-2 7-13", "1:@2 3-6 the segment ends before the next one begins"},
		{"end of a segment gone", map[string][]byte{segmentName(1): span(1, 4), segmentName(6): span(6, n)},
			"1-4 6-13", "1:@4 5-5 the segment ends before the next one begins"},
		{"end of a segment torn", map[string][]byte{segmentName(1): span(1, 6)[:w.ends[5]-1], segmentName(7): span(7, n)},
			"1-5 7-13", "1:@5 6-6 the line is incomplete"},
		{"part of a segment's last append lost", map[string][]byte{segmentName(1): cat(span(1, 2), garbage, span(4, 5)), segmentName(6): span(6, n)},
			"1-2 4-13", "1:@2 3-3 the line is not a record"},
		{"newest segment empty", map[string][]byte{segmentName(1): span(1, 4), segmentName(7): nil},
			"1-4", "1:@4 5-6 the segment ends before the next one begins"},
		{"newest segment torn, the one before short", map[string][]byte{segmentName(1): span(1, 2), segmentName(7): garbage},
			"1-2", "1:@2 3-6 the segment ends before the next one begins"},
		{"segment stands twice", map[string][]byte{segmentName(1): span(1, 7), segmentName(6): cat(span(6, n))},
			"1-13", "6:0 8-0 record 6 stands where record 8 is due"},
		{"last one of a later format", map[string][]byte{segmentName(1): cat(span(1, 5), later)},
			"1-5", "1:@5 6-0 the record is not understood: json: cannot unmarshal array into Go struct field Record.step of type journal.Step"},
		{"last one of odd parts", map[string][]byte{segmentName(1): cat(span(1, 5),
			forged(6, func(r *Record) { r.Part, r.Of = 7, 8 }))},
			"1-5", "1:@5 6-0 the record is not understood: record 6 is part 7 of 8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(memDir(t), "journal")
			put(t, dir, tc.files)
			recs, damage := reopened(t, dir, true)
			var good []string
			recorded := 0
			for i := 0; i < len(recs)-1; i++ {
				switch r := recs[i]; r.Step {
				case StepDamaged:
					if recorded >= len(damage) || *r.Damage != damage[recorded] {
						t.Errorf("recorded %v, found %v", r, damage)
					}
					recorded++
				case StepTorn:
				default:
					first := r.Seq
					for i < len(recs)-2 && recs[i+1].Seq == recs[i].Seq+1 && recs[i+1].Damage == nil {
						i++
					}
					if s := fmt.Sprint(first); first == recs[i].Seq {
						good = append(good, s)
					} else {
						good = append(good, fmt.Sprintf("%s-%d", s, recs[i].Seq))
					}
				}
			}
			if recorded != len(damage) {
				t.Errorf("found %d, recorded %d", len(damage), recorded)
			}
			if s := strings.Join(good, " "); s != tc.good {
				t.Errorf("good records: %s, want %s", s, tc.good)
			}
			var got []string
			for _, d := range damage {
				place := fmt.Sprint(d.Offset)
				for i, end := range w.ends {
					if d.Offset == int64(end) {
						place = fmt.Sprint("@", i+1) // behind record i+1
					}
				}
				got = append(got, fmt.Sprintf("%d:%s %d-%d %s", segmentFirst(d.Segment), place, d.Seq, d.Last, d.What))
			}
			if s := strings.Join(got, "\n"); s != tc.want {
				t.Errorf("damage\n%s\nwant\n%s", s, tc.want)
			}
		})
	}
}

// FuzzParseLine: whatever is taken for a record can be changed in no byte.
func FuzzParseLine(f *testing.F) {
	w := write(f, life()...)
	for i := range w.records {
		f.Add(w.line(i), 0)
	}
	f.Add([]byte(`{"seq":`), 3)
	f.Fuzz(func(t *testing.T, line []byte, at int) {
		r, err := parseLine(line)
		if err != nil {
			return
		}
		if r.Seq == 0 || len(r.Hash) != hashLen || r.first() == 0 || r.first() > r.Seq {
			t.Errorf("%+v", r)
		}
		_ = r.String()
		changed := bytes.Clone(line)
		changed[uint(at)%uint(len(line))] ^= 1 << (uint(at) % 8)
		if _, err := parseLine(changed); !errors.Is(err, errNoNewline) && !errors.Is(err, errNoRecord) && !errors.Is(err, errHash) {
			t.Errorf("taken for a record: %v", err)
		}
	})
}

// FuzzOpen puts any bytes behind good records. These stay, and what is
// appended can be read.
func FuzzOpen(f *testing.F) {
	w := eventful(f)
	_, end := w.complete(len(w.data) - 1)
	f.Add(w.data[end:])
	f.Add(w.data[end : len(w.data)-1])
	f.Add(append(bytes.Clone(w.data[10:end]), w.data...))
	f.Add([]byte("\n\n{\"seq\":{\"seq\":\n"))
	f.Fuzz(func(t *testing.T, tail []byte) {
		dir := filepath.Join(memDir(t), "journal")
		put(t, dir, map[string][]byte{segmentName(1): append(bytes.Clone(w.data[:end]), tail...)})
		recs, _ := reopened(t, dir, true)
		if len(recs) < 10 || !reflect.DeepEqual(recs[:10], w.records[:10]) {
			t.Errorf("kept %v", recs)
		}
	})
}

// TestTornCheckpoint cuts the newest segment at each byte, and flips a bit in
// each, where that segment begins with a checkpoint of several parts: no
// record is taken for good that is not what was written, the inventory is that
// of the records that are, and the next segment has a good checkpoint again.
func TestTornCheckpoint(t *testing.T) {
	t.Parallel()
	src := filepath.Join(memDir(t), "journal")
	j := mustOpen(t, src)
	f := func(fabric, name, blob string) Record {
		r := step(StepManaged, "c1", vpcObject(name, blob, Created))
		r.Fabric, r.Tree = fabric, "t"
		return r
	}
	mustAppend(t, j, f("fabric-1", "a", "1"))
	mustAppend(t, j, f("fabric-1", "b", "1"), f("fabric-2", "b", "2"), note(1))
	j.segmentSize = 1
	mustAppend(t, j, f("fabric-1", "c", "3"))
	j.segmentSize = 1 << 20
	mustAppend(t, j, f("fabric-2", "d", "3"), note(2))
	mustAppend(t, j, note(3))
	mustAppend(t, j, f("fabric-1", "c", "4"), f("fabric-2", "e", "4"))
	mustClose(t, j)
	data := files(t, src)
	names, err := segments(src)
	if err != nil || len(names) != 2 {
		t.Fatal(names, err)
	}
	good := make(map[uint64]Record)
	for _, r := range mustRead(t, src, 0) {
		good[r.Seq] = r
	}
	last := data[names[1]]
	if n := parts(last); n != 3 {
		t.Fatalf("the checkpoint has %d parts", n)
	}
	dir := filepath.Join(memDir(t), "journal")
	tries := 0
	try := func(what string, broken []byte) {
		data[names[1]] = broken
		put(t, dir, data)
		j := mustOpen(t, dir)
		mark := mustAppend(t, j, Record{Step: StepStart})[0]
		want, trees := dump(j.Inventory()), j.Inventory().Tree("fabric-1")
		damaged := len(j.Damage()) > 0
		mustClose(t, j)
		torn := false
		var read []Record
		recs, damage := readAll(t, dir, 0)
		for _, r := range recs {
			// What Open itself wrote is newer than all that was there.
			switch {
			case r.Hash == good[r.Seq].Hash:
				read = append(read, r)
			case r.Step == StepTorn:
				torn = true
			case r.Step != StepDamaged && r.Checkpoint == nil && r.Hash != mark.Hash:
				t.Errorf("%s: taken for good: %v", what, r)
			}
		}
		if len(damage) > 0 != damaged {
			t.Errorf("%s: Read finds damage %v, Open %v", what, damage, damaged)
		}
		if len(read) < len(good) && !torn && !damaged && !bytes.HasPrefix(last, broken) {
			t.Errorf("%s: %d records are lost without a word", what, len(good)-len(read))
		}
		if damaged && trees != "" {
			t.Errorf("%s: a tree is vouched for", what)
		}
		inv := newInventory()
		inv.apply(read...)
		if damaged {
			inv.apply(Record{Step: StepDamaged})
		}
		if got := dump(inv); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the inventory is\n%v\nwant\n%v", what, want, got)
		}
		if tries++; tries%7 > 0 {
			return
		}
		j = mustOpen(t, dir)
		if seq, hash := j.Head(); seq != mark.Seq || hash != mark.Hash || !reflect.DeepEqual(dump(j.Inventory()), want) {
			t.Errorf("%s: opened again: head %d, appended %d, or another inventory", what, seq, mark.Seq)
		}
		mustClose(t, j)
	}
	for n := range last {
		if t.Failed() {
			return
		}
		try(fmt.Sprint("cut at ", n), last[:n])
		broken := bytes.Clone(last)
		broken[n] ^= 1 << (n % 8)
		try(fmt.Sprintf("bit %d of byte %d", n%8, n), broken)
	}
}

// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const segmentSuffix = ".jsonl"

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

// segmentFirst returns the number of the first record of the segment name, or
// 0 where that is not the name of a segment.
func segmentFirst(name string) uint64 {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 20 {
		return 0
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0
	}
	return first
}

// segments lists the segments in dir in their order.
func segments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if segmentFirst(e.Name()) > 0 {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Read yields the records of the journal in dir from number from on (0 and 1
// mean all), in their order. It takes no lock and disturbs no writer; a last
// append that is not complete, because it is being written or a crash tore
// it, is left out.
//
// The oldest records may have been removed ([Journal.Expire]); then it begins
// with the checkpoint that stands in for them.
//
// Where the journal is damaged it yields a zero Record with a [*Damage] and
// goes on behind it. Any other error is the last thing that it yields; where
// there is no journal, one that wraps [io/fs.ErrNotExist].
func Read(dir string, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		s := scanner{dir: dir, from: from, yield: yield}
		if err := s.scan(); err != nil && !s.stopped {
			yield(Record{}, err)
		}
	}
}

// Since returns a number from which on [Read] yields all records of the journal
// in dir that were made at or after t, and not many others: that of the first
// one in the newest segment that begins before t. It is 0 for the zero Time.
func Since(dir string, t time.Time) (uint64, error) {
	names, err := segments(dir)
	if err != nil {
		return 0, fmt.Errorf("reading the journal: %w", err)
	}
	if t.IsZero() {
		return 0, nil
	}
	for _, name := range slices.Backward(names) {
		first, err := firstTime(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("reading the journal: %w", err)
		}
		if err == nil && !first.IsZero() && first.Before(t) {
			return segmentFirst(name), nil
		}
	}
	return 0, nil
}

// pollInterval is how often Follow looks for new records.
const pollInterval = 200 * time.Millisecond

// Follow is [Read] that does not end: having yielded what is there it waits
// for more, until ctx is done, which is no error. Records that are removed
// before it came to them are left out.
func Follow(ctx context.Context, dir string, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		s := scanner{dir: dir, from: from, yield: yield}
		tick := time.NewTicker(pollInterval)
		defer tick.Stop()
		for {
			if err := s.scan(); err != nil && !s.stopped {
				yield(Record{}, err)
				return
			}
			if s.stopped {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}
}

// position is the record after which the chain goes on.
type position struct {
	seq  uint64
	hash string // "" where it is not known
}

// scanner reads a journal; there is one for reading, following, verifying and
// opening. Between two calls of scan it stands behind the last append that is
// known to be complete.
type scanner struct {
	dir   string
	from  uint64 // yield no records before this one
	yield func(Record, error) bool

	stopped bool // yield returned false
	count   int  // segments entered
	bytes   int64
	segment string   // the one it stands in, "" at the beginning
	off     int64    // offset behind the last complete append in it
	at      position // last record before off
	tail    *Damage  // what follows off at the end of the last segment, nil where nothing does

	behind int64   // while yield is called with a record: offset behind it
	late   *Damage // the first segment is a later one; is damage unless that begins with a checkpoint
	missed bool    // a segment that was listed is gone
}

// scan yields everything between where s stands and the end.
func (s *scanner) scan() error {
	// The list is taken before any reading: a segment that is followed by
	// another one in it is not appended to any more.
	names, err := segments(s.dir)
	if err != nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	if s.segment == "" && s.from > 0 {
		// The first segment that can be skipped is one whose successor
		// begins before or at from.
		for len(names) > 1 && segmentFirst(names[1]) <= s.from {
			names = names[1:]
		}
	}
	if len(names) > 0 && names[0] > s.segment && s.segment != "" {
		s.missed = true // the one that it stands in was removed, with all before it
	}
	for i, name := range names {
		if name < s.segment {
			continue
		}
		var next uint64
		if i+1 < len(names) {
			next = segmentFirst(names[i+1])
		}
		if err := s.scanSegment(name, next); errors.Is(err, fs.ErrNotExist) && next > 0 {
			s.missed = true // removed as one of the oldest, since the list was taken
			continue
		} else if err != nil {
			return fmt.Errorf("reading the journal: %w", err)
		}
		if s.stopped {
			return nil
		}
	}
	return nil
}

// enter begins the segment name, of which nothing has been read.
func (s *scanner) enter(name string) {
	first := segmentFirst(name)
	if s.segment == "" {
		switch {
		case first == 1:
			s.at = position{0, zeroHash}
		default:
			s.at = position{first - 1, ""}
			if s.from < first {
				s.late = &Damage{Segment: name, Seq: max(s.from, 1), Last: first - 1, What: "the journal begins with a later record"}
			}
		}
	} else if s.missed && first > s.at.seq+1 {
		s.at = position{first - 1, ""}
	}
	s.missed = false
	s.bytes += s.off
	s.segment, s.off = name, 0
	s.count++
}

func (s *scanner) damage(d Damage) {
	s.beginsLate()
	if !s.stopped && !s.yield(Record{}, &d) {
		s.stopped = true
	}
}

// record yields r, which ends at the offset behind.
func (s *scanner) record(r Record, behind int64) {
	if r.Checkpoint != nil && r.Checkpoint.Part == 1 {
		s.late = nil
	}
	s.beginsLate()
	s.behind = behind
	if r.Seq >= s.from && !s.stopped && !s.yield(r, nil) {
		s.stopped = true
	}
}

// beginsLate reports that the first segment is a later one.
func (s *scanner) beginsLate() {
	if d := s.late; d != nil {
		s.late = nil
		s.damage(*d)
	}
}

// scanSegment yields what follows s.off in the segment name. next is the
// number that the next segment begins with; it is 0 for the newest segment,
// the only one of which the end may be torn.
func (s *scanner) scanSegment(name string, next uint64) error {
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	if name != s.segment {
		s.enter(name)
	}
	if _, err := f.Seek(s.off, io.SeekStart); err != nil {
		return err
	}
	a := assembly{s: s, off: s.off, at: s.at}
	s.tail = nil
	br := bufio.NewReaderSize(f, 16<<10)
	// The first end of file is the last word: a line that a writer completes
	// in the meantime is read as a whole the next time.
	for eof := false; !eof && !s.stopped; {
		line, err := br.ReadBytes('\n')
		if eof = err == io.EOF; err != nil && !eof {
			return err
		}
		for len(line) > 0 {
			n := len(line)
			r, err := parseLine(line)
			if err != nil {
				// A good record can follow foreign bytes in the same line:
				// they may have taken the place of a newline.
				if i := bytes.Index(line[1:], []byte(lineStart)); i >= 0 {
					n = 1 + i
				}
			}
			a.add(r, err, int64(n))
			line = line[n:]
		}
	}
	if !s.stopped {
		a.end(next)
		s.beginsLate()
	}
	return nil
}

// assembly puts together what scanSegment finds, until it is known whether
// it is a complete append, damage, or a torn tail. It holds back what stands
// behind s.off, all of it either part of one append or unusable.
type assembly struct {
	s    *scanner
	off  int64    // how far it has read
	at   position // last record before off
	held []event
	bad  uint64 // number due where the first unusable bytes in held begin, 0 where there are none
}

// event is a record, or damage where that is set.
type event struct {
	record Record
	behind int64 // offset behind the record
	damage *Damage
}

// add takes the next n bytes: the record r, or what is unusable for the
// reason err.
func (a *assembly) add(r Record, err error, n int64) {
	if err == nil && r.Seq <= a.at.seq {
		err = fmt.Errorf("record %d stands where record %d is due", r.Seq, a.at.seq+1)
	}
	switch {
	case err == nil:
		a.good(r, n)
	case r.Hash != "" && r.Seq == 0:
		// Written so, perhaps by a later version: no torn write.
		a.release()
		a.s.damage(Damage{Segment: a.s.segment, Offset: a.off, Bytes: n, Seq: a.at.seq + 1, What: err.Error()})
		a.at = position{a.at.seq + 1, r.Hash}
		a.off += n
		a.release()
	default:
		a.unusable(err, n)
	}
}

func (a *assembly) unusable(err error, n int64) {
	if a.bad == 0 {
		a.bad = a.at.seq + 1
	}
	if d := a.last().damage; d != nil {
		d.Bytes += n
	} else {
		a.held = append(a.held, event{damage: &Damage{
			Segment: a.s.segment, Offset: a.off, Bytes: n, Seq: a.at.seq + 1, What: err.Error(),
		}})
	}
	a.off += n
}

func (a *assembly) good(r Record, n int64) {
	if d := a.last().damage; d != nil {
		if r.Seq > d.Seq {
			d.Last = r.Seq - 1
			a.at = position{r.Seq - 1, ""}
		}
	}
	if a.bad > 0 && (r.first() > a.bad || r.Part <= 1) {
		// The unusable bytes stand before the append that r is from, so they
		// were on disk when it was written: damage, not a torn write.
		a.release()
	}
	if last := a.last(); a.bad == 0 && len(a.held) > 0 && r.first() != last.record.first() {
		a.incomplete()
	}
	if a.bad == 0 && (r.Seq != a.at.seq+1 || a.at.hash != "" && r.Prev != a.at.hash) {
		a.release()
		d := Damage{Segment: a.s.segment, Offset: a.off, Seq: a.at.seq + 1}
		if r.Seq > d.Seq {
			d.Last, d.What = r.Seq-1, "a record is missing"
		} else {
			d.What = "the record does not follow from the one before it: one of them was replaced"
		}
		a.s.damage(d)
		a.at = position{r.Seq - 1, ""}
	}
	a.at = position{r.Seq, r.Hash}
	a.off += n
	a.held = append(a.held, event{record: r, behind: a.off})
	if a.bad == 0 && r.Part == r.Of {
		a.release()
	}
}

// end takes the end of the segment.
func (a *assembly) end(next uint64) {
	if next == 0 {
		a.s.tail = a.tail()
		return
	}
	if d := a.last().damage; d != nil && next > d.Seq {
		d.Last = next - 1
		a.at = position{next - 1, ""}
	}
	switch {
	case a.bad > 0:
		a.release()
	case len(a.held) > 0 && next == a.at.seq+1:
		a.incomplete()
	case len(a.held) > 0:
		a.release()
	}
	if next > a.at.seq+1 {
		a.s.damage(Damage{Segment: a.s.segment, Offset: a.off, Seq: a.at.seq + 1, Last: next - 1,
			What: "the segment ends before the next one begins"})
		a.at = position{next - 1, ""}
		a.release()
	}
}

// tail describes what is held at the end of the journal.
func (a *assembly) tail() *Damage {
	if len(a.held) == 0 {
		return nil
	}
	d := &Damage{Segment: a.s.segment, Offset: a.s.off, Bytes: a.off - a.s.off, Seq: a.s.at.seq + 1}
	for _, e := range a.held {
		if e.damage != nil {
			d.What = e.damage.What
			return d
		}
	}
	d.What = "the last append is incomplete"
	return d
}

// incomplete yields the parts of an append that has no end.
func (a *assembly) incomplete() {
	last := a.last().record
	a.release()
	a.s.damage(Damage{Segment: a.s.segment, Offset: a.off, Seq: last.Seq + 1,
		What: fmt.Sprintf("an append of %d records ends with its part %d", last.Of, last.Part)})
}

// release yields what is held, and moves s behind it.
func (a *assembly) release() {
	for _, e := range a.held {
		if e.damage != nil {
			a.s.damage(*e.damage)
		} else {
			a.s.record(e.record, e.behind)
		}
	}
	a.held, a.bad = slices.Delete(a.held, 0, len(a.held)), 0
	a.s.off, a.s.at = a.off, a.at
}

// last returns what was held last, or the zero event.
func (a *assembly) last() event {
	if len(a.held) == 0 {
		return event{}
	}
	return a.held[len(a.held)-1]
}

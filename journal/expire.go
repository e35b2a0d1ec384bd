// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// Retention is how much of a journal is kept. Zero means all.
type Retention struct {
	MaxAge  time.Duration // of the newest record of a segment
	MaxSize int64         // of all segments, in bytes
}

// keptSegments is how many segments stay, whatever their age and size: should
// the checkpoint of the newest one be damaged, that of the one before serves.
const keptSegments = 2

// Expire removes the oldest segments as far as keep allows, and returns the
// record that says so; its Step is empty where there was nothing to remove,
// and then nothing is written either.
//
// What the inventory knows from removed records stands in the checkpoint at
// the beginning of the first segment that stays, which is read again before.
// The record is on disk before the first segment is removed, so that
// [Verify] can tell a removal from a loss; and they are removed one after the
// other from the oldest on, so that a crash at any point leaves a journal
// without a hole. The next Expire removes what is left of them.
func (j *Journal) Expire(keep Retention) (Record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r, err := j.expire(keep, time.Now())
	if err != nil {
		err = fmt.Errorf("removing old segments of the journal %s: %w", j.dir, err)
	}
	return r, err
}

func (j *Journal) expire(keep Retention, now time.Time) (Record, error) {
	if j.f == nil {
		return Record{}, os.ErrClosed
	}
	names, err := segments(j.dir)
	if err != nil {
		return Record{}, err
	}
	sizes := make([]int64, len(names))
	var total int64
	for i, name := range names {
		fi, err := os.Stat(filepath.Join(j.dir, name))
		if err != nil {
			return Record{}, err
		}
		sizes[i] = fi.Size()
		total += fi.Size()
	}
	before := func(i int) (time.Time, error) { return firstTime(filepath.Join(j.dir, names[i])) }

	// A journal that grows slowly would keep its records for as long as its
	// newest segment takes to fill, so from some age on that one is full.
	if t, err := before(len(names) - 1); err != nil {
		return Record{}, err
	} else {
		j.old = keep.MaxAge > 0 && !t.IsZero() && now.Sub(t) > keep.MaxAge/4
	}

	gone := j.inventory.Expired() // may be there still, after a crash
	n := 0
	for left := total; n < len(names)-keptSegments; n++ {
		// All records of a segment are older than the first one after it.
		t, err := before(n + 1)
		if err != nil {
			return Record{}, err
		}
		old := keep.MaxAge > 0 && !t.IsZero() && now.Sub(t) > keep.MaxAge
		large := keep.MaxSize > 0 && left > keep.MaxSize
		if !old && !large && segmentFirst(names[n+1])-1 > gone {
			break
		}
		left -= sizes[n]
	}
	for ; n > 0; n-- {
		if whole, err := beginsWithCheckpoint(j.dir, names[n]); err != nil {
			return Record{}, err
		} else if whole {
			break
		}
	}
	if n == 0 {
		return Record{}, nil
	}

	e := &Expired{First: segmentFirst(names[0]), Last: segmentFirst(names[n]) - 1, Segments: n}
	for _, size := range sizes[:n] {
		e.Bytes += size
	}
	recs := []Record{{Step: StepExpired, Expired: e}}
	if e.Last > gone {
		// This record alone is no reason for a new segment: that would be one
		// more to remove, with a record again, for ever.
		old := j.old
		j.old = false
		err := j.append(recs)
		j.old = old
		if err != nil {
			return Record{}, err
		}
	} else {
		recs[0] = Record{} // has been recorded
	}
	for _, name := range names[:n] {
		// Crash point: some of the oldest segments are gone, the record says
		// that they may be.
		if err := j.remove(name); err != nil {
			return recs[0], err
		}
	}
	return recs[0], nil
}

// remove removes a segment and what was cut off from it.
func (j *Journal) remove(segment string) error {
	sides, err := filepath.Glob(filepath.Join(j.dir, segment+tornInfix+"*"))
	if err != nil {
		return err
	}
	for _, name := range append(sides, filepath.Join(j.dir, segment)) {
		if err := durable.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// firstTime returns the time of the first record of a segment, the zero Time
// where it cannot be read.
func firstTime(path string) (time.Time, error) {
	f, err := os.Open(path)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	line, _ := bufio.NewReader(f).ReadBytes('\n')
	r, err := parseLine(line)
	if err != nil {
		return time.Time{}, nil
	}
	return r.Time, nil
}

// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// segmentSize is how many bytes a segment may hold behind its checkpoint; it is
// as many as the checkpoint has where these are more, so that checkpoints never
// make up more than half of a journal. An append is never split, so a segment
// can become larger.
const segmentSize = 16 << 20

// errLocked says that another process has the journal open for appending.
var errLocked = errors.New("the journal is in use by another process")

// Journal is a journal open for appending. Its methods may be called by
// several goroutines at once.
type Journal struct {
	dir       string
	inventory *Inventory
	damage    []Damage // found by Open, not changed after it

	mu          sync.Mutex
	lock        *os.File // dir itself, locked
	segmentSize int64
	f           *os.File // the newest segment, for appending; nil once closed
	size        int64    // of f, with nothing but complete appends
	head        int64    // how much of that is the checkpoint that f begins with
	at          position
	torn        bool // f may hold more than size bytes
	rotate      bool // f is not to be appended to any more
	old         bool // nor is it because of its age
}

// Open opens the journal in dir for appending, and makes it where there is
// none (directory mode 0750, files 0640, before the umask). It reads it from
// the newest checkpoint on to build the inventory, cuts off a torn tail and
// records new damage, as the package documentation describes. Damage is no
// error: see [Journal.Damage].
//
// It is an error if another process has it open. After any other error (a full disk, where something has to be cut off) nothing is
// lost, and Open can be tried again.
func Open(dir string) (*Journal, error) {
	j := &Journal{dir: dir, segmentSize: segmentSize}
	if err := j.open(); err != nil {
		j.Close()
		return nil, fmt.Errorf("opening the journal %s: %w", dir, err)
	}
	return j, nil
}

func (j *Journal) open() (err error) {
	if err := durable.MkdirAll(j.dir, 0o750); err != nil {
		return err
	}
	if j.lock, err = os.Open(j.dir); err != nil {
		return err
	}
	switch err := unix.Flock(int(j.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
	case nil:
	case unix.EWOULDBLOCK:
		return errLocked
	default:
		return os.NewSyscallError("flock", err)
	}
	partial, err := filepath.Glob(filepath.Join(j.dir, "*"+segmentSuffix+partialSuffix))
	if err != nil {
		return err
	}
	for _, name := range partial {
		if err := os.Remove(name); err != nil {
			return err
		}
	}

	p, err := replayed(j.dir)
	if err != nil {
		return err
	}
	s := p.scanner
	j.inventory, j.damage = p.inventory, p.damage
	if s.segment == "" {
		j.at = position{0, zeroHash}
		return j.beginFirst()
	}
	j.f, err = os.OpenFile(filepath.Join(j.dir, s.segment), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	j.size, j.at = s.off, s.at
	if j.at.hash == "" {
		// Where nothing is known of the last record, the chain begins anew.
		j.at.hash = zeroHash
	}
	switch {
	case segmentFirst(s.segment) == 1:
	case p.segment == s.segment:
		j.head = p.head
	default:
		// The newest segment has no good checkpoint. The next one shall.
		j.rotate = true
	}

	if s.tail != nil {
		if err := j.cut(*s.tail); err != nil {
			return err
		}
	}
	// The last append may have been written by a process that was killed
	// before its fsync; from here on it counts.
	if err := errors.Join(j.f.Sync(), durable.SyncDir(j.dir)); err != nil {
		return err
	}

	var recs []Record
	for _, d := range j.damage {
		if !p.recorded[d.place()] {
			recs = append(recs, Record{Step: StepDamaged, Damage: &d})
		}
	}
	damaged := len(recs) > 0
	// All copies of torn tails are looked at, not just the one made now: a
	// crash may have come between the cut and its record. Those of segments
	// before the checkpoint have been recorded before it.
	sides, err := filepath.Glob(filepath.Join(j.dir, "*"+segmentSuffix+tornInfix+"*"))
	if err != nil {
		return err
	}
	for _, side := range sides {
		name := filepath.Base(side)
		if p.kept[name] || name < p.segment {
			continue
		}
		d, err := j.cutting(name, s)
		if err != nil {
			return err
		}
		recs = append(recs, Record{Step: StepTorn, Damage: &d})
	}
	if damaged {
		return j.begin(recs...)
	}
	return j.Append(recs...)
}

// tornInfix stands between the name of a segment and a number in the name of
// the file that holds a torn tail of that segment.
const tornInfix = ".torn-"

// place returns what identifies damage when it is found again.
func (d *Damage) place() Damage {
	return Damage{Segment: d.Segment, Offset: d.Offset, Seq: d.Seq}
}

// cut moves the torn tail d to a file of its own. A crash at any point leaves
// what the next Open brings to the same end.
func (j *Journal) cut(d Damage) error {
	tail := make([]byte, d.Bytes)
	if _, err := io.ReadFull(io.NewSectionReader(j.f, d.Offset, d.Bytes), tail); err != nil {
		return err
	}
	for n := 1; ; n++ {
		side := filepath.Join(j.dir, fmt.Sprintf("%s%s%d", d.Segment, tornInfix, n))
		have, err := os.ReadFile(side)
		if errors.Is(err, os.ErrNotExist) {
			err = durable.WriteFile(side, tail, 0o640)
			have = tail
		}
		if err != nil {
			return fmt.Errorf("copying a torn tail: %w", err)
		}
		if bytes.Equal(have, tail) {
			break
		}
	}
	// Crash point: the tail is there twice. The next Open finds the copy.
	if err := j.rollBack(); err != nil {
		return fmt.Errorf("cutting off a torn tail: %w", err)
	}
	// Crash point: the cut is not recorded. The next Open finds a copy that
	// no record tells of.
	return nil
}

// cutting describes the cut that left the copy name, of which no record tells.
func (j *Journal) cutting(name string, s scanner) (Damage, error) {
	tail, err := os.Stat(filepath.Join(j.dir, name))
	if err != nil {
		return Damage{}, err
	}
	segment, _, _ := strings.Cut(name, tornInfix)
	rest, err := os.Stat(filepath.Join(j.dir, segment))
	if err != nil {
		return Damage{}, err
	}
	d := Damage{Segment: segment, Offset: rest.Size(), Bytes: tail.Size(), Seq: s.at.seq + 1, Kept: name,
		What: "a torn tail was cut off by a start that was interrupted"}
	if s.tail != nil && s.tail.Bytes == d.Bytes {
		d.What = s.tail.What
	}
	return d, nil
}

// beginFirst makes the first segment, which has no checkpoint.
func (j *Journal) beginFirst() (err error) {
	j.f, err = os.OpenFile(filepath.Join(j.dir, segmentName(1)), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	return durable.SyncDir(j.dir)
}

// Append writes recs at the end of the journal, all or none, and returns when
// they are on disk. Then the inventory has them, and recs hold what [Read]
// will yield: Seq, Part, Of, Prev and Hash are filled in, Time where it was
// zero.
//
// After an error nothing was appended, and what was written of it is cut off
// again. Where not even that is possible, each later Append first tries to,
// and fails as long as it cannot.
func (j *Journal) Append(recs ...Record) error {
	if len(recs) == 0 {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.append(recs); err != nil {
		return fmt.Errorf("appending to the journal %s: %w", j.dir, err)
	}
	return nil
}

func (j *Journal) append(recs []Record) error {
	if j.f == nil {
		return os.ErrClosed
	}
	if j.torn {
		if err := j.rollBack(); err != nil {
			return fmt.Errorf("cutting off what a failed write left: %w", err)
		}
	}

	lines, written, at, err := encode(j.at, recs)
	if err != nil {
		return err
	}
	if j.rotate || j.old || j.size > j.head && j.size-j.head+int64(len(lines)) > max(j.segmentSize, j.head) {
		if err := j.begin(); err != nil {
			return err
		}
		// The checkpoint stands between now.
		if lines, written, at, err = encode(j.at, recs); err != nil {
			return err
		}
	}
	_, err = j.f.Write(lines)
	// Crash point: any part of lines can be on disk, a torn tail.
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		if rerr := j.rollBack(); rerr != nil {
			err = fmt.Errorf("%w (and it could not be undone yet: %w)", err, rerr)
		}
		return err
	}
	j.size += int64(len(lines))
	j.at = at
	j.inventory.apply(written...)
	copy(recs, written)
	return nil
}

// encode returns the lines of recs as they follow at, what a reader makes of
// them, and the position behind them.
//
// What goes into the inventory is read from the very bytes that go to the
// disk, so that a replay cannot give another one.
func encode(at position, recs []Record) (lines []byte, written []Record, _ position, err error) {
	written = make([]Record, len(recs))
	for i, r := range recs {
		r.Seq, r.Prev = at.seq+1, at.hash
		r.Part, r.Of = 0, 0
		if len(recs) > 1 {
			r.Part, r.Of = i+1, len(recs)
		}
		if r.Time.IsZero() {
			r.Time = time.Now()
		}
		r.Time = r.Time.UTC().Truncate(time.Millisecond)
		start := len(lines)
		if lines, err = appendLine(lines, r); err != nil {
			return nil, nil, at, err
		}
		if written[i], err = parseLine(lines[start:]); err != nil {
			return nil, nil, at, err
		}
		at = position{r.Seq, written[i].Hash}
	}
	return lines, written, at, nil
}

// rollBack cuts off what stands behind the last complete append.
func (j *Journal) rollBack() error {
	j.torn = true
	if err := j.f.Truncate(j.size); err != nil {
		return err
	}
	if err := j.f.Sync(); err != nil {
		return err
	}
	j.torn = false
	return nil
}

// Head returns the number and the hash of the last record; the number is 0
// in an empty journal. The hash vouches for all of the journal up to there.
func (j *Journal) Head() (seq uint64, hash string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.at.seq, j.at.hash
}

// Size returns how many segments the journal consists of, and how many bytes
// these have. It does not wait for an append. The error is the file system's.
func (j *Journal) Size() (n int, bytes int64, err error) {
	names, err := segments(j.dir)
	if err != nil {
		return 0, 0, fmt.Errorf("measuring the journal: %w", err)
	}
	for _, name := range names {
		fi, err := os.Stat(filepath.Join(j.dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed by Expire just now
		}
		if err != nil {
			return 0, 0, fmt.Errorf("measuring the journal: %w", err)
		}
		n, bytes = n+1, bytes+fi.Size()
	}
	return n, bytes, nil
}

// Damage returns the damage that Open found, in the order of the journal,
// nil where all is well. It has been recorded and stays where it is; a torn
// tail is not part of it.
func (j *Journal) Damage() []Damage { return j.damage }

// Inventory returns the inventory, which changes with each Append.
func (j *Journal) Inventory() *Inventory { return j.inventory }

// Close gives the journal up to others. Everything appended is on disk
// already.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, f := range []*os.File{j.f, j.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	j.f, j.lock = nil, nil
	return errors.Join(errs...)
}

// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unique"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// checkpointPart is how many objects or archived blobs one record of a
// checkpoint tells at most, so that none is much longer than 300 kB.
const checkpointPart = 500

// Checkpoint is a part of a checkpoint: of all that follows from the records
// before it. Part 1 tells of the journal and its repositories, each other part
// of some objects or archived blobs of one fabric.
type Checkpoint struct {
	Part    int    `json:"part"`              // from 1
	Of      int    `json:"of"`                // parts that follow each other
	Journal string `json:"journal"`           // [Inventory.Journal]
	Expired uint64 `json:"expired,omitempty"` // [Inventory.Expired]

	Repositories []CheckpointRepository `json:"repositories,omitempty"`
	Fabric       *CheckpointFabric      `json:"fabric,omitempty"`
}

// CheckpointRepository is what an [Inventory] knows of a repository.
type CheckpointRepository struct {
	Name     string `json:"name"`
	Recorded string `json:"recorded,omitempty"` // [Inventory.Recorded]
	Pushed   string `json:"pushed,omitempty"`   // [Inventory.Pushed]
}

// CheckpointFabric is what an [Inventory] knows of a fabric, or some of it.
type CheckpointFabric struct {
	Name     string               `json:"name"`
	Tree     string               `json:"tree,omitempty"`    // [Inventory.Tree]
	Applied  string               `json:"applied,omitempty"` // [Inventory.Applied]
	Objects  []CheckpointObject   `json:"objects,omitempty"`
	Archived []CheckpointArchived `json:"archived,omitempty"` // the newest one last
}

// CheckpointObject is an [Entry]. Its times are Unix milliseconds.
type CheckpointObject struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`

	Path     string `json:"path,omitempty"`
	Blob     string `json:"blob,omitempty"` // "" where it has left managed/
	RawPath  string `json:"rawPath,omitempty"`
	RawBlob  string `json:"rawBlob,omitempty"`
	Document int    `json:"document,omitempty"`
	Line     int    `json:"line,omitempty"`
	Commit   string `json:"commit,omitempty"`
	Since    int64  `json:"since,omitempty"`

	AppliedBlob     string `json:"appliedBlob,omitempty"`
	AppliedCommit   string `json:"appliedCommit,omitempty"`
	ResourceVersion string `json:"resourceVersion,omitempty"`
	AppliedAt       int64  `json:"appliedAt,omitempty"`
	Error           string `json:"error,omitempty"`
}

// CheckpointArchived says that Commit holds the bytes of the raw file Blob.
type CheckpointArchived struct {
	Blob   string `json:"blob"`
	Commit string `json:"commit"`
}

// begin begins a segment for what comes after the last record, with a
// checkpoint and then recs. It is written beside and renamed, so that a
// segment is there with its whole checkpoint or not at all. After an error the
// journal is as it was, but the next Append has to begin a segment first: the
// new name may or may not be there after a power loss, and nothing more may
// come before it.
func (j *Journal) begin(recs ...Record) error {
	j.rotate = true
	path := filepath.Join(j.dir, segmentName(j.at.seq+1))
	f, err := os.OpenFile(path+partialSuffix, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 64<<10)
	at, head, err := j.writeCheckpoint(w)
	size := head
	var written []Record
	if err == nil {
		var lines []byte
		if lines, written, at, err = encode(at, recs); err == nil {
			size += int64(len(lines))
			_, err = w.Write(lines)
		}
	}
	if err = errors.Join(err, w.Flush()); err == nil {
		err = f.Sync()
	}
	// Crash point: the file beside means nothing, Open removes it.
	if err == nil {
		err = os.Rename(path+partialSuffix, path)
	}
	if err == nil {
		err = durable.SyncDir(j.dir)
	}
	// Crash point: the new segment is there or not; in the old one nothing
	// stands that is not before it.
	if err != nil {
		f.Close()
		os.Remove(path + partialSuffix)
		return fmt.Errorf("beginning the segment %s: %w", filepath.Base(path), err)
	}
	j.f.Close() // synced by the append that filled it
	j.f, j.size, j.head, j.at, j.rotate, j.old = f, size, head, at, false, false
	j.inventory.apply(written...)
	copy(recs, written)
	return nil
}

// partialSuffix ends the name of a segment that is being begun.
const partialSuffix = ".tmp"

// writeCheckpoint writes a checkpoint to w and returns the position behind it
// and how long it is.
func (j *Journal) writeCheckpoint(w io.Writer) (at position, size int64, err error) {
	at = j.at
	now := time.Now()
	err = j.inventory.checkpoint(func(c *Checkpoint) error {
		line, _, next, err := encode(at, []Record{{Step: StepCheckpoint, Time: now, Checkpoint: c}})
		if err != nil {
			return err
		}
		at = next
		size += int64(len(line))
		_, err = w.Write(line)
		return err
	})
	return at, size, err
}

// checkpoint calls write with each part of a checkpoint, until that fails.
func (inv *Inventory) checkpoint(write func(*Checkpoint) error) error {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	part, of := 0, 1
	for _, f := range inv.fabrics {
		of += max(1, pieces(len(f.objects))) + pieces(len(f.order))
	}
	next := func(f *CheckpointFabric, repositories []CheckpointRepository) error {
		part++
		return write(&Checkpoint{Part: part, Of: of, Journal: inv.journal, Expired: inv.expired, Repositories: repositories, Fabric: f})
	}

	var repositories []CheckpointRepository
	for _, name := range slices.Sorted(maps.Keys(inv.repositories)) {
		r := inv.repositories[name]
		repositories = append(repositories, CheckpointRepository{name, r.recorded, r.pushed})
	}
	if err := next(nil, repositories); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(inv.fabrics)) {
		f := inv.fabrics[name]
		keys := slices.SortedFunc(maps.Keys(f.objects), func(a, b key) int { return a.Key().Compare(b.Key()) })
		for first := true; first || len(keys) > 0; first = false {
			n := min(len(keys), checkpointPart)
			out := &CheckpointFabric{Name: name, Tree: f.tree, Applied: f.applied}
			for _, k := range keys[:n] {
				out.Objects = append(out.Objects, f.objects[k].checkpoint(k.Key()))
			}
			keys = keys[n:]
			if err := next(out, nil); err != nil {
				return err
			}
		}
		for blobs := range slices.Chunk(f.order, checkpointPart) {
			out := &CheckpointFabric{Name: name, Tree: f.tree, Applied: f.applied}
			for _, b := range blobs {
				out.Archived = append(out.Archived, CheckpointArchived{b, f.archived[b]})
			}
			if err := next(out, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func pieces(n int) int { return (n + checkpointPart - 1) / checkpointPart }

func (e *object) checkpoint(k Key) CheckpointObject {
	return CheckpointObject{
		Group: k.Group, Kind: k.Kind, Namespace: k.Namespace, Name: k.Name,
		Path: e.path, Blob: e.blob, RawPath: value(e.rawPath), RawBlob: value(e.rawBlob),
		Document: int(e.document), Line: int(e.line), Commit: value(e.commit), Since: e.since,
		AppliedBlob: e.appliedBlob, AppliedCommit: value(e.appliedCommit),
		ResourceVersion: e.resourceVersion, AppliedAt: e.appliedAt, Error: e.err,
	}
}

// load enters a part of a checkpoint. What the parts tell is in force once the
// last of them is there, in place of all that was known.
func (inv *Inventory) load(c *Checkpoint) {
	if c.Part == 1 {
		inv.loading, inv.parts = newInventory(), 0
		inv.loading.journal, inv.loading.expired = c.Journal, c.Expired
	}
	if inv.loading == nil || c.Part != inv.parts+1 {
		inv.loading, inv.parts = nil, 0 // a part is missing
		return
	}
	inv.parts = c.Part
	for _, r := range c.Repositories {
		inv.loading.repositories[r.Name] = repository{r.Recorded, r.Pushed}
	}
	if c.Fabric != nil {
		inv.loading.fabric(c.Fabric.Name).load(c.Fabric)
	}
	if c.Part == c.Of {
		l := inv.loading
		inv.journal, inv.expired, inv.repositories, inv.fabrics = l.journal, l.expired, l.repositories, l.fabrics
		inv.loading = nil
	}
}

func (f *fabric) load(c *CheckpointFabric) {
	f.tree, f.applied = c.Tree, c.Applied
	for i := range c.Objects {
		o := &c.Objects[i]
		e := &object{
			path: o.Path, blob: o.Blob, rawPath: shareable(o.RawPath), rawBlob: shareable(o.RawBlob), commit: shareable(o.Commit),
			document: int32(o.Document), line: int32(o.Line), since: o.Since,
			appliedBlob: o.AppliedBlob, appliedCommit: shareable(o.AppliedCommit),
			resourceVersion: o.ResourceVersion, appliedAt: o.AppliedAt, err: o.Error,
		}
		if e.appliedBlob == e.blob {
			e.appliedBlob = e.blob // one string for both
		}
		f.objects[Key{o.Group, o.Kind, o.Namespace, o.Name}.shared()] = e
	}
	for _, a := range c.Archived {
		f.archive(a.Blob, a.Commit)
	}
}

// shareable is the inverse of value.
func shareable(s string) shared {
	if s == "" {
		return shared{}
	}
	return unique.Make(s)
}

// complete reports whether c, having been entered, was the last part of a
// whole checkpoint.
func (inv *Inventory) complete(c *Checkpoint) bool { return c.Part == c.Of && inv.parts == c.Of }

// A replay is what Open learns from the records.
type replay struct {
	scanner   scanner
	inventory *Inventory
	damage    []Damage
	recorded  map[Damage]bool // by place, of what records say
	kept      map[string]bool // torn tails that they name
	segment   string          // whose checkpoint it began with, "" where it began with the first record
	head      int64           // how long that checkpoint is
}

// replayed reads the records from the newest segment on that begins with a
// good checkpoint; where there is none, all of them.
func replayed(dir string) (*replay, error) {
	names, err := segments(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	for _, name := range slices.Backward(names) {
		if segmentFirst(name) == 1 {
			break
		}
		p, err := replayFrom(dir, name)
		if err != nil || p.segment != "" {
			return p, err
		}
	}
	return replayFrom(dir, "")
}

// replayFrom reads the records from the segment name on. Where that does not
// begin with a good checkpoint, it stops there. An empty name means all.
func replayFrom(dir, name string) (*replay, error) {
	p := &replay{inventory: newInventory(), recorded: make(map[Damage]bool), kept: make(map[string]bool)}
	p.scanner = scanner{dir: dir, from: segmentFirst(name)}
	p.scanner.yield = func(r Record, err error) bool {
		if name != "" && p.segment == "" && (err != nil || r.Checkpoint == nil) {
			return false
		}
		var d *Damage
		switch {
		case errors.As(err, &d):
			p.damage = append(p.damage, *d)
		case r.Step == StepDamaged && r.Damage != nil:
			p.recorded[r.Damage.place()] = true
		case r.Step == StepTorn && r.Damage != nil:
			p.kept[r.Damage.Kept] = true
		}
		p.inventory.apply(r)
		if name != "" && p.segment == "" && p.inventory.complete(r.Checkpoint) {
			p.segment, p.head = name, p.scanner.behind
		}
		return true
	}
	return p, p.scanner.scan()
}

// beginsWithCheckpoint reports whether the segment name begins with a whole
// checkpoint, so that nothing before it is needed.
func beginsWithCheckpoint(dir, name string) (bool, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return false, err
	}
	defer f.Close()
	br := bufio.NewReaderSize(f, 64<<10)
	at := position{segmentFirst(name) - 1, ""}
	for part := 1; ; part++ {
		line, err := br.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return false, err
		}
		r, err := parseLine(line)
		if err != nil || r.Checkpoint == nil || r.Checkpoint.Part != part ||
			r.Seq != at.seq+1 || at.hash != "" && r.Prev != at.hash {
			return false, nil
		}
		if part == r.Checkpoint.Of {
			return true, nil
		}
		at = position{r.Seq, r.Hash}
	}
}

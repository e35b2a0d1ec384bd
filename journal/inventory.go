// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"
)

// archivedMax is how many raw blobs the inventory remembers for a fabric.
const archivedMax = 4096

// toldMax is for how many refused files of a fabric the inventory remembers
// when they arrived.
const toldMax = 1024

// Inventory is what each fabric should hold and what was applied to it, as
// the journal tells. [Journal.Inventory] is kept up with each Append; what
// [ReadInventory] returns stays as it is. Its methods may be called by
// several goroutines at once.
type Inventory struct {
	mu           sync.RWMutex
	repositories map[string]repository
	fabrics      map[string]*fabric
	journal      string // identity of the journal, "" before its first record
	expired      uint64

	loading *Inventory // what the parts of a checkpoint told so far, nil outside of one
	parts   int        // how many parts that were
}

type repository struct{ recorded, pushed string }

type fabric struct {
	objects  map[key]*object
	archived map[string]string // raw blob to commit
	order    []string          // blobs of archived, newest last
	told     []File            // that arrived and left no trace in git, newest last
	tree     string
	applied  string
}

// key and object hold a [Key] and the rest of an [Entry]. There can be 100,000
// of them, so what many have in common is stored once.
type key struct {
	group, kind, namespace shared
	name                   string
}

type object struct {
	path, blob               string // blob is "" where the object has left managed/
	rawPath, rawBlob, commit shared
	document, line           int32
	since                    int64 // Unix milliseconds

	appliedBlob     string // "" where it is not in the cluster by our hand
	appliedCommit   shared
	resourceVersion string
	appliedAt       int64
	err             string
}

type shared = unique.Handle[string]

func value(h shared) string {
	if h == (shared{}) {
		return ""
	}
	return h.Value()
}

func (k Key) shared() key {
	return key{unique.Make(k.Group), unique.Make(k.Kind), unique.Make(k.Namespace), k.Name}
}

func (k key) Key() Key {
	return Key{value(k.group), value(k.kind), value(k.namespace), k.name}
}

// Entry is one object of a fabric.
type Entry struct {
	Key
	Desired Desired // zero where the object has left managed/
	Left    string  // path of the managed file that it had, where it has left
	Applied Applied // zero where the object was not applied, or was pruned
	Error   string  // of the last attempt to apply or prune it, "" where that went well
}

// Desired is what a fabric should hold.
type Desired struct {
	Path, Blob       string    // managed file
	RawPath, RawBlob string    // the raw file that it came from; "" where managed/ was changed directly
	Document, Line   int       // there, both from 1
	Commit           string    // that holds this managed file
	Since            time.Time // when it was recorded, UTC
}

// Applied is what was last applied with success.
type Applied struct {
	Blob            string // of the managed file that was sent
	Commit          string // from which it was taken
	ResourceVersion string // in the cluster after that
	Time            time.Time
}

// State is how far an entry has come.
type State string

const (
	StatePending State = "pending" // to be applied as it is now
	StateApplied State = "applied" // the cluster has it
	StateFailed  State = "failed"  // the last attempt was refused
	StatePrune   State = "prune"   // has left managed/, is to be pruned
)

// State returns how far the entry has come.
func (e Entry) State() State {
	switch {
	case e.Error != "":
		return StateFailed
	case e.Desired.Blob == "":
		return StatePrune
	case e.Desired.Blob == e.Applied.Blob:
		return StateApplied
	}
	return StatePending
}

func newInventory() *Inventory {
	return &Inventory{repositories: make(map[string]repository), fabrics: make(map[string]*fabric)}
}

// ReadInventory builds the inventory of the journal in dir as it is now,
// without a lock, from the newest checkpoint on. Damage behind that is
// returned, joined, as an error beside the inventory of what is readable; with
// any other error there is no inventory.
func ReadInventory(dir string) (*Inventory, error) {
	p, err := replayed(dir)
	if err != nil {
		return nil, err
	}
	var damage []error
	for i := range p.damage {
		damage = append(damage, &p.damage[i])
	}
	return p.inventory, errors.Join(damage...)
}

// apply enters recs. The zero Record changes nothing.
func (inv *Inventory) apply(recs ...Record) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	for i := range recs {
		inv.enter(&recs[i])
	}
}

func (inv *Inventory) enter(r *Record) {
	if r.Step == "" {
		return
	}
	if r.Checkpoint != nil {
		inv.load(r.Checkpoint)
		return
	}
	inv.loading, inv.parts = nil, 0
	if inv.journal == "" {
		inv.journal = r.Hash
		if r.Seq == 2 {
			inv.journal = r.Prev // the first record is lost, its hash is not
		}
	}
	if r.Step == StepExpired && r.Expired != nil {
		inv.expired = r.Expired.Last
		return
	}
	if r.Step == StepDamaged {
		for _, f := range inv.fabrics {
			f.tree = ""
		}
		return
	}
	if r.Fabric != "" && (r.Step == StepApply || r.Step == StepDrift || r.Step == StepPrune) {
		inv.fabric(r.Fabric).live(r)
		return
	}
	if r.Error != "" {
		return
	}
	if r.Repository != "" && r.To != "" {
		repo := inv.repositories[r.Repository]
		switch r.Step {
		case StepPull:
			repo.recorded, repo.pushed = r.To, r.To
		case StepCommit, StepReplan:
			repo.recorded = r.To
		case StepPush:
			repo.pushed = r.To
		}
		inv.repositories[r.Repository] = repo
	}
	if r.Fabric != "" && r.File != nil && !r.File.Arrived.IsZero() {
		f := inv.fabric(r.Fabric)
		f.told = append(f.told[max(0, len(f.told)+1-toldMax):], *r.File)
	}
	if r.Fabric != "" {
		switch r.Step {
		case StepIngest, StepManaged, StepRecovered, StepReplan, StepPull, StepCommit:
			inv.fabric(r.Fabric).desire(r)
		}
	}
}

func (inv *Inventory) fabric(name string) *fabric {
	f := inv.fabrics[name]
	if f == nil {
		f = &fabric{objects: make(map[key]*object), archived: make(map[string]string)}
		inv.fabrics[name] = f
	}
	return f
}

// desire enters what r says that the fabric should hold.
func (f *fabric) desire(r *Record) {
	if r.Tree != "" {
		f.tree = r.Tree
	}
	var rawPath, rawBlob shared
	if r.File != nil {
		if r.File.Outcome == Rejected {
			return
		}
		rawPath, rawBlob = unique.Make(r.File.Path), unique.Make(r.File.Blob)
		if r.File.Blob != "" && r.File.Commit != "" {
			f.archive(r.File.Blob, r.File.Commit)
			if r.File.PartOf != "" {
				f.archive(partOf+r.File.PartOf, r.File.Commit)
			}
		}
	}
	commit := unique.Make(r.To)
	for i := range r.Objects {
		o := &r.Objects[i]
		k := o.Key().shared()
		e := f.objects[k]
		switch o.Outcome {
		case Removed:
			if e == nil {
				continue
			}
			if e.appliedBlob == "" {
				delete(f.objects, k)
				continue
			}
			*e = object{path: e.path, appliedBlob: e.appliedBlob, appliedCommit: e.appliedCommit,
				resourceVersion: e.resourceVersion, appliedAt: e.appliedAt}
		case Created, Updated, Unchanged:
			if e == nil {
				e = new(object)
				f.objects[k] = e
			}
			if e.blob != o.Blob {
				e.err = "" // it was about another text
			} else if o.Outcome == Unchanged {
				continue // the text came from the file that is entered already
			}
			e.path, e.blob = o.Path, o.Blob
			e.rawPath, e.rawBlob, e.commit = rawPath, rawBlob, commit
			e.document, e.line = int32(o.Document), int32(o.Line)
			e.since = r.Time.UnixMilli()
		}
	}
}

// archive enters that commit holds the bytes of blob.
func (f *fabric) archive(blob, commit string) {
	if _, ok := f.archived[blob]; ok {
		i := slices.Index(f.order, blob)
		f.order = slices.Delete(f.order, i, i+1)
	}
	f.archived[blob] = commit
	f.order = append(f.order, blob)
	if len(f.order) > archivedMax {
		delete(f.archived, f.order[0])
		f.order = f.order[1:]
	}
}

// live enters what r says of the cluster.
func (f *fabric) live(r *Record) {
	ok := r.Error == ""
	commit := unique.Make(r.To)
	for i := range r.Objects {
		o := &r.Objects[i]
		k := o.Key().shared()
		e := f.objects[k]
		switch o.Outcome {
		case Created, Configured, Unchanged:
			if e == nil {
				e = new(object)
				f.objects[k] = e
			}
			e.appliedBlob = o.Blob
			if o.Blob == e.blob {
				e.appliedBlob = e.blob // one string for both
			}
			e.appliedCommit, e.resourceVersion, e.appliedAt = commit, o.ResourceVersion, r.Time.UnixMilli()
			e.err = ""
		case Pruned, Gone, Skipped:
			if e == nil {
				continue
			}
			if e.blob == "" {
				delete(f.objects, k)
				continue
			}
			e.appliedBlob, e.appliedCommit, e.resourceVersion, e.appliedAt, e.err = "", shared{}, "", 0, ""
		case Failed, Drifted:
			ok = false
			if e != nil {
				e.err = cmp.Or(o.Error, r.Error, "failed")
			}
		}
	}
	if ok && r.Step == StepApply && r.To != "" {
		f.applied = r.To
	}
}

func (e *object) entry(k Key) Entry {
	out := Entry{Key: k, Error: e.err}
	if e.blob == "" {
		out.Left = e.path
	} else {
		out.Desired = Desired{
			Path: e.path, Blob: e.blob,
			RawPath: value(e.rawPath), RawBlob: value(e.rawBlob),
			Document: int(e.document), Line: int(e.line),
			Commit: value(e.commit), Since: time.UnixMilli(e.since).UTC(),
		}
	}
	if e.appliedBlob != "" {
		out.Applied = Applied{
			Blob: e.appliedBlob, Commit: value(e.appliedCommit),
			ResourceVersion: e.resourceVersion, Time: time.UnixMilli(e.appliedAt).UTC(),
		}
	}
	return out
}

// Fabrics returns the names of all fabrics that the journal knows, in order;
// they need not be configured any more.
func (inv *Inventory) Fabrics() []string {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return slices.Sorted(maps.Keys(inv.fabrics))
}

// Get returns the entry of one object of a fabric.
func (inv *Inventory) Get(fabric string, k Key) (Entry, bool) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	f := inv.fabrics[fabric]
	if f == nil {
		return Entry{}, false
	}
	e := f.objects[k.shared()]
	if e == nil {
		return Entry{}, false
	}
	return e.entry(k), true
}

// Objects returns the entries of a fabric, those to be pruned among them,
// ordered by group, kind, namespace and name.
func (inv *Inventory) Objects(fabric string) []Entry {
	inv.mu.RLock()
	var entries []Entry
	if f := inv.fabrics[fabric]; f != nil {
		entries = make([]Entry, 0, len(f.objects))
		for k, e := range f.objects {
			entries = append(entries, e.entry(k.Key()))
		}
	}
	inv.mu.RUnlock()
	slices.SortFunc(entries, func(a, b Entry) int { return a.Key.Compare(b.Key) })
	return entries
}

// Unapplied returns the entries of a fabric that are not [StateApplied], in no
// order.
func (inv *Inventory) Unapplied(fabric string) []Entry {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	f := inv.fabrics[fabric]
	if f == nil {
		return nil
	}
	var entries []Entry
	for k, e := range f.objects {
		if e.blob == "" || e.blob != e.appliedBlob || e.err != "" {
			entries = append(entries, e.entry(k.Key()))
		}
	}
	return entries
}

// Compare orders keys by group, kind, namespace and name.
func (k Key) Compare(o Key) int {
	return cmp.Or(strings.Compare(k.Group, o.Group), strings.Compare(k.Kind, o.Kind),
		strings.Compare(k.Namespace, o.Namespace), strings.Compare(k.Name, o.Name))
}

// Counts are the entries of a fabric by their state.
type Counts struct{ Pending, Applied, Failed, Prune int }

// Counts counts the entries of a fabric.
func (inv *Inventory) Counts(fabric string) Counts {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	var c Counts
	f := inv.fabrics[fabric]
	if f == nil {
		return c
	}
	for _, e := range f.objects {
		switch (Entry{Desired: Desired{Blob: e.blob}, Applied: Applied{Blob: e.appliedBlob}, Error: e.err}).State() {
		case StatePending:
			c.Pending++
		case StateApplied:
			c.Applied++
		case StateFailed:
			c.Failed++
		case StatePrune:
			c.Prune++
		}
	}
	return c
}

// Archived returns a commit that holds a file of the fabric with exactly the
// bytes of blob, as recorded for one of the last 4096 different files.
func (inv *Inventory) Archived(fabric, blob string) (commit string, ok bool) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	if f := inv.fabrics[fabric]; f != nil {
		commit, ok = f.archived[blob]
	}
	return commit, ok
}

// partOf is before the blob of a file of which only a part is archived.
const partOf = "part of "

// ArchivedPart returns a commit that holds a part of the file of the fabric
// with exactly the bytes of blob, as [Inventory.Archived] does for a whole one.
func (inv *Inventory) ArchivedPart(fabric, blob string) (commit string, ok bool) {
	return inv.Archived(fabric, partOf+blob)
}

// Told reports whether one of the last records tells of that very file: of the
// same path, blob and arrival, one of those that leave no trace in git. Only
// the records since the last checkpoint count, since this is for what was
// recorded immediately before a crash.
func (inv *Inventory) Told(fabric string, file File) bool {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	f := inv.fabrics[fabric]
	return f != nil && slices.ContainsFunc(f.told, func(t File) bool {
		return t.Path == file.Path && t.Blob == file.Blob && t.Arrived.Equal(file.Arrived)
	})
}

// Tree returns the git tree of managed/ that the entries of the fabric account
// for. It is "" where that is not known: before the first record of the
// fabric, and after damage to the journal. Then, and where the branch has
// another tree, the entries have to be compared with git and the differences
// recorded, before anything is pruned.
func (inv *Inventory) Tree(fabric string) string {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	if f := inv.fabrics[fabric]; f != nil {
		return f.tree
	}
	return ""
}

// Applied returns the newest commit that was applied to the fabric without
// any failure, "" where there is none.
func (inv *Inventory) Applied(fabric string) (commit string) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	if f := inv.fabrics[fabric]; f != nil {
		return f.applied
	}
	return ""
}

// Recorded returns the commit of the repository's branch up to which the
// journal accounts for what happened, "" where there is none.
func (inv *Inventory) Recorded(repository string) (commit string) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.repositories[repository].recorded
}

// Journal returns the identity of the journal, which it keeps for good: the
// hash of its first record, "" before that. Where the first record cannot be
// read and no other one tells its hash, it is that of the first that can.
func (inv *Inventory) Journal() string {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.journal
}

// Expired returns the number of the last record that was removed because it
// was past the age or size that is kept, 0 where none was.
func (inv *Inventory) Expired() uint64 {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.expired
}

// Pushed returns the newest commit that is known to be on the remote's branch,
// "" where there is none.
func (inv *Inventory) Pushed(repository string) (commit string) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.repositories[repository].pushed
}

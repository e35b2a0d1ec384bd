// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"strings"
	"time"
)

// Step says what a record tells of.
type Step string

// The steps of the cycle, in its order.
const (
	// StepPull: the clone was made or moved on to the remote's tip, From..To.
	StepPull Step = "pull"
	// StepManaged: commits of other people changed managed/ itself, not by
	// way of raw/. The first look at a fabric whose managed/ is not empty is
	// such a change, too.
	StepManaged Step = "managed"
	// StepAside: local work that is no input (an edit in managed/, a commit
	// that the remote's branch went without) was moved out of the way, as Note
	// or File.Kept tells, and the clone put right.
	StepAside Step = "aside"
	// StepDrop: a file found in raw/ was committed as it was dropped, in
	// File.Commit.
	StepDrop Step = "drop"
	// StepReject: a file was refused, for the reasons in Problems; it lies in
	// File.Kept now.
	StepReject Step = "reject"
	// StepIngest: a file became managed files, in the commit To; or was found
	// to hold nothing new (File.Outcome is [Already]).
	StepIngest Step = "ingest"
	// StepCommit: commits were made on the branch, From..To.
	StepCommit Step = "commit"
	// StepReplan: another clone pushed first; the unpushed commits up to From
	// were planned anew on the remote's tip, as Commits up to To.
	StepReplan Step = "replan"
	// StepPush: the remote took Commits; its branch is at To.
	StepPush Step = "push"
	// StepApply: objects were sent to the cluster as they are in the commit To.
	StepApply Step = "apply"
	// StepDrift: objects that somebody else had changed or deleted in the
	// cluster were put right, or found and left so (Outcome [Drifted]), while
	// their managed files stayed the same, as Object.Drift tells.
	StepDrift Step = "drift"
	// StepPrune: objects that had left managed/ were deleted in the cluster.
	StepPrune Step = "prune"
	// StepRollout: the agents of all switches have applied the configuration
	// that the change of the cluster to the commit To led to, Took after that
	// began; or have not, as Error says, and are not waited for any longer.
	StepRollout Step = "rollout"
)

// Steps outside of the order.
const (
	// StepRecovered: the inventory did not agree with managed/ in git, though
	// it should have; it follows it again by this record.
	StepRecovered Step = "recovered"
	// StepFault: something that the cycle needs (the remote, a cluster, the
	// disk) fails, as Error says; recorded when that begins, not at each
	// attempt.
	StepFault Step = "fault"
	// StepClear: a fault is over; Took is how long it was.
	StepClear Step = "clear"
	// StepStart: the daemon started.
	StepStart Step = "start"
	// StepReload: the daemon reread its configuration.
	StepReload Step = "reload"
	// StepStop: the daemon stopped in an orderly way.
	StepStop Step = "stop"
)

// Steps of the journal itself, which writes them.
const (
	// StepTorn: a torn tail was cut off and lies in Damage.Kept.
	StepTorn Step = "torn"
	// StepDamaged: damage was found, which stays as it is; the journal goes
	// on in a new segment, in which this record follows the checkpoint.
	StepDamaged Step = "damaged"
	// StepCheckpoint: a part of the state that follows from all records
	// before; each segment but the first begins with such records.
	StepCheckpoint Step = "checkpoint"
	// StepExpired: the segments that hold the records Expired are removed,
	// being past the age or size that is kept.
	StepExpired Step = "expired"
)

// What became of a file or an object.
const (
	Created    = "created"    // ingest: new in managed/; apply: new in the cluster
	Updated    = "updated"    // ingest: its managed file changed
	Unchanged  = "unchanged"  // ingest, apply: was as it should be
	Removed    = "removed"    // ingest, managed: its managed file is gone
	Configured = "configured" // apply: changed in the cluster
	Pruned     = "pruned"     // prune: deleted in the cluster
	Gone       = "gone"       // prune: somebody else had deleted it
	Skipped    = "skipped"    // prune: left there, because it is no longer ours
	Failed     = "failed"     // apply, prune: refused, see Error
	Drifted    = "drifted"    // drift: not as it should be, and left so for the reason in Error

	Ingested = "ingested" // file: its documents are in managed/
	Rejected = "rejected" // file: refused as a whole
	Already  = "already"  // file: history held its bytes, and it changed no object
)

// How a file came into raw/.
const (
	Dropped = "dropped" // put there on this host
	Pulled  = "pulled"  // by a commit of the remote
)

// Record is one entry of the journal. Which members a step uses stands in the
// package documentation; those that are empty are left out of the line.
type Record struct {
	// Seq is the sequence number, from 1; [Journal.Append] fills it.
	Seq uint64 `json:"seq"`
	// Part and Of say that this is record Part (from 1) of the Of records of
	// one append; both are 0 where it is the only one. Append fills them.
	Part int `json:"part,omitempty"`
	Of   int `json:"of,omitempty"`
	// Time is when it happened, in UTC, to the millisecond. Append fills in
	// the present where it is zero.
	Time time.Time `json:"time"`

	Cycle      string `json:"cycle,omitempty"` // identifies the run of the cycle
	Repository string `json:"repository,omitempty"`
	Fabric     string `json:"fabric,omitempty"`
	Step       Step   `json:"step"`

	Branch  string   `json:"branch,omitempty"`  // short name, like "main"
	From    string   `json:"from,omitempty"`    // commit before, "" where there was none
	To      string   `json:"to,omitempty"`      // commit after
	Commits []string `json:"commits,omitempty"` // what lies between, oldest first

	File     *File     `json:"file,omitempty"`     // what came in
	Objects  []Object  `json:"objects,omitempty"`  // what became of each
	Tree     string    `json:"tree,omitempty"`     // git tree of managed/ that the journal accounts for from here on
	Problems []Problem `json:"problems,omitempty"` // why a file was rejected

	Error  string        `json:"error,omitempty"`  // why the step as a whole failed
	Note   string        `json:"note,omitempty"`   // for people
	Took   time.Duration `json:"tookNs,omitempty"` // nanoseconds
	Damage *Damage       `json:"damage,omitempty"` // of the journal itself

	Checkpoint *Checkpoint `json:"checkpoint,omitempty"`
	Expired    *Expired    `json:"expired,omitempty"`

	// Prev is the hash of the record before, Hash that of this one, both in
	// hexadecimal; the package documentation defines them. Append fills them.
	Prev string `json:"prev"`
	Hash string `json:"hash,omitempty"`
}

// File is a file that came in through raw/.
type File struct {
	Path    string `json:"path"`              // in the repository, with slashes
	Blob    string `json:"blob,omitempty"`    // git blob id of its exact bytes
	Origin  string `json:"origin,omitempty"`  // [Dropped] or [Pulled]
	Owner   string `json:"owner,omitempty"`   // of the dropped file; or author of the commit that brought it
	Commit  string `json:"commit,omitempty"`  // that brought it, or that holds it as it was dropped
	Size    int64  `json:"size,omitempty"`    // bytes
	Outcome string `json:"outcome,omitempty"` // [Ingested], [Rejected] or [Already]
	Kept    string `json:"kept,omitempty"`    // where a file lies that was rejected or set aside
	PartOf  string `json:"partOf,omitempty"`  // git blob of the file of which this is only a part; the rest has a record of its own

	// Arrived is the ctime of a dropped file that leaves no trace in git, to the
	// nanosecond. By it the file is recognised where a crash came before it
	// left raw/: see [Inventory.Told].
	Arrived time.Time `json:"arrived,omitzero"`
}

// Object is what one step did with one Kubernetes object.
type Object struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`

	Document int    `json:"document,omitempty"` // in the raw file, from 1
	Line     int    `json:"line,omitempty"`     // where the document begins there, from 1
	Path     string `json:"path,omitempty"`     // managed file, in the repository
	Blob     string `json:"blob,omitempty"`     // git blob id of the managed file

	Outcome         string `json:"outcome"`
	ResourceVersion string `json:"resourceVersion,omitempty"` // in the cluster, after the step
	Error           string `json:"error,omitempty"`           // the API server's own words
	From            string `json:"from,omitempty"`            // for people: where an object stands that was refused, if that is known
	Drift           *Drift `json:"drift,omitempty"`           // what others had done to it
}

// Drift is what somebody else changed in an object in the cluster.
type Drift struct {
	Field   string    `json:"field,omitempty"`   // one of the fields, as in ".spec.vlan"; "" where the object was deleted
	Manager string    `json:"manager,omitempty"` // the field manager who did; "" where nobody left a name
	Time    time.Time `json:"time,omitzero"`     // when, to the second, as the API server has it
}

// String tells it as a part of a sentence about the object.
func (d *Drift) String() string {
	by := ""
	if d.Manager != "" {
		by = " by " + d.Manager
	}
	if !d.Time.IsZero() {
		by += " at " + d.Time.UTC().Format(time.RFC3339)
	}
	if d.Field == "" {
		return "was deleted" + by
	}
	return d.Field + " was changed" + by
}

// Key returns the identity of the object.
func (o Object) Key() Key { return Key{o.Group, o.Kind, o.Namespace, o.Name} }

// Problem is one reason for which a file was rejected.
type Problem struct {
	Document int    `json:"document,omitempty"` // from 1; 0 where it concerns the whole file
	Line     int    `json:"line,omitempty"`     // in the file, from 1; 0 where there is none
	Column   int    `json:"column,omitempty"`   // from 1; 0 where there is none
	Code     string `json:"code"`               // stable, like "HH203"
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"` // what to do
}

// Damage is a place where the journal is not what was written. As an error it
// reads as one line.
type Damage struct {
	Segment string `json:"segment"`         // name of its file in the directory
	Offset  int64  `json:"offset"`          // of its first byte
	Bytes   int64  `json:"bytes,omitempty"` // how many are unusable; 0 where some are missing
	Seq     uint64 `json:"seq"`             // number of the first record that is lost or doubtful
	Last    uint64 `json:"last,omitempty"`  // number of the last one lost; 0 where none or not known
	What    string `json:"what"`
	Kept    string `json:"kept,omitempty"` // name of the file that holds a torn tail now
}

func (d *Damage) Error() string {
	s := fmt.Sprintf("journal segment %s, byte %d, record %d: %s", d.Segment, d.Offset, d.Seq, d.What)
	switch {
	case d.Last == d.Seq:
		s += fmt.Sprintf("; record %d is lost", d.Seq)
	case d.Last > d.Seq:
		s += fmt.Sprintf("; records %d to %d are lost", d.Seq, d.Last)
	}
	return s
}

// Expired are the oldest records, which were removed.
type Expired struct {
	First    uint64 `json:"first"` // number of the first one that was there
	Last     uint64 `json:"last"`  // and of the last one that is not any more
	Segments int    `json:"segments"`
	Bytes    int64  `json:"bytes"`
}

// Key identifies an object in a fabric.
type Key struct {
	Group, Kind, Namespace, Name string
}

// String returns Kind/name, or Kind/namespace/name where there is a namespace
// other than "default".
func (k Key) String() string {
	if k.Namespace == "" || k.Namespace == "default" {
		return k.Kind + "/" + k.Name
	}
	return k.Kind + "/" + k.Namespace + "/" + k.Name
}

// Match reports whether s names the object: as name, Kind/name or
// Kind/namespace/name. Upper and lower case are the same in the kind, which
// may be followed by a dot and the group, as in kubectl.
func (k Key) Match(s string) bool {
	parts := strings.Split(s, "/")
	if parts[len(parts)-1] != k.Name {
		return false
	}
	switch len(parts) {
	case 1:
		return true
	case 3:
		if parts[1] != k.Namespace {
			return false
		}
		fallthrough
	case 2:
		return strings.EqualFold(parts[0], k.Kind) || strings.EqualFold(parts[0], k.Kind+"."+k.Group)
	}
	return false
}

// Filter selects records. Empty members select everything, the others must
// all be met. Checkpoints, which tell nothing new, are never selected.
type Filter struct {
	Since, Until time.Time // from Since on, before Until
	Repository   string
	Fabric       string
	Object       string // as [Key.Match] has it
	File         string // path of a raw or a managed file, or the end of one from a slash on
	Commit       string // id, or the beginning of one: commits made, pulled, pushed, applied or holding the file
	Cycle        string
}

// Match reports whether f selects r.
func (f Filter) Match(r Record) bool {
	switch {
	case r.Step == StepCheckpoint,
		!f.Since.IsZero() && r.Time.Before(f.Since),
		!f.Until.IsZero() && !r.Time.Before(f.Until),
		f.Repository != "" && f.Repository != r.Repository,
		f.Fabric != "" && f.Fabric != r.Fabric,
		f.Cycle != "" && f.Cycle != r.Cycle,
		f.Object != "" && !f.object(r),
		f.File != "" && !f.file(r),
		f.Commit != "" && !f.commit(r):
		return false
	}
	return true
}

func (f Filter) object(r Record) bool {
	for _, o := range r.Objects {
		if o.Key().Match(f.Object) {
			return true
		}
	}
	return false
}

func (f Filter) file(r Record) bool {
	ends := func(path string) bool {
		return path == f.File || strings.HasSuffix(path, "/"+f.File)
	}
	if r.File != nil && (ends(r.File.Path) || ends(r.File.Kept)) {
		return true
	}
	for _, o := range r.Objects {
		if ends(o.Path) {
			return true
		}
	}
	return false
}

func (f Filter) commit(r Record) bool {
	if strings.HasPrefix(r.To, f.Commit) || r.File != nil && strings.HasPrefix(r.File.Commit, f.Commit) {
		return true
	}
	for _, c := range r.Commits {
		if strings.HasPrefix(c, f.Commit) {
			return true
		}
	}
	return false
}

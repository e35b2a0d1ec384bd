// SPDX-License-Identifier: Apache-2.0

// Package journal is the memory of hhwatchd: an append-only, hash-chained
// record of everything that came in, what became of it, and what was
// committed, pushed, applied, pruned, refused and repaired.
//
// The cycle appends a [Record] for each step that cannot be undone. What
// belongs together goes into one [Journal.Append], which is all or nothing and
// returns when it is on disk. From the records follows the [Inventory]: what
// each fabric should hold, whence, and whether it has been applied. It is
// nothing but a view: replaying the journal always gives the same inventory.
//
//	j, err := journal.Open("/var/lib/hhwatchd/journal")
//	...
//	err = j.Append(ingested, committed) // one write, one fsync
//	e, ok := j.Inventory().Get("fabric-1", key)
//
// [Read], [Follow] and [Verify] need no [Journal] and take no lock: they work
// on the files, beside a daemon that is appending to them.
//
// # Format
//
// A journal is a directory of segments. A segment is named by the sequence
// number of its first record, in 20 digits, and ".jsonl"; the names sort in
// the order of the records. A segment holds one record a line, as a JSON
// object in UTF-8, each line ended by a newline (0x0A). Its first member is
// "seq", its last two are "prev" and "hash":
//
//	{"seq":7,"time":"2026-11-23T06:34:00.123Z",…,"prev":"<64 hex>","hash":"<64 hex>"}
//
// The hash of a record is the SHA-256, in 64 lower-case hexadecimal digits, of
// the bytes of its line that stand before the text
//
//	,"hash":"
//
// at its end, that is, of the line without its last 76 bytes (the 9 of that
// text, 64 digits, a quote, a brace and the newline). "prev" is the hash of
// the record before it, in whichever segment that stands; for the first
// record of a journal it is 64 zeros. As "prev" is among the bytes that are
// hashed, the hash of the newest record vouches for the whole journal before
// it. The program testdata/verify.sh checks that with a shell and sha256sum.
//
// Sequence numbers begin at 1 and grow by 1. The records of one Append that
// has more than one carry "part" and "of": part 2 of 3. They are in one
// segment. A reader has to take them all or none: an append whose last part is
// not there has not happened.
//
// # Checkpoints
//
// Each segment but the first begins with a checkpoint: records of
// [StepCheckpoint] that hold the whole inventory as it follows from all records
// before, no more than 500 objects each. Their "part" and "of" are their own:
// each is an append by itself, so that no line is long and none has to wait in
// memory for the next. As they stand in the chain like any other record, the
// hash of the newest record vouches for them, too. The new segment is written
// beside with its checkpoint, flushed and renamed, so it is there as a whole or
// not at all.
//
// [Open] reads from the newest checkpoint on that is whole; if the newest one
// is damaged, from the one before it, and where there is none, from the first
// record. So a start takes as long as a segment is large, not as the journal is
// old. The price is that damage in an older segment is not met at a start: it
// was reported when it was met, or it does not matter to the inventory any
// more; [Verify] finds it in any case. It also finds a checkpoint that is not
// what follows from the records before it.
//
// [Journal.Expire] removes the oldest segments. What is needed of them stands
// in the checkpoint at the beginning of the first that stays, and that they
// were removed in a record of [StepExpired], so that a segment which somebody
// else removes is missed. Nothing is checkpointed or removed while nothing is
// appended: an idle daemon does not write.
//
// A journal has an identity, the hash of its first record, which checkpoints
// carry on ([Inventory.Journal]).
//
// A member that a reader does not know is to be ignored, a step likewise.
// Strings that are no valid UTF-8 (file names may be) are written with U+FFFD
// for each bad byte.
//
// # What a crash can leave
//
// Append writes its lines with one write at the end of the newest segment and
// calls fsync; nothing is appended before that has succeeded. So a crash or a
// power loss can only damage the last append, and in any way: short, with
// holes, with foreign bytes. This is called a torn tail: everything after the
// last complete append, provided that no record of a later append follows.
// [Open] copies it to <segment>.torn-<n>, truncates the segment, and appends a
// record of [StepTorn] which says so.
//
//	state found by Open                      what it does
//	no directory, no segment                 makes them
//	a segment that is being begun (*.tmp)    removes it
//	a segment with nothing but a checkpoint  appends to it
//	torn tail                                copies it aside, cuts it off, records the cut
//	same, and a copy of those bytes          keeps that copy, cuts, records (crash while cutting)
//	a copy that no record tells of           records it (crash after cutting)
//	damage anywhere else                     records it in a new segment, behind its checkpoint
//	oldest segments that an expiry left      leaves them to the next Expire
//
// Anything else that is wrong is damage: a line that does not match its hash,
// a record that is missing, repeated or does not follow from the one before.
// It is reported with its place, never repaired, and the bytes stay where they
// are. Records on either side of it are good by their own hashes and are used.
// As what was lost may have changed the inventory, the record of
// [StepDamaged] makes the inventory forget which managed trees it accounts
// for ([Inventory.Tree]), so that the next cycle compares it with git.
//
// A bit that flips in the last append cannot be told from a torn write, and is
// treated as one.
//
// A write that fails (a full disk) is cut off again at once; while that is
// not possible, Append refuses to go on.
//
// # What the records carry
//
// The inventory follows from these members; the others are for people. A
// record with an Error changes nothing in it, apply, drift and prune aside.
//
//	pull                the commit To of Repository is accounted for
//	                    (Inventory.Recorded) and on the remote (Inventory.Pushed)
//	commit, replan      the commit To of Repository is accounted for
//	push                the commit To of Repository is on the remote
//	pull, managed,      what Fabric should hold: Objects with identity, Path, Blob and
//	ingest, commit,     Outcome created, updated, unchanged or removed, as they are in the
//	replan, recovered   commit To; where they came from: File with Path, Blob and Commit, and
//	                    the Document and Line of each object; all of this accounts for
//	                    the managed tree Tree (Inventory.Tree)
//	apply               what Fabric has: Objects with identity, Blob, ResourceVersion and
//	                    Outcome created, configured, unchanged, or failed with Error; where
//	                    nothing failed, the commit To is applied (Inventory.Applied)
//	drift               likewise, with Outcome drifted, too, with Error
//	prune               likewise, with Outcome pruned or failed
//	rollout             nothing; Took is from the beginning of the change until the
//	                    switches had it, Error which of them have not
//	damaged             no tree is accounted for any more
//	checkpoint          all of it, in place of what was known
//	expired             the records up to Expired.Last are gone (Inventory.Expired)
package journal

// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"log/slog"
	"strconv"

	journald "github.com/coreos/go-systemd/v22/journal"
)

// messageIDs are the MESSAGE_IDs by which journald's catalog and
// `journalctl MESSAGE_ID=` know the steps. They never change.
var messageIDs = map[Step]string{
	StepPull:      "a0fd363fb99e4e339437a401703ab2a4",
	StepManaged:   "09ac772bc0fa4b68b15017d579b9a674",
	StepAside:     "c69a09133d1743ac942673291ff6dbe1",
	StepDrop:      "378f466bf68a44b2b747f75941346ec0",
	StepReject:    "aa23bdc3108a47ffbb4a4f9062d70eeb",
	StepIngest:    "e8ba2ec9c5db4acc810a992a5c529065",
	StepCommit:    "0f5ed028cef64700bbb67540840ffcc3",
	StepReplan:    "a8f04809460c4842bbdf28167adfac77",
	StepPush:      "f71bebaddf9c4756b7fd5d5b4092dc5a",
	StepApply:     "2259c5869e3a4a3a8eea5fef89d6930a",
	StepDrift:     "f0fc46e2a1eb4a42806ba78a1492107f",
	StepPrune:     "04638442171e4a75a14371072e710eea",
	StepRollout:   "9371d31b322143ab82b556701dda46c0",
	StepRecovered: "b0ce778b35f54561877129a8d38adfd9",
	StepFault:     "1fee0624cea0485192094af4ebf02eb3",
	StepClear:     "8766b4004f974a348b54324d6138b175",
	StepStart:     "55cae335c5fb4526a72c7897613e0a69",
	StepReload:    "25a885411381460d9edec4592ec9d6cc",
	StepStop:      "c0d60d2ed5534f28852d5489e5d35f0b",
	StepTorn:      "54630ce0d5374b97858f892c85db2173",
	StepDamaged:   "a33d4606bf4f4cb7a727ef4f22841a57",
	StepExpired:   "1d305de7868d4c2696485b6c4acf9a30",
}

// Mirror sends r to journald over its native socket, so that
// `journalctl -t hhwatchd HHWATCHD_FABRIC=fabric-1` is the history of that
// fabric. The message is [Record.String]; what the fields are stands in
// systemd.journal-fields(7), those that begin with HHWATCHD_ are ours.
//
// journald may drop messages under load (RateLimitBurst= in journald.conf(5)):
// it has a copy, the journal has the records.
func Mirror(r Record) error {
	if err := journald.Send(r.String(), priorities[r.Level()], r.fields()); err != nil {
		return fmt.Errorf("mirroring record %d to journald: %w", r.Seq, err)
	}
	return nil
}

// priorities are those of syslog(3).
var priorities = map[slog.Level]journald.Priority{
	slog.LevelError: journald.PriErr,
	slog.LevelWarn:  journald.PriWarning,
	slog.LevelInfo:  journald.PriInfo,
}

// Level is Error where something failed, Warn where a person may have to
// look, and Info otherwise.
func (r Record) Level() slog.Level {
	if r.Error != "" || r.Step == StepDamaged {
		return slog.LevelError
	}
	for _, o := range r.Objects {
		if o.Outcome == Failed {
			return slog.LevelError
		}
	}
	switch r.Step {
	case StepReject, StepAside, StepDrift, StepTorn, StepRecovered:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// fields are the journald fields of r but MESSAGE and PRIORITY; there are no
// empty ones.
func (r *Record) fields() map[string]string {
	commit, file, object := r.To, "", ""
	if r.File != nil {
		file = r.File.Path
		if commit == "" {
			commit = r.File.Commit
		}
	}
	if len(r.Objects) == 1 {
		object = r.Objects[0].Key().String()
	}
	fields := map[string]string{
		"SYSLOG_IDENTIFIER":   "hhwatchd",
		"MESSAGE_ID":          messageIDs[r.Step],
		"HHWATCHD_REPOSITORY": r.Repository,
		"HHWATCHD_FABRIC":     r.Fabric,
		"HHWATCHD_CYCLE":      r.Cycle,
		"HHWATCHD_STEP":       string(r.Step),
		"HHWATCHD_COMMIT":     commit,
		"HHWATCHD_FILE":       file,
		"HHWATCHD_OBJECT":     object,
	}
	if r.Seq > 0 {
		fields["HHWATCHD_SEQ"] = strconv.FormatUint(r.Seq, 10)
	}
	for name, value := range fields {
		if value == "" {
			delete(fields, name)
		}
	}
	return fields
}

// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestFields(t *testing.T) {
	r := Record{Seq: 7, Cycle: "c1", Repository: "site-a", Fabric: "fabric-1", Step: StepIngest, To: "3f2a91c",
		File:    &File{Path: "f/raw/a.yaml", Commit: "0abcdef"},
		Objects: []Object{{Kind: "VPC", Name: "vpc-1", Outcome: Created}}}
	want := map[string]string{
		"SYSLOG_IDENTIFIER": "hhwatchd", "MESSAGE_ID": "e8ba2ec9c5db4acc810a992a5c529065",
		"HHWATCHD_REPOSITORY": "site-a", "HHWATCHD_FABRIC": "fabric-1", "HHWATCHD_CYCLE": "c1", "HHWATCHD_STEP": "ingest",
		"HHWATCHD_COMMIT": "3f2a91c", "HHWATCHD_FILE": "f/raw/a.yaml", "HHWATCHD_OBJECT": "VPC/vpc-1", "HHWATCHD_SEQ": "7",
	}
	if got := r.fields(); !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	r.To = ""
	r.Objects = append(r.Objects, r.Objects[0])
	want["HHWATCHD_COMMIT"] = "0abcdef"
	delete(want, "HHWATCHD_OBJECT")
	if got := r.fields(); !maps.Equal(got, want) {
		t.Errorf("two objects, no commit: got %v", got)
	}
	r = Record{Step: "later"}
	want = map[string]string{"SYSLOG_IDENTIFIER": "hhwatchd", "HHWATCHD_STEP": "later"}
	if got := r.fields(); !maps.Equal(got, want) {
		t.Errorf("little: got %v", got)
	}
}

func TestMessageIDs(t *testing.T) {
	seen := make(map[string]Step)
	for step, id := range messageIDs {
		if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
			t.Errorf("%s: %q is not what sd_id128 takes", step, id)
		}
		if other, ok := seen[id]; ok {
			t.Errorf("%s and %s have the same", step, other)
		}
		seen[id] = step
	}
}

// TestCatalog holds what journalctl -x prints to the messages that there are.
func TestCatalog(t *testing.T) {
	data, err := os.ReadFile("../packaging/systemd/hhwatchd.catalog")
	if err != nil {
		t.Fatal(err)
	}
	entries := strings.Split("\n"+string(data), "\n-- ")[1:]
	explained := make(map[string]bool)
	for _, e := range entries {
		id, e, _ := strings.Cut(e, "\n")
		if explained[id] {
			t.Errorf("%s has two entries", id)
		}
		explained[id] = true
		header, text, _ := strings.Cut(e, "\n\n")
		for _, field := range []string{"Subject: ", "Defined-By: hhwatchd", "Support: ", "Documentation: "} {
			if !strings.Contains("\n"+header, "\n"+field) {
				t.Errorf("the entry %s has no %s", id, field)
			}
		}
		if len(text) < 40 {
			t.Errorf("the entry %s explains %q", id, text)
		}
		for i, name := range strings.Split(e, "@") {
			if i%2 == 1 && !slices.Contains([]string{"HHWATCHD_REPOSITORY", "HHWATCHD_FABRIC", "HHWATCHD_COMMIT", "HHWATCHD_FILE"}, name) {
				t.Errorf("the entry %s has the field %s, which is not in every message of its kind", id, name)
			}
		}
	}
	for step, id := range messageIDs {
		if !explained[id] {
			t.Errorf("nothing explains %s, %s", step, id)
		}
		delete(explained, id)
	}
	for id := range explained {
		t.Errorf("the entry %s is for no message", id)
	}
}

func TestLevel(t *testing.T) {
	const err, warning, info = 3, 4, 6 // syslog(3)
	for _, tc := range []struct {
		rec  Record
		want int
	}{
		{Record{Step: StepIngest}, info},
		{Record{Step: StepApply, Objects: []Object{{Outcome: Created}}}, info},
		{Record{Step: StepApply, Objects: []Object{{Outcome: Created}, {Outcome: Failed}}}, err},
		{Record{Step: StepPush, Error: "no"}, err},
		{Record{Step: StepFault, Error: "no"}, err},
		{Record{Step: StepDamaged}, err},
		{Record{Step: StepReject}, warning},
		{Record{Step: StepAside}, warning},
		{Record{Step: StepTorn}, warning},
	} {
		if got := int(priorities[tc.rec.Level()]); got != tc.want {
			t.Errorf("%v: %d, want %d", tc.rec, got, tc.want)
		}
	}
}

// TestMirror listens where journald does, in a mount namespace where nobody
// else is, and reads what arrives as the native protocol has it
// (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).
func TestMirror(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	const socket = "/run/systemd/journal/socket"
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	reject := Record{Seq: 3, Step: StepReject, Fabric: "fabric-1", File: &File{Path: "f/raw/a\nb.yaml", Outcome: Rejected},
		Problems: []Problem{{Code: "HH102", Message: "the file is empty"}}}
	if err := Mirror(reject); err == nil || !strings.Contains(err.Error(), "mirroring record 3") {
		t.Errorf("nobody listens: %v", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	big := Record{Seq: 4, Step: StepFault, Fabric: "fabric-1", Error: strings.Repeat("x", 1<<20)} // more than a datagram takes
	for _, r := range []Record{reject, big} {
		if err := Mirror(r); err != nil {
			t.Fatal(err)
		}
		want := r.fields()
		want["MESSAGE"], want["PRIORITY"] = r.String(), fmt.Sprint(int(priorities[r.Level()]))
		if got := parseNative(t, receive(t, conn)); !maps.Equal(got, want) {
			t.Errorf("got fields %q, want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
	}
}

// receive returns the next message, or the content of the file that is sent
// in its place.
func receive(t *testing.T, conn *net.UnixConn) []byte {
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	data, oob := make([]byte, 1<<16), make([]byte, 1<<10)
	n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		t.Fatal(err)
	}
	if oobn == 0 {
		return data[:n]
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "message")
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	data = make([]byte, fi.Size())
	if _, err := f.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return data
}

func parseNative(t *testing.T, data []byte) map[string]string {
	fields := make(map[string]string)
	for len(data) > 0 {
		line, rest, ok := bytes.Cut(data, []byte("\n"))
		if !ok {
			t.Fatalf("%q has no end", line)
		}
		if name, value, ok := bytes.Cut(line, []byte("=")); ok {
			fields[string(name)] = string(value)
		} else {
			n := binary.LittleEndian.Uint64(rest)
			fields[string(line)] = string(rest[8 : 8+n])
			rest = rest[8+n+1:]
		}
		data = rest
	}
	return fields
}

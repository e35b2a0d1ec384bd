// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

const (
	lineStart = `{"seq":`   // no record has these bytes anywhere else: quotes in strings are escaped
	hashStart = `,"hash":"` // before the hash
	hashEnd   = "\"}\n"     // after it
	hashLen   = 2 * sha256.Size
	trailer   = len(hashStart) + hashLen + len(hashEnd)
)

// zeroHash is the hash before the first record.
var zeroHash = strings.Repeat("0", hashLen)

// What can be wrong with a line.
var (
	errNoNewline = errors.New("the line is incomplete")
	errNoRecord  = errors.New("the line is not a record")
	errHash      = errors.New("the line does not match its hash")
)

// appendLine appends the line of r to buf. r.Prev is set; r.Hash is not used.
func appendLine(buf []byte, r Record) ([]byte, error) {
	r.Hash = ""
	body := bytes.NewBuffer(buf)
	enc := json.NewEncoder(body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return buf, err
	}
	line := bytes.TrimSuffix(body.Bytes(), []byte("}\n"))
	return append(append(append(line, hashStart...), hashOf(line[len(buf):])...), hashEnd...), nil
}

// parseLine reads a line with its newline. With an error other than
// errNoNewline, errNoRecord and errHash, the line is as it was written, but
// is not understood; the hash in the Record is set then.
func parseLine(line []byte) (Record, error) {
	body := len(line) - trailer
	switch {
	case !bytes.HasSuffix(line, []byte("\n")):
		return Record{}, errNoNewline
	case body < 0,
		!bytes.HasPrefix(line, []byte(lineStart)),
		!bytes.HasPrefix(line[body:], []byte(hashStart)),
		!bytes.HasSuffix(line, []byte(hashEnd)):
		return Record{}, errNoRecord
	}
	hash := hashOf(line[:body])
	if string(line[body+len(hashStart):len(line)-len(hashEnd)]) != hash {
		return Record{}, errHash
	}
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return Record{Hash: hash}, fmt.Errorf("the record is not understood: %w", err)
	}
	if r.Part != r.Of && (r.Part < 1 || r.Part > r.Of) || uint64(r.Part) > r.Seq || r.Seq == 0 {
		return Record{Hash: hash}, fmt.Errorf("the record is not understood: record %d is part %d of %d", r.Seq, r.Part, r.Of)
	}
	return r, nil
}

func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// first is the number of the first record of the append that r is part of.
func (r *Record) first() uint64 {
	if r.Part == 0 {
		return r.Seq
	}
	return r.Seq - uint64(r.Part) + 1
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
)

// ourName is what we call ourselves to servers.
const ourName = "hhwatchd"

// errProtocol says that the other side does not speak git's protocol.
var errProtocol = errors.New("what it answers is not git's protocol: is the URL right, is a proxy or a login page in the way?")

// A serverError is what a server said instead of an answer.
type serverError struct{ text string }

func (e *serverError) Error() string { return "the remote says: " + oneLine(e.text) }

// Is sorts the texts that git and the usual hosts have for it.
func (e *serverError) Is(target error) bool {
	text := strings.ToLower(e.text)
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
	}
	switch target {
	case ErrNoRepository:
		return has("not found", "not appear to be a git repository", "does not exist",
			"no such repository", "could not be found", "not a git repository")
	case ErrAuth:
		return has("access denied", "permission denied", "not authorized", "not allowed")
	}
	return false
}

// A packet is one line of the protocol (gitprotocol-common(5)), or one of the
// three marks that have no content.
type packet struct {
	kind packetKind
	line []byte
}

type packetKind int

const (
	dataPacket packetKind = iota
	flushPacket
	delimPacket
	endPacket
)

// maxPacket is the largest length that a packet may claim, its own four
// digits included.
const maxPacket = 65520

// readPacket reads the next packet. A packet in which the server reports an
// error is returned as *serverError.
func readPacket(r *bufio.Reader) (packet, error) {
	head, err := r.Peek(4)
	if err != nil {
		if err == io.EOF && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return packet{}, err
	}
	n, err := strconv.ParseUint(string(head), 16, 16)
	if err != nil || n == 3 || n > maxPacket {
		return packet{}, errProtocol
	}
	r.Discard(4)
	if n < 4 {
		return packet{kind: []packetKind{flushPacket, delimPacket, endPacket}[n]}, nil
	}
	line := make([]byte, n-4)
	if _, err := io.ReadFull(r, line); err != nil {
		return packet{}, io.ErrUnexpectedEOF
	}
	if text, ok := strings.CutPrefix(string(line), "ERR "); ok {
		return packet{}, &serverError{text}
	}
	return packet{line: line}, nil
}

// text is the content of a packet without the newline at its end.
func (p packet) text() string { return strings.TrimSuffix(string(p.line), "\n") }

// writePackets writes lines as packets; an empty one stands for a flush packet,
// and "\x01" for a delimiter.
func writePackets(w io.Writer, lines ...string) error {
	var b strings.Builder
	for _, line := range lines {
		switch line {
		case "":
			b.WriteString("0000")
		case delim:
			b.WriteString("0001")
		default:
			fmt.Fprintf(&b, "%04x%s", len(line)+4, line)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

const delim = "\x01"

// An advert is what a server says first: its capabilities and, in the
// versions before 2, its refs.
type advert struct {
	v2   bool
	caps []string
	listing
}

// capability returns the value of a capability, and whether it is there.
func (a *advert) capability(name string) (value string, ok bool) {
	for _, c := range a.caps {
		if n, v, _ := strings.Cut(c, "="); n == name {
			return v, true
		}
	}
	return "", false
}

// readAdvert reads the first answer of a server (gitprotocol-pack(5),
// gitprotocol-v2(5)). Over HTTP it may begin with a line that names the service
// (gitprotocol-http(5)). Of the refs in it, of which there may be any number,
// those are kept that begin with one of the prefixes.
func readAdvert(r *bufio.Reader, service string, prefixes ...string) (*advert, error) {
	a := &advert{listing: listing{refs: make(map[string]oid)}}
	p, err := readPacket(r)
	if err == nil && p.text() == "# service="+service {
		if p, err = readPacket(r); err == nil && p.kind == flushPacket {
			p, err = readPacket(r)
		}
	}
	first := true
	for ; ; p, err = readPacket(r) {
		if err != nil {
			return nil, err
		}
		if p.kind == flushPacket {
			break
		}
		if p.kind != dataPacket {
			return nil, errProtocol
		}
		line := p.text()
		switch {
		case first && line == "version 2":
			a.v2 = true
		case first && line == "version 1":
			continue
		case a.v2:
			a.caps = append(a.caps, line)
		case strings.HasPrefix(line, "shallow "):
		default:
			if first {
				var caps string
				line, caps, _ = strings.Cut(line, "\x00")
				a.caps = strings.Fields(caps)
			}
			if err := a.addRef(line, prefixes); err != nil {
				return nil, err
			}
		}
		first = false
	}
	if f, ok := a.capability("object-format"); ok && f != "sha1" {
		return nil, fmt.Errorf("the repository names its objects by %s; only sha1 is supported", oneLine(f))
	}
	for _, c := range a.caps {
		if target, ok := strings.CutPrefix(c, "symref=HEAD:"); ok {
			a.head = target
		}
	}
	return a, nil
}

// addRef takes in "<hash> <name>" if the name begins with one of the prefixes.
// An empty repository has a line with the name capabilities^{}.
func (l *listing) addRef(line string, prefixes []string) error {
	hash, name, ok := strings.Cut(line, " ")
	id, valid := parseOID(hash)
	if !ok || !valid {
		return errProtocol
	}
	if name == "capabilities^{}" || strings.HasSuffix(name, "^{}") {
		return nil
	}
	if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
		l.refs[name] = id
	}
	return nil
}

// writeLsRefs asks for refs by protocol version 2, and where HEAD is one of them
// for what it points to, even if there is no commit yet. This is the request that
// is made all the time: it holds nothing that can be left out.
func writeLsRefs(w io.Writer, a *advert, prefixes []string) error {
	lines := []string{"command=ls-refs\n", delim}
	if slices.Contains(prefixes, "HEAD") {
		lines = append(lines, "symrefs\n")
		if can, _ := a.capability("ls-refs"); can == "unborn" {
			lines = append(lines, "unborn\n")
		}
	}
	for _, p := range prefixes {
		lines = append(lines, "ref-prefix "+p+"\n")
	}
	return writePackets(w, append(lines, "")...)
}

// readLsRefs reads the answer to it. A server may send more than the prefixes
// ask for.
func readLsRefs(r *bufio.Reader, prefixes []string) (listing, error) {
	l := listing{refs: make(map[string]oid)}
	for {
		p, err := readPacket(r)
		if err != nil {
			return l, err
		}
		if p.kind == flushPacket {
			return l, nil
		}
		line := p.text()
		hash, rest, _ := strings.Cut(line, " ")
		name, attrs, _ := strings.Cut(rest, " ")
		for attr := range strings.FieldsSeq(attrs) {
			if target, ok := strings.CutPrefix(attr, "symref-target:"); ok && name == "HEAD" {
				l.head = target
			}
		}
		if hash == "unborn" {
			continue
		}
		if err := l.addRef(hash+" "+name, prefixes); err != nil {
			return l, err
		}
	}
}

// writeFetch asks for a pack. In one request it says all that we have and that
// it is done: the server sends what it finds missing from that.
func writeFetch(w io.Writer, a *advert, want oid, haves []oid) error {
	var lines []string
	if a.v2 {
		lines = []string{"command=fetch", "agent=" + ourName, delim, "ofs-delta\n", "no-progress\n", "want " + want.String() + "\n"}
	} else {
		if _, ok := a.capability("side-band-64k"); !ok {
			return errors.New("the server is too old: it does not know side-band-64k")
		}
		caps := "side-band-64k ofs-delta agent=" + ourName
		if _, ok := a.capability("no-progress"); ok {
			caps += " no-progress"
		}
		lines = []string{"want " + want.String() + " " + caps + "\n", ""}
	}
	for _, h := range haves {
		lines = append(lines, "have "+h.String()+"\n")
	}
	lines = append(lines, "done\n")
	if a.v2 {
		lines = append(lines, "")
	}
	return writePackets(w, lines...)
}

// readPack reads the answer to writeFetch up to where the pack begins, and
// returns what reads the pack.
func readPack(r *bufio.Reader, v2 bool) (io.Reader, error) {
	for {
		head, err := r.Peek(5)
		if err != nil && len(head) < 4 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if !v2 && len(head) == 5 && head[4] <= 3 {
			return &demux{r: r, said: io.Discard}, nil
		}
		p, err := readPacket(r)
		if err != nil {
			return nil, err
		}
		line := p.text()
		switch {
		case v2 && line == "packfile":
			return &demux{r: r, said: io.Discard}, nil
		case v2 && p.kind == flushPacket:
			return nil, errors.New("the server sent no pack")
		case v2, line == "NAK", strings.HasPrefix(line, "ACK "):
		default:
			return nil, errProtocol
		}
	}
}

// A demux reads the data of a stream that is multiplexed with what the server
// says to people, up to a flush packet (side-band-64k in gitprotocol-pack(5)).
type demux struct {
	r    *bufio.Reader
	said io.Writer
	data []byte
	err  error
}

func (d *demux) Read(p []byte) (int, error) {
	for len(d.data) == 0 {
		if d.err == nil {
			d.err = d.next()
		}
		if d.err != nil {
			return 0, d.err
		}
	}
	n := copy(p, d.data)
	d.data = d.data[n:]
	return n, nil
}

func (d *demux) next() error {
	p, err := readPacket(d.r)
	switch {
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	case p.kind != dataPacket:
		return io.EOF
	case len(p.line) == 0:
		return nil
	}
	switch band, text := p.line[0], p.line[1:]; band {
	case 1:
		d.data = text
	case 2:
		d.said.Write(text)
	case 3:
		return &serverError{string(text)}
	default:
		return errProtocol
	}
	return nil
}

// writeUpdate asks to move a ref (gitprotocol-pack(5)); the pack follows it.
func writeUpdate(w io.Writer, a *advert, ref string, old, new oid) error {
	caps := " report-status agent=" + ourName
	if _, ok := a.capability("side-band-64k"); ok {
		caps += " side-band-64k"
	}
	return writePackets(w, old.String()+" "+new.String()+" "+ref+"\x00"+caps, "")
}

// readReport reads what became of an update. It returns *refusedError if the
// server took it in and did not do it.
func readReport(r *bufio.Reader, a *advert, ref string, said *transcript) error {
	var in io.Reader = r
	if _, ok := a.capability("side-band-64k"); ok {
		in = &demux{r: r, said: said}
	}
	var report packp.ReportStatus
	if err := report.Decode(in); err != nil {
		return fmt.Errorf("reading what became of the push: %w", err)
	}
	if report.UnpackStatus != "ok" {
		return said.refused("it could not take the objects in: " + report.UnpackStatus)
	}
	for _, s := range report.CommandStatuses {
		if s.ReferenceName.String() == ref {
			if s.Status != "ok" {
				return said.refused(s.Status)
			}
			return nil
		}
	}
	return errors.New("the remote did not say what became of the push")
}

// A transcript keeps the end of what a server says to people.
type transcript struct{ text []byte }

func (t *transcript) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if over := len(t.text) - 4*maxSaid; over > 0 {
		t.text = t.text[over:]
	}
	return len(p), nil
}

// refused makes an error of what the server said, and of its verdict.
func (t *transcript) refused(verdict string) error {
	reason := oneLine(verdict)
	if said := oneLine(string(t.text)); said != "" {
		reason = said + " (" + reason + ")"
	}
	return &refusedError{reason}
}

// overtaken reports whether a refusal says that the ref was not where the
// push expected it to be: git's texts for a race on the server.
func overtaken(err *refusedError) bool {
	return slices.ContainsFunc([]string{
		"failed to update ref", "cannot lock ref", "failed to lock", "fetch first", "non-fast-forward",
		"stale info", "reference already exists", "incorrect old value provided",
	}, func(text string) bool { return strings.Contains(err.Reason, text) })
}

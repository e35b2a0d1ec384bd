// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"fmt"
	"os"
	"strings"
)

// A netrcEntry is what a .netrc has for a host.
type netrcEntry struct {
	machine         string // empty for the default
	login, password string
}

// lookNetrc returns the entry of a file for a host, and for a login if that is
// not empty; nil if there is none.
func lookNetrc(file, host, login string) (*netrcEntry, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading a credential: %w", err)
	}
	entries, err := parseNetrc(string(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, e := range entries {
		if (e.machine == "" || strings.EqualFold(e.machine, host)) && (login == "" || e.login == "" || e.login == login) {
			return &e, nil
		}
	}
	return nil, nil
}

// parseNetrc parses what ftp(1) and curl read: "machine NAME" or "default",
// each with login, password and account, in words between white space; a word
// in double quotes may hold space, and \ before a character; what begins with #
// where a keyword could be is a comment up to the end of the line; macdef defines
// a macro, up to an empty line. The error names a line and repeats none of it.
func parseNetrc(text string) ([]netrcEntry, error) {
	var entries []netrcEntry
	p := netrcParser{text: text, line: 1}
	for {
		p.skipSpace(true)
		word, ok, err := p.word()
		if err != nil || !ok {
			return entries, err
		}
		switch word {
		case "default":
			entries = append(entries, netrcEntry{})
			continue
		case "macdef":
			p.skipMacro()
			continue
		case "machine", "login", "password", "account":
		default:
			return nil, fmt.Errorf("line %d: a word that is not machine, default, login, password, account or macdef", p.line)
		}
		line := p.line
		p.skipSpace(false)
		value, ok, err := p.word()
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("line %d: nothing follows %s", line, word)
		}
		if word == "machine" {
			if value == "" {
				return nil, fmt.Errorf("line %d: a machine without a name", line)
			}
			entries = append(entries, netrcEntry{machine: value})
			continue
		}
		if len(entries) == 0 {
			return nil, fmt.Errorf("line %d: %s before the first machine", line, word)
		}
		switch e := &entries[len(entries)-1]; word {
		case "login":
			e.login = value
		case "password":
			e.password = value
		}
	}
}

type netrcParser struct {
	text string
	line int // at which text begins
}

// next takes the first byte of the text.
func (p *netrcParser) next() byte {
	c := p.text[0]
	p.text = p.text[1:]
	if c == '\n' {
		p.line++
	}
	return c
}

// skipSpace goes on to the next word, over comments if they can be there.
func (p *netrcParser) skipSpace(comments bool) {
	for p.text != "" {
		switch c := p.text[0]; {
		case strings.IndexByte(netrcSpace, c) >= 0:
			p.next()
		case c == '#' && comments:
			for p.text != "" && p.text[0] != '\n' {
				p.next()
			}
		default:
			return
		}
	}
}

const netrcSpace = " \t\r\n"

// word takes the word with which the text begins, and reports whether there is
// one.
func (p *netrcParser) word() (string, bool, error) {
	if p.text == "" {
		return "", false, nil
	}
	if p.text[0] == '"' {
		return p.quoted()
	}
	n := strings.IndexAny(p.text, netrcSpace)
	if n < 0 {
		n = len(p.text)
	}
	word := p.text[:n]
	p.text = p.text[n:]
	return word, true, nil
}

func (p *netrcParser) quoted() (string, bool, error) {
	line := p.line
	var b strings.Builder
	p.next()
	for p.text != "" {
		c := p.next()
		switch {
		case c == '"':
			return b.String(), true, nil
		case c == '\n':
			return "", false, fmt.Errorf("line %d: a quote that is not closed", line)
		case c == '\\' && p.text != "" && p.text[0] != '\n':
			switch c = p.next(); c {
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			}
		}
		b.WriteByte(c)
	}
	return "", false, fmt.Errorf("line %d: a quote that is not closed", line)
}

func (p *netrcParser) skipMacro() {
	for empty := false; p.text != ""; {
		if p.next() != '\n' {
			empty = false
		} else if empty {
			return
		} else {
			empty = true
		}
	}
}

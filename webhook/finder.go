// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"net/url"
	"strings"
)

// A Finder finds out which repositories a call is about, while the call's body
// is written to it. It looks for their hosts and paths anywhere in the body, as
// forges agree neither on where URLs stand nor on which of them they tell: so
// it does not matter whether the body has a repository's https or its ssh URL,
// with what port and in what case.
//
// A host and a path may stand there for another reason, in the message of a
// commit or as the beginning of a longer one. The repository is looked at once
// more than was needed then.
type Finder struct {
	repositories []names
	longest      int    // of all names
	seen         []byte // the end of what was written: a name may begin there
}

// names are what has to stand in a body that is about a repository.
type names struct {
	host      []byte // nil where the repository is on none
	paths     [2][]byte
	foundHost bool
	foundPath bool
}

// NewFinder returns a Finder of the repositories with these URLs, in any of
// git's spellings. One that is a path on this host is never found.
func NewFinder(urls ...string) *Finder {
	f := &Finder{}
	for _, u := range urls {
		host, path := split(strings.ToLower(u))
		var n names
		if host != "" && path != "" {
			// Before the path there is a ':' in the spelling of scp.
			n.host, n.paths = []byte(host), [2][]byte{[]byte("/" + path), []byte(":" + path)}
			f.longest = max(f.longest, len(host), 1+len(path))
		}
		f.repositories = append(f.repositories, n)
	}
	return f
}

// split returns the host of a remote URL, without a port, and the path there,
// without ".git"; "" where there is none.
func split(remote string) (host, path string) {
	if u, err := url.Parse(remote); err == nil && u.Host != "" {
		host, path = u.Hostname(), u.Path
	} else if at, rest, ok := strings.Cut(remote, ":"); ok && !strings.Contains(at, "/") {
		// user@host:path, the spelling of scp.
		host, path = at[strings.LastIndexByte(at, '@')+1:], rest
	}
	return host, strings.TrimSuffix(strings.Trim(path, "/"), ".git")
}

// Write looks through the next part of the body. It never fails.
func (f *Finder) Write(p []byte) (int, error) {
	text := append(f.seen, p...)
	for i, c := range text[len(f.seen):] {
		if 'A' <= c && c <= 'Z' {
			text[len(f.seen)+i] = c + 'a' - 'A'
		}
	}
	for i := range f.repositories {
		if n := &f.repositories[i]; n.host != nil {
			n.foundHost = n.foundHost || bytes.Contains(text, n.host)
			n.foundPath = n.foundPath || bytes.Contains(text, n.paths[0]) || bytes.Contains(text, n.paths[1])
		}
	}
	f.seen = append(f.seen[:0], text[max(0, len(text)-max(0, f.longest-1)):]...)
	return len(p), nil
}

// Found says of each URL that was given to NewFinder whether what was written
// names it.
func (f *Finder) Found() []bool {
	found := make([]bool, len(f.repositories))
	for i, n := range f.repositories {
		found[i] = n.foundHost && n.foundPath
	}
	return found
}

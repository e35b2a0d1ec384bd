// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// A Change is what a commit does to one path: it gives it the content Data, or
// that of a Blob, or deletes it. Deleting what is not there does nothing.
type Change struct {
	Path   string // from the root of the repository, separated by slashes
	Data   []byte
	Blob   Hash // one that the repository has; in the place of Data
	Delete bool
}

// WriteCommit makes a commit on top of the commit parent (none, if it is
// empty) and returns its name. It writes the blobs, the trees on their paths
// and the commit; nothing refers to it yet and nothing else is touched, so
// that a crash or a change of mind costs nothing. [Clone.Advance] makes it
// durable and moves the branch to it.
//
// A file that is new gets the mode of a plain file, one that is replaced keeps
// its mode; what was a link becomes a file. Directories come and go with their
// files. It is an error to make a file where a directory stays, or the other
// way round. ErrNoChange is returned when the tree would be that of parent.
//
// What git does not take in names and messages is left out: angle brackets,
// newlines in names, NUL. The commit is signed if Options.SignKeyFile says so.
func (c *Clone) WriteCommit(parent Hash, changes []Change, author, committer Signature, message string) (Hash, error) {
	h, err := c.repo.writeCommit(parent, changes, author, committer, message, c.opts.SignKeyFile)
	if err != nil {
		return "", fmt.Errorf("writing a commit: %w", err)
	}
	return h, nil
}

func (s *store) writeCommit(parent Hash, changes []Change, author, committer Signature, message, signKeyFile string) (Hash, error) {
	old, err := s.treeOf(parent)
	if err != nil {
		return "", err
	}
	b := &batch{s: s, objects: make(map[oid]object)}
	edits := make([]edit, 0, len(changes))
	seen := make(map[string]bool, len(changes))
	for _, ch := range changes {
		if seen[ch.Path] {
			return "", fmt.Errorf("%w: %s is changed twice", ErrClash, ch.Path)
		}
		seen[ch.Path] = true
		if why := checkPath(ch.Path); why != "" {
			return "", &UnsafePathError{ch.Path, why}
		}
		e := edit{path: ch.Path, remove: ch.Delete}
		switch {
		case ch.Delete:
		case ch.Blob == "":
			e.blob = b.add(plumbing.BlobObject, ch.Data)
		case !s.has(ch.Blob.id()):
			return "", fmt.Errorf("blob %s for %s: %w", ch.Blob, ch.Path, ErrNotFound)
		default:
			e.blob = ch.Blob.id()
		}
		edits = append(edits, e)
	}
	tree, err := b.editTree(old, "", edits)
	if err != nil {
		return "", err
	}
	if tree == (oid{}) && parent != "" {
		// A commit that deletes the last file.
		tree = b.add(plumbing.TreeObject, nil)
	}
	if tree == old {
		return "", ErrNoChange
	}
	var buf bytes.Buffer
	fmt.Fprintf(&buf, "tree %s\n", tree)
	if parent != "" {
		fmt.Fprintf(&buf, "parent %s\n", parent)
	}
	fmt.Fprintf(&buf, "author %s\ncommitter %s\n\n%s", author.text(), committer.text(), cleanMessage(message))
	commit := buf.Bytes()
	if signKeyFile != "" {
		armor, err := sign(signKeyFile, commit)
		if err != nil {
			return "", err
		}
		commit = signed(commit, armor)
	}
	id := b.add(plumbing.CommitObject, commit)
	return hashOf(id), b.store()
}

// An edit is a change whose content is stored.
type edit struct {
	path   string // below the directory in hand
	blob   oid
	remove bool
}

// editTree makes the tree that comes of the edits to the tree old at the path
// dir, and returns it; the zero oid if nothing is left. No path is edited
// twice.
func (b *batch) editTree(old oid, dir string, edits []edit) (oid, error) {
	entries, err := b.s.tree(old)
	if err != nil {
		return oid{}, err
	}
	files := make(map[string]edit)
	below := make(map[string][]edit)
	for _, e := range edits {
		name, rest, deeper := strings.Cut(e.path, "/")
		if !deeper {
			files[name] = e
			continue
		}
		e.path = rest
		below[name] = append(below[name], e)
	}
	// A directory may have many more entries than are edited: only these are
	// looked up by name.
	byName := make(map[string]treeEntry, len(files)+len(below))
	var rest []treeEntry
	for _, e := range entries {
		_, isFile := files[e.name]
		if _, isDir := below[e.name]; isFile || isDir {
			byName[e.name] = e
		} else {
			rest = append(rest, e)
		}
	}
	// What lies in a directory is edited first, as that decides whether the
	// directory stays.
	for name, edits := range below {
		now := byName[name]
		if now.mode != 0 && now.mode != modeDir && !files[name].remove {
			if slices.ContainsFunc(edits, func(e edit) bool { return !e.remove }) {
				return oid{}, fmt.Errorf("%w: %s is a file, not a directory", ErrClash, dir+name)
			}
			continue
		}
		id, err := b.editTree(asDir(now), dir+name+"/", edits)
		if err != nil {
			return oid{}, err
		}
		if id == (oid{}) {
			delete(byName, name)
		} else {
			byName[name] = treeEntry{name, modeDir, id}
		}
	}
	for name, e := range files {
		now := byName[name]
		switch {
		case now.mode == modeDir && e.remove: // there is no such file
		case now.mode == modeDir:
			return oid{}, fmt.Errorf("%w: %s is a directory, not a file", ErrClash, dir+name)
		case e.remove:
			delete(byName, name)
		case now.mode == ModeExecutable:
			byName[name] = treeEntry{name, ModeExecutable, e.blob}
		default:
			byName[name] = treeEntry{name, ModeFile, e.blob}
		}
	}
	entries = slices.AppendSeq(rest, maps.Values(byName))
	if len(entries) == 0 {
		return oid{}, nil
	}
	return b.add(plumbing.TreeObject, encodeTree(entries)), nil
}

// text returns the signature as it stands in a commit. What git fsck objects
// to is left out (fsck_ident): a name is never empty, and no time is before
// 1970.
func (sig Signature) text() string {
	return fmt.Sprintf("%s <%s> %d %s", cmp.Or(cleanName(sig.Name), "unknown"), cleanName(sig.Email),
		max(sig.When.Unix(), 0), sig.When.Format("-0700"))
}

func cleanName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == '<' || r == '>' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.Trim(s, " .,:;\"'\\")
}

// cleanMessage makes s what git commit would make of it: valid UTF-8 that ends
// in one newline.
func cleanMessage(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "")
	return strings.TrimRight(s, "\n") + "\n"
}

// SPDX-License-Identifier: Apache-2.0

package power

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Tree is what is below a directory, by path; the directory itself is ".".
type Tree map[string]File

// A File is a file, a directory or a symbolic link in a [Tree].
type File struct {
	Mode   fs.FileMode // type and permissions
	Data   []byte      // of a regular file; shared, not to be changed
	Target string      // of a symbolic link
	Same   string      // another path at which this very file is; may be empty
}

// ReadTree reads the directory dir. Sockets, devices and pipes are left out.
func ReadTree(dir string) (Tree, error) {
	t := Tree{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := File{Mode: info.Mode() & (fs.ModeType | fs.ModePerm)}
		switch info.Mode().Type() {
		case 0:
			f.Data, err = os.ReadFile(name)
		case fs.ModeSymlink:
			f.Mode, f.Target = fs.ModeSymlink, ""
			f.Target, err = os.Readlink(name)
		case fs.ModeDir:
		default:
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		t[filepath.ToSlash(rel)] = f
		return err
	})
	return t, err
}

// Write makes the directory dir hold just what t has.
func (t Tree) Write(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	var links []string
	for _, p := range slices.Sorted(maps.Keys(t)) {
		f, name := t[p], filepath.Join(dir, p)
		if f.Same != "" {
			links = append(links, p)
			continue
		}
		var err error
		switch f.Mode.Type() {
		case fs.ModeDir:
			err = os.Mkdir(name, 0o700)
		case fs.ModeSymlink:
			err = os.Symlink(f.Target, name)
		default:
			err = os.WriteFile(name, f.Data, 0o600)
		}
		if err == nil && f.Mode.Type() != fs.ModeSymlink {
			err = os.Chmod(name, f.Mode.Perm())
		}
		if err != nil {
			return err
		}
	}
	for _, p := range links {
		if err := os.Link(filepath.Join(dir, t[p].Same), filepath.Join(dir, p)); err != nil {
			return err
		}
	}
	return nil
}

// Sum identifies the content of t.
func (t Tree) Sum() (sum [sha256.Size]byte) {
	h := sha256.New()
	field := func(b []byte) {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	for _, p := range slices.Sorted(maps.Keys(t)) {
		f := t[p]
		field([]byte(p))
		field(binary.LittleEndian.AppendUint32(nil, uint32(f.Mode)))
		field([]byte(f.Target))
		field(f.Data)
	}
	h.Sum(sum[:0])
	return sum
}

// Diff tells where t differs from other, a line each.
func (t Tree) Diff(other Tree) string {
	var b strings.Builder
	all := maps.Clone(t)
	maps.Copy(all, other)
	for _, p := range slices.Sorted(maps.Keys(all)) {
		f, ok := t[p]
		g, also := other[p]
		switch {
		case !also:
			fmt.Fprintf(&b, "- %s\n", p)
		case !ok:
			fmt.Fprintf(&b, "+ %s\n", p)
		case f.Mode != g.Mode:
			fmt.Fprintf(&b, "! %s: mode %v, %v\n", p, f.Mode, g.Mode)
		case f.Target != g.Target:
			fmt.Fprintf(&b, "! %s: to %s, %s\n", p, f.Target, g.Target)
		case !bytes.Equal(f.Data, g.Data):
			fmt.Fprintf(&b, "! %s: %d bytes, %d bytes\n", p, len(f.Data), len(g.Data))
		}
	}
	return b.String()
}

// SPDX-License-Identifier: Apache-2.0

package power

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// show writes a tree on one line: files with their content in quotes,
// directories with a slash, links with an arrow.
func show(t Tree) string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(t)) {
		switch f := t[p]; {
		case p == ".":
		case f.Mode.IsDir():
			out = append(out, p+"/")
		case f.Mode&fs.ModeSymlink != 0:
			out = append(out, p+"→"+f.Target)
		default:
			out = append(out, fmt.Sprintf("%s=%q", p, f.Data))
		}
	}
	return strings.Join(out, " ")
}

// parseOps reads operations, one a line: "write PATH TEXT" appends nothing, it
// writes at 0; "sync PATH [CALLED]" covers all before unless it says how many.
func parseOps(t *testing.T, text string) []Op {
	t.Helper()
	var ops []Op
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		op := Op{Kind: OpKind(f[0]), Mode: 0o644, Called: len(ops)}
		if len(f) > 1 {
			op.Path = f[1]
		}
		switch op.Kind {
		case Write:
			op.Data = []byte(f[2])
			if len(f) > 3 {
				fmt.Sscan(f[3], &op.Off)
			}
		case Truncate:
			fmt.Sscan(f[2], &op.Size)
		case Rename, Exchange, Link, Symlink:
			op.To = f[2]
		case Sync:
			if len(f) > 2 {
				fmt.Sscan(f[2], &op.Called)
			}
		}
		ops = append(ops, op)
	}
	return ops
}

// base is what is on the disk at the beginning.
func base() Tree {
	return Tree{
		".": {Mode: fs.ModeDir | 0o755}, "d": {Mode: fs.ModeDir | 0o755}, "e": {Mode: fs.ModeDir | 0o755},
		"f": {Mode: 0o644, Data: []byte("old")},
	}
}

func replay(t *testing.T, ops []Op) *Disk {
	t.Helper()
	d, err := NewDisk(base())
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range ops {
		if err := d.Do(op); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// TestDisk has the classic mistakes, and what a power loss makes of them.
func TestDisk(t *testing.T) {
	for _, tc := range []struct {
		name, ops string
		want      map[Loss]string
	}{
		{"a file that was never synced", "create d/x\nwrite d/x new", map[Loss]string{
			Unsynced: `d/ e/ f="old"`,
			Nothing:  `d/ d/x="new" e/ f="old"`,
			Content:  `d/ d/x="" e/ f="old"`,
			Zeros:    `d/ d/x="\x00\x00\x00" e/ f="old"`,
			Names:    `d/ e/ f="old"`,
		}},
		{"replaced without fsync: empty", "create t\nwrite t new\nrename t f\nsync .", map[Loss]string{
			Unsynced: `d/ e/ f=""`,
			Zeros:    `d/ e/ f="\x00\x00\x00"`,
			Names:    `d/ e/ f="new"`,
		}},
		{"replaced without fsync of the directory: maybe the old", "create t\nwrite t new\nsync t\nrename t f", map[Loss]string{
			Unsynced: `d/ e/ f="old"`,
			Content:  `d/ e/ f="new"`,
		}},
		{"replaced as it should be", "create t\nwrite t new\nsync t\nrename t f\nsync .", map[Loss]string{
			Unsynced: `d/ e/ f="new"`, Content: `d/ e/ f="new"`, Names: `d/ e/ f="new"`, Scattered: `d/ e/ f="new"`,
		}},
		{"fsync of a new file does not keep its name", "create d/x\nwrite d/x new\nsync d/x", map[Loss]string{
			Unsynced: `d/ e/ f="old"`,
			Content:  `d/ d/x="new" e/ f="old"`,
		}},
		{"what is synced in a new directory goes with its name", "mkdir g\ncreate g/x\nwrite g/x new\nsync g/x\nsync g", map[Loss]string{
			Unsynced: `d/ e/ f="old"`,
			Content:  `d/ e/ f="old" g/ g/x="new"`,
		}},
		{"fsync before the write", "create d/x\nsync d/x\nsync d\nwrite d/x new", map[Loss]string{
			Unsynced: `d/ d/x="" e/ f="old"`,
			Nothing:  `d/ d/x="new" e/ f="old"`,
		}},
		{"fsync called before another thread's write", "write f one\nwrite f two 1\nsync f 1", map[Loss]string{
			Unsynced: `d/ e/ f="one"`,
			Nothing:  `d/ e/ f="otwo"`,
			Zeros:    "d/ e/ f=\"one\\x00\"",
		}},
		{"written in place", "truncate f 0\nwrite f longer", map[Loss]string{
			Unsynced: `d/ e/ f="old"`,
			Content:  `d/ e/ f="old"`,
			Zeros:    "d/ e/ f=\"old\\x00\\x00\\x00\"",
			Nothing:  `d/ e/ f="longer"`,
		}},
		{"removed without fsync: it comes back", "unlink f", map[Loss]string{
			Unsynced: `d/ e/ f="old"`,
			Nothing:  `d/ e/`,
		}},
		{"moved, the target's directory synced: perhaps twice", "rename f d/f\nsync d", map[Loss]string{
			Unsynced: `d/ d/f="old" e/ f="old"`,
			Nothing:  `d/ d/f="old" e/`,
		}},
		{"moved, the source's directory synced: never nowhere", "rename f d/f\nsync .", map[Loss]string{
			Unsynced: `d/ d/f="old" e/`,
		}},
		{"moved by link and unlink, only the source's directory synced: nowhere", "link f d/f\nunlink f\nsync .", map[Loss]string{
			Unsynced: `d/ e/`,
		}},
		{"exchanged: both names or none", "create d/x\nwrite d/x new\nsyncall\nexchange f d/x\nsync d", map[Loss]string{
			Unsynced: `d/ d/x="old" e/ f="new"`,
		}},
		{"a directory is emptied before it goes", "create d/x\nwrite d/x new\nsyncall\nrename d/x e/x\nrmdir d\nsync .", map[Loss]string{
			Unsynced: `e/ e/x="new" f="old"`,
		}},
		{"a directory has one name", "rename d e/d\nsync e", map[Loss]string{
			Unsynced: `e/ e/d/ f="old"`,
		}},
		{"syncfs keeps everything", "mkdir g\ncreate g/x\nwrite g/x new\nsymlink l g/x\nunlink f\nsyncall", map[Loss]string{
			Unsynced: `d/ e/ g/ g/x="new" l→g/x`, Scattered: `d/ e/ g/ g/x="new" l→g/x`,
		}},
		{"a file by two names has one content", "link f d/f\nsync d\nwrite f NEW\nsync d/f", map[Loss]string{
			Unsynced: `d/ d/f="NEW" e/ f="NEW"`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := replay(t, parseOps(t, tc.ops))
			for loss, want := range tc.want {
				if got := show(d.After(loss, rand.New(rand.NewPCG(1, 2)))); got != want {
					t.Errorf("%s:\n got %s\nwant %s", loss, got, want)
				}
			}
		})
	}
}

// TestScattered collects all that a scattered loss can leave.
func TestScattered(t *testing.T) {
	d := replay(t, parseOps(t, "create d/x\nwrite d/x ab\nrename f e/f"))
	got := map[string]bool{}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		s := show(d.After(Scattered, rng))
		if strings.Contains(s, "d/x") {
			f := strings.Fields(s)
			s = strings.Join(slices.DeleteFunc(f, func(s string) bool {
				return strings.HasPrefix(s, `d/x="`) && !slices.Contains([]string{`d/x=""`, `d/x="a"`, `d/x="ab"`, `d/x="\x00\x00"`}, s)
			}), " ")
		}
		got[s] = true
	}
	var want []string
	for _, x := range []string{"", `d/x="" `, `d/x="a" `, `d/x="ab" `, `d/x="\x00\x00" `} {
		for _, f := range []string{`e/ f="old"`, `e/ e/f="old" f="old"`, `e/ e/f="old"`} {
			want = append(want, "d/ "+x+f)
		}
	}
	for _, w := range want {
		if !got[w] {
			t.Errorf("never left: %s", w)
		}
		delete(got, w)
	}
	if len(got) > 0 {
		t.Errorf("left what cannot be: %v", slices.Sorted(maps.Keys(got)))
	}
}

func TestImpossible(t *testing.T) {
	for _, ops := range []string{
		"write x 1", "create f", "unlink d", "rmdir f", "rename x y", "create g/x", "create f/x",
		"create d/x\nrmdir d", "exchange f x", "link f d", "sync x", "frobnicate f",
	} {
		d, err := NewDisk(base())
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range parseOps(t, ops) {
			err = d.Do(op)
		}
		if err == nil {
			t.Errorf("%q was done", ops)
		}
	}
}

func TestTree(t *testing.T) {
	tree := base()
	tree["d/x"] = File{Mode: 0o400, Data: []byte("1")}
	tree["l"] = File{Mode: fs.ModeSymlink, Target: "nowhere"}
	dir := filepath.Join(t.TempDir(), "tree")
	for range 2 { // the second time over the first
		if err := tree.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := tree.Diff(got); diff != "" || tree.Sum() != got.Sum() {
		t.Errorf("written and read back:\n%s", diff)
	}
	for _, change := range []func() error{
		func() error { return os.Chmod(filepath.Join(dir, "f"), 0o600) },
		func() error { return os.WriteFile(filepath.Join(dir, "f"), []byte("new"), 0) },
		func() error { return os.Remove(filepath.Join(dir, "l")) },
		func() error { return os.Symlink("elsewhere", filepath.Join(dir, "l")) },
	} {
		before, err := ReadTree(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		after, err := ReadTree(dir)
		if err != nil {
			t.Fatal(err)
		}
		if before.Diff(after) == "" || before.Sum() == after.Sum() {
			t.Error("a change goes unnoticed")
		}
	}
}

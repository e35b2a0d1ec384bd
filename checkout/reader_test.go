// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"io/fs"
	"reflect"
	"slices"
	"testing"
	"time"
)

// TestReader reads beside the process that has the clone open, what that one
// has written before and after.
func TestReader(t *testing.T) {
	w := newWorld(t)
	if _, err := OpenReader(w.dir, "main"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no clone: %v", err)
	}
	c := w.clone()
	r, err := OpenReader(w.dir, "main")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	read := func() (out []Hash) {
		t.Helper()
		for c, err := range r.Commits() {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, c.Hash)
		}
		return out
	}
	if got := read(); len(got) > 0 {
		t.Errorf("an empty clone has the commits %v", got)
	}
	var want []Hash
	tip := Hash("")
	for i, name := range []string{"a", "b", "c"} {
		who := Signature{"A Person", "person@example.net", time.Unix(1e9+int64(i), 0)}
		tip, err = c.WriteCommit(tip, []Change{{Path: "dir/" + name, Data: []byte(name)}}, who, who, name)
		if err != nil {
			t.Fatal(err)
		}
		w.advance(c, tip)
		if i == 1 { // one of them is not pushed, one is packed
			w.push(c)
			git(t, w.dir, "gc", "-q", "--prune=now")
		}
		want = append([]Hash{tip}, want...)
		if got := read(); !slices.Equal(got, want) {
			t.Errorf("commits %v, want %v", got, want)
		}
	}
	for _, h := range want {
		a, err1 := c.Files(h, "dir")
		b, err2 := r.Files(h, "dir")
		x, err3 := c.TreeHash(h, "dir")
		y, err4 := r.TreeHash(h, "dir")
		if err := errors.Join(err1, err2, err3, err4); err != nil || len(a) == 0 || !reflect.DeepEqual(a, b) || x != y {
			t.Errorf("%v: %v and %v, %v and %v, %v", h, a, b, x, y, err)
		}
		if data, err := r.Blob(b[0].Blob); err != nil || string(data) != "a" {
			t.Errorf("%q, %v", data, err)
		}
		if commit, err := r.Commit(h); err != nil || commit.Hash != h {
			t.Errorf("%v, %v", commit, err)
		}
	}
	for range r.Commits() {
		break // must not go on
	}
	if _, err := r.Commit(BlobHash([]byte("none"))); !errors.Is(err, ErrNotFound) {
		t.Errorf("a commit that is not there: %v", err)
	}
}

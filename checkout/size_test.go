// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime/metrics"
	"strings"
	"testing"
)

// TestSize: the size of an object is known without its content, however it is
// stored.
func TestSize(t *testing.T) {
	t.Parallel()
	dir, s := newStore(t)
	base := strings.Repeat("some text that deltas are made of\n", 200)
	want := make(map[oid]int64)
	var names strings.Builder
	for i := range 60 {
		data := []byte(base[:i*100] + fmt.Sprint(i) + base[:i])
		id, err := write(s, data)
		if err != nil {
			t.Fatal(err)
		}
		want[id] = int64(len(data))
		fmt.Fprintln(&names, id)
	}
	check := func(what string) {
		t.Helper()
		s := fresh(t, s)
		for id, n := range want {
			if got, err := s.size(id); err != nil || got != n {
				t.Errorf("%s: %s has %d bytes, want %d, %v", what, id, got, n, err)
			}
		}
		if _, err := s.size(oid{9}); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: of none: %v", what, err)
		}
	}
	check("loose")
	for _, args := range [][]string{{"--delta-base-offset"}, {"--no-reuse-delta"}, {"--depth=0"}} {
		gitIn(t, dir, names.String(), append(append([]string{"pack-objects", "-q"}, args...), "objects/pack/pack")...)
		git(t, dir, "prune-packed", "-q")
		check(strings.Join(args, " "))
	}
}

// TestSizeOfLarge: a blob of any size costs next to nothing.
func TestSizeOfLarge(t *testing.T) {
	dir, s := newStore(t)
	const size = 300 << 20
	cmd := exec.Command("sh", "-c", fmt.Sprintf("head -c %d /dev/zero | git -C '%s' hash-object -w --stdin", size, dir))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	id := Hash(strings.TrimSpace(string(out))).id()
	allocated := func() uint64 {
		sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	for range 2 {
		s := fresh(t, s)
		before := allocated()
		if n, err := s.size(id); err != nil || n != size {
			t.Errorf("%d bytes, %v", n, err)
		}
		if took := allocated() - before; took > 1<<20 {
			t.Errorf("it took %d bytes", took)
		}
		gitIn(t, dir, id.String()+"\n", "pack-objects", "-q", "objects/pack/pack")
		git(t, dir, "prune-packed", "-q")
	}
}

// TestBlobChange: a file that moves is neither written nor sent again.
func TestBlobChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"fabric/raw/x": "what was pushed", "m/a": "1"})
	c := w.clone()
	up := w.head(c)
	blob, ok, err := c.Lookup(up, "fabric/raw/x")
	if err != nil || !ok {
		t.Fatal(err)
	}
	if n, err := c.BlobSize(blob); n != int64(len("what was pushed")) || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	h := w.commit(c, put("fabric/managed/b", "2"), del("fabric/raw/x"), Change{Path: "fabric/unmanaged/x", Blob: blob})
	objects, err := c.repo.newObjects(up.id(), h.id())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if o.id == blob.id() {
			t.Error("the blob is sent though the remote has it")
		}
	}
	// One that comes with one commit and moves with the next is sent.
	between := w.commit(c, put("m/new", "new"))
	moved, _, err := c.Lookup(between, "m/new")
	if err != nil {
		t.Fatal(err)
	}
	w.commit(c, del("m/new"), Change{Path: "a/moved", Blob: moved})
	w.push(c)
	if got := git(t, w.bare, "show", "main:fabric/unmanaged/x") + git(t, w.bare, "show", "main:a/moved"); got != "what was pushed"+"new" {
		t.Errorf("the remote has %q", got)
	}
	git(t, w.bare, "fsck", "--strict")

	if _, err := c.WriteCommit(w.head(c), []Change{{Path: "m/c", Blob: Hash(strings.Repeat("9", 40))}}, Signature{}, Signature{}, "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a blob that is not there: %v", err)
	}
}

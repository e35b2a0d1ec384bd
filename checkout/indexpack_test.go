// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// indexed has us index a pack, and returns the index.
func indexed(t testing.TB, pack []byte) ([]byte, error) {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "*.pack")
	if err != nil {
		t.Fatal(err)
	}
	p := &newPack{f}
	defer f.Close()
	x := newPackIndexer(f, nil)
	sum, err := x.scan(t.Context(), bytes.NewReader(pack))
	if err == nil {
		err = x.resolve(t.Context())
	}
	if err != nil {
		return nil, err
	}
	index, err := x.index()
	if err != nil {
		return nil, err
	}
	if err := p.writeIndex(index, sum); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, f.Name()); got != string(pack) {
		t.Error("the pack was not written as it came")
	}
	return []byte(readAll(t, p.idxName())), nil
}

// TestIndexPack holds our index of a pack against the one that git makes.
func TestIndexPack(t *testing.T) {
	t.Parallel()
	for name, pack := range map[string]func(t *testing.T) []byte{
		"history by name":   func(t *testing.T) []byte { return history(t, 1) },
		"history by offset": func(t *testing.T) []byte { return history(t, 2, "--delta-base-offset") },
		"deep history":      func(t *testing.T) []byte { return history(t, 3, "--delta-base-offset", "--depth=500", "--window=50") },
		"no deltas":         func(t *testing.T) []byte { return history(t, 4, "--window=0", "--compression=0") },
		"empty":             func(t *testing.T) []byte { return newHandPack(t, 0).end() },
		"chain":             func(t *testing.T) []byte { return chain(t, maxDeltaDepth, false) },
		"chain by name":     func(t *testing.T) []byte { return chain(t, maxDeltaDepth, true) },
		"comb":              func(t *testing.T) []byte { return comb(t, 120, 400<<10, false) },
		"comb by name":      func(t *testing.T) []byte { return comb(t, 120, 400<<10, true) },
		"of each type": func(t *testing.T) []byte {
			p := newHandPack(t, 6)
			blob := blobID([]byte("x"))
			tree := append([]byte("100644 x\x00"), blob[:]...)
			id := plumbing.ComputeHash(plumbing.TreeObject, tree)
			commit := fmt.Appendf(nil, "tree %s\nauthor A <a@example.net> 1 +0000\ncommitter A <a@example.net> 1 +0000\n\nx\n", id)
			p.blob(nil)
			p.blob([]byte("x"))
			p.add(plumbing.TreeObject, nil, tree)
			p.add(plumbing.TreeObject, nil, nil)
			p.add(plumbing.CommitObject, nil, commit)
			p.add(plumbing.TagObject, nil, fmt.Appendf(nil, "object %s\ntype commit\ntag x\ntagger A <a@example.net> 1 +0000\n\nx\n",
				plumbing.ComputeHash(plumbing.CommitObject, commit)))
			return p.end()
		},
		"before its base": func(t *testing.T) []byte {
			// The first is a delta of the second, that one of the last.
			base := []byte("the base of them")
			middle := append(bytes.Clone(base), " all"...)
			p := newHandPack(t, 4)
			p.ref(blobID(middle), copying(len(middle), 5, "x"))
			at := p.ref(blobID(base), copying(len(base), len(base), " all"))
			p.ofs(at, copying(len(middle), 3, "y"))
			p.blob(base)
			return p.end()
		},
		"twice": func(t *testing.T) []byte {
			base := []byte("the base of them")
			p := newHandPack(t, 6)
			at := p.blob(base)
			p.blob(base)
			p.ofs(at, copying(len(base), 3, "x"))
			p.ofs(at, copying(len(base), 3, "x"))
			p.blob([]byte("thex"))
			p.ofs(at, copying(len(base), 7, string(base[7:])))
			return p.end()
		},
		"large deltas": func(t *testing.T) []byte {
			p := newHandPack(t, 9)
			for i := range 3 {
				base := noise(uint64(i), largeObject+1+i)
				at := p.blob(base)
				at = p.ofs(at, copying(len(base), len(base)-10, "x"))
				p.ofs(at, copying(len(base)-9, 20, string(noise(9, keptDelta+1))))
			}
			return p.end()
		},
		"many small deltas": func(t *testing.T) []byte {
			// More than are kept in memory.
			const n = keptDeltas/keptDelta + 300
			p := newHandPack(t, n+1)
			at := p.blob([]byte("the base of them"))
			for i := range n {
				p.ofs(at, copying(16, 8, fmt.Sprint(i)+string(noise(uint64(i), keptDelta-100))))
			}
			return p.end()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pack := pack(t)
			idx, err := indexed(t, pack)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "x.pack"), pack, 0o666); err != nil {
				t.Fatal(err)
			}
			git(t, dir, "index-pack", "x.pack")
			if theirs := readAll(t, filepath.Join(dir, "x.idx")); string(idx) != theirs {
				t.Error("git makes another index of it")
			}
			if name != "twice" { // here it is stricter than when it makes an index
				git(t, dir, "verify-pack", "x.idx")
			}
		})
	}
}

// TestLargeOffsets: git finds what lies beyond two gigabytes in an index of
// ours, and so do we.
func TestLargeOffsets(t *testing.T) {
	t.Parallel()
	entries := []packIndexEntry{
		{oid{1}, 11, 12}, {oid{1, 1}, 12, 1<<31 - 1}, {oid{2}, 13, 1 << 31}, {oid{3}, 14, 5 << 32}, {oid{0xff}, 15, 1 << 40},
	}
	var idx bytes.Buffer
	if err := encodeIndex(&idx, entries, oid{7}); err != nil {
		t.Fatal(err)
	}
	var want []string
	p := &pack{idx: idx.Bytes(), n: len(entries)}
	for _, e := range entries {
		want = append(want, fmt.Sprintf("%d %s (%08x)", e.at, e.id, e.crc))
		if at, ok := p.find(e.id); !ok || at != e.at {
			t.Errorf("%s is at %d, %v; want %d", e.id, at, ok, e.at)
		}
	}
	if got := gitIn(t, t.TempDir(), idx.String(), "show-index", "--object-format=sha1"); got != strings.Join(want, "\n") {
		t.Errorf("git finds:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

// sealed returns a pack with the checksum that it should have.
func sealed(pack []byte) []byte {
	sum := sha1.Sum(pack)
	return append(bytes.Clone(pack), sum[:]...)
}

// allocated returns how much memory fn takes in all, garbage included.
func allocated(fn func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// TestDamagedPacks: each is refused, and makes us take no memory on its word.
func TestDamagedPacks(t *testing.T) {
	base := bytes.Repeat([]byte("0123456789"), 100)
	deflated := func(data []byte) []byte {
		var out bytes.Buffer
		zw := zlib.NewWriter(&out)
		zw.Write(data)
		zw.Close()
		return out.Bytes()
	}
	// with is a pack of n entries: base, and what is given.
	with := func(n int, entries ...[]byte) []byte {
		p := newHandPack(t, n)
		p.blob(base)
		return sealed(append(bytes.Clone(p.out.Bytes()), bytes.Join(entries, nil)...))
	}
	delta := func(data []byte) []byte {
		p := newHandPack(t, 2)
		p.ofs(p.blob(base), data)
		return p.end()
	}
	whole := with(1)
	header := func(typ plumbing.ObjectType, size int64) []byte {
		var out bytes.Buffer
		p := &packWriter{w: &out, sum: sha1.New()}
		if err := p.begin(typ, size, nil); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	blob := deflated([]byte("x"))
	for name, c := range map[string]struct {
		pack []byte
		want string
	}{
		"nothing":                  {nil, "unexpected EOF"},
		"half a header":            {whole[:7], "unexpected EOF"},
		"no pack":                  {sealed([]byte("<html>Service Unavailable</html>")), "not a pack"},
		"version 3":                {sealed([]byte("PACK\x00\x00\x00\x03\x00\x00\x00\x00")), "not a pack of version 2"},
		"no trailer":               {whole[:len(whole)-20], "unexpected EOF"},
		"half a trailer":           {whole[:len(whole)-1], "unexpected EOF"},
		"another trailer":          {flipped(whole, len(whole)-3), "wrong checksum"},
		"garbage at the end":       {append(bytes.Clone(whole), 0), "something follows"},
		"cut off":                  {whole[:len(whole)/2], "unexpected EOF"},
		"fewer objects":            {with(2), "at byte"},
		"more objects":             {with(1, header(plumbing.BlobObject, 1), blob), "wrong checksum"},
		"four billion objects":     {with(0xffffffff, header(plumbing.BlobObject, 1), blob), "4294967295 objects"},
		"two billion objects":      {with(1<<31-1, header(plumbing.BlobObject, 1), blob), "at byte"},
		"type 0":                   {with(2, header(0, 1), blob), "type 0"},
		"type 5":                   {with(2, header(5, 1), blob), "type 5"},
		"too short":                {with(2, header(plumbing.BlobObject, 2), blob), "1 bytes claims to have 2"},
		"too long":                 {with(2, header(plumbing.BlobObject, 0), blob), "claims to have 0"},
		"4 GB announced":           {with(2, header(plumbing.BlobObject, 4<<30), blob), "claims to have 4294967296"},
		"4 GB of delta announced":  {with(2, header(plumbing.REFDeltaObject, 4<<30), make([]byte, 20), blob), "claims to have 4294967296"},
		"a size without end":       {with(2, bytes.Repeat([]byte{0xbf}, 30), blob), "overflows"},
		"a size too large":         {with(2, header(plumbing.BlobObject, 1<<62), blob), "overflows"},
		"an offset without end":    {with(2, header(plumbing.OFSDeltaObject, 1), bytes.Repeat([]byte{0xff}, 30), blob), "overflows"},
		"not deflated":             {with(2, header(plumbing.BlobObject, 1), []byte("plain text")), "zlib"},
		"deflated and damaged":     {with(2, header(plumbing.BlobObject, 1), flipped(blob, len(blob)-1)), "checksum"},
		"a base that is no object": {with(2, header(plumbing.OFSDeltaObject, 4), back(5), deflated(copying(1, 0, "x"))), "no object at the base"},
		"a base that is itself":    {with(2, header(plumbing.OFSDeltaObject, 4), []byte{0}, deflated(copying(1, 0, "x"))), "no object at the base"},
		"a base before the pack":   {with(2, header(plumbing.OFSDeltaObject, 4), back(1<<40), deflated(copying(1, 0, "x"))), "no object at the base"},
		"an empty delta":           {delta(nil), "damaged delta"},
		"a short delta":            {delta([]byte{0xe8, 7, 0}), "damaged delta"},
		"a delta of another base":  {delta(copying(999, 10, "x")), "a delta of 999 bytes has a base of 1000"},
		"a delta beyond its base":  {delta(copying(1000, 1001, "")), "damaged delta"},
		"a delta cut off":          {delta(copying(1000, 10, "text")[:14]), "damaged delta"},
		"a delta of no kind":       {delta([]byte{0xe8, 7, 1, 0}), "damaged delta"},
		"a delta that makes less":  {delta([]byte{0xe8, 7, 3, 1, 'x'}), "makes 1 bytes and claims to make 3"},
		"a delta of 1 GB":          {delta(append(binary.AppendUvarint([]byte{0xe8, 7}, 1<<30), 1, 'x')), "too large"},
		"a delta of 500 MB":        {delta(append(binary.AppendUvarint([]byte{0xe8, 7}, 500<<20), 1, 'x')), "claims to make 524288000"},
		"a delta without a size":   {delta(bytes.Repeat([]byte{0xff}, 30)), "damaged delta"},
		"too long a chain":         {chain(t, maxDeltaDepth+1, false), "chain of more than 4095"},
		"100,000 in a chain":       {chain(t, 100_000, false), "chain of more than 4095"},
		"100,000 by name":          {chain(t, 100_000, true), "chain of more than 4095"},
		"thin": {func() []byte {
			p := newHandPack(t, 3)
			p.blob(base)
			at := p.ref(oid{0xab}, copying(10, 10, "x"))
			p.ofs(at, copying(11, 10, "y"))
			return p.end()
		}(), "2 of its 3 objects are deltas without a base in it, which would be ab00"},
		"in a circle": {func() []byte {
			p := newHandPack(t, 2)
			p.ref(oid{1}, copying(10, 10, "x"))
			p.ref(oid{2}, copying(11, 10, "y"))
			return p.end()
		}(), "2 of its 2 objects are deltas without a base in it"},
		"twice, and by name": {func() []byte {
			next := append(bytes.Clone(base), 'x')
			p := newHandPack(t, 3)
			p.blob(base)
			p.ref(blobID(base), copying(len(base), len(base), "x"))
			p.ref(blobID(next), copying(len(next), len(base), ""))
			return p.end()
		}(), "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := openStore(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			took := allocated(func() { err = s.receive(t.Context(), bytes.NewReader(c.pack), nil) })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v; want %q", err, c.want)
			}
			// Most of it are the entries of long chains.
			if limit := int64(1<<20 + 12*len(c.pack)); took > limit {
				t.Errorf("took %d bytes of memory", took)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*")); left != nil {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestLargeBlob: a blob is never in memory as a whole while it is received.
func TestLargeBlob(t *testing.T) {
	const size = 128 << 20
	var out bytes.Buffer
	p, err := newPackWriter(&out, 1, zlib.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.begin(plumbing.BlobObject, size, nil); err != nil {
		t.Fatal(err)
	}
	p.zw.Reset(p)
	if _, err := io.CopyN(p.zw, zeros{}, size); err != nil {
		t.Fatal(err)
	}
	if err := p.zw.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.end(); err != nil {
		t.Fatal(err)
	}
	dir, s := newStore(t)
	took := allocated(func() { err = s.receive(t.Context(), &out, nil) })
	if err != nil {
		t.Fatal(err)
	}
	if took > 1<<20 {
		t.Errorf("took %d bytes of memory", took)
	}
	git(t, dir, "fsck", "--strict")
	if got, want := git(t, dir, "cat-file", "--batch-all-objects", "--batch-check=%(objecttype) %(objectsize)"), fmt.Sprint("blob ", size); got != want {
		t.Errorf("git finds %q; want %q", got, want)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestReceiveCancelled ends the context at various points.
func TestReceiveCancelled(t *testing.T) {
	t.Parallel()
	pack := comb(t, 300, 300<<10, false)
	for _, phase := range []string{"download", "index"} {
		ctx, cancel := context.WithCancel(t.Context())
		dir, s := newStore(t)
		calls := 0
		// 256 of 601 objects are named when it first tells of the index.
		err := s.receive(ctx, bytes.NewReader(pack), func(p string, _, _ int) {
			if p == phase {
				calls++
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) || calls == 0 {
			t.Errorf("%s: %v after %d calls", phase, err, calls)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "objects", "*tmp*")); left != nil {
			t.Errorf("%s: left behind: %v", phase, left)
		}
	}
}

// TestReceiveFails tells what the network did from what is wrong with a pack.
func TestReceiveFails(t *testing.T) {
	t.Parallel()
	_, s := newStore(t)
	broken := errors.New("the line is dead")
	pack := comb(t, 3, 100<<10, false)
	for _, n := range []int{0, 5, 100, 70 << 10, len(pack) - 5, len(pack)} {
		err := s.receive(t.Context(), io.MultiReader(bytes.NewReader(pack[:n]), failing{broken}), nil)
		if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "receiving a pack: ") {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestCollision: one of the two messages with which SHA-1 was shown to be a
// shambles (https://sha-mbles.github.io) is recognized.
func TestCollision(t *testing.T) {
	t.Parallel()
	text := strings.TrimSpace(readAll(t, "testdata/sha-mbles.hex"))
	data, err := hex.DecodeString(strings.ReplaceAll(text, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	f := newInflater()
	f.hash.Write(data)
	if id, err := f.endName(); err == nil {
		t.Errorf("named %s", id)
	}
	if id, err := f.nameOf(plumbing.BlobObject, data); err != nil || id != blobID(data) {
		t.Errorf("afterwards: %s, %v", id, err)
	}
}

// FuzzIndexPack: of a pack that is taken, each object can be read, and has the
// name that the index gives it.
func FuzzIndexPack(f *testing.F) {
	for _, pack := range [][]byte{chain(f, 3, false), chain(f, 3, true), comb(f, 3, 40, false), comb(f, 3, 40, true), newHandPack(f, 0).end()} {
		f.Add(pack[:len(pack)-20])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		pack := sealed(data)
		idx, err := indexed(t, pack)
		if err != nil {
			return
		}
		dir := t.TempDir()
		for name, content := range map[string][]byte{"p.idx": idx, "p.pack": pack} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p, err := openPack(filepath.Join(dir, "p.idx"), false)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		s := readStore(dir)
		for i := range p.n {
			o, err := s.unpacked(p, i)
			if err == nil {
				err = verify(oid(p.name(i)), o)
			}
			if err != nil {
				t.Errorf("%s: %v", oid(p.name(i)), err)
			}
		}
	})
}

// FuzzDelta holds what we make of a delta against what go-git does.
func FuzzDelta(f *testing.F) {
	f.Add([]byte("0123456789"), copying(10, 7, "x"))
	f.Add([]byte("0123456789"), []byte{10, 4, 0x91, 3, 2, 2, 'a', 'b'})
	f.Fuzz(func(t *testing.T, base, delta []byte) {
		ours, err := applyDelta(nil, base, delta)
		theirs, theirErr := packfile.PatchDelta(base, delta)
		switch {
		case err == nil && len(base) == 0: // go-git knows none of those
		case err == nil && (theirErr != nil || !bytes.Equal(ours, theirs)):
			t.Errorf("%q; go-git: %q, %v", ours, theirs, theirErr)
		case err != nil && theirErr == nil && len(delta) >= minDelta && len(theirs) <= maxObject:
			t.Errorf("%v; go-git: %q", err, theirs)
		}
	})
}

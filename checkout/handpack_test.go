// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

// A handPack is a pack that a test writes entry by entry.
type handPack struct {
	testing.TB
	w   *packWriter
	out bytes.Buffer
}

func newHandPack(t testing.TB, n int) *handPack {
	p := &handPack{TB: t}
	var err error
	if p.w, err = newPackWriter(&p.out, n, zlib.BestSpeed); err != nil {
		t.Fatal(err)
	}
	return p
}

// add writes an entry, and returns its offset.
func (p *handPack) add(typ plumbing.ObjectType, base, data []byte) int64 {
	at := p.w.at
	if err := p.w.add(typ, base, data); err != nil {
		p.Fatal(err)
	}
	return at
}

func (p *handPack) blob(data []byte) int64 { return p.add(plumbing.BlobObject, nil, data) }

// ofs writes a delta of what lies at base.
func (p *handPack) ofs(base int64, delta []byte) int64 {
	return p.add(plumbing.OFSDeltaObject, back(p.w.at-base), delta)
}

func (p *handPack) ref(base oid, delta []byte) int64 {
	return p.add(plumbing.REFDeltaObject, base[:], delta)
}

func (p *handPack) end() []byte {
	if _, err := p.w.end(); err != nil {
		p.Fatal(err)
	}
	return p.out.Bytes()
}

// back encodes how far before a delta its base lies.
func back(n int64) []byte {
	out := []byte{byte(n & 0x7f)}
	for n >>= 7; n > 0; n >>= 7 {
		n--
		out = append([]byte{0x80 | byte(n&0x7f)}, out...)
	}
	return out
}

// copying is a delta that copies n bytes of a base, and inserts text.
func copying(base, n int, text string) []byte {
	out := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(base)), uint64(n+len(text)))
	for at := 0; at < n; {
		k := min(n-at, 0xffffff)
		out = append(out, 0xff, byte(at), byte(at>>8), byte(at>>16), byte(at>>24), byte(k), byte(k>>8), byte(k>>16))
		at += k
	}
	for len(text) > 0 {
		k := min(len(text), 127)
		out = append(append(out, byte(k)), text[:k]...)
		text = text[k:]
	}
	return out
}

func blobID(data []byte) oid { return plumbing.ComputeHash(plumbing.BlobObject, data) }

// noise is data that does not deflate.
func noise(seed uint64, n int) []byte {
	out := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(out)
	return out
}

// chain is a pack with a blob and n deltas, each of the one before.
func chain(t testing.TB, n int, byName bool) []byte {
	p := newHandPack(t, n+1)
	data := []byte("a blob")
	at := p.blob(data)
	for i := range n {
		text := fmt.Sprint(" ", i)
		delta := copying(len(data), min(len(data), 20), text)
		if byName {
			at = p.ref(blobID(data), delta)
		} else {
			at = p.ofs(at, delta)
		}
		data = append(data[:min(len(data), 20)], text...)
	}
	return p.end()
}

// comb is a pack of n deltas, each of the one before, that all have another
// delta, for which they have to be at hand again. With objects of size bytes
// they do not all fit in heldBases.
func comb(t testing.TB, n, size int, byName bool) []byte {
	p := newHandPack(t, 2*n+1)
	data := noise(1, size)
	at := p.blob(data)
	for i := range n {
		tooth := copying(len(data), len(data), fmt.Sprint("tooth", i))
		spine := copying(len(data), len(data)-8, fmt.Sprintf("%08d", i))
		if byName {
			p.ref(blobID(data), tooth)
			p.ref(blobID(data), spine)
		} else {
			p.ofs(at, tooth)
			at = p.ofs(at, spine)
		}
		data = append(bytes.Clone(data[:len(data)-8]), fmt.Sprintf("%08d", i)...)
	}
	return p.end()
}

// history is a pack that git makes of a history, with the arguments for
// pack-objects.
func history(t testing.TB, seed uint64, args ...string) []byte {
	dir := t.TempDir()
	git(t, dir, "init", "-q", "--bare", ".")
	r := rand.New(rand.NewPCG(seed, 1))
	var in strings.Builder
	for c := range 40 {
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter C <c@example.net> %d +0000\ndata 2\nx\n", 1_700_000_000+c)
		for range 1 + r.IntN(20) {
			k := r.IntN(60)
			text := strings.Repeat(fmt.Sprintf("file %d\n", k), 1+k*k) + fmt.Sprint(r.IntN(1000))
			fmt.Fprintf(&in, "M 100644 inline dir-%d/file-%d\ndata %d\n%s\n", k%7, k, len(text), text)
		}
	}
	in.WriteString("tag v1\nfrom refs/heads/main\ntagger C <c@example.net> 1700000000 +0000\ndata 2\nx\n")
	gitIn(t, dir, in.String(), "fast-import", "--quiet")
	cmd := exec.Command("git", append([]string{"pack-objects", "-q", "--all", "--stdout"}, args...)...)
	cmd.Dir, cmd.Env = dir, gitEnv
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

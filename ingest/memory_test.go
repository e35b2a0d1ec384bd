// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"fmt"
	"maps"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
)

// Reading a file allocates at most so many bytes for each of its own, beyond
// what any file takes. The worst text has a token in each byte.
const (
	allocatedPerByte = 3000
	allocatedAlways  = 1 << 20
)

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	f()
	metrics.Read(sample)
	return sample[0].Value.Uint64() - before
}

// TestMemory: texts that were made to take much memory take no more than their
// size allows, whether they are accepted or not.
func TestMemory(t *testing.T) {
	const size = 20_000
	fill := func(s string) string { return strings.Repeat(s, size/len(s)+1) }
	deep := func(open, shut string, n int) string { return strings.Repeat(open, n) + strings.Repeat(shut, n) }
	texts := map[string]string{
		"documents":        fill("a: 1\n---\n"),
		"empty documents":  fill("---\n"),
		"objects":          fill(vpc("a") + "---\n"),
		"comments":         fill("# c\n") + vpc("a"),
		"comment lines":    vpc("a") + fill("#\n"),
		"one line":         vpc("a", "  x: "+fill("y z ")+"\n"),
		"list":             vpc("a", "  x: ["+fill("a,")+"]\n"),
		"block list":       vpc("a", "  x:\n"+fill("  -\n")),
		"empty lists":      vpc("a", "  x: ["+fill("[],")+"]\n"),
		"empty mappings":   vpc("a", "  x: ["+fill("{},")+"]\n"),
		"nesting":          vpc("a", "  x: "+deep("[", "]", 90)+"\n"),
		"too much nesting": vpc("a", "  x: "+deep("[", "]", size/2)+"\n"),
		"open brackets":    vpc("a", "  x: "+fill("[")+"\n"),
		"open braces":      vpc("a", "  x: "+fill("{a: ")+"\n"),
		"quotes":           vpc("a", "  x: ["+fill("'',")+"]\n"),
		"escapes":          vpc("a", "  x: \""+fill("\\u2028")+"\"\n"),
		"anchors":          vpc("a", "  x: ["+fill("&a b,")+"]\n"),
		"aliases":          vpc("a", "  x: &a b\n  z: ["+fill("*a,")+"]\n"),
		"aliases of lists": vpc("a", "  x: &a [b, c, d]\n  z: ["+fill("*a,")+"]\n"),
		"bomb":             vpc("a", bomb(9)...),
		"expanding":        vpc("a", bomb(3)...),
		"tags":             vpc("a", "  x: ["+fill("!!str a,")+"]\n"),
		"unknown tags":     vpc("a", "  x: ["+fill("!a b,")+"]\n"),
		"merge keys":       vpc("a", "  x: &a {b: c}\n  z:\n"+fill("  - {<<: *a}\n")),
		"many keys":        vpc("a", "  x:\n"+numbered("    k%d:\n")),
		"booleans":         vpc("a", "  x: ["+fill("yes,")+"]\n"),
		"duplicate keys":   vpc("a", "  x:\n"+fill("    a: b\n")),
		"wrong keys":       vpc("a", "  x:\n"+numbered("    %d.0: b\n")),
		"labels":           vpc("a\n  labels:\n" + numbered("    k%d: 1\n")),
		"JSON":             `{"apiVersion": "vpc.githedgehog.com/v1beta1", "kind": "VPC", "metadata": {"name": "a"}, "spec": [` + fill("{},") + "{}]}",
		"control":          fill("\x01"),
		"not UTF-8":        fill("\xff"),
		"carriage returns": fill("\r"),
		"CRLF":             strings.ReplaceAll(fill(vpc("a")+"---\n"), "\n", "\r\n"),
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		t.Run(name, func(t *testing.T) { boundedMemory(t, []byte(texts[name])) })
	}
}

// numbered repeats a line with a number in it.
func numbered(line string) string {
	var b strings.Builder
	for i := 0; b.Len() < 20_000; i++ {
		fmt.Fprintf(&b, line, i)
	}
	return b.String()
}

// boundedMemory checks what reading a file allocates, also with partial, where
// it is cut in two. Aliases may expand to more than is in proportion to the
// file, up to a bound of their own.
func boundedMemory(t *testing.T, data []byte) {
	t.Helper()
	limit := uint64(allocatedAlways + allocatedPerByte*len(data))
	if bytes.IndexByte(data, '*') >= 0 {
		limit += uint64(min(allocatedPerByte*MaxDocument, 1000*allocatedPerByte*len(data)))
	}
	for _, p := range []Policy{hedgehog, partial} {
		got := allocated(func() {
			if _, err := p.Plan([]File{{Path: "x.yaml", Data: data}}, tree{}.managed, nil); err != nil {
				t.Fatal(err)
			}
		})
		if got > limit {
			t.Errorf("%d bytes take %d, %d each", len(data), got, got/uint64(max(1, len(data))))
		}
	}
}

// FuzzMemory: there is no text that takes more.
func FuzzMemory(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		boundedMemory(t, data)
	})
}

// The values of objects are not kept: what a plan holds is in proportion to the
// file whatever is in it.
func TestPlanHolds(t *testing.T) {
	var b strings.Builder
	for i := range 2000 {
		b.WriteString("---\n" + fabricDocument(i))
	}
	data := []byte(b.String())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	plan, err := hedgehog.Plan([]File{{Path: "x.yaml", Data: data}}, tree{}.managed, nil)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if err != nil || len(plan.Writes) != 2000 {
		t.Fatalf("%d writes, %v", len(plan.Writes), err)
	}
	if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > 5*int64(len(data)) {
		t.Errorf("a plan for %d bytes holds %d", len(data), held)
	}
	runtime.KeepAlive(plan)
}

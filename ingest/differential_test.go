// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	kjson "sigs.k8s.io/json"
)

// Pieces of which TestDifferential puts documents together: those about which
// YAML readers are known to disagree, and enough ordinary ones that most
// documents can be read at all.
var (
	differentialKeys = []string{"a", "b", "c", "name", "spec", "\"d\"", "'e'", "on", "1", "0x1", "<<", "~", "? f\n", "&k g", "!!str h", "yes", "2026-01-01", "\"\\u0061\"", "1.5", "true"}

	differentialScalars = []string{"x", "x y", "12", "-7", "0", "1.5", "true", "null", "~", "\"q\"", "'s'", "\"\"", "[]", "{}", "[a, 1]", "{p: q}", "", "x # c", "0c:20:12:ff:00:00", "10.0.0.0/24",
		"yes", "no", "On", "n", "0755", "0o17", "09", "0x1F", "0b11", "1_000", "1e3", "1e400", ".5", "5.", "+1", "-0", "-0.0", "1:30", "2026-01-01", "2026-01-01 10:00:00", ".inf", "-.Inf", ".nan",
		"9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "0.1", "12345678901234567890123", "=", "<<", "!!str 1", "!!int '1'", "!!float 1", "!!bool yes", "!!null ''", "!!binary YQ==", "!x y", "! 1",
		"&a x", "*a", "&m {r: s}", "*m", "[*a, *m]", "\"\\u2028\\t\\x41\"", "\"a\n  b\"", "'a\n\n  b'", "a\n  b", "|\n  l\n  m", "|-\n  l\n", "|+\n  l\n\n", ">\n  l\n  m\n\n  n", ">2\n    l", "\"\\/\"", "[a\n]", "{a: b,\n c: d}", "- x", "@x", "%x", "x: y", "\tx", "a\tb"}

	differentialBetween = []string{"", "", "", "", "", "", "# c\n", "  # c\n", "\n", "   \n", "\t\n", "---\n", "--- # c\n", "---\n---\n", "...\n", "...\n---\n", "--- x\n", "----\n", "---#c\n", "%YAML 1.1\n", "\ufeff", "\r\n"}
)

// generate puts a file together.
func generate(random *rand.Rand) string {
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	oneIn := func(n int) bool { return random.IntN(n) == 0 }
	var b strings.Builder
	for range random.IntN(2) + 1 {
		if oneIn(3) {
			b.WriteString("anchors: [&a x, &m {r: s}]\n")
		}
		for i := range random.IntN(4) + 1 {
			if oneIn(6) {
				b.WriteString(pick(differentialBetween))
			}
			key, indent := "k"+strconv.Itoa(i), ""
			if oneIn(12) {
				key = pick(differentialKeys)
			}
			if oneIn(4) {
				b.WriteString("in" + strconv.Itoa(i) + ":\n")
				indent = "  "
				if oneIn(2) {
					b.WriteString("  - " + strings.ReplaceAll(pick(differentialScalars), "\n", "\n  ") + "\n")
					continue
				}
			}
			b.WriteString(indent + key + ": " + strings.ReplaceAll(pick(differentialScalars), "\n", "\n"+indent) + "\n")
		}
		b.WriteString("---\n")
	}
	in := b.String()
	if oneIn(10) {
		in = strings.ReplaceAll(in, "\n", "\r\n")
	}
	return in
}

// TestDifferential: thousands of generated files, each read as kubectl reads it
// and by this package: equal or refused, never different.
func TestDifferential(t *testing.T) {
	const files = 3000
	random := rand.New(rand.NewPCG(1, 2))
	equal, failed := 0, 0
	for range files {
		in := generate(random)
		values, ok := readAll([]byte(in))
		want, err := kubectl([]byte(in))
		if err != nil {
			failed++
		}
		if !ok {
			continue
		}
		if err != nil || len(values) != len(want) {
			t.Fatalf("%q: %d documents, but kubectl reads %d, error %v", in, len(values), len(want), err)
		}
		for i := range values {
			if at, a, b := firstDifference(values[i], want[i], nil); at != "" {
				t.Errorf("%q: document %d: %s: %#v, but kubectl reads %#v", in, i+1, at, a, b)
			}
		}
		equal++
	}
	t.Logf("%d files: %d read the same, %d refused; kubectl refuses %d", files, equal, files-equal, failed)
	if equal < files/4 || equal == files {
		t.Errorf("the generated files say little: %d of %d were accepted", equal, files)
	}
}

// TestKubectl: the program itself reads of the examples, and of generated files
// that are accepted, what this package does.
func TestKubectl(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("kubectl is not installed")
	}
	dir := t.TempDir()
	var want []any
	add := func(in string) {
		v := hedgehog.Read(File{Path: "x.yaml", Data: []byte(in)})
		if len(v.Problems) > 0 {
			return
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%06d.yaml", len(want))), []byte(in), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, o := range v.Objects {
			want = append(want, o.Value)
		}
	}
	for _, e := range accepted {
		if strings.HasPrefix(e.in, "{") && strings.Contains(e.in, "---") {
			continue // kubectl 1.32 reads no separator behind JSON; the library as it is here does
		}
		add(e.in)
	}
	examples := len(want)
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		in := strings.ReplaceAll(generate(random), "---\n", "")
		add(vpc("a") + "  x:\n   " + strings.ReplaceAll(in, "\n", "\n   ") + "\n")
	}
	if n := len(want) - examples; n < 100 {
		t.Errorf("only %d generated files are accepted", n)
	}
	// This command asks no server for the kinds. It prints what it read, with
	// the annotation.
	out, err := exec.CommandContext(t.Context(), kubectl, "annotate", "--local", "--filename", dir, "--output", "json", "example.org/read=yes").Output()
	if err != nil {
		var said *exec.ExitError
		errors.As(err, &said)
		t.Fatalf("kubectl: %v: %s", err, said.Stderr)
	}
	var got []any
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var raw json.RawMessage
		var v any
		if err := errors.Join(d.Decode(&raw), kjson.UnmarshalCaseSensitivePreserveInts(raw, &v)); err != nil {
			t.Fatal(err)
		}
		got = append(got, v)
	}
	if len(got) != len(want) {
		t.Fatalf("kubectl reads %d objects, not %d", len(got), len(want))
	}
	for i := range got {
		for _, v := range []any{got[i], want[i]} {
			metadata := v.(map[string]any)["metadata"].(map[string]any)
			delete(metadata, "namespace") // filled in here
			if annotations, _ := metadata["annotations"].(map[string]any); annotations != nil {
				delete(annotations, "example.org/read")
			}
			if annotations, ok := metadata["annotations"].(map[string]any); !ok || len(annotations) == 0 {
				delete(metadata, "annotations")
			}
		}
		if at, a, b := firstDifference(want[i], got[i], nil); at != "" {
			t.Errorf("object %d: %s: %#v, but kubectl reads %#v", i, at, a, b)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files and docs/problems.md anew")

// golden compares got with a file, or writes it with -update.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (run the test with -update to write it)", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run the test with -update to write it anew)\ngot:\n%s\nwant:\n%s", file, got, want)
	}
}

// reference renders the table of codes as docs/problems.md.
func reference() []byte {
	var b bytes.Buffer
	b.WriteString("# Problems\n\n" +
		"Each problem that hhwatchd reports about a file has a code. Codes keep their meaning from one release to the next. " +
		"`hhwatchd explain CODE` prints one of these sections.\n\n" +
		"This file is generated from the table in `ingest/codes.go`: `go test ./ingest -run TestReference -update`.\n")
	titles := map[string]string{
		"HH1": "HH1xx: the file cannot be read",
		"HH2": "HH2xx: not a good object",
		"HH3": "HH3xx: not allowed in this fabric",
		"HH4": "HH4xx: does not fit its schema",
		"HH5": "HH5xx: does not fit the others of its fabric",
		"HH6": "HH6xx: refused by the fabric's cluster",
	}
	last := ""
	for _, code := range slices.Sorted(maps.Keys(table)) {
		if group := code[:3]; group != last {
			fmt.Fprintf(&b, "\n## %s\n", titles[group])
			last = group
		}
		p := table[code]
		fmt.Fprintf(&b, "\n### %s: %s\n\n%s\n\nWhat to do: %s.\n", code, p.title, p.explanation, p.remedy)
	}
	return b.Bytes()
}

func TestReference(t *testing.T) {
	golden(t, "../docs/problems.md", reference())
}

func TestExplain(t *testing.T) {
	for code, p := range table {
		text, ok := Explain(code)
		if !ok || !strings.HasPrefix(text, code+": "+p.title+"\n") || !strings.Contains(text, p.explanation) {
			t.Errorf("Explain(%s) = %q, %v", code, text, ok)
		}
		for _, s := range []string{p.title, p.explanation, p.remedy} {
			if s == "" || strings.ContainsAny(s, "\n\r\t") {
				t.Errorf("%s: %q is not one line of text", code, s)
			}
		}
	}
	if text, ok := Explain("HH999"); ok || text != "" {
		t.Errorf("Explain(HH999) = %q, %v, want nothing", text, ok)
	}
}

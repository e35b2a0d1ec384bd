// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// seed adds the files of all decisions, and pieces to build others from.
func seed(f *testing.F) {
	for _, e := range slices.Concat(accepted, refused) {
		if len(e.in) < 10000 {
			f.Add([]byte(e.in))
		}
	}
	for _, s := range []string{
		"a: 0o7", "a: 0777", "a: 09", "a: 1_0.5", "a: 0x_1", "a: 1:30:00", "a: +.5e-3", "a: -0.0", "a: 1e21", "a: 0b102",
		"a: !!float 0x10", "a: !!str", "a: !!null x", "a: !!bool yes", "a: !!int 1.0", "a: ! ''", "a: '<<'", "<<: {a: b}", "'<<': a", "!!merge a: {b: c}",
		"a: &a\nb: *a", "&a a: *a", "*a : b", "? |\n  a\n: b", "- - a\n  - b", "a:\n- b\n-  c\n", "a: >2-\n    b\n\n   c\n", "a: |1+\n b\n\n",
		"# a\n#b\n\n# c\na: b # d\n# e\n  # f\n", "{a: [b, c,], d: {e}, }", "[a: b]", "{\"a\":1}\n#c", " {\"a\": 1} ", "a: 'b\n\n  c'", "a: \"b\\\n  c\"",
	} {
		f.Add([]byte(s))
		f.Add([]byte(vpc("a", "  "+strings.ReplaceAll(s, "\n", "\n  ")+"\n")))
	}
}

// FuzzRead: whatever the bytes, there is a verdict, of objects or of problems
// that say where they are and what to do.
func FuzzRead(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		v := hedgehog.Read(File{Path: "x.yaml", Data: data})
		if !bytes.Equal(data, before) {
			t.Fatal("the data was changed")
		}
		if (len(v.Objects) == 0) == (len(v.Problems) == 0) {
			t.Fatalf("%d objects and %d problems", len(v.Objects), len(v.Problems))
		}
		lines := bytes.Count(data, []byte("\n")) + 1
		for _, p := range v.Problems {
			if _, ok := table[p.Code]; !ok || p.Message == "" || p.Hint == "" || p.Line > lines || p.Line < 0 || p.Column < 0 || p.Document < 0 {
				t.Errorf("a problem that does not help: %#v", p)
			}
			if strings.ContainsAny(p.String(), "\n\r") {
				t.Errorf("not one line: %q", p)
			}
		}
		for _, o := range v.Objects {
			if o.Line < 1 || o.Line > lines || !strings.HasPrefix(o.Path, "managed/"+o.Plural+"/") || strings.Contains(o.Path, "..") {
				t.Errorf("%+v", o)
			}
		}
		if again := hedgehog.Read(File{Path: "x.yaml", Data: data}); !reflect.DeepEqual(v, again) {
			t.Errorf("read twice: %+v, then %+v", v, again)
		}
	})
}

// FuzzSameReading: what is accepted is what kubectl reads from the same bytes.
// Any mapping is let through here, not only those that are good objects.
func FuzzSameReading(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		values, ok := readAll(data)
		if !ok {
			return
		}
		want, err := kubectl(data)
		if err != nil {
			t.Fatalf("accepted, but kubectl fails: %v", err)
		}
		if len(values) != len(want) {
			t.Fatalf("%d documents, but kubectl reads %d", len(values), len(want))
		}
		for i := range values {
			if at, a, b := firstDifference(values[i], want[i], nil); at != "" {
				t.Errorf("document %d: %s: %#v, but kubectl reads %#v", i+1, at, a, b)
			}
		}
	})
}

// readAll reads the documents of a file without asking whether they are
// objects, and reports whether there was no problem.
func readAll(data []byte) ([]any, bool) {
	var ps problems
	var values []any
	for _, doc := range documents(data, &ps) {
		r := &reader{doc: doc, problems: &ps, limits: DefaultLimits}
		if _, value := r.read(); value != nil {
			values = append(values, value)
		}
	}
	return values, len(ps.list) == 0
}

// FuzzNormalise: the text of a document keeps values, lines and comments, and
// normalising it again changes nothing.
func FuzzNormalise(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		v := hedgehog.Read(File{Path: "x.yaml", Data: data})
		if len(v.Problems) > 0 {
			// Most mutations are no objects. Make one of it.
			data = []byte(vpc("a") + "  x:\n   " + strings.ReplaceAll(strings.ToValidUTF8(string(data), ""), "\n", "\n   ") + "\n")
			if v = hedgehog.Read(File{Path: "x.yaml", Data: data}); len(v.Problems) > 0 {
				return
			}
		}
		if err := holds(string(data), v); err != nil {
			t.Errorf("%q: %v", data, err)
		}
	})
}

// FuzzScalar: a scalar on its own, in every style, where most differences
// between readers are.
func FuzzScalar(f *testing.F) {
	for _, s := range []string{"yes", "0755", "1_000", "1e3", "2026-01-01", "~", ".inf", "-0", "0x1F", "1:30", "<<", "=", "!x y", "&a b", "*a", "@a", "9223372036854775808", "-9223372036854775809", "1.0000000000000000001", "0b1", "0o7", "+1", "TRUE", "N", ".5", "5."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, in := range []string{"a: " + s, s + ": a", "[" + s + "]: a", "a: [" + s + "]", "a: \"" + s + "\"", "a: '" + s + "'", "a: |\n  " + s, "{\"a\": " + s + "}", "a: !!str " + s, "a: !!float " + s} {
			values, ok := readAll([]byte(in))
			if !ok {
				continue
			}
			want, err := kubectl([]byte(in))
			if err != nil || len(want) != len(values) {
				t.Fatalf("%q: %d documents, but kubectl reads %d, error %v", in, len(values), len(want), err)
			}
			for i := range values {
				if at, a, b := firstDifference(values[i], want[i], nil); at != "" {
					t.Errorf("%q: %s: %#v, but kubectl reads %#v", in, at, a, b)
				}
			}
			checkNumbers(t, in, values)
		}
	})
}

// checkNumbers: values have only the types of unstructured objects.
func checkNumbers(t *testing.T, in string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, value := range v {
			checkNumbers(t, in, value)
		}
	case []any:
		for _, value := range v {
			checkNumbers(t, in, value)
		}
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			t.Errorf("%q: %v", in, v)
		}
	case nil, bool, string, int64:
	default:
		t.Errorf("%q: a value of type %T", in, v)
	}
}

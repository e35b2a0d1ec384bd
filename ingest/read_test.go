// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var hedgehog = Policy{Namespace: "default", Kinds: Hedgehog()}

func codesOf(problems []Problem) string {
	var codes []string
	for _, p := range problems {
		codes = append(codes, p.Code)
	}
	return strings.Join(codes, " ")
}

func TestAccepted(t *testing.T) {
	for _, e := range accepted {
		t.Run(e.name, func(t *testing.T) {
			v := hedgehog.Read(File{Path: "x.yaml", Data: []byte(e.in)})
			if len(v.Problems) > 0 {
				t.Fatalf("refused:\n%s", Reason(v))
			}
			var texts []string
			for _, o := range v.Objects {
				texts = append(texts, string(o.Text))
			}
			if !slices.Equal(texts, e.texts) {
				t.Errorf("got\n%q, want\n%q", texts, e.texts)
			}
			if Reason(v) != nil {
				t.Errorf("a reason without a problem:\n%s", Reason(v))
			}
			if err := holds(e.in, v); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	shown := make(map[string]bool)
	for _, e := range refused {
		t.Run(e.name, func(t *testing.T) {
			v := hedgehog.Read(File{Path: "x.yaml", Data: []byte(e.in)})
			if got := codesOf(v.Problems); got != e.codes {
				t.Errorf("got %s, want %s\n%s", got, e.codes, Reason(v))
			}
			if v.Objects != nil {
				t.Errorf("a rejected file has %d objects", len(v.Objects))
			}
			golden(t, filepath.Join("testdata", "reasons", strings.ReplaceAll(e.name, " ", "-")+".reason"), Reason(v))
			if parsed := ParseReason(Reason(v)); !slices.Equal(parsed, v.Problems) {
				t.Errorf("the reason is read as\n%v, want\n%v", parsed, v.Problems)
			}
			for _, p := range v.Problems {
				if strings.Contains(p.String(), "\n") {
					t.Errorf("not one line: %q", p)
				}
			}
		})
		for code := range strings.FieldsSeq(e.codes) {
			shown[code] = true
		}
	}
	for _, e := range judged {
		for code := range strings.FieldsSeq(e.codes) {
			shown[code] = true
		}
	}
	for _, e := range crossed {
		for code := range table {
			shown[code] = shown[code] || strings.Contains(e.codes, code)
		}
	}
	elsewhere := []string{badFileName, fileTooLarge, tooManyDocuments, documentLarge, tooManyProblems, textNotKept, notOneObject, wrongPath, refusedByCluster}
	for _, code := range slices.Sorted(maps.Keys(table)) {
		if !shown[code] && !slices.Contains(elsewhere, code) {
			t.Errorf("no example of %s", code)
		}
	}
}

func TestBounds(t *testing.T) {
	huge := strings.Repeat("# comment\n", int(DefaultLimits.File)/10+1) + vpc("a")
	for _, test := range []struct{ name, path, in, want string }{
		{"name", "sub/x.txt", vpc("a"), "HH101"},
		{"name in capitals", "x.YAML", vpc("a"), "HH101"},
		{"no extension", "yaml", vpc("a"), "HH101"},
		{"short name", "sub/x.yml", vpc("a"), ""},
		{"JSON name", "x.json", jsonVPC, ""},
		{"file", "x.yaml", huge, "HH102"},
		{"document", "x.yaml", vpc("a", "  x: "+strings.Repeat("x", MaxDocument)+"\n") + "---\n" + vpc("b", "  x: yes\n"), "HH106 HH116"},
		{"name of 250", "x.yaml", vpc(strings.Repeat("a", 250)), ""},
		{"aliases within the bound", "x.yaml", vpc("a", bomb(3)...), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := hedgehog.Read(File{Path: test.path, Data: []byte(test.in)})
			if got := codesOf(v.Problems); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// Each limit has its code, and nothing that was accepted before is held against
// narrower ones.
func TestLimits(t *testing.T) {
	in := []byte(vpc("a", "  x: &x [[b], c]\n  z: [*x, *x]\n") + "---\n" + vpc("b"))
	for _, test := range []struct {
		limits Limits
		want   string
	}{
		{Limits{}, ""},
		{Limits{1000, 2, 5, 1000}, ""},
		{Limits{100, 2, 5, 1000}, "HH102"},
		{Limits{1000, 1, 5, 1000}, "HH121"},
		{Limits{1000, 2, 3, 1000}, "HH107"},
		{Limits{1000, 2, 5, 100}, "HH108"},
	} {
		p := hedgehog
		p.Limits = test.limits
		f := File{Path: "x.yaml", Data: in}
		if got := codesOf(p.Read(f).Problems); got != test.want {
			t.Errorf("%+v: got %s, want %s", test.limits, got, test.want)
		}
		if v := p.ReadAccepted(f); len(v.Objects) != 2 {
			t.Errorf("%+v: accepted before: %s", test.limits, Reason(v))
		}
	}
}

func TestTooManyProblems(t *testing.T) {
	v := hedgehog.Read(File{Path: "x.yaml", Data: []byte(strings.Repeat("a: 1\n---\n", 5000))})
	if n := len(v.Problems); n != maxProblems+1 {
		t.Fatalf("%d problems are listed", n)
	}
	if last := v.Problems[maxProblems]; last.Code != tooManyProblems {
		t.Errorf("the last one is %v", last)
	}
}

// TestTextNotKept holds normalise to its promise: what it moved is read again.
func TestTextNotKept(t *testing.T) {
	doc := document{number: 1, line: 1, body: []byte("a: |\n  x\n"), trail: [][]byte{[]byte("  y\n")}}
	root, err := parseNodes(doc.body)
	if err != nil {
		t.Fatal(err)
	}
	if text, ok := normalise(doc, root, map[string]any{"a": "x\n"}); ok {
		t.Errorf("%q was taken for the same", text)
	}
}

func TestObject(t *testing.T) {
	in := "# first\n---\n" + vpc("a") + "---\n# second\n\n" + vpc("b\n  namespace: other", "  num: [1, 1.5, true, null, x, 9007199254740993]\n")
	v := hedgehog.Read(File{Path: "sub/x.yaml", Data: []byte(in)})
	if len(v.Objects) != 2 {
		t.Fatalf("%s", Reason(v))
	}
	a, b := v.Objects[0], v.Objects[1]
	if a.String() != "VPC/a" || a.Namespace != "default" || a.Path != "managed/vpcs/a.yaml" || a.Document != 1 || a.Line != 3 || a.Plural != "vpcs" {
		t.Errorf("a: %+v", a)
	}
	if b.String() != "VPC/other/b" || b.Path != "managed/vpcs/other/b.yaml" || b.Document != 2 || b.Line != 12 || b.APIVersion != "vpc.githedgehog.com/v1beta1" {
		t.Errorf("b: %+v", b)
	}
	if got := a.Value["metadata"].(map[string]any)["namespace"]; got != "default" {
		t.Errorf("namespace %v was filled in", got)
	}
	if bytes.Contains(a.Text, []byte("namespace")) {
		t.Errorf("the text has a namespace:\n%s", a.Text)
	}
	want := []any{int64(1), 1.5, true, nil, "x", int64(9007199254740993)}
	if got := b.Value["spec"].(map[string]any)["num"]; !reflect.DeepEqual(got, want) {
		t.Errorf("values %#v, want %#v", got, want)
	}

	// The data is the caller's own.
	data := []byte(vpc("a"))
	o := hedgehog.Read(File{Path: "x.yaml", Data: data}).Objects[0]
	clear(data)
	if string(o.Text) != vpc("a") {
		t.Errorf("the text changed with the data: %q", o.Text)
	}
}

func TestReadManaged(t *testing.T) {
	for _, test := range []struct{ name, path, in, want string }{
		{"in its place", "managed/vpcs/a.yaml", vpc("a"), ""},
		{"of another namespace", "managed/vpcs/other/a.yaml", vpc("a\n  namespace: other"), ""},
		{"edited by hand", "managed/vpcs/a.yaml", "# mine\n---\n" + vpc("a") + "\n\n", ""},
		{"at another name", "managed/vpcs/b.yaml", vpc("a"), "HH214"},
		{"in another directory", "managed/switches/a.yaml", vpc("a"), "HH214"},
		{"of another namespace, at the top", "managed/vpcs/a.yaml", vpc("a\n  namespace: other"), "HH214"},
		{"two", "managed/vpcs/a.yaml", vpc("a") + "---\n" + vpc("b"), "HH213"},
		{"none", "managed/vpcs/a.yaml", "", "HH103"},
		{"a bad one", "managed/vpcs/a.yaml", vpc("a", "  x: yes\n"), "HH116"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o, problems := hedgehog.ReadManaged(test.path, []byte(test.in))
			if got := codesOf(problems); got != test.want {
				t.Fatalf("got %s, want %s", got, test.want)
			}
			if test.want == "" && (o.Name != "a" || o.Path != test.path) {
				t.Errorf("got %+v", o)
			}
			for _, p := range problems {
				if p.File != test.path {
					t.Errorf("%v: not in %s", p, test.path)
				}
			}
		})
	}
}

func TestProblemString(t *testing.T) {
	for _, test := range []struct {
		p    Problem
		want string
	}{
		{Problem{File: "a/x.yaml", Document: 3, Line: 41, Column: 7, Code: "HH203", Message: "kind is missing", Hint: "write one"},
			"a/x.yaml: document 3, line 41, column 7: HH203 kind is missing: write one"},
		{Problem{File: "x.yaml", Document: 3, Line: 41, Code: "HH203", Message: "kind is missing", Hint: "write one"},
			"x.yaml: document 3, line 41: HH203 kind is missing: write one"},
		{Problem{File: "a\nb\x1b[31m.txt", Code: "HH101", Message: "m", Hint: "h"}, `"a\nb\x1b[31m.txt": HH101 m: h`},
	} {
		if got := test.p.String(); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

// TestPlaces holds the places of problems to what a person sees in an editor.
func TestPlaces(t *testing.T) {
	for _, test := range []struct {
		in                string
		doc, line, column int
	}{
		{"\n# x\n---\n" + vpc("a") + "--- # y\n\n" + vpc("b", "  ü: [1, {x: yes}]\n"), 2, 18, 14},
		{"a: 1\nb: 'it's'\n", 1, 2, 0},
		{"\"a\nb: c\nd: e\n", 1, 1, 0},
		{"---\n# c\na: [b\nc: d\n", 1, 3, 0},
		{"a:\n  b: c\n\td: e\n", 1, 3, 1},
		{"a: b: c\n", 1, 1, 0},
		{"a: &x 1\nb: *x\nc\nd: e\n", 1, 3, 0},
		{"{a: b}\n\n# c\nd: e\n", 1, 4, 0},
		{"a: b\n...\n\nc: d\n", 1, 4, 0},
		{vpc("a\n  labels:\n    x: 1"), 1, 6, 5},
		{"kind: VPC\napiVersion: v1\nmetadata:\n  namespace: x\n", 1, 3, 1},
	} {
		v := hedgehog.Read(File{Path: "x.yaml", Data: []byte(test.in)})
		got := slices.ContainsFunc(v.Problems, func(p Problem) bool {
			return p.Document == test.doc && p.Line == test.line && p.Column == test.column
		})
		if !got {
			t.Errorf("%q: no problem in document %d, line %d, column %d\n%s", test.in, test.doc, test.line, test.column, Reason(v))
		}
	}
}

// TestNoSecrets: values of a document are not repeated in problems that are
// about its syntax or its tags.
func TestNoSecrets(t *testing.T) {
	for _, in := range []string{
		vpc("a", "  password: !!int s3cret\n"),
		vpc("a", "  password: !!binary s3cret\n"),
		vpc("a", "  password: 's3cret\n"),
		vpc("a", "  password: @s3cret\n"),
		vpc("a", "  ? {password: s3cret}\n  : x\n"),
		vpc("a", "  password: s3cret\n", "  password: s3cret\n"),
		"--- {password: s3cret}\n" + vpc("a"),
	} {
		v := hedgehog.Read(File{Path: "x.yaml", Data: []byte(in)})
		if reason := Reason(v); len(reason) == 0 || bytes.Contains(reason, []byte("s3cret")) {
			t.Errorf("%q:\n%s", in, reason)
		}
	}
}

// holds checks what must hold for every accepted file: kubectl reads the same
// objects from the file and from the managed texts, and the texts are stable
// and keep the comments.
func holds(in string, v Verdict) error {
	want, err := kubectl([]byte(in))
	if err != nil {
		return fmt.Errorf("accepted, but kubectl fails: %w", err)
	}
	if len(want) != len(v.Objects) {
		return fmt.Errorf("%d objects, but kubectl reads %d", len(v.Objects), len(want))
	}
	for i, o := range v.Objects {
		if o.Absent {
			return nil // what is to be absent has no text that could keep anything
		}
		if err := sameObject(want[i], o.Value); err != nil {
			return fmt.Errorf("document %d: %w", o.Document, err)
		}
		texts, err := kubectl(o.Text)
		if err != nil || len(texts) != 1 {
			return fmt.Errorf("document %d: kubectl reads %d objects from its text, error %v:\n%s", o.Document, len(texts), err, o.Text)
		}
		if err := sameObject(want[i], texts[0]); err != nil {
			return fmt.Errorf("document %d: its text: %w\n%s", o.Document, err, o.Text)
		}
		if len(o.Text) == 0 || o.Text[len(o.Text)-1] != '\n' || bytes.Contains(o.Text, []byte("\r")) || bytes.HasPrefix(bytes.TrimLeft(o.Text, " \n"), []byte("#")) {
			return fmt.Errorf("document %d: not normalised: %q", o.Document, o.Text)
		}
		again, problems := hedgehog.ReadManaged(o.Path, o.Text)
		if len(problems) > 0 || !bytes.Equal(again.Text, o.Text) {
			return fmt.Errorf("document %d: normalising %q again gives %q %v", o.Document, o.Text, again.Text, problems)
		}
	}
	return keepsComments(in, v)
}

// sameObject compares values, numbers as numbers: a JSON 1.0 is YAML's 1. The
// namespace that was filled in does not count.
func sameObject(want, got any) error {
	want, got = withNamespace(want), withNamespace(got)
	if at, a, b := firstDifference(got, want, nil); at != "" {
		return fmt.Errorf("%s: kubectl reads %#v, not %#v", at, b, a)
	}
	return nil
}

func withNamespace(v any) any {
	object, _ := v.(map[string]any)
	metadata, ok := object["metadata"].(map[string]any)
	if !ok {
		return v
	}
	object, metadata = maps.Clone(object), maps.Clone(metadata)
	if ns, ok := metadata["namespace"].(string); !ok || ns == "" {
		metadata["namespace"] = hedgehog.Namespace
	}
	object["metadata"] = metadata
	return object
}

// keepsComments checks that each line of the file, and with that each comment,
// is in the managed texts as often as in the file, and so is each comment on a
// separator.
func keepsComments(in string, v Verdict) error {
	var all strings.Builder
	for _, o := range v.Objects {
		all.Write(o.Text)
	}
	have := make(map[string]int)
	for line := range strings.Lines(all.String()) {
		have[strings.TrimSpace(line)]++
	}
	in = strings.TrimPrefix(in, "\ufeff")
	for line := range strings.Lines(in) {
		if strings.HasPrefix(line, "---") || strings.HasPrefix(line, "...") {
			line = line[3:]
		}
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if have[line]--; have[line] < 0 {
			return fmt.Errorf("the line %q is not kept", line)
		}
	}
	return nil
}

// TestRealFile reads a file that people use, when it is there.
func TestRealFile(t *testing.T) {
	file := filepath.Join("..", "..", "shared", "hedgehog", "samples", "prepop.yaml")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Skip(err)
	}
	v := hedgehog.Read(File{Path: "prepop.yaml", Data: data})
	if len(v.Problems) > 0 {
		t.Fatalf("%s", Reason(v))
	}
	count := make(map[string]int)
	for _, o := range v.Objects {
		count[o.Kind]++
	}
	if want := map[string]int{"SwitchGroup": 3, "Switch": 7, "Server": 10, "Connection": 26}; !maps.Equal(count, want) {
		t.Errorf("got %v, want %v", count, want)
	}
	if err := holds(string(data), v); err != nil {
		t.Error(err)
	}
}

// TestCRDs compares the table of kinds with the definitions, when they are
// there.
func TestCRDs(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join("..", "..", "shared", "hedgehog", "crds", "*.yaml"))
	if len(files) == 0 {
		t.Skip("no definitions beside the module")
	}
	served := make(map[Kind]bool)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		value, err := readKubernetes(data)
		if err != nil {
			t.Fatal(err)
		}
		spec := value.(map[string]any)["spec"].(map[string]any)
		names := spec["names"].(map[string]any)
		for _, version := range spec["versions"].([]any) {
			served[Kind{spec["group"].(string), names["kind"].(string), names["plural"].(string), version.(map[string]any)["name"].(string)}] = true
		}
	}
	for _, k := range Hedgehog() {
		if !served[k] {
			t.Errorf("%v is not defined", k)
		}
		delete(served, k)
	}
	for k := range served {
		if k.Kind != "Agent" && k.Kind != "GatewayAgent" {
			t.Errorf("%v is not in the table", k)
		}
	}
}

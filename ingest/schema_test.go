// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// widgets is a policy with the schema of the kind in testdata/crds.
func widgets(t testing.TB) Policy {
	t.Helper()
	return withSchemas(t, Policy{Namespace: "default", Kinds: []Kind{{"example.org", "Widget", "widgets", "v1"}}}, "testdata/crds")
}

// withSchemas compiles the files of a directory for a policy.
func withSchemas(t testing.TB, p Policy, dir string) Policy {
	t.Helper()
	var err error
	if p.Schemas, err = p.Compile(readDir(t, dir)); err != nil {
		t.Fatal(err)
	}
	return p
}

func readDir(t testing.TB, dir string) []File {
	t.Helper()
	names, err := filepath.Glob(dir + "/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %d files, error %v", dir, len(names), err)
	}
	var files []File
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, File{Path: name, Data: data})
	}
	return files
}

// widget is an object with the lines given as its spec.
func widget(spec ...string) string {
	return "apiVersion: example.org/v1\nkind: Widget\nmetadata:\n  name: a\nspec:\n" + strings.Join(spec, "")
}

// judged are files of widgets. Refused ones have a golden reason file, in
// which places and hints can be seen.
var judged = []struct {
	name    string
	managed string // what is managed of the object
	in      string
	codes   string
}{
	{name: "least", in: widget("  size: 1\n")},
	{name: "most", in: widget("  size: 100\n", "  mode: slow\n", "  ratio: 1\n", "  hot: true\n", "  label: abc\n", "  address: 10.0.0.1\n", "  note: null\n",
		"  start: \"2026-01-01T00:00:00Z\"\n", "  port: http\n", "  fixed: x\n", "  low: 1\n", "  high: 1\n", "  tags: [a, b]\n", "  parts: [{name: a, weight: 1}, {name: b}]\n",
		"  subnets: {a: {vlan: 1}, a.b/c: {vlan: 2}}\n", "  template: {apiVersion: v1, kind: X, metadata: {labels: {a: b}}, spec: {x: a}}\n", "  anything: {x: [1], known: {a: b}}\n")},
	{name: "null for nothing", in: widget("  size: 1\n", "  ratio: null\n", "  mode: null\n")},
	{name: "status is not ours", in: widget("  size: 1\n") + "status: {}\n"},
	{name: "another version that is served", in: strings.Replace(widget("  what: ever\n"), "/v1", "/v1beta1", 1)},
	{name: "whole float", in: widget("  size: 3.0\n")},

	{name: "unknown fields", in: widget("  szie: 1\n", "  size: 1\n", "  Mode: fast\n", "  nonsense: 1\n", "  subnets:\n    a.b/c[0]: {vlan: 1, gatway: x}\n", "  parts:\n  - name: a\n  - name: b\n    wieght: 1\n",
		"  anything: {known: {b: c}}\n", "  template: {apiVersion: v1, kind: X, metadata: {nmae: x}, spec: {z: 1}}\n") + "sepc: {}\nstatus: {x: 1}\n",
		codes: "HH401 HH401 HH401 HH401 HH401 HH401 HH401 HH401 HH401 HH401"},
	{name: "wrong depth", in: "apiVersion: example.org/v1\nkind: Widget\nmetadata:\n  name: a\nspec:\nsize: 1\n", codes: "HH403 HH401"},
	{name: "unknown metadata", in: strings.Replace(widget("  size: 1\n"), "name: a\n", "name: a\n  lables: {a: b}\n", 1), codes: "HH401"},
	{name: "wrong types", in: widget("  size: \"1\"\n", "  ratio: x\n", "  hot: \"true\"\n", "  label: 1\n", "  tags: {a: b}\n", "  parts: [a]\n", "  subnets:\n  - a\n", "  port: 1.5\n", "  low: 1.5\n", "  mode: [fast]\n"),
		codes: "HH402 HH402 HH402 HH402 HH402 HH402 HH402 HH402 HH402 HH402"},
	{name: "wrong type of the whole", in: "apiVersion: example.org/v1\nkind: Widget\nmetadata:\n  name: a\nspec: text\n", codes: "HH402"},
	{name: "missing fields", in: widget("  mode: fast\n", "  subnets:\n    x:\n      gateway: z\n", "  parts:\n  - weight: 1\n"), codes: "HH403 HH403 HH403"},
	{name: "missing spec", in: "apiVersion: example.org/v1\nkind: Widget\nmetadata:\n  name: a\n", codes: "HH403"},
	{name: "values that are not allowed", in: widget("  size: 101\n", "  mode: fsat\n", "  label: Abc\n", "  address: 10.0.0.256\n", "  start: today\n", "  tags: [a, b, a]\n", "  parts: [{name: a}, {name: a}]\n", "  subnets: {a: {vlan: 0}}\n"),
		codes: "HH404 HH404 HH404 HH404 HH404 HH404 HH404 HH404"},
	{name: "too much", in: widget("  size: 4294967296\n", "  label: abcdefgh\n", "  tags: [a, b, c, d, e]\n", "  subnets: {a: {vlan: 1}, b: {vlan: 1}, c: {vlan: 1}, d: {vlan: 1}}\n"), codes: "HH404 HH404 HH404 HH404 HH404"},
	{name: "a rule", in: widget("  size: 1\n", "  low: 2\n", "  high: 1\n"), codes: "HH405"},
	{name: "a rule where the rest is bad", in: widget("  low: 2\n", "  high: 1\n"), codes: "HH403"},
	{name: "a rule about what was", managed: widget("  size: 1\n", "  fixed: a\n"), in: widget("  size: 1\n", "  fixed: b\n"), codes: "HH405"},
	{name: "a rule about what was not", in: widget("  size: 1\n", "  fixed: b\n")},
	{name: "a rule about what was another version", managed: strings.Replace(widget("  size: 1\n", "  fixed: a\n"), "/v1", "/v1beta1", 1), in: widget("  size: 1\n", "  fixed: b\n")},
	{name: "what is managed already", managed: widget("  size: 0\n", "  x: z\n"), in: "---\n" + widget("  size: 0\n", "  x: z\n")},
	{name: "what was wrong already", managed: widget("  size: 1\n", "  label: Abc\n"), in: widget("  size: 2\n", "  label: Abc\n")},
	{name: "what was wrong in another way", managed: widget("  size: 1\n", "  label: Abc\n"), in: widget("  size: 2\n", "  label: Abd\n"), codes: "HH404"},
	{name: "a version that is not served", in: strings.Replace(widget("  size: 1\n"), "/v1", "/v1alpha1", 1), codes: "HH406"},
	{name: "metadata that is refused", in: strings.Replace(widget("  size: 1\n"), "name: a\n", "name: a\n  labels: {-a: b, c: d e}\n  annotations: {a/b/c: d}\n  finalizers: [x y]\n  ownerReferences: [{kind: X}]\n", 1),
		codes: "HH215 HH215 HH215 HH215 HH215 HH215 HH215"},
	{name: "types of metadata", in: strings.Replace(widget("  size: 1\n"), "name: a\n", "name: a\n  finalizers: x\n", 1), codes: "HH215"},
	{name: "bad frame and bad content", in: strings.Replace(widget("  size: 0\n"), "name: a", "name: A", 1), codes: "HH205 HH404"},
	{name: "aliases and merge keys", in: widget("  size: &n 0\n", "  low: *n\n", "  subnets:\n    a: &a {vlan: 0}\n    b: *a\n    c:\n      <<: *a\n"), codes: "HH404 HH404 HH404 HH404"},
	{name: "JSON", in: `{"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"size": 0}}`, codes: "HH404"},
	{name: "many documents", in: widget("  size: 1\n") + "---\n# comment\n" + strings.Replace(widget("  size: 0\n"), "name: a", "name: b", 1) + "---\n" + strings.Replace(widget("  sizes: 1\n"), "name: a", "name: c", 1), codes: "HH404 HH403 HH401"},
}

func TestJudged(t *testing.T) {
	p := widgets(t)
	for _, e := range judged {
		t.Run(e.name, func(t *testing.T) {
			managed := tree{}
			if e.managed != "" {
				managed["managed/widgets/a.yaml"] = e.managed
			}
			plan, err := p.Plan([]File{{Path: "x.yaml", Data: []byte(e.in)}}, managed.managed, nil)
			if err != nil {
				t.Fatal(err)
			}
			v := plan.Files[0].Verdict
			if got := codesOf(v.Problems); got != e.codes {
				t.Errorf("got %q, want %q\n%s", got, e.codes, Reason(v))
			}
			if e.codes != "" {
				golden(t, filepath.Join("testdata", "reasons", "schema", strings.ReplaceAll(e.name, " ", "-")+".reason"), Reason(v))
			}
			if e.codes != "" && len(plan.Writes) > 0 {
				t.Errorf("a rejected file writes %q", plan.Writes)
			}
			for _, o := range v.Objects {
				if text := string(o.Text); strings.Contains(text, "default") {
					t.Errorf("defaults were written:\n%s", text)
				}
			}
		})
	}
}

// TestReadManagedDoesNotJudge: what is in git has been accepted.
func TestReadManagedDoesNotJudge(t *testing.T) {
	o, problems := widgets(t).ReadManaged("managed/widgets/a.yaml", []byte(widget("  size: 0\n")))
	if len(problems) > 0 || o.Name != "a" {
		t.Errorf("%v %v", o.ID, problems)
	}
}

func TestCompile(t *testing.T) {
	p := Policy{Namespace: "default", Kinds: []Kind{{"example.org", "Widget", "widgets", "v9"}}}
	crd := string(readDir(t, "testdata/crds")[0].Data)
	for _, test := range []struct{ name, in, err string }{
		{"good", crd, ""},
		{"other documents", "kind: Kustomization\nresources: []\n---\n" + crd + "---\n# the end\n", ""},
		{"another kind", strings.ReplaceAll(crd, "kind: Widget", "kind: Gadget"), ""},
		{"twice", crd + "---\n" + crd, "document 2: kind \"Widget\" of group \"example.org\" is defined a second time"},
		{"another plural", strings.Replace(crd, "plural: widgets", "plural: widgetten", 1), "the plural of kind \"Widget\" of group \"example.org\" is \"widgetten\", not \"widgets\""},
		{"in no namespace", strings.Replace(crd, "scope: Namespaced", "scope: Cluster", 1), "are in no namespace"},
		{"no YAML", "a: [\n", "document 1: "},
		{"old", strings.Replace(crd, "k8s.io/v1", "k8s.io/v1beta1", 1), "\"apiextensions.k8s.io/v1beta1\"; only apiextensions.k8s.io/v1 is read"},
		{"not structural", strings.Replace(crd, "ratio: {type: number}", "ratio: {}", 1), "widgets.example.org, version v1: "},
		{"no schema", strings.Replace(crd, "schema:\n      openAPIV3Schema:\n        type: object\n        x-kubernetes-preserve-unknown-fields: true\n", "schema: {}\n", 1), "version v1beta1: it has no schema"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := p.Compile([]File{{Path: "x.yaml", Data: []byte(test.in)}})
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err) || !strings.HasPrefix(err.Error(), "x.yaml: ")) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if test.name == "good" {
				p := p
				p.Schemas = s
				if k, ok := p.Kind("example.org", "Widget"); !ok || k.Version != "v1" || s.Kinds() != 1 {
					t.Errorf("%v, %v, %d kinds", k, ok, s.Kinds())
				}
			}
		})
	}
	if k, ok := p.Kind("example.org", "Widget"); !ok || k.Version != "v9" {
		t.Errorf("without schemas: %v, %v", k, ok)
	}
}

// hedgehogCRDs are Hedgehog's own definitions, which are not part of this
// repository, and those of the tests.
const hedgehogCRDs = "../../shared/hedgehog/crds"

// TestHedgehogSchemas: real files are good by the real schemas, and what the
// samples of this package hold is good by those of the tests.
func TestHedgehogSchemas(t *testing.T) {
	for dir, samples := range map[string][]File{
		hedgehogCRDs:   nil,
		"../test/crds": fabricFiles(100, 50),
	} {
		if _, err := os.Stat(dir); err != nil {
			t.Logf("not looked at: %v", err)
			continue
		}
		p := withSchemas(t, hedgehog, dir)
		if n := p.Schemas.Kinds(); n != len(p.Kinds) {
			t.Errorf("%s: %d kinds of %d", dir, n, len(p.Kinds))
		}
		if samples == nil {
			samples = append(readDir(t, "../../shared/hedgehog/samples"), fabricFiles(100, 50)...)
		}
		for _, f := range samples {
			if v := p.Read(f); len(v.Problems) > 0 {
				t.Errorf("%s", Reason(v))
			}
		}
	}
}

// BenchmarkCompile measures the cost of compiling all of Hedgehog's schemas,
// and the memory that they hold.
func BenchmarkCompile(b *testing.B) {
	dir := hedgehogCRDs
	if _, err := os.Stat(dir); err != nil {
		dir = "../test/crds"
	}
	files := readDir(b, dir)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var s *Schemas
	for b.Loop() {
		var err error
		if s, err = hedgehog.Compile(files); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1024, "KiB-held")
	runtime.KeepAlive(s)
}

func TestNearest(t *testing.T) {
	names := []string{"subnet", "gateway", "vlan", "dhcp", "on", "hostBGP"}
	for name, want := range map[string]string{
		"subnets": "subnet", "Gateway": "gateway", "gatway": "gateway", "valn": "vlan", "vlans": "vlan", "hostbgp": "hostBGP", "hostBgps": "hostBGP",
		"no": "on", "x": "", "a": "", "something": "", "dhcp4relay": "",
	} {
		if got := nearest(name, names); got != want {
			t.Errorf("nearest(%s) = %q, want %q", name, got, want)
		}
	}
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"ab", "ba", 1}, {"abc", "abc", 0}, {"kitten", "sitting", 3}, {"aaaaaaaa", "b", 5}} {
		if got := distance(test.a, test.b, 5); got != test.want {
			t.Errorf("distance(%s, %s) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

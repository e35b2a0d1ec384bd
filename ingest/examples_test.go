// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"encoding/binary"
	"strings"
	"unicode/utf16"
)

// An example is a file with the decision on it. Refused ones have a golden
// reason file beside their codes; all of them are seeds of the fuzz targets.
type example struct {
	name  string
	in    string
	codes string   // of the problems, in order; "" when the file is accepted
	texts []string // the managed texts of an accepted file
}

// vpc is an object, with the lines given as the rest of its spec.
func vpc(name string, spec ...string) string {
	return "apiVersion: vpc.githedgehog.com/v1beta1\nkind: VPC\nmetadata:\n  name: " + name + "\nspec:\n" +
		"  subnets: {}\n" + strings.Join(spec, "")
}

const jsonVPC = `{"apiVersion": "vpc.githedgehog.com/v1beta1", "kind": "VPC", "metadata": {"name": "a"}, "spec": {"x": 1.0, "s": "x"}}`

// accepted are files that are taken in, with the managed text of each object.
var accepted = []example{
	{name: "one", in: vpc("a"), texts: []string{vpc("a")}},
	{name: "leading separator", in: "---\n" + vpc("a"), texts: []string{vpc("a")}},
	{name: "separators everywhere", in: "---\n---\n" + vpc("a") + "---\n---\n" + vpc("b") + "---\n", texts: []string{vpc("a"), vpc("b")}},
	{name: "no final newline", in: strings.TrimSuffix(vpc("a"), "\n"), texts: []string{vpc("a")}},
	{name: "blank lines around", in: "\n  \n\n" + vpc("a") + "\n   \n\n---\n\n", texts: []string{vpc("a")}},
	{name: "byte order mark and CRLF", in: "\ufeff" + strings.ReplaceAll("---\n"+vpc("a", "  x: |\n    one\n    two\n", "  ya: \"a\n    b\"\n"), "\n", "\r\n"),
		texts: []string{vpc("a", "  x: |\n    one\n    two\n", "  ya: \"a\n    b\"\n")}},
	{name: "comments in front", in: "# about a\n\n   # and more\n" + vpc("a"),
		texts: []string{strings.Replace(vpc("a"), "\n", "\n# about a\n# and more\n", 1)}},
	{name: "comment document", in: "# Copyright\n---\n# about a\n" + vpc("a"),
		texts: []string{strings.Replace(vpc("a"), "\n", "\n# Copyright\n# about a\n", 1)}},
	{name: "comment document at the end", in: vpc("a") + "---\n# the end\n", texts: []string{vpc("a") + "# the end\n"}},
	{name: "comment on the separator", in: "--- # first\n" + vpc("a") + "---\t# second \n" + vpc("b"),
		texts: []string{strings.Replace(vpc("a"), "\n", "\n# first\n", 1), strings.Replace(vpc("b"), "\n", "\n# second\n", 1)}},
	{name: "comments inside and behind", in: vpc("a", "  # inside\n", "  x: 1 # beside\n", "# below\n", "\n"),
		texts: []string{vpc("a", "  # inside\n", "  x: 1 # beside\n", "# below\n")}},
	{name: "comment in front of a first line with a comment", in: "# one\napiVersion: vpc.githedgehog.com/v1beta1 # two\nkind: VPC\nmetadata: {name: a}\n",
		texts: []string{"apiVersion: vpc.githedgehog.com/v1beta1 # two\n# one\nkind: VPC\nmetadata: {name: a}\n"}},
	{name: "comment in front of a quoted first line", in: "# one\nkind: \"VPC\"\napiVersion: 'vpc.githedgehog.com/v1beta1'\nmetadata: {name: a}\n",
		texts: []string{"kind: \"VPC\"\n# one\napiVersion: 'vpc.githedgehog.com/v1beta1'\nmetadata: {name: a}\n"}},
	{name: "comment in front of a first line that goes on", in: "# one\napiVersion:\n  vpc.githedgehog.com/v1beta1\nkind: VPC\nmetadata: {name: a}\n",
		texts: []string{"apiVersion:\n  vpc.githedgehog.com/v1beta1\nkind: VPC\nmetadata: {name: a}\n# one\n"}},
	{name: "comment in front of a first value that goes on", in: "# one\nx: a\n  b\nkind: VPC\napiVersion: vpc.githedgehog.com/v1beta1\nmetadata: {name: a}\n",
		texts: []string{"x: a\n  b\nkind: VPC\napiVersion: vpc.githedgehog.com/v1beta1\nmetadata: {name: a}\n# one\n"}},
	{name: "comment in front of a quoted first value that goes on", in: "# one\nx: \"a\n  # b\"\nkind: VPC\napiVersion: vpc.githedgehog.com/v1beta1\nmetadata: {name: a}\n",
		texts: []string{"x: \"a\n  # b\"\nkind: VPC\napiVersion: vpc.githedgehog.com/v1beta1\nmetadata: {name: a}\n# one\n"}},
	{name: "comment in front of metadata", in: "  # one\nmetadata:\n  name: a\nkind: VPC\napiVersion: vpc.githedgehog.com/v1beta1\nspec:\n  x: |\n    text\n",
		texts: []string{"metadata:\n  name: a\nkind: VPC\napiVersion: vpc.githedgehog.com/v1beta1\nspec:\n  x: |\n    text\n# one\n"}},
	{name: "comment in front, block scalar that keeps at the end", in: "# one\nmetadata:\n  name: a\nkind: VPC\napiVersion: vpc.githedgehog.com/v1beta1\nspec:\n  x: |+\n    text\n\n\n",
		texts: []string{"metadata:\n  name: a\nkind: VPC\napiVersion: vpc.githedgehog.com/v1beta1\nspec:\n  x: |+\n    text\n\n\n# one\n"}},
	{name: "block scalars", in: vpc("a", "  x: |\n    # no comment\n    --- no separator\n\n    y\n\n\n"),
		texts: []string{vpc("a", "  x: |\n    # no comment\n    --- no separator\n\n    y\n")}},
	{name: "block scalar that keeps", in: vpc("a", "  x: |+\n    y\n\n\n") + "---\n" + vpc("b", "  x: >-\n    y\n\n"),
		texts: []string{vpc("a", "  x: |+\n    y\n\n\n"), vpc("b", "  x: >-\n    y\n")}},
	{name: "indented as a whole", in: "  # one\n  apiVersion: vpc.githedgehog.com/v1beta1\n  kind: VPC\n  metadata:\n    name: a\n",
		texts: []string{"  apiVersion: vpc.githedgehog.com/v1beta1\n# one\n  kind: VPC\n  metadata:\n    name: a\n"}},
	{name: "flow style", in: "# one\n{apiVersion: vpc.githedgehog.com/v1beta1, kind: VPC,\n  metadata: {name: a}}\n",
		texts: []string{"{apiVersion: vpc.githedgehog.com/v1beta1, kind: VPC,\n  metadata: {name: a}}\n# one\n"}},
	{name: "JSON", in: jsonVPC, texts: []string{jsonVPC + "\n"}},
	{name: "JSON documents", in: jsonVPC + "\n---\n" + strings.Replace(jsonVPC, `"name": "a"`, `"name": "b"`, 1) + "\n---\n" + vpc("c"),
		texts: []string{jsonVPC + "\n", strings.Replace(jsonVPC, `"name": "a"`, `"name": "b"`, 1) + "\n", vpc("c")}},
	{name: "JSON with tabs", in: "{\n\t\"apiVersion\": \"vpc.githedgehog.com/v1beta1\",\n\t\"kind\": \"VPC\",\n\t\"metadata\": {\n\t\t\"name\": \"a\"\n\t}\n}\n",
		texts: []string{"{\n\t\"apiVersion\": \"vpc.githedgehog.com/v1beta1\",\n\t\"kind\": \"VPC\",\n\t\"metadata\": {\n\t\t\"name\": \"a\"\n\t}\n}\n"}},
	{name: "end marker", in: vpc("a") + "...\n# behind\n\n... # again\n---\n" + vpc("b") + "...",
		texts: []string{vpc("a") + "# behind\n# again\n", vpc("b")}},
	{name: "numbers that mean the same", in: vpc("a", "  num: [0755, 0x1f, 1_000, 0b11, 1.0, 1e3, -0, +12, 0o17, .5, 9007199254740993, 18446744073709549568]\n"),
		texts: []string{vpc("a", "  num: [0755, 0x1f, 1_000, 0b11, 1.0, 1e3, -0, +12, 0o17, .5, 9007199254740993, 18446744073709549568]\n")}},
	{name: "text that looks like more", in: vpc("a", "  t: [0c:20:12:ff:00:00, 1:30, 1.2.3, \"yes\", '2026-01-01', 10.0.0.0/24, 1e400, '<<', =, null, ~, True]\n"),
		texts: []string{vpc("a", "  t: [0c:20:12:ff:00:00, 1:30, 1.2.3, \"yes\", '2026-01-01', 10.0.0.0/24, 1e400, '<<', =, null, ~, True]\n")}},
	{name: "empty values", in: vpc("a", "  x:\n", "  ya: {}\n", "  z: []\n", "  w: \"\"\n"), texts: []string{vpc("a", "  x:\n", "  ya: {}\n", "  z: []\n", "  w: \"\"\n")}},
	{name: "keys that read as they are written", in: vpc("a", "  1: one\n", "  true: two\n", "  \"on\": three\n", "  2026-01-01: four\n"),
		texts: []string{vpc("a", "  1: one\n", "  true: two\n", "  \"on\": three\n", "  2026-01-01: four\n")}},
	{name: "core tags", in: vpc("a", "  x: !!str 12\n", "  ya: !!int \"12\"\n", "  z: !!float 1\n", "  w: !!binary aGVsbG8=\n", "  v: !!map {}\n"),
		texts: []string{vpc("a", "  x: !!str 12\n", "  ya: !!int \"12\"\n", "  z: !!float 1\n", "  w: !!binary aGVsbG8=\n", "  v: !!map {}\n")}},
	{name: "anchors and merge keys", in: vpc("a", "  x: &x {p: 1, q: [a]}\n", "  ya: *x\n", "  z:\n    <<: *x\n    r: 2\n", "  w:\n    <<: [*x, {q: 3}]\n"),
		texts: []string{vpc("a", "  x: &x {p: 1, q: [a]}\n", "  ya: *x\n", "  z:\n    <<: *x\n    r: 2\n", "  w:\n    <<: [*x, {q: 3}]\n")}},
	{name: "merge key that is overridden below", in: vpc("a", "  x: &x {p: 1}\n", "  ya:\n    <<: *x\n    p: 2\n"),
		texts: []string{vpc("a", "  x: &x {p: 1}\n", "  ya:\n    <<: *x\n    p: 2\n")}},
	{name: "anchor on the whole", in: "# one\n&top\n" + vpc("a"), texts: []string{"&top\n" + vpc("a") + "# one\n"}},
	{name: "the same object twice, with the same text", in: vpc("a") + "---\n" + vpc("a"), texts: []string{vpc("a"), vpc("a")}},
	{name: "what kubectl writes", in: "apiVersion: vpc.githedgehog.com/v1beta1\nkind: VPC\nmetadata:\n  creationTimestamp: null\n  name: a\n  namespace: default\nstatus: {}\n",
		texts: []string{"apiVersion: vpc.githedgehog.com/v1beta1\nkind: VPC\nmetadata:\n  creationTimestamp: null\n  name: a\n  namespace: default\nstatus: {}\n"}},
	{name: "tabs where they may be", in: vpc("a", "  x:\t1\t# beside\n", "  ya: [a,\tb]\n", "  z: \"\t\"\n"), texts: []string{vpc("a", "  x:\t1\t# beside\n", "  ya: [a,\tb]\n", "  z: \"\t\"\n")}},
	{name: "unicode", in: vpc("a", "  x: \"\\u2028 \\x85 ü 日本 😀\" # – ü\n"), texts: []string{vpc("a", "  x: \"\\u2028 \\x85 ü 日本 😀\" # – ü\n")}},
	{name: "long line", in: vpc("a", "  x: "+strings.Repeat("long ", 20000)+"\n"), texts: []string{vpc("a", "  x: "+strings.Repeat("long ", 20000)+"\n")}},
	{name: "explicit keys", in: "? apiVersion\n: vpc.githedgehog.com/v1beta1\n? kind\n: VPC\nmetadata: {name: a}\n",
		texts: []string{"? apiVersion\n: vpc.githedgehog.com/v1beta1\n? kind\n: VPC\nmetadata: {name: a}\n"}},
	{name: "trailing spaces", in: "apiVersion: vpc.githedgehog.com/v1beta1  \nkind: VPC \nmetadata: {name: a}   \n",
		texts: []string{"apiVersion: vpc.githedgehog.com/v1beta1  \nkind: VPC \nmetadata: {name: a}   \n"}},
}

// refused are files that are rejected. Each code of the table is here, except
// those that need a file of many MiB and those of managed files.
var refused = []example{
	{name: "empty", codes: "HH103"},
	{name: "only comments", in: "# nothing\n---\n\n--- # still nothing\n", codes: "HH103"},
	{name: "latin-1", in: "# a\nname: J\xfcrgen\n", codes: "HH104"},
	{name: "UTF-16", in: "\xff\xfe" + utf16LE(vpc("a")), codes: "HH104"},
	{name: "control character", in: vpc("a", "  x: \"a\x07b\" # \x00\n") + "---\n" + vpc("b", "  x: yes\n"), codes: "HH105 HH105 HH116"},
	{name: "carriage returns", in: "# old\r# mac\r" + vpc("a"), codes: "HH105 HH105 HH202"},
	{name: "line separators", in: vpc("a", "  x: a\u2028b\n", "# c\u0085d\n"), codes: "HH105 HH105"},
	{name: "byte order mark inside", in: vpc("a") + "---\n\ufeff" + vpc("b"), codes: "HH105"},
	{name: "byte order mark twice", in: "\ufeff\ufeff" + vpc("a"), codes: "HH105"},
	{name: "nested too deeply", in: vpc("a", "  x: "+strings.Repeat("[", 200)+strings.Repeat("]", 200)+"\n"), codes: "HH107"},
	{name: "alias of itself", in: vpc("a", "  x: &x\n    y: [*x]\n"), codes: "HH108"},
	{name: "alias bomb", in: vpc("a", bomb(9)...), codes: "HH108"},
	{name: "alias bomb of text", in: vpc("a", "  x: &x "+strings.Repeat("x", 1000)+"\n", "  ya: ["+strings.Repeat("*x, ", 10000)+"*x]\n"), codes: "HH108"},
	{name: "alias bomb of merge keys", in: vpc("a", mergeBomb(12)...), codes: "HH108"},
	{name: "not YAML", in: "a: 1\nb: 'it's'\n---\n" + vpc("b") + "---\nfoo\nbar: 1\n", codes: "HH110 HH110"},
	{name: "unclosed", in: "a: [1,\nb: 2\n---\na: \"b\nc: d\n---\n{a: b\n", codes: "HH110 HH110 HH110"},
	{name: "bad indentation", in: vpc("a", "  x: 1\n", "   y: 1\n") + "---\n" + vpc("b", "  x:\n", "    y: 1\n", "   z: 1\n") + "---\na:\n  - b\n  c: d\n", codes: "HH110 HH110 HH110"},
	{name: "values that need quotes", in: "a: @b\n---\na: `b`\n---\na: %b\n---\na: b: c\n---\na: *b\n---\na: &\n---\na: \"\\d\"\n---\na: - b\n", codes: "HH110 HH110 HH110 HH110 HH110 HH110 HH110 HH110"},
	{name: "missing colon", in: "apiVersion vpc.githedgehog.com/v1beta1\nkind: VPC\n---\nkind: VPC\nname\nspec: {}\n", codes: "HH110 HH110"},
	{name: "tabs", in: "apiVersion: vpc.githedgehog.com/v1beta1\nkind: VPC\nmetadata:\n\tname: a\n---\n\ta: b\n---\na: b\n\tc\n", codes: "HH111 HH111 HH111"},
	{name: "tab line", in: "---\n\t\n---\n" + vpc("a"), codes: "HH111"},
	{name: "separators", in: "--- a: b\n" + vpc("a") + "----\n" + vpc("b") + "---#c\n" + vpc("c") + "--- !!map\n" + vpc("d") + "--- |\n  text\n---x\n", codes: "HH112 HH112 HH112 HH112 HH112 HH201 HH112"},
	{name: "separator in quoted text", in: vpc("a", "  x: \"one\n---\n  two\"\n"), codes: "HH110 HH201"},
	{name: "directives", in: "%YAML 1.2\n---\n" + vpc("a") + "---\n%TAG ! x:\n", codes: "HH113 HH113"},
	{name: "end marker without a document", in: "# one\n...\n---\n...\n---\n" + vpc("a"), codes: "HH114 HH114"},
	{name: "behind the end marker", in: vpc("a") + "...\n" + vpc("b") + "---\n...\n" + vpc("c") + "---\n" + vpc("d") + "... " + vpc("e"), codes: "HH114 HH114 HH114"},
	{name: "behind the end of a mapping", in: jsonVPC + "\n" + jsonVPC + "\n---\n" + jsonVPC + "}\n---\n{a: b}\nc: d\n", codes: "HH114 HH114 HH114"},
	{name: "duplicate keys", in: vpc("a", "  x: 1\n", "  x: 2\n", "  'x': 3\n", "  1: a\n", "  \"1\": a\n") + "---\n" + jsonVPC[:len(jsonVPC)-1] + `, "kind": "VPC"}`, codes: "HH115 HH115 HH115 HH115"},
	{name: "duplicate keys among many", in: vpc("a", many("k%d", 40), "  k7: again\n"), codes: "HH115"},
	{name: "booleans of YAML 1.1", in: vpc("a", "  x: yes\n", "  ya: [no, On, off, y, N, [YES]]\n"), codes: "HH116 HH116 HH116 HH116 HH116 HH116 HH116"},
	{name: "times", in: vpc("a", "  x: 2026-01-01\n", "  ya: 2026-01-01T10:00:00Z\n", "  z: !!timestamp 2026-01-01\n"), codes: "HH116 HH116 HH116"},
	{name: "large integers", in: vpc("a", "  x: 9223372036854775809\n", "  ya: 123456789012345678901234567890\n", "  z: -9223372036854775809\n"), codes: "HH116 HH116 HH116"},
	{name: "JSON that YAML reads in another way", in: strings.Replace(jsonVPC, "1.0", "1e400", 1), codes: "HH116"},
	{name: "JSON that YAML cannot read", in: strings.Replace(jsonVPC, `"x"`, `"\ud83d\ude00\/"`, 1), codes: "HH110"},
	{name: "tag without a meaning", in: vpc("a", "  x: ! 12\n"), codes: "HH116"},
	{name: "binary that is no text", in: vpc("a", "  x: !!binary /////w==\n"), codes: "HH116"},
	{name: "merge key in front of which a key stands", in: vpc("a", "  x: &x {p: 1}\n", "  ya:\n    p: 2\n    <<: *x\n"), codes: "HH116"},
	{name: "keys that are read as others", in: vpc("a", "  on: 1\n", "  0x10: 2\n", "  01: 3\n", "  1_0: 4\n"), codes: "HH117 HH117 HH117 HH117"},
	{name: "keys that are no text", in: vpc("a", "  ~: 1\n", "  ?\n  : 2\n", "  [a]: 3\n", "  {a: b}: 4\n", "  <<: 5\n"), codes: "HH117 HH117 HH117 HH117 HH117"},
	{name: "template", in: vpc("a", "  x: {{ .Values.x }}\n"), codes: "HH117"},
	{name: "tags", in: vpc("a", "  x: !secret y\n", "  z: !!set {a}\n", "  w: !<x> [!!omap []]\n"), codes: "HH118 HH118 HH118 HH118"},
	{name: "tag that does not fit", in: vpc("a", "  password: !!int s3cret\n") + "---\n" + vpc("b", "  x: !!binary \"*\"\n"), codes: "HH118 HH118"},
	{name: "no JSON", in: vpc("a", "  x: .inf\n", "  ya: [-.INF, +.Inf, .NaN, !!float .nan]\n"), codes: "HH119 HH119 HH119 HH119 HH119"},

	{name: "not an object", in: "text\n---\n- a\n---\n12\n---\n~\n---\n\"x\"\n---\nyes\n", codes: "HH201 HH201 HH201 HH201 HH201 HH116 HH201"},
	{name: "nothing but a mapping", in: "a: b\n---\n{}\n", codes: "HH202 HH203 HH204 HH202 HH203 HH204"},
	{name: "frame of other types", in: "apiVersion: 1\nkind: [VPC]\nmetadata: x\n---\napiVersion: a/b/c\nkind: \"\"\nmetadata: {name: 12}\n---\napiVersion: true\nkind: 1\nmetadata: {name: }\n",
		codes: "HH202 HH203 HH204 HH202 HH203 HH204 HH202 HH203 HH204"},
	{name: "names", in: vpc("Upper") + "---\n" + vpc("under_score") + "---\n" + vpc("-dash") + "---\n" + vpc("a..b") + "---\n" + vpc("../../etc/passwd") + "---\n" + vpc("''") + "---\n" + vpc("a/b"),
		codes: "HH205 HH205 HH205 HH205 HH205 HH205 HH205"},
	{name: "long names", in: vpc(strings.Repeat("a", 251)) + "---\n" + vpc(strings.Repeat("a.", 126)+"a") + "---\n" + vpc(strings.Repeat("a", 300)), codes: "HH206 HH206 HH206"},
	{name: "namespaces", in: vpc("a\n  namespace: Upper") + "---\n" + vpc("a\n  namespace: a.b") + "---\n" + vpc("a\n  namespace: 12") + "---\n" + vpc("a\n  namespace: "+strings.Repeat("a", 64)),
		codes: "HH207 HH207 HH207 HH207"},
	{name: "generateName", in: "apiVersion: vpc.githedgehog.com/v1beta1\nkind: VPC\nmetadata:\n  generateName: a-\n", codes: "HH208"},
	{name: "labels and annotations", in: vpc("a\n  labels: {a: 1, b: x, c: true, d: }\n  annotations: [x]"), codes: "HH209 HH209 HH209 HH209"},
	{name: "lists", in: "apiVersion: v1\nkind: List\nitems: []\n---\napiVersion: vpc.githedgehog.com/v1beta1\nkind: VPCList\nmetadata: {}\nitems:\n- a\n", codes: "HH210 HH210"},
	{name: "ensure something", in: vpc("a\n  annotations: {hhwatchd.githedgehog.com/ensure: gone}"), codes: "HH216"},
	{name: "from a cluster", in: vpc("a\n  resourceVersion: \"12\"\n  uid: 0b4c6e4b-9f3c-4b77-9d3e-a4e3c5f1a111\n  managedFields: []"), codes: "HH211 HH211 HH211"},
	{name: "twice", in: vpc("a") + "---\n" + vpc("b") + "---\n" + vpc("a", "  x: 1\n"), codes: "HH212 HH212"},

	{name: "other groups", in: "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n", codes: "HH301 HH301"},
	{name: "other kinds", in: strings.Replace(vpc("a"), "VPC", "vpcs", 1) + "---\n" + strings.Replace(vpc("a"), "VPC", "Vpc", 1) + "---\n" + strings.Replace(vpc("a"), "VPC", "Switch", 1), codes: "HH302 HH302 HH302"},
	{name: "old version", in: strings.Replace(vpc("a"), "v1beta1", "v1alpha2", 1), codes: "HH303"},

	{name: "everything at once", in: "# a file with many problems\n---\napiVersion: vpc.githedgehog.com/v1beta1\nkind: VPC\nmetadata:\n  name: Bad\n  labels: {a: 1}\nspec:\n  x: yes\n  x: no\n" +
		"---\nkind: [\n---\nkind: Switch\nmetadata: {}\n---\n" + vpc("good"), codes: "HH205 HH209 HH115 HH110 HH202 HH204"},
}

func utf16LE(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return string(b)
}

// bomb returns lines whose aliases expand to ten to the power of n values.
func bomb(n int) []string {
	lines := []string{"  a0: &a0 [" + strings.Repeat("x, ", 9) + "x]\n"}
	for i := 1; i < n; i++ {
		a, b := "a"+string(rune('0'+i)), "*a"+string(rune('0'+i-1))
		lines = append(lines, "  "+a+": &"+a+" ["+strings.Repeat(b+", ", 9)+b+"]\n")
	}
	return lines
}

// mergeBomb returns lines whose merge keys are looked at four to the power of
// n times.
func mergeBomb(n int) []string {
	lines := []string{"  a: &a {x: 1}\n"}
	for i := 1; i < n; i++ {
		a, b := string(rune('a'+i)), "*"+string(rune('a'+i-1))
		lines = append(lines, "  "+a+": &"+a+" {<<: ["+strings.Repeat(b+", ", 3)+b+"]}\n")
	}
	return lines
}

// many returns n lines of a mapping; the format has one %d for the number.
func many(key string, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("  " + strings.Replace(key, "%d", string(rune('0'+i/10))+string(rune('0'+i%10)), 1) + ": v\n")
	}
	return strings.Replace(b.String(), "k07", "k7", 1)
}

// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"strings"
	"testing"
)

func TestIsInput(t *testing.T) {
	for path, want := range map[string]bool{
		"x.yaml": true, "a/b/x.yml": true, "x.txt": true, "README": true, "x.yaml.reason": true, "49130": true, "#x": true,
		".x.yaml": false, ".git/x.yaml": false, "a/.b/x.yaml": false, ".x.yaml.swp": false, "x.yaml~": false,
		"x.yaml.swp": false, "x.yaml.swx": false, "x.yaml.tmp": false, "x.yaml.part": false, "x.yaml.filepart": false,
		"4913": false, "a/4913": false, "#x.yaml#": false, ".#x.yaml": false, "..": false, "../x.yaml": false, "": false, "/x.yaml": false, "a//x.yaml": false, "a/": false,
	} {
		if got := IsInput(path); got != want {
			t.Errorf("IsInput(%q) = %v", path, got)
		}
	}
}

func TestPolicyCheck(t *testing.T) {
	if err := hedgehog.Check(); err != nil {
		t.Errorf("the default policy: %v", err)
	}
	for want, p := range map[string]Policy{
		"namespace":        {Namespace: "Not One", Kinds: Hedgehog()},
		"namespace \"\"":   {Kinds: Hedgehog()},
		"needs its name":   {Namespace: "default", Kinds: []Kind{{Group: "g", Plural: "ks"}}},
		"and its plural":   {Namespace: "default", Kinds: []Kind{{Group: "g", Kind: "K", Plural: "../ks"}}},
		"managed/gateways": {Namespace: "default", Kinds: append(Hedgehog(), Kind{Group: "gateway.networking.k8s.io", Kind: "Gateway", Plural: "gateways"})},
		"share the plural": {Namespace: "default", Kinds: []Kind{{"", "A", "as", ""}, {"", "B", "as", ""}}},
	} {
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestPolicyOfOthers(t *testing.T) {
	p := Policy{Namespace: "lab", Kinds: []Kind{{"", "ConfigMap", "configmaps", ""}}}
	in := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: default}\n---\napiVersion: v2\nkind: ConfigMap\nmetadata: {name: a}\n"
	v := p.Read(File{Path: "x.yaml", Data: []byte(in)})
	if len(v.Objects) != 2 || v.Objects[0].Path != "managed/configmaps/default/a.yaml" || v.Objects[1].Path != "managed/configmaps/a.yaml" || v.Objects[1].String() != "ConfigMap/lab/a" {
		t.Errorf("%+v\n%s", v.Objects, Reason(v))
	}
	v = p.Read(File{Path: "x.yaml", Data: []byte(vpc("a"))})
	if codesOf(v.Problems) != groupNotAllowed {
		t.Errorf("%s", Reason(v))
	}
	v = Policy{Namespace: "lab"}.Read(File{Path: "x.yaml", Data: []byte(vpc("a"))})
	if codesOf(v.Problems) != groupNotAllowed {
		t.Errorf("%s", Reason(v))
	}
}

// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	testfabric "github.com/hhwatchd/hhwatchd/test/fabric"
)

// object is one of Hedgehog's, with a spec in flow style.
func object(kind, name, spec string) string {
	k := hedgehog.Kinds[slices.IndexFunc(hedgehog.Kinds, func(k Kind) bool { return k.Kind == kind })]
	return fmt.Sprintf("---\napiVersion: %s/%s\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", k.Group, k.Version, kind, name, spec)
}

func unbundled(name, server, port string) string {
	return object("Connection", name, "{unbundled: {link: {server: {port: "+server+"}, switch: {port: "+port+"}}}}")
}

func subnet(name, prefix string, vlan int) string {
	return object("VPC", name, fmt.Sprintf("{subnets: {default: {subnet: %s, vlan: %d}}}", prefix, vlan))
}

// gone says that there is to be no such object.
func gone(kind, name string) string {
	return strings.Replace(object(kind, name, "{}"), "{name: "+name+"}", "{name: "+name+", annotations: {"+EnsureAnnotation+": absent}}", 1)
}

// wired is a small fabric.
var wired = object("SwitchGroup", "g", "{}") + object("Switch", "leaf", "{groups: [g]}") + object("Server", "s", "{}") + unbundled("c", "s/e0", "leaf/E1/1") +
	object("IPv4Namespace", "default", "{subnets: [10.0.0.0/16]}") + object("VLANNamespace", "default", "{ranges: [{from: 100, to: 200}]}") +
	subnet("one", "10.0.1.0/24", 101) + object("VPCAttachment", "a", "{subnet: one/default, connection: c}") + object("External", "x", "{}")

// manage returns the managed files that documents come to, and the fabric that
// they make.
func manage(t testing.TB, documents string) (tree, *Fabric) {
	t.Helper()
	managed, fabric := tree{}, NewFabric(hedgehog)
	v := hedgehog.Read(File{Path: "x.yaml", Data: []byte(documents)})
	if len(v.Problems) > 0 {
		t.Fatalf("%s", Reason(v))
	}
	for _, o := range v.Objects {
		managed[o.Path] = string(o.Text)
		if err := fabric.Put(o.Path, func() ([]byte, error) { return o.Text, nil }); err != nil {
			t.Fatal(err)
		}
	}
	return managed, fabric
}

var crossed = []struct {
	name  string
	files []string
	codes string // of each file, "/" between them; those of warnings in parentheses
}{
	{"good", []string{unbundled("d", "s/e1", "leaf/E1/2") + subnet("two", "10.0.2.0/24", 102) + object("VPCAttachment", "b", "{subnet: two, connection: d}") +
		object("VPCPeering", "p", "{permit: [{one: {subnets: [default]}, two: {}}]}") + object("GatewayPeering", "gp", "{gatewayGroup: gg, peering: {one: {}, ext.x: {}}}") +
		object("ExternalAttachment", "ea", "{external: x, connection: d}") + object("ExternalPeering", "ep", "{permit: {vpc: {name: one, subnets: [default]}, external: {name: x}}}")}, ""},
	{"no device", []string{unbundled("d", "t/e1", "spine/E1/2")}, "HH501 HH501"},
	{"no switch group", []string{object("Switch", "l2", "{groups: [g, h], redundancy: {group: i, type: eslag}}")}, "HH501"},
	{"no redundancy group", []string{object("Switch", "l2", "{groups: [g], redundancy: {group: i, type: eslag}}")}, "(HH501)"},
	{"nothing to attach", []string{object("VPCAttachment", "b", "{subnet: two/default, connection: d2}"), object("ExternalAttachment", "ea", "{external: z, connection: d2}")}, "HH501 HH501 / HH501 HH501"},
	{"nothing to peer", []string{object("VPCPeering", "p", "{permit: [{one: {}, two: {subnets: [x]}}]}"),
		object("ExternalPeering", "ep", "{permit: {vpc: {name: two, subnets: [default]}, external: {name: z}}}"),
		object("GatewayPeering", "gp", "{peering: {one: {}, two: {}}}")}, "HH501 / HH501 HH501 / (HH501)"},
	{"no relay", []string{object("VPC", "v", "{subnets: {default: {dhcp: {relayVPC: two}}}}")}, "HH501"},
	{"within no VPC", []string{object("Connection", "se", "{staticExternal: {withinVPC: two, link: {switch: {port: leaf/E1/3}}}}")}, "(HH501)"},
	{"no such subnet", []string{object("VPCAttachment", "b", "{subnet: one/other, connection: c}") + object("VPCPeering", "p", "{permit: [{one: {subnets: [other]}}]}") +
		object("ExternalPeering", "ep", "{permit: {vpc: {name: one, subnets: [other]}, external: {name: x}}}")}, "HH502 HH502 HH502"},
	{"malformed", []string{unbundled("d", "s", "/E1/2") + object("VPCAttachment", "b", "{subnet: one/, connection: c}") + object("VPC", "v", "{subnets: {b: {subnet: not-a-cidr}, c: {subnet: \"fd00::/64\"}}}") +
		object("IPv4Namespace", "ns", "{subnets: [x]}")}, "HH503 HH503 HH503 HH503 HH503 HH503"},
	{"port taken", []string{unbundled("d", "s/e0", "leaf/E1/2"), unbundled("e", "s/e1", "leaf/E1/1"), unbundled("f", "s/e2", "leaf/E1/1/1"),
		object("Connection", "l", "{vpcLoopback: {links: [{switch1: {port: leaf/E1/5}, switch2: {port: leaf/E1/5}}]}}")}, "HH504 / HH504 / HH504 / HH504"},
	{"deprecated connections", []string{object("Connection", "d", "{mclag: {links: [{server: {port: t/e0}, switch: {port: leaf/E1/1}}]}}"), object("Connection", "e", "{mclagDomain: {peerLinks: [{switch1: {port: leaf/E1/7}, switch2: {port: leaf/E1/8}}]}}"), unbundled("f", "s/e1", "leaf/E1/8")},
		"(HH501 HH504) /  / (HH504)"},
	{"port freed", []string{unbundled("d", "s/e0", "leaf/E1/1"), unbundled("c", "s/e1", "leaf/E1/2")}, " / "},
	{"ports exchanged", []string{unbundled("c", "s/e1", "leaf/E1/2") + unbundled("d", "s/e0", "leaf/E1/1")}, ""},
	{"the later one goes", []string{unbundled("d", "s/e1", "leaf/E1/2"), unbundled("e", "s/e1", "leaf/E1/3"), unbundled("f", "s/e2", "leaf/E1/3")}, " / HH504 / "},
	{"the one before it is rejected", []string{unbundled("d", "t/e1", "leaf/E1/2"), unbundled("e", "s/e1", "leaf/E1/2")}, "HH501 / "},
	{"all problems of a file", []string{unbundled("d", "t/e1", "leaf/E1/1") + subnet("two", "10.9.0.0/24", 99)}, "HH501 HH504 HH506 HH508"},
	{"overlaps", []string{subnet("two", "10.0.1.0/25", 102), subnet("three", "10.0.0.0/20", 103), subnet("four", "10.0.1.0/24", 104), subnet("five", "10.0.5.0/24", 105),
		object("VPC", "v", "{subnets: {a: {subnet: 10.0.77.0/24}, b: {subnet: 10.0.77.129/25}}}")}, "HH505 / HH505 / HH505 /  / HH505"},
	{"overlaps much", []string{object("IPv4Namespace", "default", "{subnets: [0.0.0.0/0]}"), subnet("two", "10.0.0.0/8", 102), subnet("three", "11.0.0.0/8", 103), subnet("four", "11.2.3.0/24", 104), subnet("five", "0.0.0.0/0", 105)},
		" / HH505 /  / HH505 / HH505"},
	{"overlaps elsewhere", []string{object("VPC", "v", "{ipv4Namespace: other, subnets: {a: {subnet: 10.0.1.0/24}}}") + object("IPv4Namespace", "other", "{subnets: [10.0.0.0/8]}")}, ""},
	{"overlaps in another namespace", []string{strings.Replace(subnet("v", "10.0.1.0/24", 101), "{name: v}", "{name: v, namespace: other}", 1)}, ""},
	{"outside", []string{subnet("two", "10.1.1.0/24", 102), subnet("three", "10.0.0.0/15", 103)}, "HH506 / HH505 HH506"},
	{"VLAN taken", []string{subnet("two", "10.0.2.0/24", 101), object("VPC", "v", "{subnets: {a: {vlan: 150}, b: {vlan: 150}}}"), object("VPC", "w", "{vlanNamespace: other, subnets: {a: {vlan: 101}}}") + object("VLANNamespace", "other", "{ranges: [{from: 1, to: 101}]}")},
		"HH507 / HH507 / "},
	{"VLAN outside", []string{subnet("two", "10.0.2.0/24", 99), subnet("three", "10.0.3.0/24", 201)}, "HH508 / HH508"},
	{"VLANs of host BGP", []string{object("VPC", "v", "{subnets: {a: {vlan: 5, hostBGP: true}, b: {vlan: 5, hostBGP: true}, c: {vlan: 0, hostBGP: true}}}")}, ""},
	{"namespaces that are not there", []string{object("VPC", "v", "{ipv4Namespace: other, vlanNamespace: other, subnets: {a: {vlan: 101, subnet: 10.0.1.0/24}}}")}, "(HH501 HH501)"},
	{"in another file, before or after", []string{unbundled("d", "t/e0", "leaf/E1/2"), object("Server", "t", "{}"), object("Server", "u", "{}"), unbundled("e", "u/e0", "leaf/E1/3")}, " /  /  / "},
	{"with what is rejected", []string{object("VPCAttachment", "b", "{subnet: one/default, connection: d}"), unbundled("d", "t/e0", "leaf/E1/2"), object("Server", "t", "{}") + subnet("two", "10.9.0.0/24", 102), subnet("ok", "10.0.3.0/24", 103)},
		"HH501 / HH501 / HH506 / "},
	{"an earlier word counts again", []string{subnet("two", "10.0.2.0/24", 102), subnet("two", "10.9.2.0/24", 102), object("VPCAttachment", "b", "{subnet: two/default, connection: c}")}, " / HH506 / "},
	{"what was managed counts again", []string{unbundled("c", "t/e1", "leaf/E1/2"), unbundled("d", "s/e0", "leaf/E1/3")}, "HH501 / HH504"},
	{"what was wrong before", []string{object("VPC", "old", "{ipv4Namespace: gone, subnets: {a: {vlan: 101}}, vlanNamespace: default}")}, ""},
	{"what was wrong before, and more", []string{object("VPC", "old", "{subnets: {a: {vlan: 101}, b: {vlan: 99}}}")}, "HH508"},
	{"what is managed already", []string{unbundled("bad", "gone/e0", "leaf/E1/9")}, ""},
	{"what others refer to", []string{gone("VPC", "one"), gone("Switch", "leaf"), gone("Server", "s"), gone("SwitchGroup", "g"), gone("IPv4Namespace", "default")},
		"HH509 / HH509 / HH509 / (HH509) / "},
	{"a connection that others refer to", []string{gone("Connection", "c")}, "(HH509)"},
	{"with those that refer to it", []string{gone("VPC", "one"), gone("VPCAttachment", "a"), gone("Server", "s") + gone("Connection", "c")}, " /  / "},
	{"which are changed", []string{gone("Server", "s"), object("Server", "t", "{}") + unbundled("c", "t/e0", "leaf/E1/1")}, " / "},
	{"of which one is rejected", []string{gone("Server", "s") + object("Server", "t", "{}"), unbundled("c", "u/e0", "leaf/E1/1")}, "HH509 / HH501"},
	{"what a new one refers to", []string{gone("External", "x") + object("External", "x2", "{}"), object("ExternalAttachment", "ea", "{external: x, connection: c}")}, " / HH501"},
	{"a subnet that others name", []string{object("VPC", "one", "{subnets: {other: {subnet: 10.0.1.0/24, vlan: 101}}}")}, "(HH509)"},
	{"what comes from elsewhere", []string{object("Switch", "l2", "{profile: vs, vlanNamespaces: [default]}") + object("Server", "t", "{profile: p}") + object("Gateway", "gw", "{groups: [{name: gg}]}")}, ""},
}

func TestReferences(t *testing.T) {
	for _, test := range crossed {
		t.Run(test.name, func(t *testing.T) {
			documents := wired
			if strings.HasPrefix(test.name, "what was wrong before") {
				documents += object("VPC", "old", "{ipv4Namespace: gone, subnets: {a: {vlan: 101}}}")
			}
			if test.name == "what is managed already" {
				documents += unbundled("bad", "gone/e0", "leaf/E1/9")
			}
			managed, fabric := manage(t, documents)
			was := fmt.Sprint(fabric)
			var files []File
			for i, data := range test.files {
				files = append(files, File{Path: fmt.Sprintf("%d.yaml", i), Data: []byte(data)})
			}
			plan, err := hedgehog.Plan(files, managed.managed, fabric)
			if err != nil {
				t.Fatal(err)
			}
			var codes []string
			var reasons strings.Builder
			for _, step := range plan.Files {
				warnings := ""
				if len(step.Warnings) > 0 {
					warnings = "(" + codesOf(step.Warnings) + ")"
				}
				codes = append(codes, codesOf(step.Problems)+warnings)
				reasons.Write(Reason(step.Verdict))
				for _, w := range step.Warnings {
					fmt.Fprintln(&reasons, w)
				}
				if len(step.Problems) > 0 && len(step.Objects)+len(step.Outcomes)+len(step.Warnings) > 0 {
					t.Errorf("%s is rejected and has objects or warnings", step.File)
				}
			}
			if got := strings.Join(codes, " / "); got != test.codes {
				t.Errorf("got %q, want %q\n%s", got, test.codes, &reasons)
			}
			if reasons.Len() > 0 {
				golden(t, filepath.Join("testdata", "reasons", "references", strings.ReplaceAll(test.name, " ", "-")+".reason"), []byte(reasons.String()))
			}
			if now := fmt.Sprint(fabric); now != was {
				t.Errorf("planning left the fabric as\n%s\nit was\n%s", now, was)
			}

			// A warning lets it through; off says nothing.
			for _, mode := range []References{WarnOfReferences, IgnoreReferences} {
				p := hedgehog
				p.References = mode
				plan, err := p.Plan(files, managed.managed, fabric)
				if err != nil {
					t.Fatal(err)
				}
				warnings := 0
				for _, step := range plan.Files {
					warnings += len(step.Warnings)
					if len(step.Problems) > 0 {
						t.Errorf("references: %s: %s", mode, Reason(step.Verdict))
					}
				}
				if (warnings > 0) != (mode == WarnOfReferences && strings.Contains(test.codes, "HH5")) {
					t.Errorf("references: %s gives %d warnings", mode, warnings)
				}
			}
		})
	}
}

// Where git holds no wiring, who refers to it may still be right.
func TestReferencesElsewhere(t *testing.T) {
	files := []File{{Path: "x.yaml", Data: []byte(subnet("one", "10.0.1.0/24", 101) + object("VPCAttachment", "a", "{subnet: one/default, connection: c}"))}}
	plan, err := hedgehog.Plan(files, tree{}.managed, NewFabric(hedgehog))
	if err != nil {
		t.Fatal(err)
	}
	if step := plan.Files[0]; len(step.Problems) > 0 || codesOf(step.Warnings) != noObjectThere || step.Warnings[0].Line != 10 || len(step.Outcomes) != 2 {
		t.Errorf("%v, warnings %v", step.Verdict, step.Warnings)
	}
}

// What was put into a fabric and taken out again leaves nothing.
func TestFabricPut(t *testing.T) {
	managed, fabric := manage(t, wired+subnet("wide", "10.0.0.0/8", 0))
	if n := fabric.Objects(); n != len(managed) {
		t.Errorf("%d objects of %d", n, len(managed))
	}
	was := fmt.Sprint(fabric)
	unread := errors.New("the disk is gone")
	if err := fabric.Put("managed/vpcs/one.yaml", func() ([]byte, error) { return nil, unread }); !errors.Is(err, unread) || fmt.Sprint(fabric) != was {
		t.Errorf("%v", err)
	}
	for _, path := range []string{"managed/servers/s.yaml", "managed/README.md", "managed/secrets/s.yaml", "raw/vpcs/one.yaml", "managed/a/b/c/d.yaml"} {
		if err := fabric.Put(path, func() ([]byte, error) { return nil, unread }); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n := fabric.Objects(); n != len(managed) {
		t.Errorf("%d objects of %d", n, len(managed))
	}
	if err := fabric.Put("managed/vpcs/one.yaml", func() ([]byte, error) { return []byte("no: [object\n"), nil }); err != nil {
		t.Error(err)
	}
	for path := range managed {
		fabric.Remove(path)
	}
	fabric.Remove("managed/vpcs/none.yaml")
	if !reflect.DeepEqual(fabric, NewFabric(hedgehog)) {
		t.Errorf("left: %+v", fabric)
	}
}

// The real files are in order beside each other.
func TestSamplesReferences(t *testing.T) {
	names, _ := filepath.Glob("../../shared/hedgehog/samples/*.yaml")
	if len(names) == 0 {
		t.Skip("the real files are not at hand")
	}
	plan, err := hedgehog.Plan(readDir(t, "../../shared/hedgehog/samples"), tree{}.managed, NewFabric(hedgehog))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range plan.Files {
		if len(step.Problems)+len(step.Warnings) > 0 {
			t.Errorf("%s%v", Reason(step.Verdict), step.Warnings)
		}
	}
}

// wiredFabric returns the managed files of a generated fabric of about n
// objects, and what is known of it.
func wiredFabric(tb testing.TB, n int) (tree, *Fabric) {
	tb.Helper()
	spec := testfabric.Spec{Spines: 2, Leaves: n / 60, Servers: n / 4, VPCs: n / 8, Attachments: n / 4, Peerings: n/8 - 1}
	var documents strings.Builder
	for _, o := range spec.Objects() {
		documents.WriteString("---\n" + o.YAML)
	}
	return manage(tb, documents.String())
}

// TestWiredFabric: what the benchmarks measure is in order.
func TestWiredFabric(t *testing.T) {
	managed, _ := wiredFabric(t, 500)
	var files []File
	for _, path := range slices.Sorted(maps.Keys(managed)) {
		files = append(files, File{Path: path, Data: []byte(managed[path])})
	}
	plan, err := hedgehog.Plan(files, tree{}.managed, NewFabric(hedgehog))
	if err != nil || len(plan.Writes) != len(files) || len(files) < 450 {
		t.Errorf("%d files, %d writes, %v", len(files), len(plan.Writes), err)
	}
	for _, step := range plan.Files {
		if len(step.Problems)+len(step.Warnings) > 0 {
			t.Errorf("%s%v", Reason(step.Verdict), step.Warnings)
		}
	}
	slices.Reverse(files)
	reversed, err := hedgehog.Plan(files, tree{}.managed, NewFabric(hedgehog))
	if err != nil || !reflect.DeepEqual(reversed.Writes, plan.Writes) {
		t.Errorf("in the reverse order there are %d writes, %v", len(reversed.Writes), err)
	}
}

// TestOverlapping: what the buckets find is what comparing with all finds.
func TestOverlapping(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	prefix := func() netip.Prefix {
		n := random.Uint32N(1 << 18) // not many networks, so that they meet
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 10), byte(n >> 2), byte(n << 6)}), 6+random.IntN(25)).Masked()
	}
	found := 0
	for range 200 {
		fabric := NewFabric(hedgehog)
		var all []takenPrefix
		for i := range 1 + random.IntN(12) {
			q := takenPrefix{prefix(), fmt.Sprintf("managed/vpcs/v%02d.yaml", i)}
			all = append(all, q)
			fabric.add(q.path, &holding{prefixes: []spacePrefix{{"s", q.Prefix}}})
		}
		for range 20 {
			p, self, without := prefix(), all[random.IntN(len(all))].path, all[random.IntN(len(all))].path
			var want takenPrefix
			for _, q := range all { // in the order of their paths
				if want.path == "" && q.Overlaps(p) && q.path != self && q.path != without {
					want = q
				}
			}
			got := fabric.overlapping(self, space{"default", "s"}, p, func(other string) bool { return other != without })
			if got != want {
				t.Errorf("%s among %v, not %s nor %s: %v, want %v", p, all, self, without, got, want)
			}
			if want.path != "" {
				found++
			}
		}
	}
	if found < 500 || found > 3500 {
		t.Errorf("%d of 4000 overlap: that says little", found)
	}
}

// BenchmarkReferences measures what references cost: one file beside a fabric
// of many objects, all of them in one batch, and getting to know them.
func BenchmarkReferences(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		managed, fabric := wiredFabric(b, n)
		var all []File
		for _, path := range slices.Sorted(maps.Keys(managed)) {
			all = append(all, File{Path: path, Data: []byte(managed[path])})
		}
		one := []File{{Path: "one.yaml", Data: []byte(strings.Replace(managed["managed/vpcattachments/"+firstIn(managed, "managed/vpcattachments/")], "metadata:\n", "metadata:\n  labels: {a: b}\n", 1))}}
		plan := func(b *testing.B, files []File, managed func(string) ([]byte, bool, error), fabric *Fabric) {
			plan, err := hedgehog.Plan(files, managed, fabric)
			if err != nil || len(plan.Writes) != len(files) {
				b.Fatalf("%d writes of %d, %v\n%s", len(plan.Writes), len(files), err, Reason(plan.Files[0].Verdict))
			}
		}
		b.Run(fmt.Sprintf("objects=%d/one", len(managed)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				plan(b, one, managed.managed, fabric)
			}
		})
		for _, references := range []References{IgnoreReferences, RefuseReferences} {
			b.Run(fmt.Sprintf("objects=%d/all/references=%s", len(managed), references), func(b *testing.B) {
				policy := hedgehog
				policy.References = references
				for b.Loop() {
					if _, err := policy.Plan(all, tree{}.managed, NewFabric(hedgehog)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run(fmt.Sprintf("objects=%d/know", len(managed)), func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var known *Fabric
			for b.Loop() {
				known = NewFabric(hedgehog)
				for path, text := range managed {
					if err := known.Put(path, func() ([]byte, error) { return []byte(text), nil }); err != nil {
						b.Fatal(err)
					}
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(managed)), "bytes-held/object")
			runtime.KeepAlive(known)
		})
	}
}

// firstIn returns the name of the first file in a directory.
func firstIn(managed tree, dir string) string {
	for _, path := range slices.Sorted(maps.Keys(managed)) {
		if name, ok := strings.CutPrefix(path, dir); ok {
			return name
		}
	}
	return ""
}

// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// batchOf makes a batch of what the bytes say: objects with few names, ports,
// prefixes and VLANs, so that they get into each other's way.
func batchOf(choices []byte) []File {
	pick := func(from ...string) string {
		if len(choices) == 0 {
			return from[0]
		}
		c := choices[0]
		choices = choices[1:]
		return from[int(c)%len(from)]
	}
	var files []File
	for len(choices) > 0 && len(files) < 12 {
		var text strings.Builder
		for more := true; more && len(choices) > 0; more = pick("no", "no", "yes") == "yes" {
			name := pick("one", "a", "b", "c", "leaf", "s", "g", "x")
			switch pick("connection", "vpc", "attachment", "peering", "switch", "server", "gone", "namespace") {
			case "connection":
				text.WriteString(unbundled(name, pick("s", "t", "a")+"/e"+pick("0", "1"), pick("leaf", "a")+"/E1/"+pick("1", "2", "2/1")))
			case "vpc":
				text.WriteString(object("VPC", name, fmt.Sprintf("{subnets: {%s: {subnet: %s, vlan: %s}}}", pick("default", "other"), pick("10.0.1.0/24", "10.0.2.0/24", "10.0.0.0/20", "10.1.0.0/24", "x"), pick("101", "102", "99"))))
			case "attachment":
				text.WriteString(object("VPCAttachment", name, fmt.Sprintf("{subnet: %s, connection: %s}", pick("one/default", "a/other", "b"), pick("c", "a"))))
			case "peering":
				text.WriteString(object("VPCPeering", name, fmt.Sprintf("{permit: [{%s: {}, %s: {subnets: [default]}}]}", pick("one", "a"), pick("b", "c"))))
			case "switch":
				text.WriteString(object("Switch", name, "{groups: ["+pick("g", "a")+"]}"))
			case "server":
				text.WriteString(object("Server", name, "{}"))
			case "gone":
				text.WriteString(gone(pick("VPC", "Connection", "Server", "Switch", "SwitchGroup", "VPCAttachment"), name))
			case "namespace":
				text.WriteString(object("IPv4Namespace", "default", "{subnets: ["+pick("10.0.0.0/16", "10.0.0.0/23")+"]}"))
			}
		}
		files = append(files, File{Path: fmt.Sprintf("%d.yaml", len(files)), Data: []byte(text.String())})
	}
	return files
}

// FuzzReferences: whatever refers to whatever, there is a plan, which the same
// files give again and that leaves the fabric as it was. What it lets through is
// let through again without what it rejects, and after that there is nothing
// left to write. With partial no less is taken in.
func FuzzReferences(f *testing.F) {
	f.Add([]byte{})
	random := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		choices := make([]byte, 80)
		for i := range choices {
			choices[i] = byte(random.Uint32())
		}
		f.Add(choices)
	}
	f.Fuzz(func(t *testing.T, choices []byte) {
		files := batchOf(choices)
		managed, fabric := manage(t, wired)
		was := held(fabric)
		for _, p := range []Policy{hedgehog, partial} {
			plan, err := p.Plan(files, managed.managed, fabric)
			if err != nil {
				t.Fatal(err)
			}
			if now := held(fabric); now != was {
				t.Fatalf("the fabric was changed:\n%s\n%s", was, now)
			}
			if again, _ := p.Plan(files, managed.managed, fabric); !reflect.DeepEqual(again, plan) {
				t.Fatalf("another plan:\n%s\n%s", told(plan), told(again))
			}
			var good []File
			for _, s := range plan.Files {
				if (len(s.Objects) == 0) == (len(s.Problems) == 0) {
					t.Fatalf("%d objects and %d problems", len(s.Objects), len(s.Problems))
				}
				if len(s.Problems) == 0 {
					data := files[s.Input].Data
					if s.Part != nil {
						data = s.Part
					}
					good = append(good, File{Path: s.File, Data: data})
				}
			}
			alone, err := p.Plan(good, managed.managed, fabric)
			if err != nil || !maps.EqualFunc(alone.Writes, plan.Writes, slices.Equal) {
				t.Fatalf("without what is rejected: %s, not %s, %v", told(alone), told(plan), err)
			}
			after, fabricAfter := maps.Clone(managed), NewFabric(hedgehog)
			for path, data := range plan.Writes {
				after[path] = string(data)
				if data == nil {
					delete(after, path)
				}
			}
			for path, data := range after {
				if err := fabricAfter.Put(path, func() ([]byte, error) { return []byte(data), nil }); err != nil {
					t.Fatal(err)
				}
			}
			if left, err := p.Plan(good, after.managed, fabricAfter); err != nil || len(left.Writes) > 0 {
				t.Fatalf("then: %s, %v", told(left), err)
			}
		}
	})
}

// held writes down what a fabric knows, in one order.
func held(f *Fabric) string {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(f.objects)) {
		fmt.Fprintf(&b, "%s %+v\n", path, f.objects[path])
	}
	fmt.Fprint(&b, f.kinds, inOrder(f.ports), inOrder(f.referred), len(f.vlans), len(f.prefixes))
	return b.String()
}

func inOrder(m map[string][]string) map[string][]string {
	sorted := make(map[string][]string)
	for key, list := range m {
		sorted[key] = slices.Sorted(slices.Values(list))
	}
	return sorted
}

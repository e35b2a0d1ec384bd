// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func attach(name, subnet, connection string) string {
	return object("VPCAttachment", name, "{subnet: "+subnet+", connection: "+connection+"}")
}

func gadget(name string) string {
	return "---\napiVersion: example.org/v1\nkind: Gadget\nmetadata: {name: " + name + "}\n"
}

// TestQuestions has files beside the fabric wired, and says which of their
// objects the cluster is asked about; a + where it may say something with a view
// to other objects.
func TestQuestions(t *testing.T) {
	vpc2 := subnet("two", "10.0.2.0/24", 102)
	late := func(live bool, paths ...string) (changes []Change) {
		for _, p := range paths {
			changes = append(changes, Change{"managed/" + p + ".yaml", live})
		}
		return changes
	}
	for _, test := range []struct {
		name  string
		files []string
		late  []Change
		want  string
	}{
		{"a new object", []string{vpc2}, nil, "VPC/two+"},
		{"a change", []string{subnet("one", "10.0.2.0/24", 102)}, nil, "VPC/one+"},
		{"what is there already", []string{subnet("one", "10.0.1.0/24", 101)}, nil, ""},
		{"what refers to what is there", []string{attach("b", "one/default", "c")}, nil, "VPCAttachment/b+"},
		{"with what it refers to", []string{attach("b", "two/default", "c") + vpc2}, nil, "VPC/two+"},
		{"in two files", []string{attach("b", "two/default", "c"), vpc2}, nil, "VPC/two+"},
		{"with what that refers to", []string{unbundled("c", "s/e0", "new/E1/1") + object("Switch", "new", "{groups: [g]}") + attach("b", "one/default", "c")}, nil, "Switch/new"},
		{"with what that refers to, which stays", []string{object("Switch", "leaf", "{groups: [g], asn: 1}") + attach("b", "one/default", "c")}, nil, "Switch/leaf+"},
		{"a subnet that comes", []string{object("VPC", "one", "{subnets: {default: {}, x: {}}}") + attach("b", "one/x", "c")}, nil, "VPC/one+"},
		{"to one that is not there yet", []string{attach("b", "one/default", "c")}, late(false, "vpcs/one"), ""},
		{"to one that is behind", []string{attach("b", "one/default", "c")}, late(true, "vpcs/one"), ""},
		{"by way of another", []string{attach("b", "one/default", "c")}, late(false, "switches/leaf"), ""},
		{"to what is not in git", []string{unbundled("d", "s/e9", "leaf/E1/9") + attach("b", "one/default", "nowhere")}, nil, ""}, // HH501
		{"beside a new one", []string{vpc2 + subnet("three", "10.0.3.0/24", 103)}, nil, "VPC/two+ VPC/three+"},
		{"what another gives up", []string{subnet("one", "10.0.3.0/24", 103) + subnet("two", "10.0.1.0/24", 101)}, nil, "VPC/one+ VPC/two"},
		{"what one gives up that goes", []string{gone("VPCAttachment", "a") + attach("b", "one/default", "c")}, nil, "VPCAttachment/b"},
		{"a change beside one", []string{subnet("one", "10.0.3.0/24", 103) + object("External", "x", "{ipv4Namespace: default}")}, nil, "VPC/one External/x"},
		{"what waits for a prune", []string{vpc2}, late(true, "vpcs/old"), "VPC/two"},
		{"what is not applied yet", []string{vpc2}, late(false, "vpcs/new"), "VPC/two+"},
		{"with a namespace that it may be in", []string{object("VLANNamespace", "more", "{}") + vpc2}, nil, "VLANNamespace/more+"},
		{"with several", []string{object("VLANNamespace", "more", "{}") + object("IPv4Namespace", "more", "{}")}, nil, "VLANNamespace/more+ IPv4Namespace/more+"},
		{"what controllers make", []string{object("GatewayPeering", "gp", "{peering: {one: {}}}")}, nil, "GatewayPeering/gp"},
		{"the last word", []string{subnet("two", "10.0.3.0/24", 103), vpc2}, nil, "VPC/two+"},
		{"with what is rejected", []string{unbundled("d", "none/e0", "leaf/E1/2"), vpc2}, nil, "VPC/two+"},
		{"of another kind", []string{gadget("w")}, nil, "Gadget/w+"},
		{"two of another kind", []string{gadget("w") + gadget("x")}, nil, ""},
		{"beside another kind", []string{vpc2 + gadget("w")}, nil, ""},
		{"beside another kind that is late", []string{vpc2}, late(false, "gadgets/w"), ""},
		{"beside what is not known", []string{vpc2}, late(false, "nothings/g"), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			policy := hedgehog
			policy.Kinds = append(slices.Clone(policy.Kinds), Kind{"example.org", "Gadget", "gadgets", "v1"})
			managed, fabric := manage(t, wired)
			fabric.policy = policy
			var files []File
			for i, data := range test.files {
				files = append(files, File{Path: fmt.Sprintf("%d.yaml", i), Data: []byte(data)})
			}
			plan, err := policy.Plan(files, managed.managed, fabric)
			if err != nil {
				t.Fatal(err)
			}
			got := asked(plan.Questions(fabric, test.late))
			if got != test.want {
				t.Errorf("asked about %q, want %q", got, test.want)
			}

			// Without a fabric nobody knows what refers to what.
			if plan, err = policy.Plan(files, managed.managed, nil); err != nil {
				t.Fatal(err)
			}
			want := ""
			if len(plan.Writes) == 1 && len(test.late) == 0 {
				want = asked(plan.Questions(fabric, nil))
			}
			if got := asked(plan.Questions(nil, test.late)); got != want {
				t.Errorf("without a fabric: asked about %q, want %q", got, want)
			}
		})
	}
}

func asked(questions []Question) string {
	var names []string
	for _, q := range questions {
		name := q.ID.String()
		if q.Settled {
			name += "+"
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

func TestQuestionNames(t *testing.T) {
	q := Question{Object: Object{ID: ID{Name: "vpc-1"}}, Others: []string{"a.b", "vpc-1", "vpc-9"}}
	for message, want := range map[string]bool{
		`vpc-1 needs vpc-9`: true, `no VPC "vpc-9".`: true, "default/vpc-9: gone": true, "needs a.b.": true,
		"vpc-1 is bad": false, "vpc-90": false, "my-vpc-9": false, "a": false, "b": false, "": false,
	} {
		if got := q.Names(message); got != want {
			t.Errorf("%q: %t", message, got)
		}
	}
}

// TestRefusedByCluster has files with objects that the cluster refuses: as an error, a
// warning, and with the good documents let through.
func TestRefusedByCluster(t *testing.T) {
	managed, fabric := manage(t, wired)
	files := []File{
		{Path: "a.yaml", Data: []byte("# VPCs\n" + subnet("two", "10.0.2.0/24", 102) + subnet("bad", "10.0.3.0/24", 103))},
		{Path: "b.yaml", Data: []byte(attach("b", "two", "c"))},
		{Path: "c.yaml", Data: []byte(attach("d", "bad", "c"))},
		{Path: "d.yaml", Data: []byte(subnet("bad", "10.0.4.0/24", 104))},
	}
	first, err := hedgehog.Plan(files[:1], managed.managed, fabric)
	if err != nil {
		t.Fatal(err)
	}
	bad := first.Files[0].Objects[1]
	policy := hedgehog
	policy.Refused = Refusals{bad.Path: {
		{Text: []byte("another text"), Message: "no"},
		{Text: bad.Text, Field: "spec.subnets[default].vlan", Message: "103 is\n\x1bsold out"},
	}}
	for _, test := range []struct {
		files     int
		partial   bool
		admission Admission
		want      string
	}{
		// What refers to what comes with it goes with it, or to what it says.
		{files: 3, want: "a.yaml 2 11 HH601, b.yaml 1 5 HH501, c.yaml 1 5 HH501"},
		{files: 4, want: "a.yaml 2 11 HH601, b.yaml 1 5 HH501"}, // the last word is another text
		{files: 3, partial: true, want: "a.yaml 1 5 HH601, c.yaml 1 5 HH501"},
		{files: 3, admission: WarnOfAdmission, want: "(a.yaml 2 11 HH601)"},
		{files: 3, partial: true, admission: WarnOfAdmission, want: "(a.yaml 2 11 HH601)"},
	} {
		policy.Partial, policy.Admission = test.partial, test.admission
		plan, err := policy.Plan(files[:test.files], managed.managed, fabric)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, step := range plan.Files {
			for _, p := range step.Problems {
				lines = append(lines, fmt.Sprintf("%s %d %d %s", p.File, p.Document, p.Line, p.Code))
			}
			for _, p := range step.Warnings {
				lines = append(lines, fmt.Sprintf("(%s %d %d %s)", p.File, p.Document, p.Line, p.Code))
			}
		}
		if got := strings.Join(lines, ", "); got != test.want {
			t.Errorf("%d files, partial %t, admission %q:\ngot  %s\nwant %s", test.files, test.partial, test.admission, got, test.want)
		}
		if test.files == 4 {
			golden(t, "testdata/reasons/admission.reason", Reason(plan.Files[0].Verdict))
		}
	}

	// What is managed with that very text is as it is.
	managed[bad.Path] = string(bad.Text)
	policy = hedgehog
	policy.Refused = Refusals{bad.Path: {{Text: bad.Text, Message: "no"}}}
	if plan, err := policy.Plan(files[:1], managed.managed, fabric); err != nil || len(plan.Files[0].Problems) > 0 {
		t.Errorf("what is managed already is refused: %v %v", plan.Files[0].Problems, err)
	}
}

func TestTame(t *testing.T) {
	for in, want := range map[string]string{
		"über 1 a": "über 1 a", "a\r\nb\x1b[1mc\u2028": "a  b [1mc ", "": "",
		strings.Repeat("ü", 2000): strings.Repeat("ü", 2000), strings.Repeat("ü", 2001): strings.Repeat("ü", 2000) + "…",
	} {
		if got := tame(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

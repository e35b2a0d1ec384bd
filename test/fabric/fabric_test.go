// SPDX-License-Identifier: Apache-2.0

package fabric

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

var update = flag.Bool("update", false, "write the golden files")

var small = Spec{Spines: 2, Leaves: 5, Servers: 10, VPCs: 5, Attachments: 12, Peerings: 2}

var specs = []struct {
	name string
	spec Spec
}{
	{"empty", Spec{}},
	{"spines only", Spec{Spines: 3}},
	{"one leaf", Spec{Leaves: 1, Servers: 5, VPCs: 1, Attachments: 5}},
	{"three leaves", Spec{Spines: 1, Leaves: 3, Servers: 9}},
	{"small", small},
	{"every attachment", Spec{Leaves: 4, Servers: 7, VPCs: 9, Attachments: 7 * 11, Peerings: 8}},
	{"large", Spec{Spines: 8, Leaves: 48, Servers: 700, VPCs: 3000, Attachments: 2000, Peerings: 500}},
}

func TestGolden(t *testing.T) {
	path := filepath.Join("testdata", "small.yaml")
	got := small.YAML()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs from what is generated; run the test with -update and look at the difference", path)
	}
}

func TestSameEachTime(t *testing.T) {
	for _, tt := range specs {
		first := tt.spec.YAML()
		if again := tt.spec.YAML(); again != first {
			t.Errorf("%s: two runs differ", tt.name)
		}
	}
	if !slices.Equal(VPCs(10), VPCs(5000)[:10]) {
		t.Error("VPCs depend on how many there are")
	}
	if !slices.Equal(VPCs(9), kinds(Spec{Leaves: 1, Servers: 1, VPCs: 9}.Objects())["VPC"]) {
		t.Error("VPCs differs from the VPCs of a Spec")
	}
}

func TestYAMLHasTheObjects(t *testing.T) {
	for name, file := range map[string]string{"YAML": small.YAML(), "Join": Join(small.Objects())} {
		var got []any
		for d := yaml.NewDecoder(strings.NewReader(file)); ; {
			var doc any
			if err := d.Decode(&doc); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got = append(got, doc)
		}
		var want []any
		for _, o := range small.Objects() {
			var doc any
			if err := yaml.Unmarshal([]byte(o.YAML), &doc); err != nil {
				t.Fatal(err)
			}
			want = append(want, doc)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the documents of the file are not those of Objects", name)
		}
	}
}

func kinds(objects []Object) map[string][]Object {
	m := make(map[string][]Object)
	for _, o := range objects {
		m[o.Kind] = append(m[o.Kind], o)
	}
	return m
}

func TestCounts(t *testing.T) {
	for _, tt := range specs {
		s, k := tt.spec, kinds(tt.spec.Objects())
		for _, c := range []struct {
			kind string
			want int
		}{
			{"IPv4Namespace", 1},
			{"Switch", s.Spines + s.Leaves},
			{"Server", s.Servers},
			{"VPC", s.VPCs},
			{"VPCAttachment", s.Attachments},
			{"VPCPeering", s.Peerings},
		} {
			if got := len(k[c.kind]); got != c.want {
				t.Errorf("%s: %d %s, want %d", tt.name, got, c.kind, c.want)
			}
		}
		// Beside these there is a domain for each MCLAG pair.
		if got, least := len(k["Connection"]), s.Servers+s.Spines*s.Leaves; got < least || got > least+s.Leaves/2 {
			t.Errorf("%s: %d Connection, want at least %d", tt.name, got, least)
		}
	}
}

// world is what the objects so far have said. Objects come in the order of
// their references, so each can be checked against what came before.
type world struct {
	names    map[string]bool   // "Kind/name"
	ports    map[string]bool   // and MAC addresses, in use
	ranges   map[string][2]int // of a VLANNamespace
	networks []netip.Prefix    // of the IPv4Namespace
	subnets  map[netip.Prefix]bool
	vlans    map[string]bool // "namespace/vlan"
	vpcs     map[string]map[string]bool
	pairs    map[string]bool // attachments
	vlanOf   map[string]string
}

// document has the fields of all kinds that are looked at one by one.
type document struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name, Namespace string }
	Spec       struct {
		// VLANNamespace
		Ranges []struct{ From, To int }
		// Switch
		Role       string
		Boot       struct{ MAC string }
		Groups     []string
		Redundancy struct{ Group, Type string }
		// VPC; the IPv4Namespace's are a list
		IPv4Namespace string `yaml:"ipv4Namespace"`
		VLANNamespace string `yaml:"vlanNamespace"`
		Subnets       yaml.Node
		// VPCAttachment
		Connection, Subnet string
		// VPCPeering
		Permit []map[string]struct{ Subnets []string }
	}
}

func TestMakesSense(t *testing.T) {
	for _, tt := range specs {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{
				names: map[string]bool{}, ports: map[string]bool{}, ranges: map[string][2]int{},
				subnets: map[netip.Prefix]bool{}, vlans: map[string]bool{},
				vpcs: map[string]map[string]bool{}, pairs: map[string]bool{}, vlanOf: map[string]string{},
			}
			for _, o := range tt.spec.Objects() {
				if err := w.add(o); err != nil {
					t.Errorf("%s %s: %v\n%s", o.Kind, o.Name, err, o.YAML)
				}
			}
		})
	}
}

func (w *world) add(o Object) error {
	var doc document
	if err := yaml.Unmarshal([]byte(o.YAML), &doc); err != nil {
		return err
	}
	if doc.Kind != o.Kind || doc.Metadata.Name != o.Name || doc.Metadata.Namespace != "default" {
		return fmt.Errorf("document says %s %s in namespace %q", doc.Kind, doc.Metadata.Name, doc.Metadata.Namespace)
	}
	if key := o.Kind + "/" + o.Name; w.names[key] {
		return errors.New("is there already")
	} else {
		w.names[key] = true
	}
	if !strings.HasSuffix(o.YAML, "\n") {
		return errors.New("does not end with a newline")
	}
	if len(o.Name) > 253 {
		return fmt.Errorf("name of %d characters", len(o.Name))
	}

	spec := &doc.Spec
	switch o.Kind {
	case "VLANNamespace":
		if len(o.Name) > 11 {
			return errors.New("name too long for Hedgehog")
		}
		w.ranges[o.Name] = [2]int{spec.Ranges[0].From, spec.Ranges[0].To}
	case "IPv4Namespace":
		return spec.Subnets.Decode(&w.networks)
	case "SwitchGroup", "Server":
	case "Switch":
		if w.ports[spec.Boot.MAC] {
			return errors.New("MAC address is used already")
		}
		w.ports[spec.Boot.MAC] = true
		if g := spec.Redundancy.Group; g != "" && (!w.names["SwitchGroup/"+g] || !slices.Equal(spec.Groups, []string{g})) {
			return fmt.Errorf("group %s", g)
		}
	case "Connection":
		return w.addConnection(o)
	case "VPC":
		return w.addVPC(o.Name, &doc)
	case "VPCAttachment":
		if !w.names["Connection/"+spec.Connection] {
			return errors.New("connection is not there")
		}
		vpc, subnet, _ := strings.Cut(spec.Subnet, "/")
		if !w.vpcs[vpc][subnet] {
			return errors.New("subnet is not there")
		}
		if w.vlanOf[vpc] != "default" {
			return errors.New("VPC is in a VLANNamespace that no switch is in")
		}
		pair := spec.Connection + " " + spec.Subnet
		if w.pairs[pair] {
			return errors.New("attached twice")
		}
		w.pairs[pair] = true
	case "VPCPeering":
		if len(spec.Permit) != 1 || len(spec.Permit[0]) != 2 {
			return errors.New("does not have two sides")
		}
		for vpc, side := range spec.Permit[0] {
			if w.vpcs[vpc] == nil {
				return fmt.Errorf("VPC %s is not there", vpc)
			}
			for _, s := range side.Subnets {
				if !w.vpcs[vpc][s] {
					return fmt.Errorf("subnet %s of %s is not there", s, vpc)
				}
			}
		}
	default:
		return errors.New("unknown kind")
	}
	return nil
}

// addConnection checks that each port is one of a switch or server that is
// there, and in no other connection.
func (w *world) addConnection(o Object) error {
	var doc struct{ Spec map[string]any }
	if err := yaml.Unmarshal([]byte(o.YAML), &doc); err != nil {
		return err
	}
	if len(doc.Spec) != 1 {
		return fmt.Errorf("%d kinds of connection", len(doc.Spec))
	}
	var ports []string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, field := range v {
				if s, ok := field.(string); ok && key == "port" {
					ports = append(ports, s)
				} else {
					walk(field)
				}
			}
		case []any:
			for _, item := range v {
				walk(item)
			}
		}
	}
	walk(doc.Spec)
	if len(ports) < 2 || len(ports)%2 != 0 {
		return fmt.Errorf("%d ports", len(ports))
	}
	for _, p := range ports {
		device, _, _ := strings.Cut(p, "/")
		if !w.names["Switch/"+device] && !w.names["Server/"+device] {
			return fmt.Errorf("%s is not there", device)
		}
		if w.ports[p] {
			return fmt.Errorf("port %s is used already", p)
		}
		w.ports[p] = true
	}
	return nil
}

// addVPC checks that its subnets lie in the IPv4Namespace and are no others',
// which for /24s is the same as not to overlap, and the same for its VLANs.
func (w *world) addVPC(name string, doc *document) error {
	if len(name) > 11 {
		return errors.New("name too long for Hedgehog")
	}
	if !w.names["IPv4Namespace/"+doc.Spec.IPv4Namespace] {
		return errors.New("IPv4Namespace is not there")
	}
	vlans, ok := w.ranges[doc.Spec.VLANNamespace]
	if !ok {
		return errors.New("VLANNamespace is not there")
	}
	var subnets map[string]struct {
		Subnet  netip.Prefix
		Gateway netip.Addr
		VLAN    int
		DHCP    *struct {
			Enable bool
			Range  struct{ Start, End netip.Addr }
		}
	}
	if err := doc.Spec.Subnets.Decode(&subnets); err != nil {
		return err
	}
	if len(subnets) == 0 {
		return errors.New("no subnet")
	}
	w.vpcs[name] = make(map[string]bool)
	w.vlanOf[name] = doc.Spec.VLANNamespace
	for key, s := range subnets {
		w.vpcs[name][key] = true
		if s.Subnet.Bits() != 24 || s.Subnet != s.Subnet.Masked() || !w.networks[0].Contains(s.Subnet.Addr()) {
			return fmt.Errorf("subnet %s", s.Subnet)
		}
		if w.subnets[s.Subnet] {
			return fmt.Errorf("subnet %s is used already", s.Subnet)
		}
		w.subnets[s.Subnet] = true
		if !s.Subnet.Contains(s.Gateway) {
			return fmt.Errorf("gateway %s is not in %s", s.Gateway, s.Subnet)
		}
		vlan := fmt.Sprintf("%s/%d", doc.Spec.VLANNamespace, s.VLAN)
		if s.VLAN < vlans[0] || s.VLAN > vlans[1] || w.vlans[vlan] {
			return fmt.Errorf("VLAN %s is used already or out of range", vlan)
		}
		w.vlans[vlan] = true
		if d := s.DHCP; d != nil {
			start, end := d.Range.Start, d.Range.End
			if !d.Enable || !s.Subnet.Contains(start) || !s.Subnet.Contains(end) || !start.Less(end) || !s.Gateway.Less(start) {
				return fmt.Errorf("DHCP %+v", d)
			}
		}
	}
	return nil
}

func TestMostVPCs(t *testing.T) {
	all := VPCs(maxVPCs)
	last := all[len(all)-1]
	for _, want := range []string{
		"name: vpc-52428\n", "vlanNamespace: vlans-22\n",
		"subnet: 10.255.253.0/24\n", "subnet: 10.255.254.0/24\n",
	} {
		if !strings.Contains(last.YAML, want) {
			t.Errorf("the last VPC has no %q:\n%s", want, last.YAML)
		}
	}
}

func TestImpossible(t *testing.T) {
	for _, tt := range []struct {
		spec Spec
		want string
	}{
		{Spec{Spines: -1}, "-1 of something"},
		{Spec{Servers: 1}, "no leaf"},
		{Spec{VPCs: maxVPCs + 1}, "at most 52428"},
		{Spec{VPCs: 4, Attachments: 1}, "at most 0"},
		{Spec{Leaves: 1, Servers: 2, VPCs: 4, Attachments: 11}, "at most 10"},
		{Spec{Peerings: 1}, "1 peerings of 0 VPCs"},
		{Spec{VPCs: 3, Peerings: 3}, "3 peerings of 3 VPCs"},
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, tt.want) {
					t.Errorf("%+v: panic %q, want %q", tt.spec, got, tt.want)
				}
			}()
			tt.spec.Objects()
		}()
	}
}

// The API server takes every object, and knows every field of it.
func TestAPIServerAccepts(t *testing.T) {
	api := kube.Start(t, kube.Options{CRDs: []string{kube.CRDs()}})
	plurals := map[string]string{
		"VLANNamespace": "vlannamespaces",
		"IPv4Namespace": "ipv4namespaces",
		"SwitchGroup":   "switchgroups",
		"Switch":        "switches",
		"Server":        "servers",
		"Connection":    "connections",
		"VPC":           "vpcs",
		"VPCAttachment": "vpcattachments",
		"VPCPeering":    "vpcpeerings",
	}
	for _, o := range small.Objects() {
		apiVersion, _, _ := strings.Cut(o.YAML[strings.Index(o.YAML, "apiVersion: ")+len("apiVersion: "):], "\n")
		path := kube.Path(apiVersion+"/"+plurals[o.Kind], "default")
		_, err := api.Do(http.MethodPost, path+"?fieldValidation=Strict", "application/yaml", []byte(o.YAML))
		if err != nil {
			t.Errorf("%s %s: %v\n%s", o.Kind, o.Name, err, o.YAML)
		}
	}
	// That it would not take anything else.
	o := VPCs(1)[0]
	bad := strings.Replace(o.YAML, "vlan:", "vlna:", 1)
	path := kube.Path("vpc.githedgehog.com/v1beta1/vpcs", "default")
	if _, err := api.Do(http.MethodPost, path+"?fieldValidation=Strict", "application/yaml", []byte(bad)); err == nil ||
		!strings.Contains(err.Error(), "unknown field") {
		t.Errorf("a misspelt field: error %v, want it to be refused as unknown", err)
	}
}

func BenchmarkVPCs(b *testing.B) {
	for _, n := range []int{1000, 5000, 20000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var buf bytes.Buffer
			for b.Loop() {
				buf.Reset()
				buf.WriteString(Join(VPCs(n)))
			}
			b.SetBytes(int64(buf.Len()))
		})
	}
}

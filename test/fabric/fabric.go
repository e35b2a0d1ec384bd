// SPDX-License-Identifier: Apache-2.0

// Package fabric makes up the wiring of Hedgehog fabrics, of any size, for
// tests, benchmarks and demonstrations.
//
// A [Spec] says how many spines, leaves, servers, VPCs and so on there are. Out
// of it come the objects that an operator would have written, with comments as
// operators write them, in the order in which Hedgehog wants them: namespaces,
// switch groups, switches, servers, connections, VPCs, attachments, peerings.
//
//	os.WriteFile("raw/fabric.yaml", []byte(fabric.Spec{
//		Spines: 2, Leaves: 5, Servers: 10, VPCs: 4, Attachments: 10,
//	}.YAML()), 0o644)
//
// The wiring makes sense, not just to the schemas of the CRDs: each name, each
// port and each VLAN of a VLANNamespace is used once, subnets do not overlap
// and lie inside the IPv4Namespace, and what refers to something refers to
// something that is there.
//
// It is also always the same: the same Spec gives the same bytes, and VPC n is
// the same in all of them. So are the switches and servers; the connections
// depend on how many switches there are.
package fabric

import (
	"fmt"
	"net/netip"
	"strings"
)

// Spec is the size of a fabric. Every field may be zero; one VLANNamespace and
// one IPv4Namespace, both called default, are always there.
type Spec struct {
	// Spines is the number of switches with role spine. Each is connected to
	// each leaf by two links.
	Spines int

	// Leaves is the number of switches with role server-leaf. Of every five
	// the first two are an MCLAG pair, the next two an ESLAG pair, and the
	// fifth stands alone; so does a leaf left without a partner.
	Leaves int

	// Servers is the number of servers. Each has one connection: MCLAG or
	// ESLAG to a pair of leaves, bundled or unbundled to one leaf. They are
	// spread evenly over the leaves, which get as many ports as that takes
	// (about 20 servers a leaf is what a real switch has ports for). Servers
	// need at least one leaf.
	Servers int

	// VPCs is the number of VPCs, at most 52,428. Every fourth has two
	// subnets, the others have one; each is a /24 of 10.0.0.0/8. Each 3,000
	// subnets need a VLANNamespace of their own.
	VPCs int

	// Attachments is the number of VPCAttachments: each of one subnet to one
	// server's connection, first one for every server, then a second one, and
	// so on. The switches are in the first VLANNamespace, so only the first
	// 2,400 VPCs take part. At most Servers times their subnets are possible.
	Attachments int

	// Peerings is the number of VPCPeerings: VPC 1 with 2, 2 with 3, and so
	// on. It is less than VPCs unless both are zero.
	Peerings int
}

// Object is one object of the fabric, in namespace default.
type Object struct {
	Kind, Name string

	// YAML is one document, comments included, without the "---" that
	// separates it from others. It ends with a newline.
	YAML string
}

// Objects returns the objects of the fabric, those first that others refer to.
// It panics if the Spec asks for what cannot be.
func (s Spec) Objects() []Object {
	s.check()
	var objects []Object
	add := func(o ...Object) { objects = append(objects, o...) }

	for i := range vlanNamespaces(s.VPCs) {
		add(vlanNamespaceObject(i))
	}
	add(ipv4NamespaceObject())

	leaves, units := s.leaves()
	for _, u := range units {
		if u.redundancy != "" {
			add(u.switchGroup())
		}
	}
	var spines []*device
	for i := range s.Spines {
		spines = append(spines, &device{name: fmt.Sprintf("spine-%02d", i+1)})
		add(spineObject(spines[i], i))
	}
	for i, l := range leaves {
		add(leafObject(l, i))
	}

	var conns []connection
	var connObjects []Object
	for i := range s.Servers {
		c := units[i%len(units)].connect(i, i/len(units))
		conns = append(conns, c)
		add(c.serverObject())
		connObjects = append(connObjects, c.object())
	}
	for _, u := range units {
		if u.redundancy == mclag {
			add(u.mclagDomain())
		}
	}
	for _, spine := range spines {
		for _, l := range leaves {
			add(fabricLinks(spine, l.device))
		}
	}
	add(connObjects...)

	add(VPCs(s.VPCs)...)
	subnets := attachable(s.VPCs)
	for i := range s.Attachments {
		c, round := i%len(conns), i/len(conns)
		// Server c takes another subnet in each round.
		add(attachmentObject(conns[c], subnets[(c+round)%len(subnets)], round == 0))
	}
	for i := range s.Peerings {
		add(peeringObject(i))
	}
	return objects
}

// YAML returns the objects as one file of several documents.
func (s Spec) YAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Fabric of %d spines, %d leaves and %d servers.\n", s.Spines, s.Leaves, s.Servers)
	fmt.Fprintf(&b, "# %d VPCs, %d attachments, %d peerings.\n", s.VPCs, s.Attachments, s.Peerings)
	kind := ""
	for _, o := range s.Objects() {
		if o.Kind != kind {
			kind = o.Kind
			fmt.Fprintf(&b, "#\n# %s\n#\n", headings[kind])
		}
		b.WriteString("---\n")
		b.WriteString(o.YAML)
	}
	return b.String()
}

// headings are the comments above the first object of a kind.
var headings = map[string]string{
	"VLANNamespace": "VLANs",
	"IPv4Namespace": "Addresses",
	"SwitchGroup":   "Switch groups",
	"Switch":        "Switches",
	"Server":        "Servers",
	"Connection":    "Connections",
	"VPC":           "VPCs",
	"VPCAttachment": "Who is in which VPC",
	"VPCPeering":    "Who may talk to whom",
}

// VPCs returns the n VPCs of Spec{VPCs: n} without the namespaces that they
// refer to: n objects of one kind, for benchmarks. It panics if n is more than
// Spec allows.
func VPCs(n int) []Object {
	Spec{VPCs: n}.check()
	objects := make([]Object, n)
	for i := range objects {
		objects[i] = vpcObject(i)
	}
	return objects
}

// Join returns the objects as one file, each document begun with "---".
func Join(objects []Object) string {
	var b strings.Builder
	for _, o := range objects {
		b.WriteString("---\n")
		b.WriteString(o.YAML)
	}
	return b.String()
}

func (s Spec) check() {
	if n := min(s.Spines, s.Leaves, s.Servers, s.VPCs, s.Attachments, s.Peerings); n < 0 {
		panic(fmt.Sprintf("fabric: %d of something", n))
	}
	if s.Servers > 0 && s.Leaves == 0 {
		panic(fmt.Sprintf("fabric: %d servers and no leaf", s.Servers))
	}
	if s.VPCs > maxVPCs {
		panic(fmt.Sprintf("fabric: %d VPCs, at most %d have room in %s", s.VPCs, maxVPCs, addresses))
	}
	if most := s.Servers * len(attachable(s.VPCs)); s.Attachments > most {
		panic(fmt.Sprintf("fabric: %d attachments, at most %d are possible with %d servers and %d VPCs",
			s.Attachments, most, s.Servers, s.VPCs))
	}
	if s.Peerings > 0 && s.Peerings >= s.VPCs {
		panic(fmt.Sprintf("fabric: %d peerings of %d VPCs", s.Peerings, s.VPCs))
	}
}

const (
	wiringAPI = "wiring.githedgehog.com/v1beta1"
	vpcAPI    = "vpc.githedgehog.com/v1beta1"
)

// newObject returns an object whose document is its header, after the comment
// if there is one, and body.
func newObject(apiVersion, kind, name, comment, body string) Object {
	var b strings.Builder
	if comment != "" {
		fmt.Fprintf(&b, "# %s\n", comment)
	}
	fmt.Fprintf(&b, "apiVersion: %s\nkind: %s\nmetadata:\n  name: %s\n  namespace: default\n", apiVersion, kind, name)
	b.WriteString(body)
	return Object{Kind: kind, Name: name, YAML: b.String()}
}

// Subnet i, counted over all VPCs, is the /24 number i of addresses. VPCs come
// in groups of four with five subnets, so that group g has the subnets from 5g
// on. A VLANNamespace has the VLANs of 600 groups.
const (
	vpcsPerGroup    = 4
	subnetsPerGroup = 5

	firstVLAN = 1000
	lastVLAN  = 3999
	vlans     = lastVLAN - firstVLAN + 1

	vpcsPerVLANNamespace = vlans / subnetsPerGroup * vpcsPerGroup

	maxVPCs = 1 << 16 / subnetsPerGroup * vpcsPerGroup
)

// addresses is the only subnet of the IPv4Namespace.
var addresses = netip.MustParsePrefix("10.0.0.0/8")

// vlanNamespaces returns how many VLANNamespaces that many VPCs need. There is
// always one, for the switches.
func vlanNamespaces(vpcs int) int {
	return max(1, (vpcs+vpcsPerVLANNamespace-1)/vpcsPerVLANNamespace)
}

// vlanNamespace returns the name of the VLANNamespace i. Hedgehog allows 11
// characters.
func vlanNamespace(i int) string {
	if i == 0 {
		return "default"
	}
	return fmt.Sprintf("vlans-%d", i+1)
}

func vlanNamespaceObject(i int) Object {
	return newObject(wiringAPI, "VLANNamespace", vlanNamespace(i), "",
		fmt.Sprintf("spec:\n  ranges:\n  - from: %d\n    to: %d\n", firstVLAN, lastVLAN))
}

func ipv4NamespaceObject() Object {
	return newObject(vpcAPI, "IPv4Namespace", "default", "",
		fmt.Sprintf("spec:\n  subnets:\n  - %s # all of it is ours\n", addresses))
}

// vpcName returns the name of VPC i. Hedgehog allows 11 characters.
func vpcName(i int) string { return fmt.Sprintf("vpc-%05d", i+1) }

// subnetNames returns the names of the subnets of VPC i.
func subnetNames(i int) []string {
	if i%vpcsPerGroup == vpcsPerGroup-1 {
		return []string{"default", "storage"}
	}
	return []string{"default"}
}

func vpcObject(i int) Object {
	var b strings.Builder
	fmt.Fprintf(&b, "spec:\n  ipv4Namespace: default\n  vlanNamespace: %s\n  subnets:\n",
		vlanNamespace(i/vpcsPerVLANNamespace))
	first := i/vpcsPerGroup*subnetsPerGroup + i%vpcsPerGroup
	for k, name := range subnetNames(i) {
		n := first + k
		net := fmt.Sprintf("10.%d.%d", n>>8, n&0xff)
		fmt.Fprintf(&b, "    %s:\n", name)
		fmt.Fprintf(&b, "      subnet: %s.0/24\n", net)
		fmt.Fprintf(&b, "      gateway: %s.1\n", net)
		fmt.Fprintf(&b, "      vlan: %d\n", firstVLAN+n%vlans)
		if name == "default" {
			// Quoted, as some always do.
			fmt.Fprintf(&b, "      dhcp:\n        enable: true\n        range:\n")
			fmt.Fprintf(&b, "          start: %q # below are the fixed ones\n", net+".100")
			fmt.Fprintf(&b, "          end: %q\n", net+".199")
		}
	}
	return newObject(vpcAPI, "VPC", vpcName(i), fmt.Sprintf("Tenant %d", i+1), b.String())
}

// subnet is a subnet that servers can be attached to.
type subnet struct{ vpc, name string }

// attachable returns the subnets of the first of so many VPCs, as far as they
// are in the VLANNamespace of the switches.
func attachable(vpcs int) []subnet {
	var subnets []subnet
	for i := range min(vpcs, vpcsPerVLANNamespace) {
		for _, name := range subnetNames(i) {
			subnets = append(subnets, subnet{vpcName(i), name})
		}
	}
	return subnets
}

func attachmentObject(c connection, s subnet, first bool) Object {
	body := fmt.Sprintf("spec:\n  connection: %s\n  subnet: %s/%s\n", c.name, s.vpc, s.name)
	if first && c.kind == unbundled {
		body += "  nativeVLAN: true # installed over the network: no tags\n"
	}
	name := fmt.Sprintf("%s--%s--%s", s.vpc, s.name, c.server.name)
	return newObject(vpcAPI, "VPCAttachment", name, "", body)
}

func peeringObject(i int) Object {
	a, b := vpcName(i), vpcName(i+1)
	return newObject(vpcAPI, "VPCPeering", a+"--"+b, "",
		fmt.Sprintf("spec:\n  permit:\n  - %s:\n      subnets: [default]\n    %s: {} # all of its subnets\n", a, b))
}

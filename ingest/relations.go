// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

const (
	wiringGroup  = "wiring.githedgehog.com"
	vpcGroup     = "vpc.githedgehog.com"
	gatewayGroup = "gateway.githedgehog.com"
)

// The namespaces that a VPC is in where it names none, as Hedgehog's admission
// fills them in.
const defaultSpace = "default"

// A holding is what an object has that others may not have, or refer to.
type holding struct {
	ports    []string // of a Connection: device/port
	mclag    bool     // of a Connection: Hedgehog's own admission does not look at its ports and devices
	prefixes []spacePrefix
	vlans    []spaceVLAN

	subnets []string       // of a VPC, by name
	within  []netip.Prefix // of an IPv4Namespace
	ranges  []vlanRange    // of a VLANNamespace

	refers []string // to what it refers, see referent; only in a Fabric
}

// A spacePrefix is a subnet of a VPC, which no other in its IPv4Namespace
// overlaps.
type spacePrefix struct {
	space string
	netip.Prefix
}

// A spaceVLAN is one that a subnet takes of a VLANNamespace.
type spaceVLAN struct {
	space string
	id    int64
}

type vlanRange struct{ from, to int64 }

// relations are what one object has to do with others, with the path in the
// object that says so.
type relations struct {
	holding
	portsAt, prefixesAt, vlansAt []string // of what is at the same index in holding
	hostVLANs                    []bool   // likewise: the subnet is for host BGP, and may have any VLAN

	references []objectReference
	malformed  []flaw
}

// An objectReference is a name that has to be that of an object.
type objectReference struct {
	at          string
	group, kind string
	name        string
	subnet      string // of that VPC; "" for none

	// lenient: Hedgehog's own admission does not ask for the object.
	lenient bool

	// installed: such objects come with the installation of a fabric, and git
	// usually holds none or only a few of them.
	installed bool
}

// relationsOf finds the relations of an object in its values, as far as these
// have the types that they should have: what else is wrong is the schema's to
// say.
func relationsOf(group, kind string, value map[string]any) *relations {
	r := &relations{}
	spec, _ := value["spec"].(map[string]any)
	switch group + "/" + kind {
	case wiringGroup + "/Connection":
		r.connection(spec)
	case wiringGroup + "/Switch":
		r.ofSwitch(spec)
	case wiringGroup + "/Server":
		r.refer(objectReference{at: "spec.profile", group: wiringGroup, kind: "ServerProfile", installed: true}, spec["profile"])
	case wiringGroup + "/VLANNamespace":
		for _, v := range list(spec["ranges"]) {
			entry, _ := v.(map[string]any)
			from, ok := entry["from"].(int64)
			to, ok2 := entry["to"].(int64)
			if ok && ok2 {
				r.ranges = append(r.ranges, vlanRange{from, to})
			}
		}
	case vpcGroup + "/IPv4Namespace":
		for i, v := range list(spec["subnets"]) {
			if p, ok := r.prefix(fmt.Sprintf("spec.subnets[%d]", i), v); ok {
				r.within = append(r.within, p)
			}
		}
	case vpcGroup + "/VPC":
		r.vpc(spec)
	case vpcGroup + "/VPCAttachment":
		r.refer(objectReference{at: "spec.connection", group: wiringGroup, kind: "Connection"}, spec["connection"])
		r.attachedSubnet(spec["subnet"])
	case vpcGroup + "/VPCPeering":
		r.refer(objectReference{at: "spec.remote", group: wiringGroup, kind: "SwitchGroup", lenient: true}, spec["remote"])
		for i, v := range list(spec["permit"]) {
			policy, _ := v.(map[string]any)
			for _, name := range slices.Sorted(maps.Keys(policy)) {
				at := fmt.Sprintf("spec.permit[%d].%s", i, name)
				entry, _ := policy[name].(map[string]any)
				r.peer(at, at+".subnets", name, entry["subnets"])
			}
		}
	case vpcGroup + "/External":
		r.refer(objectReference{at: "spec.ipv4Namespace", group: vpcGroup, kind: "IPv4Namespace", installed: true}, spec["ipv4Namespace"])
	case vpcGroup + "/ExternalAttachment":
		r.refer(objectReference{at: "spec.connection", group: wiringGroup, kind: "Connection"}, spec["connection"])
		r.refer(objectReference{at: "spec.external", group: vpcGroup, kind: "External"}, spec["external"])
	case vpcGroup + "/ExternalPeering":
		permit, _ := spec["permit"].(map[string]any)
		external, _ := permit["external"].(map[string]any)
		r.refer(objectReference{at: "spec.permit.external.name", group: vpcGroup, kind: "External"}, external["name"])
		v, _ := permit["vpc"].(map[string]any)
		name, _ := v["name"].(string)
		r.peer("spec.permit.vpc.name", "spec.permit.vpc.subnets", name, v["subnets"])
	case gatewayGroup + "/Gateway":
		for i, v := range list(spec["groups"]) {
			g, _ := v.(map[string]any)
			r.refer(objectReference{at: fmt.Sprintf("spec.groups[%d].name", i), group: gatewayGroup, kind: "GatewayGroup", installed: true}, g["name"])
		}
	case gatewayGroup + "/GatewayPeering":
		r.refer(objectReference{at: "spec.gatewayGroup", group: gatewayGroup, kind: "GatewayGroup", installed: true}, spec["gatewayGroup"])
		peering, _ := spec["peering"].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(peering)) {
			if !strings.HasPrefix(name, "ext.") { // that of an External
				r.refer(objectReference{at: "spec.peering." + name, group: vpcGroup, kind: "VPC", lenient: true}, name)
			}
		}
	}
	return r
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// refer adds a reference to the object of that name, if there is a name.
func (r *relations) refer(ref objectReference, name any) {
	if s, ok := name.(string); ok && s != "" {
		ref.name = s
		r.references = append(r.references, ref)
	}
}

// peer adds a VPC that something is peered with, and those of its subnets that
// are named.
func (r *relations) peer(at, subnetsAt, vpc string, subnets any) {
	r.refer(objectReference{at: at, group: vpcGroup, kind: "VPC"}, vpc)
	for i, s := range list(subnets) {
		if subnet, ok := s.(string); ok && subnet != "" {
			r.refer(objectReference{at: fmt.Sprintf("%s[%d]", subnetsAt, i), group: vpcGroup, kind: "VPC", subnet: subnet}, vpc)
		}
	}
}

// attachedSubnet adds what a VPCAttachment is attached to: VPC/SUBNET, or VPC
// for its subnet called default.
func (r *relations) attachedSubnet(v any) {
	s, ok := v.(string)
	if !ok || s == "" {
		return
	}
	name, subnet, found := strings.Cut(s, "/")
	if !found {
		subnet = "default"
	}
	if name == "" || subnet == "" {
		r.wrong("spec.subnet", clip(s)+" is not of the form VPC/SUBNET")
		return
	}
	r.refer(objectReference{at: "spec.subnet", group: vpcGroup, kind: "VPC"}, name)
	r.refer(objectReference{at: "spec.subnet", group: vpcGroup, kind: "VPC", subnet: subnet}, name)
}

func (r *relations) wrong(at, message string) {
	r.malformed = append(r.malformed, flaw{at: at, code: malformedReference, message: at + ": " + message})
}

// prefix reads an IPv4 prefix. Bits beyond its length do not matter to
// Hedgehog.
func (r *relations) prefix(at string, v any) (netip.Prefix, bool) {
	s, ok := v.(string)
	if !ok || s == "" {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() {
		r.wrong(at, clip(s)+" is not an IPv4 prefix, as 10.0.1.0/24 is")
		return netip.Prefix{}, false
	}
	return p.Masked(), true
}

func (r *relations) ofSwitch(spec map[string]any) {
	for i, v := range list(spec["groups"]) {
		r.refer(objectReference{at: fmt.Sprintf("spec.groups[%d]", i), group: wiringGroup, kind: "SwitchGroup"}, v)
	}
	redundancy, _ := spec["redundancy"].(map[string]any)
	r.refer(objectReference{at: "spec.redundancy.group", group: wiringGroup, kind: "SwitchGroup", lenient: true}, redundancy["group"])
	for i, v := range list(spec["vlanNamespaces"]) {
		r.refer(objectReference{at: fmt.Sprintf("spec.vlanNamespaces[%d]", i), group: wiringGroup, kind: "VLANNamespace", installed: true}, v)
	}
	r.refer(objectReference{at: "spec.profile", group: wiringGroup, kind: "SwitchProfile", installed: true}, spec["profile"])
}

// devices are the kinds of devices at the ends of a connection's links, by the
// name of the field, whatever the type of the connection.
var devices = map[string]objectReference{
	"server": {group: wiringGroup, kind: "Server"},
	"switch": {group: wiringGroup, kind: "Switch"}, "switch1": {group: wiringGroup, kind: "Switch"}, "switch2": {group: wiringGroup, kind: "Switch"},
	"leaf": {group: wiringGroup, kind: "Switch"}, "leaf1": {group: wiringGroup, kind: "Switch"}, "leaf2": {group: wiringGroup, kind: "Switch"},
	"spine":   {group: wiringGroup, kind: "Switch"},
	"gateway": {group: gatewayGroup, kind: "Gateway", lenient: true},
}

// connection finds the devices and ports of a connection: each is a mapping
// with a port, below the field of the device.
func (r *relations) connection(spec map[string]any) {
	_, mclag := spec["mclag"]
	_, domain := spec["mclagDomain"]
	r.mclag = mclag || domain
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case []any:
			for i, item := range v {
				walk(fmt.Sprintf("%s[%d]", at, i), item)
			}
		case map[string]any:
			for _, name := range slices.Sorted(maps.Keys(v)) {
				at := at + "." + name
				end, _ := v[name].(map[string]any)
				port, ok := end["port"].(string)
				ref, known := devices[name]
				if !ok || !known {
					walk(at, v[name])
					continue
				}
				at += ".port"
				device, rest, _ := strings.Cut(port, "/")
				if device == "" || rest == "" {
					r.wrong(at, clip(port)+" is not of the form DEVICE/PORT")
					continue
				}
				ref.at, ref.lenient = at, ref.lenient || r.mclag
				r.refer(ref, device)
				r.ports, r.portsAt = append(r.ports, samePort(port)), append(r.portsAt, at)
			}
		}
	}
	walk("spec", spec)
	external, _ := spec["staticExternal"].(map[string]any)
	r.refer(objectReference{at: "spec.staticExternal.withinVPC", group: vpcGroup, kind: "VPC", lenient: true}, external["withinVPC"])
}

// samePort returns one name for the names of a port: of a port that is broken
// out, leaf-01/E1/4 is leaf-01/E1/4/1.
func samePort(port string) string {
	if strings.Count(port, "/") == 3 {
		port = strings.TrimSuffix(port, "/1")
	}
	return port
}

func (r *relations) vpc(spec map[string]any) {
	ipv4, vlans := defaultSpace, defaultSpace
	for _, space := range []struct {
		field, group, kind string
		name               *string
	}{{"ipv4Namespace", vpcGroup, "IPv4Namespace", &ipv4}, {"vlanNamespace", wiringGroup, "VLANNamespace", &vlans}} {
		if s, ok := spec[space.field].(string); ok && s != "" {
			*space.name = s
			r.refer(objectReference{at: "spec." + space.field, group: space.group, kind: space.kind, installed: true}, s)
		}
	}
	subnets, _ := spec["subnets"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(subnets)) {
		r.subnets = append(r.subnets, name)
		subnet, _ := subnets[name].(map[string]any)
		at := "spec.subnets." + name
		if p, ok := r.prefix(at+".subnet", subnet["subnet"]); ok {
			r.prefixes, r.prefixesAt = append(r.prefixes, spacePrefix{ipv4, p}), append(r.prefixesAt, at+".subnet")
		}
		if id, ok := subnet["vlan"].(int64); ok && id != 0 {
			host, _ := subnet["hostBGP"].(bool)
			r.vlans, r.vlansAt, r.hostVLANs = append(r.vlans, spaceVLAN{vlans, id}), append(r.vlansAt, at+".vlan"), append(r.hostVLANs, host)
		}
		dhcp, _ := subnet["dhcp"].(map[string]any)
		r.refer(objectReference{at: at + ".dhcp.relayVPC", group: vpcGroup, kind: "VPC"}, dhcp["relayVPC"])
	}
}

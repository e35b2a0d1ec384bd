// SPDX-License-Identifier: Apache-2.0

package fabric

import (
	"fmt"
	"strings"
)

// The kinds of connection of a server, as the keys of a Connection's spec. The
// first two are also the kinds of redundancy of a pair of leaves.
const (
	mclag     = "mclag"
	eslag     = "eslag"
	bundled   = "bundled"
	unbundled = "unbundled"
)

// device is a switch or a server that hands out its ports in turn.
type device struct {
	name string
	used int
}

// port returns a port of a switch that nothing is plugged into.
func (d *device) port() string {
	d.used++
	return fmt.Sprintf("%s/E1/%d", d.name, d.used)
}

// nic returns a port of a server that nothing is plugged into.
func (d *device) nic() string {
	d.used++
	return fmt.Sprintf("%s/enp2s%d", d.name, d.used)
}

type leaf struct {
	*device
	unit *unit
}

// unit is one leaf, or two that act as one for the servers.
type unit struct {
	leaves     []*device
	redundancy string // mclag, eslag, or "" for one leaf
	group      string // name of the SwitchGroup, if there is redundancy
}

// leaves returns the leaves, and the units that they make up.
func (s Spec) leaves() ([]leaf, []*unit) {
	var leaves []leaf
	var units []*unit
	for i := 0; i < s.Leaves; {
		u := &unit{}
		if place := i % 5; place < 4 && i+1 < s.Leaves {
			u.redundancy = mclag
			if place == 2 {
				u.redundancy = eslag
			}
			u.group = fmt.Sprintf("%s-%d", u.redundancy, i/5+1)
		}
		units = append(units, u)
		for range u.size() {
			i++
			d := &device{name: fmt.Sprintf("leaf-%02d", i)}
			u.leaves = append(u.leaves, d)
			leaves = append(leaves, leaf{d, u})
		}
	}
	return leaves, units
}

func (u *unit) size() int {
	if u.redundancy != "" {
		return 2
	}
	return 1
}

func (u *unit) switchGroup() Object {
	return newObject(wiringAPI, "SwitchGroup", u.group, "", "spec: {}\n")
}

// mclagDomain joins the leaves of an MCLAG pair.
func (u *unit) mclagDomain() Object {
	a, b := u.leaves[0], u.leaves[1]
	var body strings.Builder
	body.WriteString("spec:\n  mclagDomain:\n")
	for _, links := range []string{"peerLinks", "sessionLinks"} {
		fmt.Fprintf(&body, "    %s:\n", links)
		for range 2 {
			fmt.Fprintf(&body, "    - switch1:\n        port: %s\n", a.port())
			fmt.Fprintf(&body, "      switch2:\n        port: %s\n", b.port())
		}
	}
	return newObject(wiringAPI, "Connection", a.name+"--mclag-domain--"+b.name,
		"Peer links carry traffic, session links the heartbeat", body.String())
}

func spineObject(d *device, i int) Object {
	return newObject(wiringAPI, "Switch", d.name, "", fmt.Sprintf(`spec:
  role: spine
  description: "Spine %d"
  profile: vs
  boot:
    mac: %s
`, i+1, mac(0, i)))
}

func leafObject(l leaf, i int) Object {
	var b strings.Builder
	fmt.Fprintf(&b, `spec:
  role: server-leaf
  description: "Rack %d, U42"
  profile: vs
  boot:
    mac: %s
  vlanNamespaces:
  - %s
`, i+1, mac(1, i), vlanNamespace(0))
	if u := l.unit; u.redundancy != "" {
		fmt.Fprintf(&b, "  groups:\n  - %s\n  redundancy:\n    group: %s\n    type: %s\n", u.group, u.group, u.redundancy)
	}
	return newObject(wiringAPI, "Switch", l.name, "", b.String())
}

// mac returns a locally administered MAC address.
func mac(role, i int) string {
	return fmt.Sprintf("0a:00:%02x:%02x:%02x:%02x", role, i>>16&0xff, i>>8&0xff, i&0xff)
}

// fabricLinks connects a leaf to a spine.
func fabricLinks(spine, leaf *device) Object {
	var b strings.Builder
	b.WriteString("spec:\n  fabric:\n    links:\n")
	for range 2 {
		fmt.Fprintf(&b, "    - spine:\n        port: %s\n", spine.port())
		fmt.Fprintf(&b, "      leaf:\n        port: %s\n", leaf.port())
	}
	return newObject(wiringAPI, "Connection", spine.name+"--fabric--"+leaf.name, "", b.String())
}

// connection is that of a server to a unit.
type connection struct {
	name   string
	kind   string
	server *device
	leaves []*device // one each for the links
}

// connect connects server i, which is number n of this unit.
func (u *unit) connect(i, n int) connection {
	c := connection{server: &device{name: fmt.Sprintf("server-%03d", i+1)}}
	names := ""
	if u.redundancy != "" {
		// Most are connected to both; some have a single link or bundle.
		a, b := u.leaves[0], u.leaves[1]
		switch n % 4 {
		case 0, 1:
			c.kind, c.leaves = u.redundancy, []*device{a, b}
			names = a.name + "--" + b.name
		case 2:
			c.kind, c.leaves = unbundled, []*device{a}
		case 3:
			c.kind, c.leaves = bundled, []*device{b, b}
		}
	} else {
		a := u.leaves[0]
		if n%2 == 0 {
			c.kind, c.leaves = unbundled, []*device{a}
		} else {
			c.kind, c.leaves = bundled, []*device{a, a}
		}
	}
	if names == "" {
		names = c.leaves[0].name
	}
	c.name = fmt.Sprintf("%s--%s--%s", c.server.name, c.kind, names)
	return c
}

func (c connection) serverObject() Object {
	return newObject(wiringAPI, "Server", c.server.name, "",
		fmt.Sprintf("spec:\n  description: %s, %s\n", strings.ToUpper(c.server.name[:1])+c.server.name[1:], c.kind))
}

func (c connection) object() Object {
	var b strings.Builder
	if c.kind == unbundled {
		fmt.Fprintf(&b, "spec:\n  unbundled:\n    link:\n")
		fmt.Fprintf(&b, "      server:\n        port: %s\n", c.server.nic())
		fmt.Fprintf(&b, "      switch:\n        port: %s\n", c.leaves[0].port())
	} else {
		fmt.Fprintf(&b, "spec:\n  %s:\n    links:\n", c.kind)
		for _, leaf := range c.leaves {
			fmt.Fprintf(&b, "    - server:\n        port: %s\n", c.server.nic())
			fmt.Fprintf(&b, "      switch:\n        port: %s\n", leaf.port())
		}
	}
	return newObject(wiringAPI, "Connection", c.name, "", b.String())
}

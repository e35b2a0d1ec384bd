// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Fabric knows of the managed objects of a fabric what the references and
// claims of others depend on: which there are, and who has which port, subnet
// and VLAN. With it a batch is held against ten thousand managed files without
// reading them: it is kept up to date with those that change, and costs a few
// hundred bytes for each. It is for one goroutine at a time.
type Fabric struct {
	policy Policy // no more of it than where objects lie

	objects map[string]*holding // by managed path; nil for an object that holds nothing
	kinds   map[string]int      // how many objects there are of each plural

	ports    map[string][]string // device/port, after the namespace: managed paths of those who have it
	vlans    map[spacedVLAN][]string
	prefixes map[bucket][]takenPrefix
	referred map[string][]string // managed path, or that and a subnet (see referent): paths of those who refer to it
}

// A space is an IPv4Namespace or VLANNamespace.
type space struct{ namespace, name string }

type spacedVLAN struct {
	space
	id int64
}

// A bucket holds the subnets of an IPv4Namespace that share their first
// bucketBits bits, and so the few that another one has to be compared with. One
// that is wider than that is in a bucket for its own width.
type bucket struct {
	space
	netip.Prefix
}

const bucketBits = 16

func bucketOf(s space, p netip.Prefix) bucket {
	p, _ = p.Addr().Prefix(min(p.Bits(), bucketBits)) // which fails only for more bits than an address has
	return bucket{s, p}
}

type takenPrefix struct {
	netip.Prefix
	path string // of the managed object
}

// NewFabric returns a fabric without objects. The policy says where these lie.
func NewFabric(p Policy) *Fabric {
	return &Fabric{
		policy: Policy{Namespace: p.Namespace, Kinds: p.Kinds}, objects: make(map[string]*holding), kinds: make(map[string]int),
		ports: make(map[string][]string), vlans: make(map[spacedVLAN][]string), prefixes: make(map[bucket][]takenPrefix),
		referred: make(map[string][]string),
	}
}

// Put says that there is a managed file at a path (see [Object]) and what it
// holds, which is asked for only where it matters; an error of that is
// returned, and nothing has changed then. What is not where an object can be is
// passed over, and what cannot be read is there and holds nothing.
func (f *Fabric) Put(path string, read func() ([]byte, error)) error {
	kind, _, ok := f.locate(path)
	if !ok {
		return nil
	}
	var h *holding
	switch kind.Group + "/" + kind.Kind {
	case wiringGroup + "/Connection", wiringGroup + "/Switch", wiringGroup + "/VLANNamespace",
		vpcGroup + "/External", vpcGroup + "/ExternalAttachment", vpcGroup + "/ExternalPeering", vpcGroup + "/IPv4Namespace",
		vpcGroup + "/VPC", vpcGroup + "/VPCAttachment", vpcGroup + "/VPCPeering", gatewayGroup + "/GatewayPeering":
		data, err := read()
		if err != nil {
			return err
		}
		h = &holding{}
		if value, err := readKubernetes(data); err == nil {
			object, _ := value.(map[string]any)
			h = f.holdingOfNew(path, relationsOf(kind.Group, kind.Kind, object))
		}
	}
	f.Remove(path)
	f.add(path, h)
	return nil
}

// holdingOfNew returns what an object at a managed path has and refers to.
func (f *Fabric) holdingOfNew(path string, r *relations) *holding {
	_, namespace, _ := f.locate(path)
	h := r.holding
	for _, ref := range r.references {
		switch ref.kind {
		case "GatewayGroup", "ServerProfile", "SwitchProfile":
			continue // they are there by themselves
		}
		if to, _ := f.pathOf(ref.group, ref.kind, namespace, ref.name); to != "" {
			if to = referent(to, ref.subnet); !slices.Contains(h.refers, to) {
				h.refers = append(h.refers, to)
			}
		}
	}
	return &h
}

// referent names a subnet of the VPC at a managed path, or with "" the object.
func referent(path, subnet string) string {
	if subnet == "" {
		return path
	}
	return path + "#" + subnet
}

// Remove says that there is no managed file at a path.
func (f *Fabric) Remove(path string) {
	if h, ok := f.objects[path]; ok {
		f.drop(path, h)
	}
}

// Objects returns how many objects are known.
func (f *Fabric) Objects() int { return len(f.objects) }

// locate returns the kind and the namespace that an object at a managed path
// has.
func (f *Fabric) locate(path string) (k Kind, namespace string, ok bool) {
	parts := strings.Split(path, "/")
	if len(parts) < 3 || len(parts) > 4 || parts[0] != "managed" || !strings.HasSuffix(path, ".yaml") {
		return Kind{}, "", false
	}
	namespace = f.policy.Namespace
	if len(parts) == 4 {
		namespace = parts[2]
	}
	i := slices.IndexFunc(f.policy.Kinds, func(k Kind) bool { return k.Plural == parts[1] })
	if i < 0 {
		return Kind{}, "", false
	}
	return f.policy.Kinds[i], namespace, true
}

// named returns how messages name the object at a managed path.
func (f *Fabric) named(path string) string {
	kind, namespace, _ := f.locate(path)
	name := strings.TrimSuffix(path[strings.LastIndexByte(path, '/')+1:], ".yaml")
	return ID{kind.Group, kind.Kind, namespace, name}.String()
}

// pathOf returns the managed path of an object, and the plural of its kind; ""
// for a kind that the fabric may not hold.
func (f *Fabric) pathOf(group, kind, namespace, name string) (path, plural string) {
	for _, k := range f.policy.Kinds {
		if k.Group == group && k.Kind == kind {
			return f.policy.path(k.Plural, ID{group, kind, namespace, name}), k.Plural
		}
	}
	return "", ""
}

// holdingOf returns what an object has; nil where there is no such object, or
// it is of a kind that has nothing.
func (f *Fabric) holdingOf(group, kind, namespace, name string) *holding {
	path, _ := f.pathOf(group, kind, namespace, name)
	return f.objects[path]
}

// replace puts another holding in the place of what is at a path, or with
// exists false nothing, and returns what undoes that.
func (f *Fabric) replace(path string, h *holding, exists bool) (undo func()) {
	was, there := f.objects[path]
	f.Remove(path)
	if exists {
		f.add(path, h)
	}
	return func() {
		f.Remove(path)
		if there {
			f.add(path, was)
		}
	}
}

func (f *Fabric) add(path string, h *holding) {
	f.objects[path] = h
	f.kinds[pluralOf(path)]++
	if h == nil {
		return
	}
	_, namespace, _ := f.locate(path)
	for _, port := range h.ports {
		hold(f.ports, namespace+"/"+port, path)
	}
	for _, v := range h.vlans {
		hold(f.vlans, spacedVLAN{space{namespace, v.space}, v.id}, path)
	}
	for _, p := range h.prefixes {
		hold(f.prefixes, bucketOf(space{namespace, p.space}, p.Prefix), takenPrefix{p.Prefix, path})
	}
	for _, to := range h.refers {
		hold(f.referred, to, path)
	}
}

func (f *Fabric) drop(path string, h *holding) {
	delete(f.objects, path)
	plural := pluralOf(path)
	if f.kinds[plural]--; f.kinds[plural] == 0 {
		delete(f.kinds, plural)
	}
	if h == nil {
		return
	}
	_, namespace, _ := f.locate(path)
	for _, port := range h.ports {
		release(f.ports, namespace+"/"+port, path)
	}
	for _, v := range h.vlans {
		release(f.vlans, spacedVLAN{space{namespace, v.space}, v.id}, path)
	}
	for _, p := range h.prefixes {
		release(f.prefixes, bucketOf(space{namespace, p.space}, p.Prefix), takenPrefix{p.Prefix, path})
	}
	for _, to := range h.refers {
		release(f.referred, to, path)
	}
}

func pluralOf(path string) string {
	_, rest, _ := strings.Cut(path, "/")
	plural, _, _ := strings.Cut(rest, "/")
	return plural
}

func hold[K, V comparable](m map[K][]V, key K, v V) { m[key] = append(m[key], v) }

func release[K, V comparable](m map[K][]V, key K, v V) {
	held := m[key]
	i := slices.Index(held, v)
	if len(held) == 1 {
		delete(m, key)
	} else {
		m[key] = slices.Delete(held, i, i+1)
	}
}

// A flaw is what is wrong with an object beside the others.
type flaw struct {
	at      string // path in the object
	code    string
	message string
	hint    string
	warning bool // Hedgehog's own admission would let it pass, or has more to go by than git
}

// flaws returns what is wrong with the object at a managed path, whose
// relations are given, beside those that the fabric holds. Of the others that
// have the same port, subnet or VLAN only those count that counts says so of.
func (f *Fabric) flaws(path string, r *relations, counts func(other string) bool) []flaw {
	_, namespace, _ := f.locate(path)
	flaws := slices.Clone(r.malformed)
	for _, ref := range r.references {
		if fl, ok := f.missing(namespace, ref); ok {
			flaws = append(flaws, fl)
		}
	}
	flaws = append(flaws, f.takenPorts(path, namespace, r, counts)...)
	flaws = append(flaws, f.badPrefixes(path, namespace, r, counts)...)
	return append(flaws, f.badVLANs(path, namespace, r, counts)...)
}

// missing reports a reference to what is not there. Where git holds no object
// of a kind at all, these are likely to be made elsewhere (by the installer, as
// a fabric's wiring often is).
func (f *Fabric) missing(namespace string, ref objectReference) (flaw, bool) {
	path, plural := f.pathOf(ref.group, ref.kind, namespace, ref.name)
	if path == "" {
		return flaw{}, false // not of this fabric
	}
	id := ID{ref.group, ref.kind, namespace, ref.name}
	to, found := f.objects[path]
	switch {
	case ref.subnet != "":
		if !found || slices.Contains(to.subnets, ref.subnet) {
			return flaw{}, false // that the VPC is missing is said by the reference to it
		}
		hint := "add the subnet to the VPC"
		if len(to.subnets) > 0 {
			hint += ", or use one that it has (" + strings.Join(to.subnets, ", ") + ")"
		}
		return flaw{at: ref.at, code: noSubnet, message: fmt.Sprintf("%s: %s has no subnet %s", ref.at, id, clip(ref.subnet)), hint: hint}, true
	case found:
		return flaw{}, false
	}
	elsewhere := f.kinds[plural] == 0
	if elsewhere && ref.installed {
		return flaw{}, false
	}
	return flaw{at: ref.at, code: noObjectThere, warning: elsewhere || ref.installed || ref.lenient, message: fmt.Sprintf("%s: there is no %s", ref.at, id)}, true
}

// keepers are the kinds of those that keep Hedgehog's admission from deleting an
// object of a kind that they refer to (pkg/webhook/*).
var keepers = map[string][]string{
	"External":      {"ExternalAttachment", "ExternalPeering"},
	"IPv4Namespace": {"External", "VPC"},
	"Server":        {"Connection"},
	"Switch":        {"Connection"},
	"VPC":           {"Connection", "ExternalPeering", "VPCAttachment", "VPCPeering"},
}

// bereft returns what is wrong with taking away the object at a managed path,
// or those subnets of it: that others still refer to it. Only those count that
// counts says so of.
func (f *Fabric) bereft(path string, gone bool, subnets []string, counts func(other string) bool) (flaws []flaw) {
	kind, _, _ := f.locate(path)
	look := func(to, at, what string, admitted func(kind string) bool) {
		var others []string
		warning := true
		for _, other := range f.referred[to] {
			if !counts(other) {
				continue
			}
			others = append(others, f.named(other))
			k, _, _ := f.locate(other)
			warning = warning && admitted(k.Kind)
		}
		if len(others) == 0 {
			return
		}
		slices.Sort(others)
		by := others[0]
		if n := len(others) - 1; n > 0 {
			by += fmt.Sprintf(" and %d more", n)
		}
		flaws = append(flaws, flaw{at: at, code: takenAway, warning: warning, message: fmt.Sprintf("%s is taken away, and referred to by %s", what, by)})
	}
	if gone {
		look(path, "metadata.name", f.named(path), func(by string) bool { return !slices.Contains(keepers[kind.Kind], by) })
	}
	for _, s := range subnets {
		look(referent(path, s), "spec.subnets", "subnet "+clip(s), func(string) bool { return true })
	}
	return flaws
}

func (f *Fabric) takenPorts(path, namespace string, r *relations, counts func(string) bool) (flaws []flaw) {
	for i, port := range r.ports {
		at := r.portsAt[i]
		if slices.Contains(r.ports[:i], port) {
			flaws = append(flaws, flaw{at: at, code: portTaken, warning: r.mclag, message: fmt.Sprintf("%s: port %s is used twice in the object", at, clip(port))})
			continue
		}
		if other := firstOther(f.ports[namespace+"/"+port], path, counts); other != "" {
			flaws = append(flaws, flaw{at: at, code: portTaken, warning: r.mclag || f.objects[other].mclag, message: fmt.Sprintf("%s: port %s is used by %s", at, clip(port), f.named(other))})
		}
	}
	return flaws
}

func (f *Fabric) badPrefixes(path, namespace string, r *relations, counts func(string) bool) (flaws []flaw) {
	for i, p := range r.prefixes {
		at := r.prefixesAt[i]
		for _, q := range r.prefixes[:i] {
			if p.Overlaps(q.Prefix) {
				flaws = append(flaws, flaw{at: at, code: subnetOverlaps, message: fmt.Sprintf("%s: %s overlaps %s of the same VPC", at, p.Prefix, q.Prefix)})
			}
		}
		if other := f.overlapping(path, space{namespace, p.space}, p.Prefix, counts); other.path != "" {
			flaws = append(flaws, flaw{at: at, code: subnetOverlaps,
				message: fmt.Sprintf("%s: %s overlaps %s of %s in IPv4Namespace %s", at, p.Prefix, other.Prefix, f.named(other.path), clip(p.space))})
		}
		in := f.holdingOf(vpcGroup, "IPv4Namespace", namespace, p.space)
		if in == nil {
			continue // it is not in git
		}
		if !slices.ContainsFunc(in.within, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) }) {
			flaws = append(flaws, flaw{at: at, code: subnetOutside,
				message: fmt.Sprintf("%s: %s is outside of IPv4Namespace %s, which has %s", at, p.Prefix, clip(p.space), few(in.within))})
		}
	}
	return flaws
}

// overlapping returns the first subnet of a space, by the path of its VPC, that
// overlaps p, is not that of the VPC at path, and counts.
func (f *Fabric) overlapping(path string, s space, p netip.Prefix, counts func(string) bool) (first takenPrefix) {
	look := func(taken []takenPrefix) {
		for _, q := range taken {
			before := first.path == "" || cmp.Or(strings.Compare(q.path, first.path), q.Compare(first.Prefix)) < 0
			if before && q.path != path && q.Overlaps(p) && counts(q.path) {
				first = q
			}
		}
	}
	if p.Bits() < bucketBits {
		for b, taken := range f.prefixes {
			if b.space == s && b.Bits() > p.Bits() {
				look(taken)
			}
		}
	}
	for bits := range min(p.Bits(), bucketBits) + 1 {
		wide, _ := p.Addr().Prefix(bits)
		look(f.prefixes[bucket{s, wide}])
	}
	return first
}

// firstOther returns the first of the paths that is not path, and counts; "" if
// there is none.
func firstOther(paths []string, path string, counts func(string) bool) (first string) {
	for _, other := range paths {
		if other != path && (first == "" || other < first) && counts(other) {
			first = other
		}
	}
	return first
}

func (f *Fabric) badVLANs(path, namespace string, r *relations, counts func(string) bool) (flaws []flaw) {
	for i, v := range r.vlans {
		at := r.vlansAt[i]
		for j, w := range r.vlans[:i] {
			if v.id == w.id && !r.hostVLANs[i] && !r.hostVLANs[j] {
				flaws = append(flaws, flaw{at: at, code: vlanTaken, message: fmt.Sprintf("%s: VLAN %d is used twice in the VPC", at, v.id)})
				break
			}
		}
		if other := firstOther(f.vlans[spacedVLAN{space{namespace, v.space}, v.id}], path, counts); other != "" {
			flaws = append(flaws, flaw{at: at, code: vlanTaken,
				message: fmt.Sprintf("%s: VLAN %d is used by %s in VLANNamespace %s", at, v.id, f.named(other), clip(v.space))})
		}
		in := f.holdingOf(wiringGroup, "VLANNamespace", namespace, v.space)
		if in == nil || r.hostVLANs[i] {
			continue
		}
		if !slices.ContainsFunc(in.ranges, func(r vlanRange) bool { return r.from <= v.id && v.id <= r.to }) {
			flaws = append(flaws, flaw{at: at, code: vlanOutside,
				message: fmt.Sprintf("%s: VLAN %d is outside of VLANNamespace %s, which has %s", at, v.id, clip(v.space), few(in.ranges))})
		}
	}
	return flaws
}

func (r vlanRange) String() string { return fmt.Sprintf("%d-%d", r.from, r.to) }

// few lists what a namespace has, as far as it is worth a message.
func few[T fmt.Stringer](items []T) string {
	if len(items) == 0 {
		return "none"
	}
	var texts []string
	for i, item := range items {
		if i == 5 {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, item.String())
	}
	return strings.Join(texts, ", ")
}

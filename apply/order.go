// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"cmp"
	"slices"
)

// order is the order in which Hedgehog's kinds refer to each other: an object
// names only objects of kinds above it, and Hedgehog's admission webhooks
// refuse one whose references are not there yet.
var order = []struct{ group, kind string }{
	{wiring, "VLANNamespace"},
	{vpc, "IPv4Namespace"},
	{wiring, "SwitchProfile"},
	{wiring, "ServerProfile"},
	{wiring, "SwitchGroup"},
	{wiring, "Switch"},
	{wiring, "Server"},
	{wiring, "Connection"},
	{vpc, "External"},
	{vpc, "VPC"},
	{vpc, "ExternalAttachment"},
	{vpc, "VPCAttachment"},
	{vpc, "VPCPeering"},
	{vpc, "ExternalPeering"},
	{gateway, "GatewayGroup"},
	{gateway, "Gateway"},
	{gateway, "VPCInfo"},
	{gateway, "GatewayPeering"},
}

// Hedgehog's API groups.
const (
	wiring  = "wiring.githedgehog.com"
	vpc     = "vpc.githedgehog.com"
	gateway = "gateway.githedgehog.com"
)

// rank is a kind's place in order; a kind that is not there comes last.
func rank(o *Object) int {
	for i, k := range order {
		if k.kind == o.Kind && k.group == o.Group {
			return i
		}
	}
	return len(order)
}

// Sort puts objects into the order in which they can be applied: namespaces
// and profiles, then switches and servers, connections, VPCs, and what joins
// VPCs. Other kinds follow, by group and kind. Objects of one kind keep the
// order that they have. The reverse is the order for deleting.
func Sort(objs []Object) {
	slices.SortStableFunc(objs, func(a, b Object) int {
		ra, rb := rank(&a), rank(&b)
		if ra < len(order) || rb < len(order) {
			return cmp.Compare(ra, rb)
		}
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind))
	})
}

// A batch is the objects of one kind and version in one namespace.
type batch struct {
	group, version, kind, plural string
	namespace                    string
}

// batches divides objs into batches, in the order of [Sort]. The objects of a
// batch are in the order in which they came.
func batches(objs []Object) ([]batch, map[batch][]Object) {
	sorted := slices.Clone(objs)
	Sort(sorted)
	var order []batch
	of := map[batch][]Object{}
	for _, o := range sorted {
		b := batch{o.Group, o.Version, o.Kind, o.Plural, o.Namespace}
		if _, ok := of[b]; !ok {
			order = append(order, b)
		}
		of[b] = append(of[b], o)
	}
	return order, of
}

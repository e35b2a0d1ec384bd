// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Kind is one kind of object that a fabric may hold.
type Kind struct {
	Group  string // API group, "" for the core group
	Kind   string // as in the kind field, CamelCase
	Plural string // resource name, lower case: the directory below managed/

	// Version is the one served version of the kind. Documents with another
	// one are refused. Empty: any version is let through.
	Version string
}

// Policy says what a fabric accepts.
type Policy struct {
	// Namespace is the fabric's own namespace: the one of objects that name
	// none, whose managed files lie directly in managed/<plural>/.
	Namespace string

	// Kinds are the kinds that are let through. See [Hedgehog].
	Kinds []Kind

	// Schemas are what objects are held against; nil: their content is not
	// looked at. Where a kind's definition is known, the versions that it
	// serves take the place of the kind's Version.
	Schemas *Schemas

	// References says what becomes of objects that do not fit the others of
	// the fabric.
	References References

	// Admission says what becomes of objects that the fabric's cluster refuses,
	// and Refused are those of which it is known, by a dry run. See
	// [Plan.Questions].
	Admission Admission
	Refused   Refusals

	// Limits bound what is read. The zero value stands for [DefaultLimits].
	Limits Limits

	// Partial lets [Policy.Plan] take in the good documents of a file that
	// has others, and reject only the rest.
	Partial bool
}

// Hedgehog returns the kinds that people write for a Hedgehog fabric, with
// the versions that Hedgehog serves (the CustomResourceDefinitions of
// github.com/githedgehog/fabric and github.com/githedgehog/gateway). The kinds
// that Hedgehog writes for itself (Agent, GatewayAgent) are not among them.
func Hedgehog() []Kind {
	const wiring, vpc, gateway = "wiring.githedgehog.com", "vpc.githedgehog.com", "gateway.githedgehog.com"
	return []Kind{
		{wiring, "Connection", "connections", "v1beta1"},
		{wiring, "Server", "servers", "v1beta1"},
		{wiring, "ServerProfile", "serverprofiles", "v1beta1"},
		{wiring, "Switch", "switches", "v1beta1"},
		{wiring, "SwitchGroup", "switchgroups", "v1beta1"},
		{wiring, "SwitchProfile", "switchprofiles", "v1beta1"},
		{wiring, "VLANNamespace", "vlannamespaces", "v1beta1"},
		{vpc, "External", "externals", "v1beta1"},
		{vpc, "ExternalAttachment", "externalattachments", "v1beta1"},
		{vpc, "ExternalPeering", "externalpeerings", "v1beta1"},
		{vpc, "IPv4Namespace", "ipv4namespaces", "v1beta1"},
		{vpc, "VPC", "vpcs", "v1beta1"},
		{vpc, "VPCAttachment", "vpcattachments", "v1beta1"},
		{vpc, "VPCPeering", "vpcpeerings", "v1beta1"},
		{gateway, "Gateway", "gateways", "v1alpha1"},
		{gateway, "GatewayGroup", "gatewaygroups", "v1alpha1"},
		{gateway, "GatewayPeering", "gatewaypeerings", "v1alpha1"},
		{gateway, "VPCInfo", "vpcinfos", "v1alpha1"},
	}
}

// Check returns an error when the policy itself cannot work: its namespace is
// not one, a kind is incomplete, or two kinds would share a directory below
// managed/.
func (p Policy) Check() error {
	if !isLabel(p.Namespace) {
		return fmt.Errorf("namespace %q: not a namespace name (lower case letters, digits and '-', at most 63)", p.Namespace)
	}
	seen := make(map[string]Kind, len(p.Kinds))
	for _, k := range p.Kinds {
		if k.Kind == "" || !isLabel(k.Plural) {
			return fmt.Errorf("kind %q in group %q, plural %q: a kind needs its name and its plural in lower case", k.Kind, k.Group, k.Plural)
		}
		if other, ok := seen[k.Plural]; ok {
			return fmt.Errorf("kinds %s.%s and %s.%s share the plural %q and so the directory managed/%s: allow only one of them",
				other.Kind, other.Group, k.Kind, k.Group, k.Plural, k.Plural)
		}
		seen[k.Plural] = k
	}
	return nil
}

func (p Policy) limits() Limits {
	if p.Limits == (Limits{}) {
		return DefaultLimits
	}
	return p.Limits
}

// path returns where the managed file of an object lies below the fabric's
// directory. A namespace cannot hold a dot and a file name always does, so the
// two never meet in one directory.
func (p Policy) path(plural string, id ID) string {
	if id.Namespace == p.Namespace {
		return "managed/" + plural + "/" + id.Name + ".yaml"
	}
	return "managed/" + plural + "/" + id.Namespace + "/" + id.Name + ".yaml"
}

// groups lists the groups that are let through, for a hint.
func (p Policy) groups() string {
	var groups []string
	for _, k := range p.Kinds {
		groups = append(groups, k.Group)
	}
	slices.Sort(groups)
	return strings.Join(slices.Compact(groups), ", ")
}

// kindsOf lists the kinds of a group that are let through, for a hint.
func (p Policy) kindsOf(group string) string {
	var kinds []string
	for _, k := range p.Kinds {
		if k.Group == group {
			kinds = append(kinds, k.Kind)
		}
	}
	slices.Sort(kinds)
	return strings.Join(kinds, ", ")
}

// Kind finds a kind of the policy, with the version that the cluster prefers
// where its definition is known.
func (p Policy) Kind(group, kind string) (Kind, bool) {
	for _, k := range p.Kinds {
		if k.Group == group && k.Kind == kind {
			if d := p.Schemas.definition(group, kind); d != nil && len(d.served) > 0 {
				k.Version = d.served[0]
			}
			return k, true
		}
	}
	return Kind{}, false
}

// allow finds the kind of an object in the policy, or says why it is not
// there.
func (p Policy) allow(group, version, kind string) (Kind, *fault) {
	groupKnown := false
	var near string
	for _, k := range p.Kinds {
		if k.Group != group {
			continue
		}
		groupKnown = true
		if k.Kind == kind {
			if d := p.Schemas.definition(group, kind); d != nil {
				if !slices.Contains(d.served, version) {
					return Kind{}, &fault{at: "apiVersion", code: versionNotServed,
						message: fmt.Sprintf("the cluster does not serve %s of %s in version %s", kind, group, clip(version)),
						hint:    "rewrite the object for one of the versions that it serves (" + strings.Join(d.served, ", ") + "); its fields may differ"}
				}
				return k, nil
			}
			if k.Version != "" && k.Version != version {
				return Kind{}, &fault{at: "apiVersion", code: notServed,
					message: fmt.Sprintf("%s of %s is not served in version %s", kind, group, clip(version)),
					hint:    fmt.Sprintf("rewrite the object for apiVersion %s/%s; its fields may differ", group, k.Version)}
			}
			return k, nil
		}
		if strings.EqualFold(k.Kind, kind) || strings.EqualFold(k.Plural, kind) {
			near = k.Kind
		}
	}
	if !groupKnown {
		f := &fault{at: "apiVersion", code: groupNotAllowed,
			message: fmt.Sprintf("objects of %s are not allowed in this fabric", groupName(group))}
		if len(p.Kinds) > 0 {
			f.hint = "use one of the allowed groups (" + p.groups() + "), or add the kind to kinds in the fabric's config"
		}
		return Kind{}, f
	}
	f := &fault{at: "kind", code: kindNotAllowed,
		message: fmt.Sprintf("kind %s of %s is not allowed in this fabric", clip(kind), groupName(group)),
		hint:    "use one of " + p.kindsOf(group) + ", or add the kind to kinds in the fabric's config"}
	if near != "" {
		f.hint = "write kind: " + near
	}
	return Kind{}, f
}

func groupName(group string) string {
	if group == "" {
		return "the core API group"
	}
	return "group " + clip(group)
}

// IsInput reports whether a file in a raw directory is meant to be ingested.
// The path is slash-separated, below raw/. Hidden files and directories are
// not, nor are the names that editors and transfer programs use while they
// write: they are left alone, neither ingested nor rejected.
func IsInput(file string) bool {
	for elem := range strings.SplitSeq(file, "/") {
		if elem == "" || elem[0] == '.' {
			return false
		}
	}
	name := path.Base(file)
	if name == "4913" { // vim's probe whether it may create files
		return false
	}
	if name[0] == '#' && name[len(name)-1] == '#' { // emacs's auto-save file
		return false
	}
	for _, suffix := range []string{"~", ".swp", ".swx", ".tmp", ".part", ".filepart"} {
		if strings.HasSuffix(name, suffix) {
			return false
		}
	}
	return true
}

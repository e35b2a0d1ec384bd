// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"slices"
	"strings"
)

// Admission says what becomes of a file with an object that the fabric's
// cluster would refuse.
type Admission string

const (
	RefuseAdmission Admission = "error"   // it is rejected; "" is the same
	WarnOfAdmission Admission = "warning" // it is taken in, with a warning
	IgnoreAdmission Admission = "off"     // the cluster is not asked
)

// A Refusal is what the fabric's cluster says against an object.
type Refusal struct {
	Text    []byte // of the object's managed file
	Field   string // the path of the field that it is about; "" where it says none
	Message string // in the cluster's words
}

// Refusals are what the fabric's cluster was asked and refuses, by managed path.
type Refusals map[string][]Refusal

// of returns what is said against an object with that text.
func (r Refusals) of(path string, text []byte) (Refusal, bool) {
	i := slices.IndexFunc(r[path], func(x Refusal) bool { return bytes.Equal(x.Text, text) })
	if i < 0 {
		return Refusal{}, false
	}
	return r[path][i], true
}

// A Question is an object that a plan creates or changes, of which the cluster
// can be asked whether it would take it.
type Question struct {
	Object
	Input int // the index of its file in the batch

	// Others are the names of the other objects that change. The cluster is
	// asked while it does not have these changes yet: a refusal that names one
	// of them may be for the want of it.
	Others []string

	// Settled: no other object that the cluster has changes or goes. Else it
	// may hold, and be about to give up, what this one wants; what is said
	// with a view to others means nothing then.
	Settled bool
}

// A Change is one of a managed object that the cluster does not have yet.
type Change struct {
	Path string // of the managed file
	Live bool   // the cluster has the object, as it was before
}

// Questions returns the objects that a plan creates or changes, in its order,
// without those of which the cluster cannot judge yet: those that lead to
// another object that changes, in this plan or in one before it (late), by what
// they refer to, and by what that refers to. Of objects that are not Hedgehog's
// nothing is known of that: they are asked about alone, and others beside them
// not at all; without a fabric that goes for all. The fabric is that of the plan.
func (p Plan) Questions(fabric *Fabric, late []Change) []Question {
	changes := make(map[string]bool, len(late)+len(p.Writes)) // path to Change.Live
	for _, c := range late {
		changes[c.Path] = changes[c.Path] || c.Live
	}
	for path := range p.Writes {
		changes[path] = changes[path] || fabric == nil || fabric.has(path)
	}
	live, common, foreign := 0, 0, 0
	var names []string
	for path, isLive := range changes {
		names = append(names, nameOf(path))
		live += count1(isLive)
		common += count1(fabric != nil && fabric.isCommon(path))
		foreign += count1(fabric == nil || !fabric.isRelated(path))
	}
	slices.Sort(names)

	var questions []Question
	seen := make(map[string]bool)
	for i := range p.Files {
		for _, o := range p.Files[i].Objects {
			text, changed := p.Writes[o.Path]
			if !changed || text == nil || !bytes.Equal(text, o.Text) || seen[o.Path] {
				continue // it is not the last word, or says nothing new
			}
			seen[o.Path] = true
			q := Question{Object: o, Input: p.Files[i].Input, Others: names, Settled: live == count1(changes[o.Path])}
			if len(changes) > 1 {
				switch {
				case foreign > 0:
					continue
				case common > 0 && !fabric.isCommon(o.Path):
					continue
				case fabric.leads(&o, changes):
					continue
				}
			}
			if o.Kind == "GatewayPeering" {
				// Its admission asks for VPCInfos, which a controller makes of
				// VPCs in its own time.
				q.Settled = false
			}
			questions = append(questions, q)
		}
	}
	return questions
}

// Names reports whether a message names one of the other objects that change.
func (q *Question) Names(message string) bool {
	words := strings.FieldsFunc(message, func(r rune) bool {
		return !(r == '-' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z')
	})
	return slices.ContainsFunc(words, func(word string) bool {
		word = strings.Trim(word, ".-")
		_, found := slices.BinarySearch(q.Others, word)
		return found && word != q.Name
	})
}

func count1(b bool) int {
	if b {
		return 1
	}
	return 0
}

// nameOf returns the name of the object at a managed path.
func nameOf(path string) string {
	return strings.TrimSuffix(path[strings.LastIndexByte(path, '/')+1:], ".yaml")
}

func (f *Fabric) has(path string) bool {
	_, ok := f.objects[path]
	return ok
}

// isRelated reports whether the object at a managed path is of a kind of which
// it is known what it refers to.
func (f *Fabric) isRelated(path string) bool {
	kind, _, ok := f.locate(path)
	return ok && slices.Contains([]string{wiringGroup, vpcGroup, gatewayGroup}, kind.Group)
}

// isCommon reports whether the object at a managed path is of a kind that others
// need also where they do not name it: it may be the default.
func (f *Fabric) isCommon(path string) bool {
	kind, _, _ := f.locate(path)
	return slices.Contains([]string{"GatewayGroup", "IPv4Namespace", "ServerProfile", "SwitchProfile", "VLANNamespace"}, kind.Kind)
}

// leads reports whether what an object refers to, or what that refers to, is one
// of the paths.
func (f *Fabric) leads(o *Object, paths map[string]bool) bool {
	seen := map[string]bool{o.Path: true}
	var next []string
	for _, ref := range o.relations.references {
		if to, _ := f.pathOf(ref.group, ref.kind, o.Namespace, ref.name); to != "" {
			next = append(next, to)
		}
	}
	for len(next) > 0 {
		path, _, _ := strings.Cut(next[0], "#") // also for a subnet of it
		if next = next[1:]; seen[path] {
			continue
		}
		seen[path] = true
		if _, ok := paths[path]; ok {
			return true
		}
		if h := f.objects[path]; h != nil {
			next = append(next, h.refers...)
		}
	}
	return false
}

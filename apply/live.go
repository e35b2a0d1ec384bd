// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"fmt"
	"maps"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// lastApplied is where kubectl apply keeps what it was given
// (https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/).
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// Live lists the objects of kinds in the configured namespace, each as a file
// would have to say it: without its status and what the API server enters by
// itself, without finalizers, without the fields that the schema of its kind
// would fill in, and without the namespace. To apply what the Value says (and
// the namespace) changes no value in the cluster.
//
// Objects that are not a person's to write are left out, with the reason: those
// that another object owns (metadata.ownerReferences) and those that are being
// deleted. Kinds that the cluster does not serve have no objects. The objects
// are in the order of [Sort], those of a kind by name.
func (c *Cluster) Live(ctx context.Context, kinds []Kind) (objs []Object, left map[Key]string, err error) {
	conn, err := c.connection()
	if err != nil {
		return nil, nil, err
	}
	op := &operation{cluster: c, conn: conn}
	left = map[Key]string{}
	for _, k := range kinds {
		b := batch{k.Group, k.Version, k.Kind, k.Plural, c.cfg.Namespace}
		var schema *structural
		opts := metav1.ListOptions{Limit: pageSize}
		for {
			page, err := op.page(ctx, b, opts)
			if isUnknownResource(err) {
				if conn.ready(ctx) {
					break
				}
				return nil, nil, fmt.Errorf("cluster %s is not ready", conn.server)
			}
			if err != nil {
				return nil, nil, conn.asking(ctx, "its "+k.Resource(), b.explain(err))
			}
			if schema == nil && len(page.Items) > 0 {
				if schema, err = op.schema(ctx, k); err != nil {
					return nil, nil, err
				}
			}
			for i := range page.Items {
				o := Object{Group: k.Group, Version: k.Version, Kind: k.Kind, Plural: k.Plural, Namespace: c.cfg.Namespace, Name: page.Items[i].GetName()}
				if why := notWritten(&page.Items[i]); why != "" {
					left[o.Key()] = why
					continue
				}
				o.Value = written(page.Items[i].Object, schema)
				objs = append(objs, o)
			}
			if opts.Continue = page.GetContinue(); opts.Continue == "" {
				break
			}
		}
	}
	Sort(objs)
	return objs, left, nil
}

// notWritten says why an object is not a person's to write; "" if it is.
func notWritten(live *unstructured.Unstructured) string {
	if owners := live.GetOwnerReferences(); len(owners) > 0 {
		return fmt.Sprintf("it belongs to %s/%s", owners[0].Kind, owners[0].Name)
	}
	if live.GetDeletionTimestamp() != nil {
		return "it is being deleted"
	}
	return ""
}

// written is an object as a file would say it.
func written(live map[string]any, s *structural) map[string]any {
	out := map[string]any{}
	for k, v := range authored(live) {
		f := s.field(k)
		switch k {
		case "apiVersion", "kind", "metadata":
			out[k] = v
		default:
			if !f.fills(v) {
				out[k] = f.without(v)
			}
		}
	}
	meta, _ := out["metadata"].(map[string]any)
	kept := map[string]any{"name": meta["name"]}
	for _, k := range []string{"labels", "annotations"} {
		m, _ := meta[k].(map[string]any)
		m = maps.Clone(m)
		maps.DeleteFunc(m, func(name string, _ any) bool {
			return name == lastApplied || strings.HasPrefix(name, "hhwatchd.githedgehog.com/")
		})
		if len(m) > 0 {
			kept[k] = m
		}
	}
	out["metadata"] = kept
	return out
}

// fills reports whether v is what the API server puts where nothing is said.
func (s *structural) fills(v any) bool {
	return s != nil && s.Default != nil && s.completes(s.Default, v)
}

// without returns v without the fields that the API server would fill in.
func (s *structural) without(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			if f := s.field(k); !f.fills(e) {
				out[k] = f.without(e)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = s.item().without(e)
			if m, ok := e.(map[string]any); ok && s != nil {
				for _, k := range s.ListMapKeys { // by them the element is known
					if value, ok := m[k]; ok {
						out[i].(map[string]any)[k] = value
					}
				}
			}
		}
		return out
	}
	return v
}

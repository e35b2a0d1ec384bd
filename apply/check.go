// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// verbs are the rights that are needed for each kind, the last one only to
// prune. (Server-side apply is a patch, and a create too where the object is not
// there yet.)
var verbs = []string{"get", "list", "watch", "create", "patch", "delete"}

// A Kind is a kind of object, in one version.
type Kind struct{ Group, Version, Kind, Plural string }

// Resource names the kind as kubectl and RBAC do: plural.group.
func (k Kind) Resource() string {
	return schema.GroupResource{Group: k.Group, Resource: k.Plural}.String()
}

// Health is what [Cluster.Check] found out about a cluster.
type Health struct {
	Server  string // the API server's URL
	Version string // Kubernetes' version, as in "v1.37.2"
	Kinds   []KindHealth
}

// KindHealth is what was found out about one kind.
type KindHealth struct {
	Kind
	// Served are the versions in which the cluster serves the kind, the
	// preferred one first. There are none if its CRD is not installed.
	Served []string
	// Missing are the verbs (as in RBAC) that the credentials do not allow.
	Missing []string
}

// Problems returns what has to be put right, a line for each; none if the
// cluster is in order.
func (h Health) Problems() []string {
	var problems []string
	for _, k := range h.Kinds {
		problems = append(problems, k.Problems()...)
	}
	return problems
}

// Problems returns what has to be put right for the kind, a line for each.
func (k KindHealth) Problems() []string {
	var problems []string
	switch {
	case len(k.Served) == 0:
		problems = append(problems, fmt.Sprintf("%s: not known to the cluster; install its CRD", k.Resource()))
	case !slices.Contains(k.Served, k.Version):
		problems = append(problems, fmt.Sprintf("%s: the cluster serves %s, not %s", k.Resource(), strings.Join(k.Served, ", "), k.Version))
	}
	if len(k.Missing) > 0 {
		problems = append(problems, fmt.Sprintf("%s: the credentials lack the right to %s", k.Resource(), strings.Join(k.Missing, ", ")))
	}
	return problems
}

// Check asks the cluster whether it could hold objects of these kinds in the
// configured namespace, and, with prune set, whether it would let go of them;
// it changes nothing. An error says that it cannot be asked; what it lacks is
// in Health.
func (c *Cluster) Check(ctx context.Context, kinds []Kind, prune bool) (Health, error) {
	verbs := verbs
	if !prune {
		verbs = verbs[:len(verbs)-1]
	}
	conn, err := c.connection()
	if err != nil {
		return Health{}, err
	}
	h := Health{Server: conn.server}
	var version struct{ GitVersion string }
	if err := conn.getJSON(ctx, "/version", &version); err != nil {
		return Health{}, err
	}
	h.Version = version.GitVersion

	served, err := conn.served(ctx, kinds)
	if err != nil {
		return Health{}, err
	}
	allowed := make([][]bool, len(kinds))
	type question struct{ kind, verb int }
	var questions []question
	for k := range kinds {
		allowed[k] = make([]bool, len(verbs))
		for v := range verbs {
			questions = append(questions, question{k, v})
		}
	}
	err = each(ctx, conn, questions, func(ctx context.Context, q question) (err error) {
		allowed[q.kind][q.verb], err = conn.may(ctx, verbs[q.verb], kinds[q.kind], c.cfg.Namespace)
		return err
	})
	if err != nil {
		return Health{}, err
	}
	for k, kind := range kinds {
		kh := KindHealth{Kind: kind, Served: served[schema.GroupResource{Group: kind.Group, Resource: kind.Plural}]}
		for v, verb := range verbs {
			if !allowed[k][v] {
				kh.Missing = append(kh.Missing, verb)
			}
		}
		h.Kinds = append(h.Kinds, kh)
	}
	return h, nil
}

// served returns, for the resources in the groups of kinds, the versions in
// which they are served.
func (conn *connection) served(ctx context.Context, kinds []Kind) (map[schema.GroupResource][]string, error) {
	served := map[schema.GroupResource][]string{}
	var groups []string
	for _, k := range kinds {
		if slices.Contains(groups, k.Group) {
			continue
		}
		groups = append(groups, k.Group)
		group := metav1.APIGroup{Versions: []metav1.GroupVersionForDiscovery{{Version: "v1"}}}
		if k.Group != "" {
			err := conn.getJSON(ctx, "/apis/"+k.Group, &group)
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		for _, v := range group.Versions { // in the order of preference
			var list metav1.APIResourceList
			if err := conn.getJSON(ctx, versionPath(k.Group, v.Version), &list); err != nil {
				return nil, err
			}
			for _, r := range list.APIResources {
				gr := schema.GroupResource{Group: k.Group, Resource: r.Name}
				served[gr] = append(served[gr], v.Version)
			}
		}
	}
	return served, nil
}

// getJSON reads a document that is not an object.
func (conn *connection) getJSON(ctx context.Context, path string, into any) error {
	limited, cancel := context.WithTimeout(ctx, conn.readLimit)
	defer cancel()
	data, err := conn.raw.Get().AbsPath(path).DoRaw(limited)
	if err == nil {
		if err = json.Unmarshal(data, into); err != nil {
			err = fmt.Errorf("this is no answer of a Kubernetes API server: %w", err)
		}
	}
	return conn.asking(ctx, path, err)
}

// may asks for a right of our own.
func (conn *connection) may(ctx context.Context, verb string, kind Kind, namespace string) (bool, error) {
	allowed, err := conn.review(ctx, verb, kind, namespace)
	return allowed, conn.asking(ctx, "its rights", err)
}

// review is may without a judgement of the error.
func (conn *connection) review(ctx context.Context, verb string, kind Kind, namespace string) (bool, error) {
	limited, cancel := context.WithTimeout(ctx, conn.readLimit)
	defer cancel()
	review := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authorization.k8s.io/v1",
		"kind":       "SelfSubjectAccessReview",
		"spec": map[string]any{"resourceAttributes": map[string]any{
			"verb": verb, "group": kind.Group, "resource": kind.Plural, "namespace": namespace,
		}},
	}}
	reviews := schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectaccessreviews"}
	answer, err := conn.dynamic.Resource(reviews).Create(limited, review, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	allowed, _, _ := unstructured.NestedBool(answer.Object, "status", "allowed")
	return allowed, nil
}

// asking returns what ends a check. Unlike an object's refusal, any error does.
func (conn *connection) asking(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	stop, refusal := conn.judge(ctx, err, conn.readLimit)
	if stop != nil {
		return stop
	}
	return fmt.Errorf("asking cluster %s for %s: %w", conn.server, what, refusal)
}

// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ErrForbidden says that the credentials lack a right.
var ErrForbidden = errors.New("the credentials lack the right")

// Definitions reads the CustomResourceDefinitions of kinds, each by its name,
// so that the right to get just these is enough. It returns them as JSON, by
// name, without what is not their author's (status, most of the metadata): the
// bytes change only when the definition does. Kinds that the cluster has no
// definition of are left out. An error means that it cannot be asked, or
// (ErrForbidden) that it does not allow it for some of the kinds; the others are
// returned then.
func (c *Cluster) Definitions(ctx context.Context, kinds []Kind) (map[string][]byte, error) {
	conn, err := c.connection()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var forbidden []string
	found := make(map[string][]byte, len(kinds))
	crds := conn.dynamic.Resource(schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions",
	})
	err = each(ctx, conn, kinds, func(ctx context.Context, k Kind) error {
		if k.Group == "" {
			return nil // built in
		}
		limited, cancel := context.WithTimeout(ctx, conn.readLimit)
		defer cancel()
		crd, err := crds.Get(limited, k.Resource(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if apierrors.IsForbidden(err) {
			mu.Lock()
			defer mu.Unlock()
			forbidden = append(forbidden, k.Resource())
			return nil
		}
		if err != nil {
			return conn.asking(ctx, "the definition of "+k.Resource(), err)
		}
		data, err := json.Marshal(map[string]any{
			"apiVersion": crd.GetAPIVersion(), "kind": crd.GetKind(),
			"metadata": map[string]any{"name": crd.GetName()}, "spec": crd.Object["spec"],
		})
		if err != nil {
			return fmt.Errorf("encoding the definition of %s: %w", k.Resource(), err)
		}
		mu.Lock()
		defer mu.Unlock()
		found[crd.GetName()] = data
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(found) < len(kinds) && !conn.ready(ctx) {
		// What a server that is starting lacks or refuses means nothing.
		return nil, fmt.Errorf("cluster %s is not ready", conn.server)
	}
	if len(forbidden) > 0 {
		slices.Sort(forbidden)
		names := forbidden[0]
		if more := len(forbidden) - 1; more > 0 {
			names = fmt.Sprintf("%s and %d more", names, more)
		}
		return found, fmt.Errorf("cluster %s: %w to get the CustomResourceDefinition %s", conn.server, ErrForbidden, names)
	}
	return found, nil
}

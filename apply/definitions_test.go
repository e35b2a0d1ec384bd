// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestDefinitions(t *testing.T) {
	s := testServer(t)
	c := connect(t, s)
	kinds := []Kind{{wiring, "v1beta1", "Switch", "switches"}, {vpc, "v1beta1", "VPC", "vpcs"}, {"", "v1", "ConfigMap", "configmaps"}}
	found, err := c.Definitions(t.Context(), kinds)
	if err != nil {
		t.Fatal(err)
	}
	if names := slices.Sorted(maps.Keys(found)); !slices.Equal(names, []string{"switches.wiring.githedgehog.com", "vpcs.vpc.githedgehog.com"}) {
		t.Fatalf("found %q", names)
	}
	for name, data := range found {
		var crd struct {
			APIVersion, Kind string
			Metadata         map[string]any
			Spec             struct{ Names struct{ Kind string } }
			Status           any
		}
		if err := json.Unmarshal(data, &crd); err != nil {
			t.Fatal(err)
		}
		if crd.Kind != "CustomResourceDefinition" || crd.APIVersion != "apiextensions.k8s.io/v1" || crd.Spec.Names.Kind == "" ||
			crd.Status != nil || len(crd.Metadata) != 1 || crd.Metadata["name"] != name {
			t.Errorf("%s: %s", name, data)
		}
	}
	again, err := c.Definitions(t.Context(), kinds)
	if err != nil || string(again["vpcs.vpc.githedgehog.com"]) != string(found["vpcs.vpc.githedgehog.com"]) {
		t.Errorf("asked again: %v, or other bytes", err)
	}

	// What is shipped allows no other definition to be read.
	kinds = append(kinds, Kind{"test.hhwatchd.example", "v1", "Shape", "shapes"}, Kind{"test.hhwatchd.example", "v1", "Plain", "plains"})
	found, err = c.Definitions(t.Context(), kinds)
	if len(found) != 2 || !errors.Is(err, ErrForbidden) || !strings.HasSuffix(err.Error(), ": the credentials lack the right to get the CustomResourceDefinition plains.test.hhwatchd.example and 1 more") {
		t.Errorf("others: %d definitions, %v", len(found), err)
	}

	// A server that is starting knows of no definition, and it means nothing.
	starting := behind(t, s, func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/apis/apiextensions.k8s.io/") || r.URL.Path == "/readyz" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}`)
			return true
		}
		return false
	})
	if found, err := starting.Definitions(t.Context(), kinds[:2]); err == nil || !strings.HasSuffix(err.Error(), " is not ready") {
		t.Errorf("while it starts: %d definitions, %v", len(found), err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

func TestCheck(t *testing.T) {
	s := testServer(t)
	kinds := []Kind{
		{wiring, "v1beta1", "Switch", "switches"},
		{vpc, "v1beta1", "VPC", "vpcs"},
		{vpc, "v1alpha9", "VPC", "vpcs"},
		{"test.hhwatchd.example", "v2", "Shape", "shapes"},
		{"test.hhwatchd.example", "v1", "Missing", "missings"},
		{"nothing.example", "v1", "Nothing", "nothings"},
		{"", "v1", "ConfigMap", "configmaps"},
	}
	h, err := connect(t, s).Check(t.Context(), kinds, true)
	if err != nil {
		t.Fatal(err)
	}
	if h.Server != s.URL || !regexp.MustCompile(`^v1\.\d+\.\d+`).MatchString(h.Version) {
		t.Errorf("server %s, version %s", h.Server, h.Version)
	}
	want := []string{
		"vpcs.vpc.githedgehog.com: the cluster serves v1beta1, not v1alpha9",
		"missings.test.hhwatchd.example: not known to the cluster; install its CRD",
		"nothings.nothing.example: not known to the cluster; install its CRD",
		"nothings.nothing.example: the credentials lack the right to get, list, watch, create, patch, delete",
		"configmaps: the credentials lack the right to create, patch, delete",
	}
	if got := h.Problems(); !slices.Equal(got, want) {
		t.Errorf("problems %q, want %q", got, want)
	}
	if got := h.Kinds[3].Served; !slices.Equal(got, []string{"v2", "v1"}) {
		t.Errorf("shapes are served in %v", got)
	}

	// In another namespace we may do nothing.
	c, err := Connect(Config{Kubeconfig: s.Kubeconfig, Namespace: "kube-system"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h, err = c.Check(t.Context(), kinds[:1], true)
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Kinds[0].Missing; !slices.Equal(got, verbs) {
		t.Errorf("missing in another namespace: %v", got)
	}
}

// TestReady has clusters that do not let us ask whether they are ready: one
// that is hardened says that a right is missing, one that knows of no role yet
// is starting.
func TestReady(t *testing.T) {
	s := testServer(t)
	refuse := func(w http.ResponseWriter, path string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
			"message": "forbidden: User \"somebody\" cannot get path \"%s\""}`, path)
	}
	o := named(t, shapeHead, "ready")
	for _, starting := range []bool{false, true} {
		p := kube.NewProxy(t, s)
		p.As("somebody")
		p.Fault(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/readyz" || starting && strings.HasPrefix(r.URL.Path, "/apis/authorization.k8s.io/") {
				refuse(w, r.URL.Path)
				return true
			}
			return false
		})
		c, err := Connect(Config{Kubeconfig: p.Kubeconfig, Namespace: "default"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var refused error
		err = c.Apply(t.Context(), []Object{o}, true, func(r Result) { refused = r.Err })
		switch {
		case starting:
			if err == nil || !strings.Contains(err.Error(), "is not ready") || refused != nil {
				t.Errorf("of one that starts: %v, %v", err, refused)
			}
		case err != nil || refused == nil || !strings.Contains(refused.Error(), `a right is missing`) || !strings.Contains(refused.Error(), `User "somebody" cannot`):
			t.Errorf("of one that is hardened: %v, %v", err, refused)
		}
	}
}

// TestCheckWithoutPrune does not need the right to delete where nothing is to
// be pruned.
func TestCheckWithoutPrune(t *testing.T) {
	s := testServer(t)
	kinds := []Kind{{"", "v1", "ConfigMap", "configmaps"}}
	for prune, want := range map[bool]string{
		false: "configmaps: the credentials lack the right to create, patch",
		true:  "configmaps: the credentials lack the right to create, patch, delete",
	} {
		h, err := connect(t, s).Check(t.Context(), kinds, prune)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Problems(); !slices.Equal(got, []string{want}) {
			t.Errorf("with prune %t the problems are %q, want %q", prune, got, want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"regexp"
	"slices"
	"testing"
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
	h, err := connect(t, s).Check(t.Context(), kinds)
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
		"nothings.nothing.example: the credentials lack the right to get, list, create, patch, delete",
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
	h, err = c.Check(t.Context(), kinds[:1])
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Kinds[0].Missing; !slices.Equal(got, verbs) {
		t.Errorf("missing in another namespace: %v", got)
	}
}

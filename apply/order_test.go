// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestDependencies keeps out what would double the memory of an idle daemon:
// the types of all of Kubernetes' own APIs, which client-go's clientset and
// its discovery client bring along.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, "k8s.io/client-go/dynamic") {
		t.Fatalf("these are not the dependencies: %.200s", out)
	}
	for _, dep := range deps {
		if strings.HasPrefix(dep, "k8s.io/api/") || strings.HasPrefix(dep, "k8s.io/client-go/kubernetes") {
			t.Errorf("it depends on %s", dep)
		}
	}
}

func TestSort(t *testing.T) {
	in := []Object{
		{Group: "z.example", Kind: "Z", Name: "1"},
		{Group: "a.example", Kind: "VPC", Name: "2"}, // only a name in common with Hedgehog's
		{Group: vpc, Kind: "VPCAttachment", Name: "3"},
		{Group: vpc, Kind: "VPC", Name: "5"},
		{Group: "a.example", Kind: "A", Name: "6"},
		{Group: vpc, Kind: "VPC", Name: "4"},
		{Group: gateway, Kind: "GatewayPeering", Name: "7"},
		{Group: wiring, Kind: "Connection", Name: "8"},
		{Group: wiring, Kind: "VLANNamespace", Name: "9"},
		{Group: "z.example", Kind: "Z", Name: "0"},
	}
	Sort(in)
	var got []string
	for _, o := range in {
		got = append(got, o.Name)
	}
	if want := []string{"9", "8", "5", "4", "3", "7", "6", "2", "1", "0"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

func TestBatches(t *testing.T) {
	objs := []Object{
		{Group: vpc, Version: "v1", Kind: "VPC", Namespace: "b", Name: "1"},
		{Group: vpc, Version: "v1", Kind: "VPC", Namespace: "a", Name: "2"},
		{Group: wiring, Version: "v1", Kind: "Switch", Namespace: "a", Name: "3"},
		{Group: vpc, Version: "v2", Kind: "VPC", Namespace: "a", Name: "4"},
		{Group: vpc, Version: "v1", Kind: "VPC", Namespace: "b", Name: "5"},
	}
	order, of := batches(objs)
	var got []string
	for _, b := range order {
		names := ""
		for _, o := range of[b] {
			names += o.Name
		}
		got = append(got, names)
	}
	if want := []string{"3", "15", "2", "4"}; !slices.Equal(got, want) {
		t.Errorf("batches %v, want %v", got, want)
	}
	if objs[0].Name != "1" || objs[2].Name != "3" {
		t.Error("the caller's objects were moved")
	}
}

// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

func vpcs(t testing.TB, n int) []Object {
	var objs []Object
	for i := range n {
		objs = append(objs, objects(t, fmt.Sprintf(`
apiVersion: vpc.githedgehog.com/v1beta1
kind: VPC
metadata: {name: bench-%[1]d}
spec:
  ipv4Namespace: default
  vlanNamespace: default
  subnets:
    default: {subnet: 10.0.1.0/24, gateway: 10.0.1.1, vlan: 1001, dhcp: {enable: true, range: {start: 10.0.1.10}}}
    backend: {subnet: 10.0.2.0/24, gateway: 10.0.2.1, vlan: 1002, isolated: true}
`, i))...)
	}
	return objs
}

func deleteVPCs(b *testing.B, s *kube.Server) {
	if _, err := s.Do(http.MethodDelete, kube.Path("vpc.githedgehog.com/v1beta1/vpcs", "default"), "", nil); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkApply times Apply beside a bare loop around client-go's dynamic
// client that applies each object, as many in flight: objects that are not
// there yet (first), that are as wanted (again), and one that has changed.
func BenchmarkApply(b *testing.B) {
	s := testServer(b)
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		b.Fatal(err)
	}
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	resource := client.Resource(schema.GroupVersionResource{Group: vpc, Version: "v1beta1", Resource: "vpcs"}).Namespace("default")
	c := connect(b, s)
	ways := []struct {
		name string
		do   func(ctx context.Context, objs []Object) error
	}{
		{"bare", func(ctx context.Context, objs []Object) error {
			return each(ctx, objs, func(ctx context.Context, o Object) error {
				_, err := resource.Apply(ctx, o.Name, &unstructured.Unstructured{Object: o.Value}, metav1.ApplyOptions{FieldManager: Manager, Force: true})
				return err
			})
		}},
		{"each", func(ctx context.Context, objs []Object) error { return c.Apply(ctx, objs, false, func(Result) {}) }},
		{"full", func(ctx context.Context, objs []Object) error { return c.Apply(ctx, objs, true, func(Result) {}) }},
	}
	for _, n := range []int{46, 1000} {
		objs := vpcs(b, n)
		for _, way := range ways {
			b.Run(fmt.Sprintf("first/%d/%s", n, way.name), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					deleteVPCs(b, s)
					b.StartTimer()
					if err := way.do(b.Context(), objs); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "objects/s")
			})
		}
		for _, way := range ways {
			b.Run(fmt.Sprintf("again/%d/%s", n, way.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := way.do(b.Context(), objs); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		for _, way := range ways {
			b.Run(fmt.Sprintf("one/%d/%s", n, way.name), func(b *testing.B) {
				o := vpcs(b, 1)
				subnets := o[0].Value["spec"].(map[string]any)["subnets"].(map[string]any)
				for i := 0; b.Loop(); i++ {
					subnets["default"].(map[string]any)["vlan"] = 1100 + i%1000
					if err := way.do(b.Context(), o); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	deleteVPCs(b, s)
}

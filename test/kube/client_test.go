// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"strings"
	"testing"
)

func TestSum(t *testing.T) {
	const text = `# HELP requests Count of requests.
# TYPE requests counter
requests{code="200",resource="vpcs",verb="APPLY"} 3
requests{code="201",resource="vpcs",verb="APPLY"} 4
requests{code="200",resource="vpcs",verb="GET"} 5 1700000000000
requests_other{verb="APPLY"} 100
odd{text="a \"quoted\", {braced} \\ text\n",} 1.5
plain 2e+06
`
	for _, test := range []struct {
		name   string
		labels map[string]string
		want   float64
	}{
		{"requests", nil, 12},
		{"requests", map[string]string{"verb": "APPLY"}, 7},
		{"requests", map[string]string{"verb": "APPLY", "code": "201"}, 4},
		{"requests", map[string]string{"verb": "GET"}, 5},
		{"requests", map[string]string{"verb": "LIST"}, 0},
		{"requests", map[string]string{"namespace": "", "code": "201"}, 4},
		{"request", nil, 0},
		{"odd", map[string]string{"text": "a \"quoted\", {braced} \\ text\n"}, 1.5},
		{"plain", nil, 2e6},
	} {
		got, err := sum(strings.NewReader(text), test.name, test.labels)
		if err != nil || got != test.want {
			t.Errorf("%s %v: %v, %v; want %v", test.name, test.labels, got, err, test.want)
		}
	}
	for _, bad := range []string{"x{", "x{a", `x{a="} 1`, `x{a=1} 1`, "x y", "x "} {
		if got, err := sum(strings.NewReader(bad+"\n"), "x", nil); err == nil {
			t.Errorf("%q: %v, want an error", bad, got)
		}
	}
}

func TestPath(t *testing.T) {
	for _, test := range []struct{ resource, namespace, want string }{
		{"vpc.githedgehog.com/v1beta1/vpcs", "default", "/apis/vpc.githedgehog.com/v1beta1/namespaces/default/vpcs"},
		{"vpc.githedgehog.com/v1beta1/vpcs", "", "/apis/vpc.githedgehog.com/v1beta1/vpcs"},
		{"v1/secrets", "default", "/api/v1/namespaces/default/secrets"},
		{"v1/namespaces", "", "/api/v1/namespaces"},
	} {
		if got := Path(test.resource, test.namespace); got != test.want {
			t.Errorf("Path(%q, %q) = %s, want %s", test.resource, test.namespace, got, test.want)
		}
	}
}

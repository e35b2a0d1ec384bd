// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// Status tells what the cluster is, and which rights are missing by their
// names, from when they are missed until they are granted; also where the
// cluster does not let everybody ask whether it is ready.
func TestHealth(t *testing.T) {
	w := newWorld(t, options{cluster: true})
	proxy := kube.NewProxy(t, w.kube)
	config, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, strings.Replace(string(config), w.kube.Kubeconfig, proxy.Kubeconfig, 1))
	proxy.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/readyz" {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "forbidden: User \"u\" cannot get path \"/readyz\""}`)
		return true
	})
	const agents = "/apis/agent.githedgehog.com/v1beta1/namespaces/default/agents"
	if _, err := w.kube.Do("POST", agents, "application/json", []byte(`{"apiVersion": "agent.githedgehog.com/v1beta1", "kind": "Agent", "metadata": {"name": "leaf-01"}, "spec": {}}`)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = w.kube.Do("DELETE", agents, "", nil) }) // other tests have the same API server
	w.start()
	status := func(check func(out string, code int) bool) {
		t.Helper()
		w.eventually("status", func() error {
			if out, code := w.hh("status"); !check(out, code) {
				return fmt.Errorf("exit code %d:\n%s", code, out)
			}
			return nil
		})
	}
	status(func(out string, code int) bool {
		return code == 0 && strings.Contains(out, "Kubernetes v1.") && strings.Contains(out, " with 18 kinds; checked ") && !strings.Contains(out, "LACKS")
	})
	status(func(out string, code int) bool {
		return code == 0 && strings.Contains(out, "switch leaf-01 LAGS: it has applied generation 0 of 1; first seen ")
	})
	if _, err := w.kube.Do("PATCH", agents+"/leaf-01/status", "application/merge-patch+json", []byte(`{"status": {"conditions": [], "lastAppliedGen": 1}}`)); err != nil {
		t.Fatal(err)
	}
	proxy.As("somebody")
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	status(func(out string, code int) bool {
		return code == 1 && strings.Contains(out, "NOT APPLIED managed/vpcs/vpc-1.yaml: a right is missing") &&
			strings.Contains(out, "cluster LACKS connections.wiring.githedgehog.com: the credentials lack the right to get, list, watch, create, patch\n") &&
			strings.Contains(out, "and 8 more; all of them: hhwatchd status -o json")
	})
	out, _ := w.hh("status", "-o", "json")
	var st struct {
		Repositories []struct {
			Fabrics []struct {
				Health struct {
					Version string
					Served  map[string][]string
					Lacks   []string
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		t.Fatal(err)
	}
	if h := st.Repositories[0].Fabrics[0].Health; len(h.Lacks) != 18 || fmt.Sprint(h.Served["vpcs.vpc.githedgehog.com"]) != "[v1beta1]" || h.Version == "" {
		t.Errorf("as JSON: %+v", h)
	}
	proxy.As("hhwatchd")
	w.must("sync")
	status(func(out string, code int) bool {
		return code == 0 && !strings.Contains(out, "LACKS") && !strings.Contains(out, "LAGS")
	})
}

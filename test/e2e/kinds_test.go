// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"strings"
	"testing"
)

// A kind that the config names goes all the way.
func TestOtherKinds(t *testing.T) {
	w := newWorld(t, options{cluster: true})
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(string(text), w.kube.Kubeconfig, w.kube.AdminKubeconfig, 1) // it has the right
	write(t, w.config, strings.TrimRight(config, "\n")+"\n        kinds: [{kind: ConfigMap, plural: configmaps, version: v1}]\n")
	w.start()
	const one = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: one\ndata:\n  key: value\n"
	w.drop("fabric-1", "one.yaml", one)
	if got := w.inCluster("v1/configmaps", "one"); got == nil {
		t.Error("it is not there")
	}
	w.wantManaged("fabric-1", map[string]string{"configmaps/one.yaml": one})
	if got := w.must("get", "configmaps", "--fabric", "fabric-1"); !strings.Contains(got, "one") {
		t.Errorf("get: %s", got)
	}
	w.must("journal", "verify")
	w.clean()
}

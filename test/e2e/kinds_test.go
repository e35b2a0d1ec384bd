// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"strings"
	"testing"
)

// A kind that the config names goes all the way, and back.
func TestOtherKinds(t *testing.T) {
	w := newWorld(t, options{cluster: true, prune: true})
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(string(text), w.kube.Kubeconfig, w.kube.AdminKubeconfig, 1) // it has the right
	write(t, w.config, strings.TrimRight(config, "\n")+"\n        kinds: [{kind: ConfigMap, plural: configmaps, version: v1}]\n")
	w.start()
	const one = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: one\ndata:\n  key: value\n"
	two := strings.Replace(one, "name: one", "name: two", 1) // without it, the last object would go
	w.drop("fabric-1", "two.yaml", two+"---\n"+one)
	if got := w.inCluster("v1/configmaps", "one"); got == nil {
		t.Error("it is not there")
	}
	w.wantManaged("fabric-1", map[string]string{"configmaps/one.yaml": one, "configmaps/two.yaml": two})
	if got := w.must("get", "configmaps", "--fabric", "fabric-1"); !strings.Contains(got, "one") {
		t.Errorf("get: %s", got)
	}
	w.drop("fabric-1", "one.yaml", strings.Replace(one, "name: one", "name: one\n  annotations: {hhwatchd.githedgehog.com/ensure: absent}", 1))
	w.eventually("it to be gone", func() error {
		if _, err := w.kube.Get("v1/configmaps", "default", "one"); err != nil {
			return nil
		}
		return os.ErrExist
	})
	w.must("journal", "verify")
	w.clean()
}

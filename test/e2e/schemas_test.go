// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

const (
	schemasBinding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
	vpcDefinition  = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/vpcs.vpc.githedgehog.com"
)

// Objects are held against the cluster's schemas: as they are, when they
// change, while the cluster is away; and not, with a word about it, where the
// right to read them is missing.
func TestSchemas(t *testing.T) {
	crds := t.TempDir()
	if err := os.CopyFS(crds, os.DirFS(kube.FixtureCRDs())); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, options{cluster: true, crds: crds}) // a cluster of its own
	binding, err := w.kube.Do("GET", schemasBinding+"/hhwatchd-schemas", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.kube.Do("DELETE", schemasBinding+"/hhwatchd-schemas", "", nil); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.drop("fabric-1", "good.yaml", vpc("vpc-1", 1001))
	w.inCluster(vpcs, "vpc-1")
	out, code := w.hh("status")
	if code != 0 || !strings.Contains(out, "schemas: objects are not held against schemas: ") || !strings.Contains(out, "the right to get the CustomResourceDefinition") {
		t.Errorf("without the right, status ends with %d:\n%s", code, out)
	}

	var again map[string]any
	if err := json.Unmarshal(binding, &again); err != nil {
		t.Fatal(err)
	}
	again["metadata"] = map[string]any{"name": "hhwatchd-schemas"}
	binding, _ = json.Marshal(again)
	if _, err := w.kube.Do("POST", schemasBinding, "application/json", binding); err != nil {
		t.Fatal(err)
	}
	w.eventually("the schemas, once the right is there", func() error {
		w.hh("sync")
		if out, _ := w.hh("status"); strings.Contains(out, "schemas:") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	misspelled := strings.Replace(vpc("vpc-2", 1002), "gateway:", "gatway:", 1)
	n := w.commits()
	w.drop("fabric-1", "dropped.yaml", misspelled)
	rejected := func(name string) {
		t.Helper()
		reason := filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged", name+".reason")
		w.eventually("the reason of "+name, func() error {
			text, err := os.ReadFile(reason)
			if err == nil && !strings.Contains(string(text), "document 1, line 9, column 7\n  HH401: unknown field spec.subnets.default.gatway\n  what to do: did you mean gateway?") {
				err = fmt.Errorf("it says\n%s", text)
			}
			return err
		})
	}
	rejected("dropped.yaml")
	if now := w.commits(); now != n {
		t.Errorf("a rejected drop made commits: %s, then %s", n, now)
	}
	w.push("gitops/hedgehog/fabric-1/raw/pushed.yaml", misspelled)
	w.hh("sync") // which fails, because of it
	rejected("pushed.yaml")
	if h := w.history(); strings.Count(h, "HH401") < 2 {
		t.Errorf("the history does not tell why both were rejected:\n%s", h)
	}

	// The cluster's definition gets the field.
	patch := `[{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/subnets/additionalProperties/properties/gatway", "value": {"type": "string"}}]`
	if _, err := w.kube.Do("PATCH", vpcDefinition, "application/json-patch+json", []byte(patch)); err != nil {
		t.Fatal(err)
	}
	w.must("sync")
	w.drop("fabric-1", "dropped.yaml", misspelled)
	w.pushed("fabric-1", "vpcs/vpc-2.yaml")

	// The cluster is away, and the daemon starts anew.
	w.stop()
	w.kube.Kill()
	defer func() {
		if err := w.kube.Restart(); err != nil {
			t.Error(err)
		}
	}()
	w.launch(exec.Command(binary, "--config", w.config, "run"))
	w.drop("fabric-1", "offline.yaml", strings.Replace(vpc("vpc-3", 1003), "vlan: 1003", "vlan: many", 1))
	w.eventually("the verdict while the cluster is away", func() error {
		if h := w.history("--object", "VPC/vpc-3"); !strings.Contains(h, "no fabric holds VPC/vpc-3") {
			return fmt.Errorf("it was taken in:\n%s", h)
		}
		if h := w.history(); !strings.Contains(h, `HH402 spec.subnets.default.vlan: "many" (text) where an integer is needed`) {
			return fmt.Errorf("%s", h)
		}
		return nil
	})
}

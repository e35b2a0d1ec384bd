// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/fabric"
	"github.com/hhwatchd/hhwatchd/test/kube"
)

// A fabric that runs already is adopted: everything is in managed/ as if it had
// been dropped, nothing changes in the cluster but who manages the fields, and
// after that there is nothing to do.
func TestImport(t *testing.T) {
	w := newWorld(t, options{cluster: true, crds: kube.CRDs()})
	spec := fabric.Spec{Spines: 1, Leaves: 2, Servers: 2, VPCs: 3, Attachments: 2, Peerings: 1}
	objects := spec.Objects()
	resource := map[string]string{"VPCPeering": "vpc.githedgehog.com/v1beta1/vpcpeerings"}
	for plural, r := range resources {
		resource[strings.ToLower(plural)] = r
	}
	resourceOf := func(kind string) string {
		if r, ok := resource[kind]; ok {
			return r
		}
		k := strings.ToLower(kind)
		for _, suffix := range []string{"s", "es"} {
			if r, ok := resource[k+suffix]; ok {
				return r
			}
		}
		t.Fatalf("no resource is known for %s", kind)
		return ""
	}
	if _, err := w.kube.Do("DELETE", kube.Path(resource["VPCPeering"], "default"), "", nil); err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if _, err := w.kube.Do(http.MethodPost, kube.Path(resourceOf(o.Kind), "default")+"?fieldManager=kubectl-create", "application/yaml", []byte(o.YAML)); err != nil {
			t.Fatalf("%s/%s: %v", o.Kind, o.Name, err)
		}
	}
	type state struct {
		Generation any
		Spec       any
		Labels     any
	}
	look := func() map[string]state {
		all := map[string]state{}
		for _, o := range objects {
			live, err := w.kube.Get(resourceOf(o.Kind), "default", o.Name)
			if err != nil {
				t.Fatal(err)
			}
			meta := live["metadata"].(map[string]any)
			all[o.Kind+"/"+o.Name] = state{meta["generation"], live["spec"], meta["labels"]}
		}
		return all
	}
	was := look()

	w.start()
	// One is managed already, and says something else.
	differs := objects[len(objects)-1]
	for _, o := range objects {
		if o.Kind == "VPC" {
			differs = o
		}
	}
	file := "gitops/hedgehog/fabric-1/managed/vpcs/" + differs.Name + ".yaml"
	mine := strings.Replace(differs.YAML, "metadata:\n", "metadata:\n  labels: {mine: \"yes\"}\n", 1)

	out := w.must("import", "--dry-run")
	if !strings.Contains(out, fmt.Sprintf("%d objects to import, 0 managed already", len(objects))) || !strings.Contains(out, "VPC/"+differs.Name) {
		t.Errorf("a dry run says\n%s", out)
	}
	if got := w.managedOrNone(); len(got) != 0 {
		t.Errorf("a dry run has imported %d objects", len(got))
	}
	w.push(file, mine)
	out, code := w.hh("import")
	if code != 0 || !strings.Contains(out, fmt.Sprintf("%d objects imported, 0 managed already", len(objects)-1)) ||
		!strings.Contains(out, "VPC/"+differs.Name+" is managed already, and differs") {
		t.Fatalf("import, exit code %d:\n%s", code, out)
	}
	if got := w.managed("fabric-1"); len(got) != len(objects) || got["vpcs/"+differs.Name+".yaml"] != mine {
		t.Errorf("%d of %d objects are managed, and the one that was reads\n%s", len(got), len(objects), got["vpcs/"+differs.Name+".yaml"])
	}
	if out := w.must("import"); !strings.Contains(out, "0 objects to import") {
		t.Errorf("imported again:\n%s", out)
	}
	labels := was["VPC/"+differs.Name]
	labels.Labels = map[string]any{"mine": "yes"}
	want := map[string]state{}
	for k, s := range was {
		want[k] = s
	}
	want["VPC/"+differs.Name] = labels
	if now := look(); !reflect.DeepEqual(now, want) {
		for k := range now {
			if !reflect.DeepEqual(now[k], want[k]) {
				t.Errorf("%s was %v and is %v", k, want[k], now[k])
			}
		}
	}
	writes := func() (n float64) {
		for _, verb := range []string{"PATCH", "POST", "PUT", "DELETE", "APPLY"} {
			for _, group := range []string{"vpc.githedgehog.com", "wiring.githedgehog.com", "gateway.githedgehog.com"} {
				m, err := w.kube.Metric("apiserver_request_total", map[string]string{"verb": verb, "group": group})
				if err != nil {
					t.Fatal(err)
				}
				n += m
			}
		}
		return n
	}
	before := writes()
	if before == 0 {
		t.Error("the API server has counted no write at all")
	}
	if out := w.must("sync"); !strings.Contains(out, fmt.Sprintf("%d unchanged", len(objects))) {
		t.Errorf("the sync after the import says\n%s", out)
	}
	if n := writes() - before; n != 0 {
		t.Errorf("%v writes in the sync after the import", n)
	}
	if out := w.must("diff"); out != "" {
		t.Errorf("there is a difference:\n%s", out)
	}
	w.clean()
	if h := w.history(); !strings.Contains(h, "import-") {
		t.Errorf("the history does not tell of the import:\n%s", h)
	}
}

// managedOrNone are the managed files on the remote, which may have no branch yet.
func (w *world) managedOrNone() map[string]string {
	w.t.Helper()
	if w.remote("for-each-ref") == "" {
		return nil
	}
	return w.managed("fabric-1")
}

// What would not fit is left, and its file in managed/ is replaced only when
// that is asked for.
func TestImportOverwrites(t *testing.T) {
	w := newWorld(t, options{cluster: true})
	w.must("sync", "--once")
	post := func(name, extra string) string {
		t.Helper()
		answer, err := w.kube.Do(http.MethodPost, kube.Path(vpcs, "default")+"?fieldManager=kubectl", "application/yaml",
			[]byte(strings.Replace(vpc(name, 1001), "metadata:\n", "metadata:\n"+extra, 1)))
		if err != nil {
			t.Fatal(err)
		}
		var o struct{ Metadata struct{ UID string } }
		if err := json.Unmarshal(answer, &o); err != nil {
			t.Fatal(err)
		}
		return o.Metadata.UID
	}
	uid := post("vpc-1", "")
	post("vpc-2", fmt.Sprintf("  ownerReferences: [{apiVersion: vpc.githedgehog.com/v1beta1, kind: VPC, name: vpc-1, uid: %s}]\n", uid))
	w.push("gitops/hedgehog/fabric-1/managed/vpcs/vpc-1.yaml", vpc("vpc-1", 1002))
	out, code := w.hh("import", "--overwrite")
	if code != 0 || !strings.Contains(out, "VPC/vpc-1 takes the place of a managed file that differs") || !strings.Contains(out, "LEFT ALONE VPC/vpc-2: it belongs to VPC/vpc-1") {
		t.Errorf("import, exit code %d:\n%s", code, out)
	}
	got := w.managed("fabric-1")
	if len(got) != 1 || !strings.Contains(got["vpcs/vpc-1.yaml"], "vlan: 1001") || strings.Contains(got["vpcs/vpc-1.yaml"], "namespace") {
		t.Errorf("managed are %v", got)
	}
	if out, code := w.hh("import", "--fabric", "none"); code != 2 {
		t.Errorf("of a fabric that is not configured, exit code %d:\n%s", code, out)
	}
	if _, err := w.kube.Do("DELETE", kube.Path(vpcs, "default")+"/vpc-2", "", nil); err != nil {
		t.Fatal(err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// A clusterSite is a repository with two fabrics: the one of its name, whose
// API server is behind a proxy, and another one, <name>-well, that has the
// same API server without it.
type clusterSite struct {
	*world
	proxy *kube.Proxy
	fault clusterFault
}

// A clusterFault is a way for an API server to be unwell.
type clusterFault struct {
	name  string
	begin func(s *clusterSite)
	end   func(s *clusterSite)
	says  string // in status and history
	about int
}

// What a fault is about.
const (
	theCluster = iota
	theObject
	nothing // it is no fault
)

// object is the object of a fabric, in a version that a label tells.
func object(fabric string, version int) string {
	if fabric == "crd-gone" { // this kind is only used there
		return fmt.Sprintf("apiVersion: wiring.githedgehog.com/v1beta1\nkind: Server\nmetadata:\n  name: %s\n  labels: {version: v%d}\nspec:\n  description: d\n", fabric, version)
	}
	namespace := ""
	if fabric == "no-namespace" {
		namespace = "  namespace: lab\n"
	}
	return fmt.Sprintf("apiVersion: vpc.githedgehog.com/v1beta1\nkind: VPC\nmetadata:\n  name: %s\n%s  labels: {version: v%d}\nspec: {}\n", fabric, namespace, version)
}

// live waits until the API server has the object of a fabric in that version.
func (s *clusterSite) live(api *kube.Server, fabric string, version int) {
	s.t.Helper()
	resource, namespace := vpcs, "default"
	switch fabric {
	case "crd-gone":
		resource = "wiring.githedgehog.com/v1beta1/servers"
	case "no-namespace":
		namespace = "lab"
	}
	s.eventually(fmt.Sprintf("version %d of %s", version, fabric), func() error {
		o, err := api.Get(resource, namespace, fabric)
		if err != nil {
			return err
		}
		labels, _ := o["metadata"].(map[string]any)["labels"].(map[string]any)
		if labels["version"] != fmt.Sprintf("v%d", version) {
			return fmt.Errorf("its labels are %v", labels)
		}
		return nil
	})
}

// answer makes a fault that answers all requests.
func answer(code int, contentType, body string) func(s *clusterSite) {
	return func(s *clusterSite) {
		s.proxy.Fault(func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(code)
			io.WriteString(w, body)
			return true
		})
	}
}

// putOff asks for patience, n times or (0) for ever.
func putOff(n int32) func(s *clusterSite) {
	return func(s *clusterSite) {
		var done atomic.Int32
		s.proxy.Fault(func(w http.ResponseWriter, _ *http.Request) bool {
			if done.Add(1) > n && n > 0 {
				return false
			}
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		})
	}
}

func passAll(s *clusterSite) { s.proxy.Fault(nil) }

const serverCRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/servers.wiring.githedgehog.com"

// TestClusterFaults has one daemon with many repositories, each with a fabric
// whose API server is unwell in another way and one that is well. Each fault
// is told in one line, once; drops go on to the remote and to the other
// fabric's API server meanwhile; and when it is over what waited is applied by
// itself.
func TestClusterFaults(t *testing.T) {
	t.Parallel()
	api := kube.Start(t, kube.Options{CRDs: []string{kube.FixtureCRDs()}})
	admin := func(method, path, body string) []byte {
		t.Helper()
		answer, err := api.Do(method, path, "application/yaml", []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	var crd []byte
	faults := []clusterFault{
		{"down", func(s *clusterSite) { s.proxy.Down() }, func(s *clusterSite) { s.proxy.Up() },
			"cluster {url}: cannot connect to {address}: connection refused", theCluster},
		{"garbage", answer(200, "text/html", "<html>Log in to the guest network</html>"), passAll,
			"cluster {url}: what it answers is a web page: is the server in the kubeconfig right, is a proxy or a login page in the way?", theCluster},
		{"http-500", answer(500, "text/plain", "boom"), passAll, "cluster {url} answers with HTTP 500 Internal Server Error", theCluster},
		{"http-502", answer(502, "text/html", "<html>Bad gateway</html>"), passAll, "cluster {url} answers with HTTP 502 Bad Gateway", theCluster},
		{"http-503", answer(503, "text/plain", "starting"), passAll, "cluster {url} answers with HTTP 503 Service Unavailable", theCluster},
		{"busy", putOff(2), passAll, "", nothing},
		{"token", func(s *clusterSite) { s.proxy.SetToken("0ld") }, func(s *clusterSite) { s.proxy.SetToken("t0ken") },
			"cluster {url} does not accept the credentials in {kubeconfig} (expired or revoked?): Unauthorized", theCluster},
		{"kubeconfig-gone", func(s *clusterSite) { os.Remove(s.proxy.Kubeconfig) }, func(s *clusterSite) { s.proxy.SetToken("t0ken") },
			"kubeconfig {kubeconfig}: no such file or directory", theCluster},
		{"rights", func(s *clusterSite) { s.proxy.As("somebody") }, func(s *clusterSite) { s.proxy.As("hhwatchd") },
			`a right is missing (hhwatchd validate tells all that are needed): User "somebody" cannot get resource "vpcs" in API group "vpc.githedgehog.com" in the namespace "default"`, theObject},
		{"starting", func(s *clusterSite) {
			s.proxy.As("somebody")
			s.proxy.Fault(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/readyz" {
					http.Error(w, "[-]poststarthook/rbac/bootstrap-roles failed: not finished", http.StatusInternalServerError)
				}
				return r.URL.Path == "/readyz"
			})
		}, func(s *clusterSite) { s.proxy.As("hhwatchd"); s.proxy.Fault(nil) },
			"cluster {url} is not ready: it is starting, or unwell (kubectl get --raw '/readyz?verbose' says more)", theCluster},
		{"no-namespace", func(s *clusterSite) { s.proxy.As("lab-owner") }, func(*clusterSite) {
			admin("POST", "/api/v1/namespaces", "{apiVersion: v1, kind: Namespace, metadata: {name: lab}}")
		}, `namespaces "lab" not found`, theObject},
		{"crd-gone", func(*clusterSite) {
			crd = admin("GET", serverCRD, "")
			admin("DELETE", serverCRD, "")
		}, func(*clusterSite) {
			var o struct {
				APIVersion string         `json:"apiVersion"`
				Kind       string         `json:"kind"`
				Metadata   map[string]any `json:"metadata"`
				Spec       any            `json:"spec"`
			}
			if err := json.Unmarshal(crd, &o); err != nil {
				t.Fatal(err)
			}
			o.Metadata = map[string]any{"name": o.Metadata["name"], "annotations": o.Metadata["annotations"]}
			fresh, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			admin("POST", path.Dir(serverCRD), string(fresh))
		}, "the cluster does not know servers in wiring.githedgehog.com/v1beta1: its CRD is not installed, or does not serve this version", theObject},
		// Last, as it takes long to find out.
		{"silent", func(s *clusterSite) { s.proxy.Hang() }, passAll, "cluster {url} gives no answer within 10s", theCluster},
		{"overloaded", putOff(0), passAll, "cluster {url} is overloaded: it puts requests off for longer than 10s", theCluster},
	}
	admin("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "lab-owner"},
		"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}, "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "lab-owner"}]}`)
	var names []string
	for _, f := range faults {
		names = append(names, f.name)
	}
	var sites []*clusterSite
	worlds := newSites(t, names...)
	data, err := os.ReadFile(worlds[0].config)
	if err != nil {
		t.Fatal(err)
	}
	config := string(data)
	for i, w := range worlds {
		s := &clusterSite{w, kube.NewProxy(t, api), faults[i]}
		sites = append(sites, s)
		fabric := fmt.Sprintf("{name: %s, path: gitops/hedgehog/%s", w.repo, w.repo)
		config = strings.Replace(config, fabric+"}", fmt.Sprintf("%s, cluster: {kubeconfig: %q}}, {name: %s-well, path: gitops/hedgehog/%s-well, cluster: {kubeconfig: %q}}",
			fabric, s.proxy.Kubeconfig, w.repo, w.repo, api.Kubeconfig), 1)
	}
	write(t, worlds[0].config, config)
	startAll(worlds)
	for _, s := range sites {
		if s.repo != "no-namespace" {
			s.drop(s.repo, "a.yaml", object(s.repo, 1))
		}
	}
	for _, s := range sites {
		if s.repo != "no-namespace" {
			s.live(api, s.repo, 1)
		}
	}
	for _, s := range sites {
		s.fault.begin(s)
	}
	for _, s := range sites {
		s.drop(s.repo, "b.yaml", object(s.repo, 2))
		s.drop(s.repo+"-well", "b.yaml", object(s.repo+"-well", 2))
	}
	for _, s := range sites {
		s.live(api, s.repo+"-well", 2)
		s.wantManaged(s.repo, map[string]string{s.file(): object(s.repo, 2)})
	}
	for _, s := range sites {
		if s.fault.about != nothing {
			s.wantFault()
			s.fault.end(s)
		}
	}
	for _, s := range sites {
		s.live(api, s.repo, 2)
		s.wantLinear(object(s.repo, 2))
		s.eventually(s.repo+" to be well", func() error {
			if f := s.fabric(); f.Down != "" || len(f.Failed) > 0 || f.Applied != 1 {
				return fmt.Errorf("status is %+v", f)
			}
			return nil
		})
		want := map[bool]int{true: 1}[s.fault.about == theCluster]
		if begun, over := s.told("fault"), s.told("clear"); len(begun) != want || len(over) != want {
			t.Errorf("%s: the history has %v and %v", s.repo, begun, over)
		}
	}
	if out, code := sites[0].hh("status"); code != 0 {
		t.Errorf("status, exit code %d:\n%s", code, out)
	}
}

// file is the managed file of the site's object.
func (s *clusterSite) file() string {
	switch s.repo {
	case "crd-gone":
		return "servers/crd-gone.yaml"
	case "no-namespace":
		return "vpcs/lab/no-namespace.yaml"
	}
	return "vpcs/" + s.repo + ".yaml"
}

// fabric is what status says of the site's fabric.
func (s *clusterSite) fabric() fabricDoc {
	s.t.Helper()
	for _, f := range s.site().Fabrics {
		if f.Name == s.repo {
			return f
		}
	}
	s.t.Fatalf("status does not know the fabric %s", s.repo)
	return fabricDoc{}
}

// wantFault waits until the fault was met, several times if that is quick, and
// wants it told well, and once.
func (s *clusterSite) wantFault() {
	s.t.Helper()
	url := s.proxy.URL()
	says := strings.NewReplacer("{url}", url, "{address}", strings.TrimPrefix(url, "https://"), "{kubeconfig}", s.proxy.Kubeconfig).Replace(s.fault.says)
	line, tries := "NOT APPLIED managed/"+s.file()+": "+says+" (from raw/b.yaml, document 1, line 1, commit ", 0
	if s.fault.about == theCluster {
		line, tries = ": "+strings.TrimPrefix(says, "cluster ")+"; next try ", 2
		if strings.Contains(says, "10s") {
			tries = 1
		}
	}
	s.eventually(s.repo+" to be tried again", func() error {
		f := s.fabric()
		told := f.Down
		if s.fault.about == theObject {
			told = strings.TrimPrefix(strings.Join(f.Failed, "\n"), "managed/"+s.file()+": ")
			told, _, _ = strings.Cut(told, " (from raw/")
		}
		if told != says {
			return fmt.Errorf("status says  %s\nwant         %s", told, says)
		}
		if f.Tries < tries {
			return fmt.Errorf("it was tried %d times", f.Tries)
		}
		return nil
	})
	wantPlain(s.t, says, url)
	if out, code := s.hh("status"); code != 1 || !strings.Contains(out, line) {
		s.t.Errorf("status, exit code %d, does not say %q:\n%s", code, line, out)
	}
	n := 0
	for _, r := range append(s.told("fault"), s.told("apply")...) {
		if strings.Contains(r.Error, says) {
			n++
		}
		for _, o := range r.Objects {
			if strings.Contains(o.Error, says) {
				n++
			}
		}
	}
	// The loss of a CRD is noticed at once, and told of the object as it was then;
	// and of its next text.
	if n != 1 && !(s.repo == "crd-gone" && n == 2) {
		s.t.Errorf("%s: the history tells of it %d times:\n%s", s.repo, n, s.history("--fabric", s.repo))
	}
}

// TestRestartedWhileApplying kills the API server in the middle of the apply
// of many objects: when it is back the rest is applied, and each is told once.
func TestRestartedWhileApplying(t *testing.T) {
	t.Parallel()
	api := kube.Start(t, kube.Options{CRDs: []string{kube.FixtureCRDs()}})
	w := newSites(t, "site")[0]
	config, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, strings.Replace(string(config), "hedgehog/site}", fmt.Sprintf("hedgehog/site, cluster: {kubeconfig: %q}}", api.Kubeconfig), 1))
	w.start()
	const n = 400
	var all strings.Builder
	for i := range n {
		fmt.Fprintf(&all, "---\n%s", vpc(fmt.Sprintf("vpc-%d", i), 1000+i))
	}
	w.drop(w.repo, "all.yaml", all.String())
	w.eventually("some of them", func() error {
		live, err := api.List(vpcs, "default")
		if err == nil && len(live) < n/10 {
			err = fmt.Errorf("there are %d", len(live))
		}
		return err
	})
	api.Kill()
	w.eventually("status to say so", func() error {
		if out, code := w.hh("status"); code != 1 || !strings.Contains(out, "cluster DOWN for ") {
			return fmt.Errorf("exit code %d:\n%s", code, out)
		}
		return nil
	})
	if err := api.Restart(); err != nil {
		t.Fatal(err)
	}
	w.eventually("all to be applied", func() error {
		if f := w.site().Fabrics[0]; f.Applied != n || f.Down != "" || len(f.Failed) > 0 {
			return fmt.Errorf("status is %+v", f)
		}
		return nil
	})
	live, err := api.List(vpcs, "default")
	if err != nil || len(live) != n {
		t.Errorf("%d of %d objects are there: %v", len(live), n, err)
	}
	for _, o := range live {
		if g := o["metadata"].(map[string]any)["generation"]; g != 1.0 {
			t.Errorf("an object has generation %v: it was changed after it was created", g)
		}
	}
	told, failed := 0, 0
	for _, r := range w.told("apply") {
		for _, o := range r.Objects {
			told++
			if o.Error != "" {
				failed++
			}
		}
	}
	if told != n || failed > 0 {
		t.Errorf("%d results are told, %d of them failures, want %d and none:\n%s", told, failed, n, w.history())
	}
	// The fault changes its face: broken off, refused, not ready yet.
	if begun, over := w.told("fault"), w.told("clear"); len(begun) == 0 || len(begun) > 4 || len(over) != 1 {
		t.Errorf("the history has %v and %v", begun, over)
	}
}

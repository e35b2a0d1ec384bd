// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// The tests share one API server, started by the first that asks for it.
// Each uses names of its own. They talk to it as the user hhwatchd, who has
// only the rights that are shipped, and those on the test's own kinds.
var shared struct {
	sync.Once
	server *kube.Server
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		if err := shared.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.RemoveAll(filepath.Dir(shared.server.Kubeconfig))
	}
	os.Exit(code)
}

// rights are what the user hhwatchd needs beside what is shipped.
const rights = `{
	"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "shapes"},
	"rules": [
		{"apiGroups": ["test.hhwatchd.example"], "resources": ["shapes", "plains", "missings", "lates"], "verbs": ["get", "list", "watch", "create", "patch", "delete"]},
		{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}
	]
}
{
	"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "shapes"},
	"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "shapes"},
	"subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "hhwatchd"}]
}`

func testServer(t testing.TB) *kube.Server {
	t.Helper()
	if testing.Short() {
		t.Skip("needs an API server")
	}
	shared.Do(func() {
		dir, err := os.MkdirTemp("", "apply-test-")
		if err != nil {
			shared.err = err
			return
		}
		crds, err := filepath.Abs("testdata/crds")
		if err != nil {
			shared.err = err
			return
		}
		shared.server, shared.err = kube.Launch(context.Background(), kube.Options{Dir: dir, CRDs: []string{kube.CRDs(), crds}})
		if shared.err != nil {
			return
		}
		role, binding, _ := strings.Cut(rights, "\n{")
		for path, body := range map[string]string{
			"/apis/rbac.authorization.k8s.io/v1/clusterroles":                    role,
			"/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings": "{" + binding,
		} {
			if _, err := shared.server.Do(http.MethodPost, path, "application/json", []byte(body)); err != nil {
				shared.err = err
				return
			}
		}
		// The schemas are published some time after the CRDs are established.
		for !published("Shape") || !published("Plain") {
			time.Sleep(10 * time.Millisecond)
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// published reports whether the schema of a kind can be had.
func published(kind string) bool {
	doc, err := shared.server.Do(http.MethodGet, "/openapi/v3/apis/test.hhwatchd.example/v1", "", nil)
	return err == nil && findSchema(doc, Kind{Group: "test.hhwatchd.example", Version: "v1", Kind: kind}) != nil
}

// connect returns the cluster of a server, as the user hhwatchd sees it.
func connect(t testing.TB, s *kube.Server) *Cluster {
	t.Helper()
	c, err := Connect(Config{Kubeconfig: s.Kubeconfig, Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

var plurals = map[string]string{
	"Shape": "shapes", "Plain": "plains", "Missing": "missings",
	"VLANNamespace": "vlannamespaces", "SwitchGroup": "switchgroups", "Switch": "switches", "Server": "servers", "Connection": "connections",
	"VPC": "vpcs", "VPCAttachment": "vpcattachments", "VPCPeering": "vpcpeerings", "IPv4Namespace": "ipv4namespaces",
}

// parseYAML reads a YAML document, with numbers as they are written.
func parseYAML(t testing.TB, doc string) (v map[string]any) {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// objects reads YAML documents.
func objects(t testing.TB, text string) []Object {
	t.Helper()
	var objs []Object
	for doc := range strings.SplitSeq("\n"+text, "\n---") {
		if v := parseYAML(t, doc); v != nil {
			objs = append(objs, object(t, v))
		}
	}
	return objs
}

func object(t testing.TB, v map[string]any) Object {
	t.Helper()
	apiVersion, kind := v["apiVersion"].(string), v["kind"].(string)
	group, version, _ := strings.Cut(apiVersion, "/")
	plural, ok := plurals[kind]
	if !ok {
		t.Fatalf("no plural known for %s", kind)
	}
	meta := v["metadata"].(map[string]any)
	if meta["namespace"] == nil {
		meta["namespace"] = "default"
	}
	name, namespace := meta["name"].(string), meta["namespace"].(string)
	return Object{Group: group, Version: version, Kind: kind, Plural: plural, Namespace: namespace, Name: name, Value: v,
		Path: "managed/" + plural + "/" + name + ".yaml"}
}

// applied applies objs and returns the results by name.
func applied(t testing.TB, c *Cluster, objs []Object, full bool) map[string]Result {
	t.Helper()
	results := map[string]Result{}
	err := c.Apply(t.Context(), objs, full, func(r Result) {
		if _, ok := results[r.Name]; ok {
			t.Errorf("%s was reported twice", r.Name)
		}
		results[r.Name] = r
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(objs) {
		t.Errorf("%d results for %d objects", len(results), len(objs))
	}
	return results
}

// one applies one object and returns its result.
func one(t testing.TB, c *Cluster, o Object, full bool) Result {
	t.Helper()
	return applied(t, c, []Object{o}, full)[o.Name]
}

// path returns the URL path of an object.
func path(o Object) string {
	return kube.Path(o.Group+"/"+o.Version+"/"+o.Plural, o.Namespace) + "/" + o.Name
}

// live returns an object as it is in the API server.
func live(t testing.TB, s *kube.Server, o Object) map[string]any {
	t.Helper()
	v, err := s.Get(o.Group+"/"+o.Version+"/"+o.Plural, o.Namespace, o.Name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// edit changes an object by a JSON merge patch, as a person would by kubectl.
func edit(t testing.TB, s *kube.Server, o Object, patch string) {
	t.Helper()
	if _, err := s.Do(http.MethodPatch, path(o)+"?fieldManager=kubectl-edit", "application/merge-patch+json", []byte(patch)); err != nil {
		t.Fatal(err)
	}
}

// counted is a line in which the API server says how many requests of a verb
// it has had for an API group.
var counted = regexp.MustCompile(`(?m)^apiserver_request_total\{.*group="(.*?)".*verb="(.*?)".*\} (\d+)$`)

// writes returns how many requests that write objects of the tests' kinds the
// API server has counted. (It also writes leases of its own.) It counts a
// request after its answer, so two counts must agree.
func writes(t testing.TB, s *kube.Server) int {
	t.Helper()
	return requests(t, s, func(verb string) bool { return verb != "GET" && verb != "LIST" && verb != "WATCH" })
}

// reads is writes for requests that read.
func reads(t testing.TB, s *kube.Server) int {
	t.Helper()
	return requests(t, s, func(verb string) bool { return verb == "GET" || verb == "LIST" })
}

func requests(t testing.TB, s *kube.Server, counts func(verb string) bool) int {
	t.Helper()
	last := -1
	for {
		text, err := s.Do(http.MethodGet, "/metrics", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		total := 0
		for _, m := range counted.FindAllStringSubmatch(string(text), -1) {
			switch group, verb := m[1], m[2]; {
			case !counts(verb):
			case group == wiring || group == vpc || group == gateway || group == "test.hhwatchd.example":
				n, err := strconv.Atoi(m[3])
				if err != nil {
					t.Fatal(err)
				}
				total += n
			}
		}
		if total == last {
			return total
		}
		last = total
	}
}

func toJSON(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const orphanEnv = "HHWATCHD_TEST_ORPHAN"

// TestMain lets this program be the parent that TestServerEndsWithParent kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(orphanEnv); dir != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		s, err := Launch(ctx, Options{Dir: dir})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(s.URL)
		<-ctx.Done()
		return
	}
	os.Exit(m.Run())
}

// oneOfEach has an object of every kind that hhwatchd may touch.
const oneOfEach = `
apiVersion: wiring.githedgehog.com/v1beta1
kind: VLANNamespace
metadata: {name: default}
spec: {ranges: [{from: 1000, to: 2999}]}
---
apiVersion: wiring.githedgehog.com/v1beta1
kind: SwitchGroup
metadata: {name: eslag-1}
spec: {}
---
apiVersion: wiring.githedgehog.com/v1beta1
kind: SwitchProfile
metadata: {name: vs}
spec: {displayName: Virtual Switch, features: {mclag: true}, ports: {E1/1: {nos: Ethernet0}}}
---
apiVersion: wiring.githedgehog.com/v1beta1
kind: Switch
metadata: {name: leaf-1}
spec:
  role: server-leaf
  description: rack 1
  profile: vs
  groups: [eslag-1]
  redundancy: {group: eslag-1, type: eslag}
  boot: {mac: "0c:20:12:ff:00:00"}
  ecmp: {}
  asn: 65101
  portBreakouts: {E1/55: 4x25G}
  enableAllPorts: true
  linkFlapErrDisable: {}
---
apiVersion: wiring.githedgehog.com/v1beta1
kind: ServerProfile
metadata: {name: two-nics}
spec: {nics: [{name: nic0, ports: [{name: enp2s1}]}]}
---
apiVersion: wiring.githedgehog.com/v1beta1
kind: Server
metadata: {name: server-1}
spec: {description: first}
---
apiVersion: wiring.githedgehog.com/v1beta1
kind: Connection
metadata: {name: server-1--unbundled--leaf-1}
spec: {unbundled: {link: {server: {port: server-1/enp2s1}, switch: {port: leaf-1/E1/1}}}}
---
apiVersion: vpc.githedgehog.com/v1beta1
kind: IPv4Namespace
metadata: {name: default}
spec: {subnets: [10.0.0.0/16]}
---
apiVersion: vpc.githedgehog.com/v1beta1
kind: VPC
metadata: {name: vpc-1}
spec:
  subnets:
    web: {subnet: 10.0.1.0/24, gateway: 10.0.1.1, vlan: 1001, dhcp: {enable: true, range: {start: 10.0.1.10, end: 10.0.1.99}}}
    db: {subnet: 10.0.2.0/24, vlan: 1002, isolated: true, restricted: true}
  permit: [[web, db]]
  staticRoutes: [{prefix: 10.9.0.0/24, nextHops: [10.0.1.5]}]
---
apiVersion: vpc.githedgehog.com/v1beta1
kind: VPCAttachment
metadata: {name: vpc-1-server-1}
spec: {connection: server-1--unbundled--leaf-1, subnet: vpc-1/web, nativeVLAN: true}
---
apiVersion: vpc.githedgehog.com/v1beta1
kind: VPCPeering
metadata: {name: vpc-1--vpc-2}
spec: {permit: [{vpc-1: {subnets: [web]}, vpc-2: {}}]}
---
apiVersion: vpc.githedgehog.com/v1beta1
kind: External
metadata: {name: isp}
spec: {ipv4Namespace: default, inboundCommunity: "65102:5000", outboundCommunity: "50000:50001"}
---
apiVersion: vpc.githedgehog.com/v1beta1
kind: ExternalAttachment
metadata: {name: leaf-1--isp}
spec: {external: isp, connection: leaf-1--external, switch: {ip: 100.1.1.1/24, vlan: 100}, neighbor: {asn: 65102, ip: 100.1.1.2}}
---
apiVersion: vpc.githedgehog.com/v1beta1
kind: ExternalPeering
metadata: {name: vpc-1--isp}
spec: {permit: {vpc: {name: vpc-1, subnets: [web]}, external: {name: isp, prefixes: [{prefix: 0.0.0.0/0}]}}}
---
apiVersion: gateway.githedgehog.com/v1alpha1
kind: GatewayGroup
metadata: {name: default}
spec: {}
---
apiVersion: gateway.githedgehog.com/v1alpha1
kind: Gateway
metadata: {name: gateway-1}
spec: {protocolIP: 172.30.8.10/32, vtepIP: 172.30.12.10/32, asn: 65534, groups: [{name: default, priority: 10}]}
---
apiVersion: gateway.githedgehog.com/v1alpha1
kind: GatewayPeering
metadata: {name: vpc-1--vpc-2}
spec: {gatewayGroup: default, peering: {vpc-1: {expose: [{ips: [{cidr: 10.0.1.0/24}]}]}, vpc-2: {expose: [{ips: [{vpcSubnet: web}]}]}}}
---
apiVersion: gateway.githedgehog.com/v1alpha1
kind: VPCInfo
metadata: {name: vpc-1}
spec: {vni: 100, subnets: {web: {cidr: 10.0.1.0/24}}}
`

const (
	switches = "wiring.githedgehog.com/v1beta1/switches"
	vpcs     = "vpc.githedgehog.com/v1beta1/vpcs"
)

// TestServer goes through the life of one server, since each start takes its
// time: a later part builds on the earlier ones.
func TestServer(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{CRDs: []string{FixtureCRDs()}})
	user, err := client(s.opts.Dir, "hhwatchd")
	if err != nil {
		t.Fatal(err)
	}

	t.Run("every kind", func(t *testing.T) { applyAll(t, s, user, oneOfEach, 18) })

	t.Run("default", func(t *testing.T) {
		o, err := s.Get(switches, "default", "leaf-1")
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(o["spec"].(map[string]any)["linkFlapErrDisable"])
		if want := "map[flapThreshold:3 recoveryInterval:300 samplingInterval:30]"; got != want {
			t.Errorf("linkFlapErrDisable is %s, want %s", got, want)
		}
	})

	t.Run("list", func(t *testing.T) {
		for _, namespace := range []string{"default", ""} {
			list, err := s.List(vpcs, namespace)
			if err != nil || len(list) != 1 {
				t.Errorf("List in namespace %q: %v, %v; want one VPC", namespace, list, err)
			}
		}
		list, err := s.List(vpcs, "kube-system")
		if err != nil || len(list) != 0 {
			t.Errorf("List in another namespace: %v, %v; want none", list, err)
		}
	})

	t.Run("least privilege", func(t *testing.T) {
		const apply = "application/apply-patch+yaml"
		secret := `{apiVersion: v1, kind: Secret, metadata: {name: x}}`
		vpc := `{apiVersion: vpc.githedgehog.com/v1beta1, kind: VPC, metadata: {name: vpc-1}, status: {}}`
		for _, test := range []struct {
			method, path, body string
		}{
			{"GET", Path("v1/secrets", "default"), ""},
			{"PATCH", Path("v1/secrets", "default") + "/x?fieldManager=t", secret},
			{"PATCH", Path(vpcs, "kube-system") + "/vpc-1?fieldManager=t", vpc},
			{"PATCH", Path(vpcs, "default") + "/vpc-1/status?fieldManager=t", vpc},
			{"DELETE", Path(vpcs, "default"), ""}, // all at once
			{"GET", Path("apiextensions.k8s.io/v1/customresourcedefinitions", ""), ""},
			{"GET", "/metrics", ""},
		} {
			_, err := s.do(user, test.method, test.path, apply, []byte(test.body))
			var status *StatusError
			if !errors.As(err, &status) || status.Code != 403 || status.Reason != "Forbidden" {
				t.Errorf("%s %s: %v, want it forbidden", test.method, test.path, err)
			}
		}
		// What "may I" questions need.
		review := `{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":
			{"namespace":"default","verb":"patch","group":"vpc.githedgehog.com","resource":"vpcs"}}}`
		answer, err := s.do(user, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "application/json", []byte(review))
		if err != nil || !strings.Contains(string(answer), `"allowed":true`) {
			t.Errorf("SelfSubjectAccessReview: %s, %v; want it allowed", answer, err)
		}
	})

	t.Run("metric", func(t *testing.T) {
		for verb, contentType := range map[string]string{
			"PATCH": "application/merge-patch+json",
			"APPLY": "application/apply-patch+yaml",
		} {
			labels := map[string]string{"verb": verb, "group": "wiring.githedgehog.com", "resource": "servers"}
			before := metric(t, s, labels)
			const n = 3
			for i := range n {
				body := fmt.Sprintf(`{"apiVersion":"wiring.githedgehog.com/v1beta1","kind":"Server","spec":{"description":"%d"}}`, i)
				path := Path("wiring.githedgehog.com/v1beta1/servers", "default") + "/server-1?fieldManager=t&force=true"
				if verb == "PATCH" {
					path = strings.TrimSuffix(path, "&force=true")
				}
				if _, err := s.Do("PATCH", path, contentType, []byte(body)); err != nil {
					t.Fatal(err)
				}
			}
			// The last is counted after its answer was sent.
			for deadline := time.Now().Add(10 * time.Second); ; {
				got := metric(t, s, labels) - before
				if got == n {
					break
				}
				if got > n || time.Now().After(deadline) {
					t.Fatalf("%d requests with %s counted as %v", n, verb, got)
				}
			}
		}
		labels := map[string]string{"verb": "PATCH", "resource": "no-such"}
		if got := metric(t, s, labels); got != 0 {
			t.Errorf("requests for what is not there: %v", got)
		}
	})

	t.Run("watch", func(t *testing.T) {
		w, err := s.Watch(t.Context(), vpcs, "default")
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		path := Path(vpcs, "default") + "/watched"
		body := []byte(`{"apiVersion":"vpc.githedgehog.com/v1beta1","kind":"VPC","metadata":{"name":"watched"}}`)
		if _, err := s.Do("POST", Path(vpcs, "default"), "application/json", body); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Do("DELETE", path, "", nil); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"ADDED", "DELETED"} {
			e, err := w.Next()
			if err != nil {
				t.Fatal(err)
			}
			name := e.Object["metadata"].(map[string]any)["name"]
			if e.Type != want || name != "watched" {
				t.Errorf("the event is %s of %v, want %s of the only object that changed", e.Type, name, want)
			}
		}
		w.Close()
		if e, err := w.Next(); err == nil {
			t.Errorf("after Close comes %v", e)
		}
		if _, err := s.Watch(t.Context(), "example.net/v1/nothings", ""); err == nil {
			t.Error("a resource that is not there can be watched")
		}
	})

	samples := filepath.Join(root, "..", "shared", "hedgehog", "samples")
	t.Run("samples", func(t *testing.T) { applySamples(t, s, user, samples) })

	t.Run("kill", func(t *testing.T) {
		keeps(t, s, user, "written-before-kill", func() error {
			s.Kill()
			return s.Restart()
		})
	})

	t.Run("restart", func(t *testing.T) {
		fixtures := definitions(t, s)
		s.opts.CRDs = []string{CRDs()} // Hedgehog's own from here, where they are at hand
		keeps(t, s, user, "written-before-restart", s.Restart)
		own := definitions(t, s)
		for name, fixture := range fixtures {
			if own[name] != fixture {
				t.Errorf("%s is %s, should be %s", name, fixture, own[name])
			}
		}
		applyAll(t, s, user, oneOfEach, 18)
		applySamples(t, s, user, samples)
	})

	t.Run("stop", func(t *testing.T) {
		// A watch, which stays open, does not hold it up.
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+Path(vpcs, "default")+"?watch=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.admin.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		began := time.Now()
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		t.Logf("stopped in %v", time.Since(began))
		if _, err := s.Get(vpcs, "default", "vpc-1"); err == nil {
			t.Error("it still answers")
		}
		if err := s.Stop(); err != nil {
			t.Errorf("stopping it again: %v", err)
		}
	})
}

// keeps writes a VPC, has the server ended and started again, and expects all
// of its objects, at the same URL, for the client certificate of its first run.
func keeps(t *testing.T, s *Server, user *http.Client, name string, restart func() error) {
	t.Helper()
	url := s.URL
	before, err := s.List(vpcs, "default")
	if err != nil {
		t.Fatal(err)
	}
	path := Path(vpcs, "default") + "/" + name
	body := fmt.Sprintf("{apiVersion: vpc.githedgehog.com/v1beta1, kind: VPC, metadata: {name: %s}}", name)
	if _, err := s.do(user, "PATCH", path+"?fieldManager=t", "application/apply-patch+yaml", []byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := restart(); err != nil {
		t.Fatal(err)
	}
	if s.URL != url {
		t.Errorf("it came back at %s, was at %s", s.URL, url)
	}
	if _, err := s.do(user, "GET", path, "", nil); err != nil {
		t.Error(err)
	}
	if after, err := s.List(vpcs, "default"); err != nil || len(after) != len(before)+1 {
		t.Errorf("%d VPCs, %v; want %d", len(after), err, len(before)+1)
	}
}

func TestServerEndsWithParent(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts an API server")
	}
	Binary(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), orphanEnv+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "https://")
	if !ok {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("the parent said %q, %v", line, err)
	}
	cmd.Process.Kill()
	cmd.Wait()

	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("the server outlives its parent")
		}
	}
}

func TestLaunchErrors(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the API server's program")
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	empty := t.TempDir()
	for name, test := range map[string]struct {
		opts Options
		want string
	}{
		"no directory": {Options{}, "no directory given"},
		"no CRDs":      {Options{Dir: t.TempDir(), CRDs: []string{empty}}, "no *.yaml in " + empty},
		"port taken":   {Options{Dir: t.TempDir(), Port: taken.Addr().(*net.TCPAddr).Port}, "address already in use"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Launch(t.Context(), test.opts)
			if err == nil {
				s.Stop()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %q, should say %q", err, test.want)
			}
		})
	}
}

func metric(t *testing.T, s *Server, labels map[string]string) float64 {
	t.Helper()
	v, err := s.Metric("apiserver_request_total", labels)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var (
	apiVersionLine = regexp.MustCompile(`(?m)^apiVersion: (\S+)$`)
	kindLine       = regexp.MustCompile(`(?m)^kind: (\S+)$`)
	nameField      = regexp.MustCompile(`(?m)^metadata:\s+\{?\s*name: ([^\s},]+)`)
)

// applyAll applies the documents of a YAML text as the least-privileged user,
// reads each object back, and expects so many of them.
func applyAll(t *testing.T, s *Server, user *http.Client, text string, want int) {
	t.Helper()
	resources := servedKinds(t, s)
	n := 0
	for _, doc := range regexp.MustCompile(`(?m)^---$`).Split(text, -1) {
		version, kind, name := apiVersionLine.FindStringSubmatch(doc), kindLine.FindStringSubmatch(doc), nameField.FindStringSubmatch(doc)
		if version == nil {
			continue // comments only
		}
		if kind == nil || name == nil {
			t.Errorf("no kind or name in %s", doc)
			continue
		}
		resource := resources[version[1]+" "+kind[1]]
		path := Path(resource, "default") + "/" + name[1]
		n++
		if _, err := s.do(user, "PATCH", path+"?fieldManager=hhwatchd&force=true&fieldValidation=Strict", "application/apply-patch+yaml", []byte(doc)); err != nil {
			t.Error(err)
			continue
		}
		if _, err := s.do(user, "GET", path, "", nil); err != nil {
			t.Error(err)
		}
	}
	if n != want {
		t.Errorf("%d objects, want %d", n, want)
	}
}

// applySamples applies files that people really dropped, where they are at hand.
func applySamples(t *testing.T, s *Server, user *http.Client, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); err != nil {
		t.Logf("left out: %v", err)
		return
	}
	for file, want := range map[string]int{"prepop.yaml": 46, "test-vpc.yaml": 1, "test-vpc-2.yaml": 1} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		applyAll(t, s, user, string(text), want)
	}
}

// crd is what the tests look at in a CustomResourceDefinition.
type crd struct {
	Spec struct {
		Group, Scope string
		Names        struct {
			Kind, ListKind, Plural, Singular string
			ShortNames                       []string
		}
		Versions []struct {
			Name            string
			Served, Storage bool
			Subresources    map[string]any
		}
	}
}

func installed(t *testing.T, s *Server) []crd {
	t.Helper()
	answer, err := s.Do("GET", Path("apiextensions.k8s.io/v1/customresourcedefinitions", ""), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Items []crd }
	if err := json.Unmarshal(answer, &list); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// servedKinds maps "apiVersion kind" to the resource.
func servedKinds(t *testing.T, s *Server) map[string]string {
	t.Helper()
	resources := make(map[string]string)
	for _, d := range installed(t, s) {
		for _, v := range d.Spec.Versions {
			gv := d.Spec.Group + "/" + v.Name
			resources[gv+" "+d.Spec.Names.Kind] = gv + "/" + d.Spec.Names.Plural
		}
	}
	return resources
}

// definitions maps the names of the CustomResourceDefinitions to what fixtures
// have to have in common with Hedgehog's own.
func definitions(t *testing.T, s *Server) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, d := range installed(t, s) {
		all[d.Spec.Names.Plural+"."+d.Spec.Group] = fmt.Sprintf("%+v", d.Spec)
	}
	return all
}

// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// writeKubeconfig writes a kubeconfig for a server, and connects by it.
func writeKubeconfig(t testing.TB, file string, cluster clientcmdapi.Cluster, user clientcmdapi.AuthInfo) {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["c"], config.AuthInfos["u"] = &cluster, &user
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
}

// behind returns the cluster of a server as it is seen through a proxy, which
// asks intervene about each request first: true if it has been answered.
func behind(t testing.TB, s *kube.Server, intervene func(http.ResponseWriter, *http.Request) bool) *Cluster {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport,
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !intervene(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	return at(t, front.URL)
}

// at returns the cluster at a URL.
func at(t testing.TB, url string) *Cluster {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	writeKubeconfig(t, file, clientcmdapi.Cluster{Server: url}, clientcmdapi.AuthInfo{})
	c, err := Connect(Config{Kubeconfig: file, Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// shapes returns n objects.
func shapes(t testing.TB, prefix string, n int) []Object {
	var objs []Object
	for i := range n {
		objs = append(objs, named(t, shapeHead+"spec: {text: a}", fmt.Sprintf("%s-%d", prefix, i)))
	}
	return objs
}

// TestUnreachable has no API server to talk to: one error, and quickly.
func TestUnreachable(t *testing.T) {
	refuses, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refuses.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connects, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	html := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "<html>Log in to the hotel's network</html>")
	}))
	defer html.Close()

	tests := []struct{ name, url, want string }{
		{"refused", "https://" + refuses.Addr().String(), "cluster https://" + refuses.Addr().String() + ": cannot connect to " + refuses.Addr().String() + ": connection refused"},
		{"silent", "https://" + silent.Addr().String(), "cluster https://" + silent.Addr().String() + " gives no answer within 200ms"},
		{"something else", html.URL, "cluster " + html.URL + ": "},
		{"password in the URL", "https://user:secret@" + refuses.Addr().String(), "cluster https://" + refuses.Addr().String() + ": "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := at(t, tt.url)
			if tt.name == "silent" {
				c.conn.readLimit = 200 * time.Millisecond
			}
			objs := shapes(t, "unreachable", 20)
			ops := map[string]func(func(Result)) error{
				"full":  func(report func(Result)) error { return c.Apply(t.Context(), objs, true, report) },
				"each":  func(report func(Result)) error { return c.Apply(t.Context(), objs, false, report) },
				"prune": func(report func(Result)) error { return c.Prune(t.Context(), objs, report) },
				"check": func(func(Result)) error { _, err := c.Check(t.Context(), nil, true); return err },
			}
			for name, op := range ops {
				err := op(func(r Result) { t.Errorf("%s: %s is reported as %s", name, r.Name, r.Outcome) })
				if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: error %q, want one line with %q", name, err, tt.want)
				}
			}
		})
	}
}

// TestCancelled stops an operation from outside.
func TestCancelled(t *testing.T) {
	s := testServer(t)
	why := errors.New("the daemon stops")
	ctx, cancel := context.WithCancelCause(t.Context())
	n := 0
	err := connect(t, s).Apply(ctx, shapes(t, "cancelled", 100), true, func(Result) {
		if n++; n == 10 {
			cancel(why)
		}
	})
	if !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
	if n == 100 {
		t.Error("it went on to the end")
	}
}

// TestPutOff has the API server ask for patience.
func TestPutOff(t *testing.T) {
	s := testServer(t)
	tooMany := func(w http.ResponseWriter) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	}
	t.Run("for a while", func(t *testing.T) {
		t.Parallel()
		var refused atomic.Int32
		c := behind(t, s, func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPatch && refused.Add(1) <= 2 {
				tooMany(w)
				return true
			}
			return false
		})
		start := time.Now()
		for _, r := range applied(t, c, shapes(t, "put-off", 3), true) {
			if r.Outcome != Created {
				t.Errorf("%s: %s %v", r.Name, r.Outcome, r.Err)
			}
		}
		if took := time.Since(start); took < time.Second {
			t.Errorf("it did not wait the second that it was asked to, but %v", took)
		}
	})
	t.Run("for ever", func(t *testing.T) {
		t.Parallel()
		c := behind(t, s, func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPatch {
				tooMany(w)
			}
			return r.Method == http.MethodPatch
		})
		c.conn.writeLimit = 300 * time.Millisecond
		err := c.Apply(t.Context(), shapes(t, "put-off-for-ever", 20), true, func(r Result) {
			t.Errorf("%s is reported as %s: %v", r.Name, r.Outcome, r.Err)
		})
		if err == nil || !strings.Contains(err.Error(), "is overloaded: it puts requests off for longer than 300ms") {
			t.Errorf("error %v", err)
		}
	})
}

// TestHangs has one object get no answer, as with an admission webhook that
// hangs: the others are to go in.
func TestHangs(t *testing.T) {
	s := testServer(t)
	c := behind(t, s, func(w http.ResponseWriter, r *http.Request) bool {
		hang := r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/hangs-1")
		if hang {
			io.Copy(io.Discard, r.Body) // or the server does not notice that the client has gone
			<-r.Context().Done()
		}
		return hang
	})
	c.conn.writeLimit = 300 * time.Millisecond
	for name, r := range applied(t, c, shapes(t, "hangs", 3), false) {
		if name != "hangs-1" {
			if r.Outcome != Created {
				t.Errorf("%s: %s %v", name, r.Outcome, r.Err)
			}
			continue
		}
		if r.Outcome != Failed || r.Permanent || r.Err == nil || !strings.HasPrefix(r.Err.Error(), "no answer within 300ms, though") {
			t.Errorf("%s: %s %v, permanent %t", name, r.Outcome, r.Err, r.Permanent)
		}
	}
}

// TestRestart kills the API server between two operations and has it come
// back.
func TestRestart(t *testing.T) {
	s := kube.Start(t, kube.Options{CRDs: []string{kube.CRDs()}})
	c := connect(t, s)
	objs := objects(t, `
apiVersion: wiring.githedgehog.com/v1beta1
kind: SwitchGroup
metadata: {name: a}
spec: {}
---
apiVersion: wiring.githedgehog.com/v1beta1
kind: SwitchGroup
metadata: {name: b}
spec: {}
`)
	applied(t, c, objs[:1], true)
	s.Kill()
	start := time.Now()
	err := c.Apply(t.Context(), objs, true, func(r Result) { t.Errorf("%s is reported as %s", r.Name, r.Outcome) })
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v to say so", took)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	results := applied(t, c, objs, true)
	if a, b := results["a"], results["b"]; a.Outcome != Unchanged || b.Outcome != Created {
		t.Errorf("a %s %v, b %s %v", a.Outcome, a.Err, b.Outcome, b.Err)
	}
}

// TestCredentials has the server refuse the credentials, until the files hold
// better ones: first the kubeconfig, then a certificate that it names.
func TestCredentials(t *testing.T) {
	s := testServer(t)
	config, err := clientcmd.LoadFromFile(s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := clientcmdapi.FlattenConfig(config); err != nil { // contents for files
		t.Fatal(err)
	}
	context := config.Contexts[config.CurrentContext]
	cluster, user := *config.Clusters[context.Cluster], *config.AuthInfos[context.AuthInfo]
	dir := t.TempDir()
	file, cert, key, token := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key"), filepath.Join(dir, "token")
	write := func(file string, data []byte) {
		t.Helper()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(token, []byte("not-a-token\n"))
	writeKubeconfig(t, file, cluster, clientcmdapi.AuthInfo{TokenFile: "token"}) // relative to the kubeconfig
	c, err := Connect(Config{Kubeconfig: file, Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	objs := shapes(t, "credentials", 3)

	refused := func(step, want string) {
		t.Helper()
		err := c.Apply(t.Context(), objs, true, func(r Result) { t.Errorf("%s: %s is reported as %s", step, r.Name, r.Outcome) })
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "not-a-token") {
			t.Errorf("%s: error %q, want %q", step, err, want)
		}
	}
	accepted := func(step string) {
		t.Helper()
		for _, r := range applied(t, c, objs, true) {
			if r.Outcome != Created && r.Outcome != Unchanged {
				t.Errorf("%s: %s: %s %v", step, r.Name, r.Outcome, r.Err)
			}
		}
	}
	refused("wrong token", "does not accept the credentials in "+file)
	writeKubeconfig(t, file, cluster, user)
	accepted("kubeconfig replaced")
	write(cert, user.ClientCertificateData)
	write(key, user.ClientKeyData)
	writeKubeconfig(t, file, cluster, clientcmdapi.AuthInfo{ClientCertificate: cert, ClientKey: key})
	accepted("certificate in files")
	write(cert, []byte("half of a certifi"))
	refused("certificate half written", "kubeconfig "+file+": ")
	write(cert, user.ClientCertificateData)
	accepted("certificate whole again")
	write(file, []byte("apiVersion: v1\nkind: Config\n"))
	refused("kubeconfig emptied", "kubeconfig "+file+": it has no current-context, and the configuration names no context")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	refused("kubeconfig gone", "kubeconfig "+file+": no such file or directory")
	writeKubeconfig(t, file, cluster, user)
	accepted("kubeconfig back")
}

func TestConnectErrors(t *testing.T) {
	dir := t.TempDir()
	tests := []struct{ name, file, context, want string }{
		{"empty", "", "", "it has no current-context, and the configuration names no context"},
		{"not YAML", "{", "", "yaml"},
		{"no such context", "{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: 'https://127.0.0.1'}}], contexts: [{name: x, context: {cluster: c}}]}", "y", `it has no context "y"`},
		{"no context chosen", "{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: 'https://127.0.0.1'}}], contexts: [{name: x, context: {cluster: c}}]}", "", "it has no current-context, and the configuration names no context"},
		{"no CA file", "{apiVersion: v1, kind: Config, current-context: x, clusters: [{name: c, cluster: {server: 'https://127.0.0.1', certificate-authority: ca.crt}}], contexts: [{name: x, context: {cluster: c}}]}", "", "ca.crt: no such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(dir, strings.ReplaceAll(tt.name, " ", "-"))
			if err := os.WriteFile(file, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Connect(Config{Kubeconfig: file, Context: tt.context})
			if err == nil || !strings.HasPrefix(err.Error(), "kubeconfig "+file+": ") || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line with %q", err, tt.want)
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// whoami asks the API server who it takes us for.
func whoami(t testing.TB, c *Cluster) string {
	conn, err := c.connection()
	if err != nil {
		t.Error(err)
		return ""
	}
	data, err := conn.raw.Post().AbsPath("/apis/authentication.k8s.io/v1/selfsubjectreviews").
		SetHeader("Content-Type", "application/json").
		Body([]byte(`{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}`)).DoRaw(t.Context())
	var review struct {
		Status struct{ UserInfo struct{ Username string } }
	}
	if err == nil {
		err = json.Unmarshal(data, &review)
	}
	if err != nil {
		t.Error(err)
	}
	return review.Status.UserInfo.Username
}

// user returns what a kubeconfig says of its cluster and its user, with
// contents in the place of files.
func user(t testing.TB, kubeconfig string) (clientcmdapi.Cluster, clientcmdapi.AuthInfo) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err == nil {
		err = clientcmdapi.FlattenConfig(config)
	}
	if err != nil {
		t.Fatal(err)
	}
	context := config.Contexts[config.CurrentContext]
	return *config.Clusters[context.Cluster], *config.AuthInfos[context.AuthInfo]
}

// TestRotated has several ways to API servers at once, with credentials in
// files, of which one way's are replaced: a client certificate, and a token and
// CA as a pod finds them. Each cluster is asked with its own, and the next
// operation is with the new ones.
func TestRotated(t *testing.T) {
	s := testServer(t)
	proxy := kube.NewProxy(t, s)
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		t.Helper()
		name = filepath.Join(dir, name)
		// As a kubelet or cert-manager's CSI driver does it: the file is another one.
		if err := os.WriteFile(name+".new", data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
		return name
	}
	open := func(name string, cluster clientcmdapi.Cluster, user clientcmdapi.AuthInfo) *Cluster {
		t.Helper()
		file := filepath.Join(dir, name)
		writeKubeconfig(t, file, cluster, user)
		c, err := Connect(Config{Kubeconfig: file, Namespace: "default"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	server, ours := user(t, s.Kubeconfig)
	_, admin := user(t, s.AdminKubeconfig)
	front, _ := user(t, proxy.Kubeconfig)

	byCert := open("cert.kubeconfig", server, clientcmdapi.AuthInfo{
		ClientCertificate: write("client.crt", ours.ClientCertificateData), ClientKey: write("client.key", ours.ClientKeyData)})
	byToken := open("token.kubeconfig",
		clientcmdapi.Cluster{Server: front.Server, CertificateAuthority: write("ca.crt", server.CertificateAuthorityData)},
		clientcmdapi.AuthInfo{TokenFile: write("token", []byte("old"))})
	stays := open("admin.kubeconfig", server, admin)
	name := whoami(t, stays)

	if _, err := byToken.Agents(t.Context()); err == nil {
		t.Error("the proxy is trusted by the CA of another server")
	}
	write("ca.crt", front.CertificateAuthorityData)
	if _, err := byToken.Agents(t.Context()); err == nil {
		t.Error("the wrong token is accepted")
	}
	write("token", []byte("t0ken\n"))
	proxy.As("somebody")
	check := func(when, wantCert string) {
		t.Helper()
		var each sync.WaitGroup
		for range 5 {
			for c, want := range map[*Cluster]string{byCert: wantCert, byToken: "somebody", stays: name} {
				each.Go(func() {
					if got := whoami(t, c); got != want {
						t.Errorf("%s: the server of %s takes us for %q, want %q", when, c.cfg.Kubeconfig, got, want)
					}
				})
			}
		}
		each.Wait()
	}
	check("first", "hhwatchd")
	write("client.crt", admin.ClientCertificateData)
	if _, err := byCert.connection(); err == nil {
		t.Error("a certificate is accepted with the key of another one")
	}
	write("client.key", admin.ClientKeyData)
	check("with another certificate", name)
	if name == "hhwatchd" || name == "" {
		t.Errorf("the administrator is called %q", name)
	}
}

// TestInPod finds the files of a pod where a kubelet puts them, which is a fixed
// place: in a mount namespace of its own, in which this test runs again. (That
// they are taken up when they are rotated is in TestRotated.)
func TestInPod(t *testing.T) {
	const account = "in-pod"
	if os.Getenv("APPLY_TEST_IN_POD") != "" {
		c, err := Connect(Config{InCluster: true, Namespace: "default"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, want := whoami(t, c), "system:serviceaccount:default:"+account; got != want {
			t.Errorf("the server takes us for %q, want %q", got, want)
		}
		return
	}
	s := testServer(t)
	if os.Getuid() != 0 {
		t.Skip("mounting takes root")
	}
	const accounts = "/api/v1/namespaces/default/serviceaccounts"
	if _, err := s.Do(http.MethodPost, accounts, "application/json", []byte(`{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "`+account+`"}}`)); err != nil {
		t.Fatal(err)
	}
	answer, err := s.Do(http.MethodPost, accounts+"/"+account+"/token", "application/json", []byte(`{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}`))
	var request struct{ Status struct{ Token string } }
	if err == nil {
		err = json.Unmarshal(answer, &request)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	server, _ := user(t, s.Kubeconfig)
	for name, data := range map[string][]byte{"token": []byte(request.Status.Token), "ca.crt": server.CertificateAuthorityData} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at, err := url.Parse(server.Server)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-ec", `
		mount -t tmpfs none /run
		mkdir -p /var/run/secrets/kubernetes.io/serviceaccount
		cp "$1"/* /var/run/secrets/kubernetes.io/serviceaccount
		exec "$2" -test.v -test.run "^$3\$"`, "sh", dir, os.Args[0], t.Name())
	cmd.Env = append(os.Environ(), "APPLY_TEST_IN_POD=1", "KUBERNETES_SERVICE_HOST="+at.Hostname(), "KUBERNETES_SERVICE_PORT="+at.Port())
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in the pod: %v\n%s", err, out)
	}
}

// TestInCluster looks for a service account where there is none.
func TestInCluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	_, err := Connect(Config{InCluster: true})
	if want := "the pod's service account: unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("outside of a pod: %v, want %s", err, want)
	}
	const token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	if _, err := os.Stat(token); err == nil {
		t.Skip("this is a pod")
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "1")
	_, err = Connect(Config{InCluster: true})
	if want := "the pod's service account: open " + token + ": no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("in a pod without a service account: %v, want %s", err, want)
	}
}

// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// A Proxy is a way to an API server on which things can go wrong. What passes
// is done with the rights of a user that the proxy stands in for (by
// impersonation), if the client shows the right token: all that the API server
// itself answers is real.
type Proxy struct {
	// Kubeconfig is the file that leads to the proxy.
	Kubeconfig string

	t      testing.TB
	server *Server
	addr   string
	admin  http.RoundTripper
	nobody http.RoundTripper // without a certificate

	mu          sync.Mutex
	front       *httptest.Server // nil while down
	certificate []byte           // in PEM
	user        string
	token       string
	fault       func(http.ResponseWriter, *http.Request) bool
	over        chan struct{} // closed when the fault is, if it is not nil
}

// NewProxy starts a proxy before s that ends with the test. At first it stands
// in for the user hhwatchd, and nothing goes wrong.
func NewProxy(t testing.TB, s *Server) *Proxy {
	t.Helper()
	admin := s.admin.Transport.(*http.Transport).Clone()
	nobody := admin.Clone()
	nobody.TLSClientConfig.Certificates = nil
	p := &Proxy{
		Kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), t: t, server: s, addr: "127.0.0.1:0",
		admin: admin, nobody: nobody, user: "hhwatchd", token: "t0ken",
	}
	p.Up()
	p.SetToken("t0ken")
	t.Cleanup(func() {
		p.Down()
		admin.CloseIdleConnections()
		nobody.CloseIdleConnections()
	})
	return p
}

// URL is where the proxy listens.
func (p *Proxy) URL() string { return "https://" + p.addr }

// SetToken writes the kubeconfig with that token; the right one is t0ken.
func (p *Proxy) SetToken(token string) {
	p.t.Helper()
	config := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}], users: [{name: u, user: {token: %q}}]}
`, p.URL(), base64.StdEncoding.EncodeToString(p.certificate), token)
	if err := os.WriteFile(p.Kubeconfig, []byte(config), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// As has the proxy stand in for another user.
func (p *Proxy) As(user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.user = user
}

// Fault asks fn about each request from now on: whether it has answered it. It
// takes the place of the fault before; nil ends it.
func (p *Proxy) Fault(fn func(http.ResponseWriter, *http.Request) bool) {
	p.set(fn, nil)
}

// Hang is a fault: requests are taken and not answered, until another fault is
// set or none.
func (p *Proxy) Hang() {
	over := make(chan struct{})
	p.set(func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-over:
		case <-r.Context().Done():
		}
		return false
	}, over)
}

// set sets the fault, and what to close when it is over.
func (p *Proxy) set(fn func(http.ResponseWriter, *http.Request) bool, over chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over != nil {
		close(p.over)
	}
	p.fault, p.over = fn, over
}

// Down breaks all connections and refuses new ones.
func (p *Proxy) Down() {
	p.mu.Lock()
	front := p.front
	p.front = nil
	p.mu.Unlock()
	if front != nil {
		p.Fault(nil)
		front.CloseClientConnections()
		front.Close()
	}
}

// Up listens again, where it did before.
func (p *Proxy) Up() {
	p.t.Helper()
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.addr = l.Addr().String()
	target, err := url.Parse(p.server.URL)
	if err != nil {
		p.t.Fatal(err)
	}
	front := &httptest.Server{Listener: l, Config: &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		fault, user, token := p.fault, p.user, p.token
		p.mu.Unlock()
		if fault != nil && fault(w, r) {
			return
		}
		proxy := &httputil.ReverseProxy{
			Transport: p.nobody,
			ErrorLog:  log.New(io.Discard, "", 0), // a server that is away is what tests are about
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		}
		if r.Header.Get("Authorization") == "Bearer "+token {
			proxy.Transport = p.admin
			r.Header.Del("Authorization")
			r.Header.Set("Impersonate-User", user)
		}
		proxy.ServeHTTP(w, r)
	})}}
	front.StartTLS()
	p.mu.Lock()
	p.front = front
	p.certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
	p.mu.Unlock()
}

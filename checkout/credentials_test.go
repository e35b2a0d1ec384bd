// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
)

var quiet = log.New(io.Discard, "", 0)

// A gate is a server before git's, which lets in whom it likes.
type gate struct {
	*httptest.Server
	mu    sync.Mutex
	allow func(r *http.Request) bool
	api   http.Handler // for /api/, if it is not nil
}

func (g *gate) set(allow func(r *http.Request) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.allow = allow
}

// newGate makes a remote behind a gate. With TLS it speaks HTTP/2, as the large
// forges do, and config may ask for more than the server's own certificate, which
// is trusted.
func newGate(t testing.TB, config *tls.Config) (*world, *gate) {
	w, srv := newHTTPWorld(t, gitserver.Options{})
	target, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	g := &gate{allow: func(*http.Request) bool { return true }}
	g.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && g.EnableHTTP2 && r.ProtoMajor != 2 {
			t.Errorf("over TLS it speaks %s", r.Proto)
		}
		g.mu.Lock()
		ok, api := g.allow(r), g.api
		g.mu.Unlock()
		switch {
		case api != nil && strings.HasPrefix(r.URL.Path, "/api/"):
			api.ServeHTTP(rw, r)
		case !ok:
			rw.Header().Set("WWW-Authenticate", "Basic")
			http.Error(rw, "no", http.StatusUnauthorized)
		default:
			proxy.ServeHTTP(rw, r)
		}
	}))
	// Those who are not let in are what the tests are about.
	g.Config.ErrorLog = quiet
	if config != nil {
		g.TLS, g.EnableHTTP2 = config, config.ClientAuth == tls.NoClientCert
		g.StartTLS()
		w.opts.Auth.CAFile = writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.Certificate().Raw})))
	} else {
		g.Start()
	}
	t.Cleanup(g.Close)
	w.opts.URL = g.URL + "/fabrics.git"
	return w, g
}

func rewrite(t testing.TB, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// life takes a clone through clone, poll, fetch, commit and push, and looks for
// secrets in what it leaves on disk.
func life(w *world, secrets ...string) *Clone {
	w.Helper()
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	tip := w.personPushes(map[string]string{"a": "2"})
	if got, err := c.RemoteHead(w.ctx()); err != nil || got != tip {
		w.Errorf("RemoteHead: %s, %v; want %s", got, err, tip)
	}
	w.advance(c, w.fetch(c))
	w.commit(c, put("b", "1"))
	w.push(c)
	w.clean()
	for name, content := range tree(w, filepath.Dir(w.dir)) {
		for _, s := range secrets {
			if strings.Contains(content, s) {
				w.Errorf("%s holds %q", name, s)
			}
		}
	}
	return c
}

// refused wants the credentials to be refused, in one line without a secret.
func refused(w *world, c *Clone, says string, secrets ...string) {
	w.Helper()
	_, err := c.RemoteHead(w.ctx())
	if !errors.Is(err, ErrAuth) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
		w.Errorf("got %v; want ErrAuth, with %q", err, says)
	}
	for _, s := range secrets {
		if err != nil && strings.Contains(err.Error(), s) {
			w.Errorf("a secret in %q", err)
		}
	}
}

func polls(w *world, c *Clone) {
	w.Helper()
	if _, err := c.RemoteHead(w.ctx()); err != nil {
		w.Error(err)
	}
}

// TestHTTPCredentials: what is in a file lets us in, what has been revoked does
// not, and what has been rotated does at once.
func TestHTTPCredentials(t *testing.T) {
	t.Parallel()
	basic := func(user, password string) func(*http.Request) bool {
		return func(r *http.Request) bool {
			u, p, ok := r.BasicAuth()
			return ok && u == user && p == password
		}
	}
	bearer := func(_, token string) func(*http.Request) bool {
		return func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer "+token }
	}
	for _, tt := range []struct {
		name  string
		auth  func(file string) Auth
		text  string // of the file, with the secret for %s
		allow func(user, secret string) func(*http.Request) bool
		user  string
		says  string
	}{
		{"password", func(f string) Auth { return Auth{Username: "robot", PasswordFile: f} }, "%s\n", basic, "robot", "auth.passwordFile"},
		{"password of git", func(f string) Auth { return Auth{PasswordFile: f} }, "%s", basic, "git", "auth.passwordFile"},
		{"bearer", func(f string) Auth { return Auth{TokenFile: f} }, " %s\n", bearer, "", "auth.tokenFile"},
		{"netrc", func(f string) Auth { return Auth{NetrcFile: f} },
			"# ours\nmachine elsewhere login x password y\nmachine 127.0.0.1\n\tlogin robot\n\tpassword \"%s\"\n", basic, "robot", "the entry of 127.0.0.1 in auth.netrcFile"},
		{"netrc, by user", func(f string) Auth { return Auth{Username: "robot", NetrcFile: f} },
			"machine 127.0.0.1 login other password x\nmachine 127.0.0.1 login robot password %s\n", basic, "robot", "auth.netrcFile"},
		{"netrc, default", func(f string) Auth { return Auth{NetrcFile: f} },
			"macdef init\nmachine 127.0.0.1\n\ndefault login robot password %s", basic, "robot", "auth.netrcFile"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, g := newGate(t, nil)
			file := writeFile(t, fmt.Sprintf(tt.text, "f1rst-s3cret"))
			w.opts.Auth = tt.auth(file)
			g.set(tt.allow(tt.user, "f1rst-s3cret"))
			c := life(w, "f1rst-s3cret")
			g.set(tt.allow(tt.user, "s3cond-s3cret"))
			refused(w, c, tt.says, "s3cret")
			rewrite(t, file, fmt.Sprintf(tt.text, "s3cond-s3cret"))
			polls(w, c)
			// Half written, or something else.
			for _, text := range []string{"", " \n", "s3cret in\nlines"} {
				rewrite(t, file, text)
				if _, err := c.RemoteHead(w.ctx()); err == nil || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("with %q in the file: %v", text, err)
				}
			}
		})
	}
}

// TestRepeatedSecret: a server that says what it was sent does not get it into our
// log.
func TestRepeatedSecret(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		http.Error(rw, "bad: "+r.Header.Get("Authorization")+"\n"+password, http.StatusForbidden)
	}))
	t.Cleanup(srv.Close)
	const token = "t0k3n-s3cret"
	encoded := base64.StdEncoding.EncodeToString([]byte("git:" + token))
	file := writeFile(t, token)
	for auth, want := range map[Auth]string{
		{TokenFile: file}:    "(HTTP 403: bad: Bearer (Bearer credentials))",
		{PasswordFile: file}: "(HTTP 403: bad: Basic (Basic credentials); (the password))",
		{}:                   "(HTTP 403: bad:)",
	} {
		_, err := Probe(t.Context(), Options{URL: srv.URL + "/x", Auth: auth})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), token) || strings.Contains(err.Error(), encoded) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestParseNetrc(t *testing.T) {
	for _, tt := range []struct {
		text string
		want string // the entries, or the error
	}{
		{"", "[]"},
		{"machine h login l password p", "[{h l p}]"},
		{"machine h\r\n login l\r\n password p\r\n", "[{h l p}]"},
		{"machine h password #p # a comment\n# machine x\ndefault login l", "[{h  #p} { l }]"},
		{`machine h login "a b" password "c\"d\\"`, `[{h a b c"d\}]`},
		{"machine h macdef m\nlogin x\n\nlogin l account a", "[{h l }]"},
		{"login l", "line 1: login before the first machine"},
		{"machine h\npassword", "line 2: nothing follows password"},
		{"machine h\n\npassword \"p", "line 3: a quote that is not closed"},
		{"machine h password p s3cret", "line 1: a word that is not machine, default, login, password, account or macdef"},
		{"machine", "line 1: nothing follows machine"},
		{`machine ""`, "line 1: a machine without a name"},
	} {
		entries, err := parseNetrc(tt.text)
		got := fmt.Sprint(entries)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
}

// github is GitHub's API for an app, as far as it takes to get a token.
type github struct {
	t    testing.TB
	mu   sync.Mutex
	key  *rsa.PublicKey
	now  string // the token that is good
	n    int    // how many were issued
	fail int    // a status to answer with
}

func (h *github) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	answer := func(status int, v map[string]string) {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(status)
		json.NewEncoder(rw).Encode(v)
	}
	if r.Method != http.MethodPost || r.URL.Path != "/api/v3/app/installations/77/access_tokens" {
		answer(http.StatusNotFound, map[string]string{"message": "Not Found"})
		return
	}
	if why := h.wrong(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")); why != "" {
		answer(http.StatusUnauthorized, map[string]string{"message": why})
		return
	}
	if h.fail != 0 {
		answer(h.fail, map[string]string{"message": "This installation has been suspended"})
		return
	}
	h.n++
	h.now = fmt.Sprintf("ghs_s3cret-%d", h.n)
	answer(http.StatusCreated, map[string]string{"token": h.now, "expires_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
}

// wrong says what is wrong with a JWT (RFC 7519, RFC 7515).
func (h *github) wrong(jwt string) string {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return "A JSON web token could not be decoded"
	}
	decode := func(s string, v any) {
		data, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			h.t.Errorf("JWT: %v", err)
		}
		if b, ok := v.(*[]byte); ok {
			*b = data
		} else if err := json.Unmarshal(data, v); err != nil {
			h.t.Errorf("JWT: %v", err)
		}
	}
	var header struct{ Alg, Typ string }
	var claims struct {
		Iat, Exp int64
		Iss      string
	}
	var signature []byte
	decode(parts[0], &header)
	decode(parts[1], &claims)
	decode(parts[2], &signature)
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	now := time.Now().Unix()
	switch {
	case header.Alg != "RS256" || rsa.VerifyPKCS1v15(h.key, crypto.SHA256, sum[:], signature) != nil:
		return "A JSON web token could not be decoded"
	case claims.Iss != "4711":
		return "Integration not found"
	case claims.Iat > now:
		return "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
	case claims.Exp <= now || claims.Exp > now+600:
		return "'Expiration time' claim ('exp') is too far in the future"
	}
	return ""
}

func TestGitHubApp(t *testing.T) {
	t.Parallel()
	key := func(pkcs8 bool) (*rsa.PrivateKey, string) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
		if pkcs8 {
			block.Type = "PRIVATE KEY"
			if block.Bytes, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
				t.Fatal(err)
			}
		}
		return key, string(pem.EncodeToMemory(block))
	}
	first, firstPEM := key(false)
	second, secondPEM := key(true)
	hub := &github{t: t, key: &first.PublicKey}
	w, g := newGate(t, &tls.Config{})
	g.api = hub
	g.set(func(r *http.Request) bool {
		hub.mu.Lock()
		defer hub.mu.Unlock()
		u, p, _ := r.BasicAuth()
		return u == "x-access-token" && p == hub.now && p != ""
	})
	file := writeFile(t, firstPEM)
	w.opts.Auth.GitHubApp = &GitHubApp{ID: "4711", Installation: 77, KeyFile: file}
	c := life(w, "ghs_s3cret", strings.Split(firstPEM, "\n")[1])
	if hub.n != 1 {
		t.Errorf("%d tokens were asked for, want 1", hub.n)
	}
	issued := func(want int, why string) {
		t.Helper()
		polls(w, c)
		if hub.n != want {
			t.Errorf("%s: %d tokens so far, want %d", why, hub.n, want)
		}
	}
	h := c.remote.(*httpRemote)
	h.token.expires = time.Now().Add(tokenRest - time.Second)
	issued(2, "about to expire")
	issued(2, "good")
	hub.mu.Lock()
	hub.now = "revoked"
	hub.mu.Unlock()
	refused(w, c, "the installation of auth.githubApp", "ghs_s3cret")
	issued(3, "revoked")
	// The key is rotated there, then here.
	hub.mu.Lock()
	hub.key = &second.PublicKey
	hub.mu.Unlock()
	issued(3, "with another key, a good token is still good")
	h.token = appToken{}
	refused(w, c, "(HTTP 401: A JSON web token could not be decoded): check auth.githubApp.id and auth.githubApp.keyFile")
	rewrite(t, file, secondPEM)
	issued(4, "the key was rotated")

	for _, tt := range []struct {
		name string
		do   func()
		says string
	}{
		{"suspended", func() { hub.fail = http.StatusForbidden }, "(HTTP 403: This installation has been suspended): check auth.githubApp.installation"},
		{"another installation", func() { h.auth.GitHubApp.Installation = 78 }, "(HTTP 404: Not Found): check auth.githubApp.installation"},
		{"another app", func() { h.auth.GitHubApp.ID = "4712" }, "(HTTP 401: Integration not found): check auth.githubApp.id"},
	} {
		app := *h.auth.GitHubApp
		h.token = appToken{}
		tt.do()
		refused(w, c, tt.says)
		*h.auth.GitHubApp, hub.fail = app, 0
	}
	for text, says := range map[string]string{"": "holds no private RSA key", secondPEM[:len(secondPEM)/2]: "holds no private RSA key"} {
		h.token = appToken{}
		rewrite(t, file, text)
		if _, err := c.RemoteHead(w.ctx()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("with half a key: %v", err)
		}
	}
}

func TestAPIOf(t *testing.T) {
	for repo, want := range map[string]string{
		"https://github.com/o/r.git":            "https://api.github.com",
		"https://octo.ghe.com/o/r.git":          "https://api.octo.ghe.com",
		"https://git.example.net:8443/o/r.git":  "https://git.example.net:8443/api/v3",
		"https://github.com.example.net/o/r":    "https://github.com.example.net/api/v3",
		"https://notgithub.com.example/o/r.git": "https://notgithub.com.example/api/v3",
	} {
		loc, err := parseURL(repo)
		if err != nil {
			t.Fatal(err)
		}
		if got := apiOf(loc.url).String(); got != want {
			t.Errorf("%s: %s, want %s", repo, got, want)
		}
	}
}

// certificate makes a certificate for a client, and its key, in PEM.
func certificate(t testing.TB, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// TestClientCertificate: TLS itself authenticates us.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	goodCert, goodKey := certificate(t, "hhwatchd")
	otherCert, otherKey := certificate(t, "somebody")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(goodCert)
	w, g := newGate(t, &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
	cert, key := writeFile(t, string(goodCert)), writeFile(t, string(goodKey))
	w.opts.Auth.ClientCertFile, w.opts.Auth.ClientKeyFile = cert, key
	c := life(w)
	replace := func(newCert, newKey []byte) {
		rewrite(t, cert, string(newCert))
		rewrite(t, key, string(newKey))
		g.CloseClientConnections()
	}
	replace(otherCert, otherKey)
	refused(w, c, "check auth.clientCertFile")
	replace(goodCert, otherKey)
	if _, err := c.RemoteHead(w.ctx()); err == nil || !strings.Contains(err.Error(), "auth.clientKeyFile") {
		t.Errorf("with another key: %v", err)
	}
	replace(goodCert, goodKey)
	polls(w, c)
	c.Close()
	// Both in one file; none.
	w.opts.Auth.ClientKeyFile = ""
	replace(bytes.Join([][]byte{goodCert, goodKey}, nil), nil)
	c = w.open()
	polls(w, c)
	c.Close()
	w.opts.Auth.ClientCertFile = ""
	refused(w, w.open(), "set auth.clientCertFile")
}

// TestProxy goes through proxies, which ask for a password.
func TestProxy(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		tls   *tls.Config
		start func(t testing.TB, seen func(), password func() string) string
	}{
		{"http", nil, httpProxy},
		{"connect", &tls.Config{}, httpProxy},
		{"socks5", &tls.Config{}, socksProxy},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, g := newGate(t, tt.tls)
			var mu sync.Mutex
			n, password := 0, "f1rst-s3cret"
			w.opts.Proxy = tt.start(t, func() {
				mu.Lock()
				defer mu.Unlock()
				n++
			}, func() string {
				mu.Lock()
				defer mu.Unlock()
				return password
			})
			file := writeFile(t, "machine localhost login robot password f1rst-s3cret\n")
			w.opts.Auth.NetrcFile = file
			c := life(w, "s3cret")
			if n == 0 {
				t.Error("the proxy saw nothing")
			}
			mu.Lock()
			password = "s3cond-s3cret"
			mu.Unlock()
			g.CloseClientConnections()
			if tt.name != "socks5" {
				refused(w, c, "auth.netrcFile", "s3cret")
			} else if _, err := c.RemoteHead(w.ctx()); err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("with a wrong password: %v", err)
			}
			rewrite(t, file, "machine localhost login robot password s3cond-s3cret\n")
			polls(w, c)
		})
	}
	t.Run("down", func(t *testing.T) {
		t.Parallel()
		w, _ := newGate(t, nil)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		w.opts.Proxy = "http://" + l.Addr().String()
		if _, err := Probe(w.ctx(), w.opts); err == nil || !strings.Contains(err.Error(), "proxy") {
			t.Errorf("without the proxy: %v", err)
		}
	})
}

// httpProxy starts a proxy that forwards requests, and connects to where it is
// told to.
func httpProxy(t testing.TB, seen func(), password func() string) string {
	forward := &httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte("robot:"+password()))
		if r.Header.Get("Proxy-Authorization") != want {
			rw.Header().Set("Proxy-Authenticate", "Basic")
			rw.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		seen()
		if r.Method != http.MethodConnect {
			forward.ServeHTTP(rw, r)
			return
		}
		there, err := net.Dial("tcp", r.Host)
		if err != nil {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		// Before the answer, or some of what follows it is read too early.
		here, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		join(here, there)
	}))
	t.Cleanup(srv.Close)
	return "http://localhost:" + portOf(srv.Listener.Addr())
}

func portOf(a net.Addr) string { return strconv.Itoa(a.(*net.TCPAddr).Port) }

// join copies between two connections until one ends.
func join(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, p := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			io.Copy(p[0], p[1])
			a.Close()
			b.Close()
		})
	}
	wg.Wait()
}

// socksProxy starts a SOCKS5 proxy (RFC 1928) with a password (RFC 1929).
func socksProxy(t testing.TB, seen func(), password func() string) string {
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serve := func(conn net.Conn) {
		defer conn.Close()
		read := func(n int) []byte {
			b := make([]byte, n)
			io.ReadFull(conn, b) // what is short is refused below
			return b
		}
		head := read(2)
		read(int(head[1]))
		conn.Write([]byte{5, 2})
		user := read(int(read(2)[1]))
		pass := read(int(read(1)[0]))
		if string(user) != "robot" || string(pass) != password() {
			conn.Write([]byte{1, 1})
			return
		}
		conn.Write([]byte{1, 0})
		var host string
		switch typ := read(4)[3]; typ {
		case 1:
			host = net.IP(read(4)).String()
		case 3:
			host = string(read(int(read(1)[0])))
		case 4:
			host = net.IP(read(16)).String()
		}
		port := read(2)
		there, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(int(port[0])<<8|int(port[1]))))
		if err != nil {
			conn.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
			return
		}
		seen()
		conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		join(conn, there)
	}
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(serving.Wait)
	t.Cleanup(func() { l.Close() })
	return "socks5://localhost:" + portOf(l.Addr())
}

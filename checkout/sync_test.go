// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
)

// kinds are the ways to reach a remote.
var kinds = map[string]func(t testing.TB) *world{
	"path": newWorld,
	"file": func(t testing.TB) *world {
		w := newWorld(t)
		w.opts.URL = "file://" + w.url
		return w
	},
	"http": func(t testing.TB) *world {
		w, _ := newHTTPWorld(t, gitserver.Options{})
		return w
	},
	"http-v0": func(t testing.TB) *world {
		w, srv := newHTTPWorld(t, gitserver.Options{})
		w.opts.URL = withoutV2(t, srv) + "/fabrics.git"
		return w
	},
	"https-auth": func(t testing.TB) *world {
		w, srv := newHTTPWorld(t, gitserver.Options{TLS: true, Username: "robot", Password: "s3cret"})
		w.opts.Auth = Auth{Username: "robot", PasswordFile: writeFile(t, "s3cret\n"), CAFile: srv.CAFile}
		return w
	},
	"ssh": func(t testing.TB) *world {
		w, _ := newSSHWorld(t)
		return w
	},
	"ssh-v0": func(t testing.TB) *world {
		w, s := newSSHWorld(t)
		s.withoutV2(t)
		return w
	},
}

func newSSHWorld(t testing.TB) (*world, *sshServer) {
	s := startSSH(t)
	w := newWorld(t)
	w.opts.URL = "ssh://" + s.user + "@" + s.addr + w.bare
	w.opts.Auth = Auth{SSHKeyFile: s.keyFile, KnownHostsFile: s.knownHosts}
	return w, s
}

// withoutV2 is a proxy that keeps the server from speaking version 2.
func withoutV2(t testing.TB, srv *gitserver.Server) string {
	target, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Header.Del("Git-Protocol")
	}})
	t.Cleanup(proxy.Close)
	return proxy.URL
}

func writeFile(t testing.TB, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// every runs a test with every kind of remote.
func every(t *testing.T, test func(t *testing.T, w *world)) {
	for name := range kinds {
		run(t, name, test)
	}
}

// each runs a test with one remote of each transport.
func each(t *testing.T, test func(t *testing.T, w *world)) {
	for _, name := range []string{"path", "http", "ssh"} {
		run(t, name, test)
	}
}

func run(t *testing.T, kind string, test func(t *testing.T, w *world)) {
	t.Run(kind, func(t *testing.T) {
		t.Parallel()
		test(t, kinds[kind](t))
	})
}

// TestSync takes a clone through an ordinary life.
func TestSync(t *testing.T) {
	every(t, func(t *testing.T, w *world) {
		first := w.personPushes(map[string]string{"fabric/raw/.gitkeep": "k", "fabric/managed/vpcs/a.yaml": "a\n", "README": "hello\n"})
		c := w.clone()
		if head := w.head(c); head != first {
			t.Errorf("head %s, want %s", head, first)
		}
		w.clean()
		// Poll: nothing new; then something.
		if got, err := c.RemoteHead(w.ctx()); err != nil || got != first {
			t.Errorf("RemoteHead: %s, %v; want %s", got, err, first)
		}
		second := w.personPushes(map[string]string{"fabric/raw/x.yaml": "x\n"})
		if got, err := c.RemoteHead(w.ctx()); err != nil || got != second {
			t.Errorf("RemoteHead: %s, %v; want %s", got, err, second)
		}
		if got := w.fetch(c); got != second {
			t.Errorf("Fetch: %s, want %s", got, second)
		}
		up, err := c.Upstream()
		if err != nil {
			t.Fatal(err)
		}
		w.advance(c, up)
		w.has(map[string]string{"fabric/raw/x.yaml": "x\n"})
		w.clean()
		// Commit and push, twice, the second time more than is unpacked.
		w.commit(c, del("fabric/raw/x.yaml"), put("fabric/managed/vpcs/x.yaml", "x\n"))
		w.push(c)
		var many []Change
		for i := range packLimit {
			many = append(many, put(fmt.Sprintf("fabric/managed/switches/leaf-%03d.yaml", i), fmt.Sprintf("leaf %d\n%s", i, strings.Repeat("interface\n", i))))
		}
		head := w.commit(c, many...)
		w.push(c)
		if up, _ := c.Upstream(); up != head {
			t.Errorf("upstream %s after the push of %s", up, head)
		}
		if got := git(t, w.bare, "rev-parse", "main"); got != string(head) {
			t.Errorf("the remote is at %s, want %s", got, head)
		}
		git(t, w.bare, "fsck", "--strict")
		w.clean()
		// A push again, as if its answer had been lost, does nothing.
		if err := c.repo.setRef(w.ctx(), upstreamRef("main"), head.id(), first.id()); err != nil {
			t.Fatal(err)
		}
		w.push(c)
		// The other way: a large fetch, which stays a pack.
		git(t, w.desk(), "pull", "-q")
		files := make(map[string]string)
		for i := range unpackLimit {
			files[fmt.Sprintf("fabric/raw/%d.yaml", i)] = fmt.Sprint(i)
		}
		w.personPushes(files)
		w.advance(c, w.fetch(c))
		w.clean()
		if packs, _ := filepath.Glob(filepath.Join(w.dir, ".git/objects/pack/*.pack")); len(packs) != 2 {
			t.Errorf("%d packs, want 2, of the large commit and the last fetch", len(packs))
		}
	})
}

func TestEmptyRemoteAndUnbornBranch(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		c := w.open()
		for what, get := range map[string]func() (Hash, error){
			"Head": c.Head, "Upstream": c.Upstream,
			"Fetch":      func() (Hash, error) { return c.Fetch(w.ctx()) },
			"RemoteHead": func() (Hash, error) { return c.RemoteHead(w.ctx()) },
		} {
			if h, err := get(); h != "" || err != nil {
				t.Errorf("%s of an empty remote: %q, %v", what, h, err)
			}
		}
		w.advance(c, "")
		// The first commit of all comes from us.
		w.commit(c, put("fabric/managed/a.yaml", "a\n"))
		w.push(c)
		w.clean()
		if got := git(t, w.bare, "rev-parse", "main"); got != string(w.head(c)) {
			t.Errorf("the remote is at %s", got)
		}
		c.Close()
		// Another branch, which is not there.
		w.opts.Branch, w.opts.Dir = "other", w.dir+"2"
		w.dir = w.opts.Dir
		c = w.open()
		if h, err := c.Fetch(w.ctx()); h != "" || err != nil {
			t.Errorf("Fetch of an unborn branch: %q, %v", h, err)
		}
		w.commit(c, put("b", "b"))
		w.push(c)
		w.clean()
	})
}

// TestRaced lets somebody else push first, before and within our push.
func TestRaced(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.personPushes(map[string]string{"a": "1"})
		c := w.clone()
		ours := w.commit(c, put("ours", "1"))
		theirs := w.personPushes(map[string]string{"theirs": "1"})
		if err := c.Push(w.ctx()); !errors.Is(err, ErrRaced) {
			t.Fatalf("Push: %v, want ErrRaced", err)
		}
		if got := git(t, w.bare, "rev-parse", "main"); got != string(theirs) {
			t.Fatalf("the remote is at %s, want %s", got, theirs)
		}
		// Their commit, and ours made anew on top of it.
		up := w.fetch(c)
		if is, err := c.IsAncestor(up, ours); is || err != nil {
			t.Errorf("IsAncestor: %v, %v", is, err)
		}
		h, err := c.WriteCommit(up, []Change{put("ours", "1")}, us, us, "again")
		if err != nil {
			t.Fatal(err)
		}
		w.advance(c, h)
		w.push(c)
		w.has(map[string]string{"ours": "1", "theirs": "1"})
		w.clean()
	})
}

func TestRacedOnTheServer(t *testing.T) {
	t.Parallel()
	w, srv := newHTTPWorld(t, gitserver.Options{})
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	w.commit(c, put("ours", "1"))
	srv.BeforePush(func() { w.personPushes(map[string]string{"theirs": "1"}) })
	if err := c.Push(w.ctx()); !errors.Is(err, ErrRaced) {
		t.Fatalf("Push: %v, want ErrRaced", err)
	}
	if up, _ := c.Upstream(); up == w.head(c) {
		t.Error("the remote-tracking branch moved")
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, err error, want string) {
		t.Helper()
		var refused *RefusedError
		if !errors.As(err, &refused) || errors.Is(err, ErrRaced) || !strings.Contains(refused.Reason, want) {
			t.Errorf("got %v, want a refusal with %q", err, want)
		}
	}
	t.Run("http", func(t *testing.T) {
		w, srv := newHTTPWorld(t, gitserver.Options{})
		w.personPushes(map[string]string{"a": "1"})
		c := w.clone()
		w.commit(c, put("ours", "1"))
		srv.RejectPush("main is \x1b[31mprotected\x1b[0m: open a merge request")
		err := c.Push(w.ctx())
		check(t, err, "protected")
		if strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("not one plain line: %q", err)
		}
		srv.Clear()
		w.push(c)
	})
	t.Run("ssh", func(t *testing.T) {
		w, _ := newSSHWorld(t)
		w.personPushes(map[string]string{"a": "1"})
		c := w.clone()
		w.commit(c, put("ours", "1"))
		hook := filepath.Join(w.bare, "hooks", "pre-receive")
		if err := os.MkdirAll(filepath.Dir(hook), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(hook, []byte("#!/bin/sh\necho 'not on a Friday' >&2\nexit 1\n"), 0o777); err != nil {
			t.Fatal(err)
		}
		check(t, c.Push(w.ctx()), "not on a Friday")
	})
	t.Run("path", func(t *testing.T) {
		w := newWorld(t)
		w.personPushes(map[string]string{"a": "1"})
		c := w.clone()
		w.commit(c, put("ours", "1"))
		hook := filepath.Join(w.bare, "hooks", "update")
		if err := os.MkdirAll(filepath.Dir(hook), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(hook, []byte("#!/bin/sh\nexit 0\n"), 0o777); err != nil {
			t.Fatal(err)
		}
		check(t, c.Push(w.ctx()), "hooks/update")
	})
	t.Run("checked-out", func(t *testing.T) {
		w := newWorld(t)
		w.personPushes(map[string]string{"a": "1"})
		w.opts.URL = w.desk()
		c := w.clone()
		w.commit(c, put("ours", "1"))
		check(t, c.Push(w.ctx()), "checked out")
	})
}

// TestRemoteRewritten: the remote is the truth, also where it went back.
func TestRemoteRewritten(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		one := w.personPushes(map[string]string{"a": "1"})
		w.personPushes(map[string]string{"a": "2", "b": "2"})
		c := w.clone()
		// Rewound.
		git(t, w.desk(), "reset", "-q", "--hard", string(one))
		git(t, w.desk(), "push", "-q", "--force", "origin", "HEAD:main")
		if got := w.fetch(c); got != one {
			t.Fatalf("Fetch: %s, want %s", got, one)
		}
		w.advance(c, one)
		w.has(map[string]string{"a": "1", "b": ""})
		w.clean()
		// Rewritten from the root.
		git(t, w.desk(), "checkout", "-q", "--orphan", "fresh")
		git(t, w.desk(), "rm", "-rfq", ".")
		save(t, w.desk(), map[string]string{"c": "3"})
		git(t, w.desk(), "add", "-A")
		git(t, w.desk(), "commit", "-qm", "fresh")
		git(t, w.desk(), "push", "-q", "--force", "origin", "HEAD:main")
		w.advance(c, w.fetch(c))
		w.has(map[string]string{"a": "", "b": "", "c": "3"})
		w.clean()
		// Deleted.
		git(t, w.bare, "update-ref", "-d", "refs/heads/main")
		if got := w.fetch(c); got != "" {
			t.Fatalf("Fetch: %q, want nothing", got)
		}
		if up, err := c.Upstream(); up != "" || err != nil {
			t.Errorf("Upstream: %q, %v", up, err)
		}
		if w.head(c) == "" {
			t.Error("the local branch is gone, too")
		}
	})
}

// TestOffline opens a clone whose remote is away.
func TestOffline(t *testing.T) {
	w, srv := newHTTPWorld(t, gitserver.Options{})
	w.personPushes(map[string]string{"a": "1"})
	w.clone().Close()
	srv.Down()
	c := w.open()
	if _, err := c.RemoteHead(w.ctx()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("RemoteHead: %v", err)
	}
	w.commit(c, put("b", "2"))
	if err := c.Push(w.ctx()); err == nil {
		t.Error("pushed to nowhere")
	}
	srv.Up()
	w.push(c)
	w.clean()
}

// TestFailures looks at what the operator gets to read.
func TestFailures(t *testing.T) {
	t.Parallel()
	ask := func(w *world) error {
		_, err := Probe(w.ctx(), w.opts)
		return err
	}
	tests := []struct {
		name string
		o    gitserver.Options
		do   func(w *world, srv *gitserver.Server) error
		is   error
		says string
	}{
		{"wrong password", gitserver.Options{Password: "right"}, func(w *world, srv *gitserver.Server) error {
			w.opts.Auth.PasswordFile = writeFile(w, "wrong-one")
			return ask(w)
		}, ErrAuth, "(HTTP 401): check auth.username and auth.passwordFile"},
		{"no password", gitserver.Options{Password: "right"}, func(w *world, srv *gitserver.Server) error {
			return ask(w)
		}, ErrAuth, "set auth.username and auth.passwordFile"},
		{"no password file", gitserver.Options{}, func(w *world, srv *gitserver.Server) error {
			w.opts.Auth.PasswordFile = "/nowhere/at/all"
			return ask(w)
		}, os.ErrNotExist, "/nowhere/at/all"},
		{"no repository", gitserver.Options{}, func(w *world, srv *gitserver.Server) error {
			w.opts.URL = srv.RepoURL("other")
			return ask(w)
		}, ErrNoRepository, "HTTP 404"},
		{"unknown authority", gitserver.Options{TLS: true}, func(w *world, srv *gitserver.Server) error {
			w.opts.Auth.CAFile = ""
			return ask(w)
		}, nil, "set auth.caFile"},
		{"no TLS", gitserver.Options{}, func(w *world, srv *gitserver.Server) error {
			w.opts.URL = strings.Replace(w.url, "http:", "https:", 1)
			return ask(w)
		}, nil, "does not speak TLS"},
		{"TLS unasked", gitserver.Options{TLS: true}, func(w *world, srv *gitserver.Server) error {
			w.opts.URL = strings.Replace(w.url, "https:", "http:", 1)
			return ask(w)
		}, nil, "HTTP 400"},
		{"error of the server", gitserver.Options{}, func(w *world, srv *gitserver.Server) error {
			srv.Fail(503)
			return ask(w)
		}, nil, "HTTP 503 Service Unavailable"},
		{"garbage", gitserver.Options{}, func(w *world, srv *gitserver.Server) error {
			srv.Garbage()
			return ask(w)
		}, errProtocol, "not git's protocol"},
		{"down", gitserver.Options{}, func(w *world, srv *gitserver.Server) error {
			srv.Down()
			return ask(w)
		}, nil, "connection refused"},
		{"read-only", gitserver.Options{ReadOnly: true}, func(w *world, srv *gitserver.Server) error {
			r, err := Probe(w.ctx(), w.opts)
			if err != nil || r.Head == "" {
				w.Errorf("Probe: %+v, %v", r, err)
			}
			return r.Push
		}, ErrAuth, "does not allow this"},
		{"hang", gitserver.Options{}, func(w *world, srv *gitserver.Server) error {
			srv.Hang()
			ctx, cancel := context.WithTimeout(w.ctx(), 50*time.Millisecond)
			defer cancel()
			_, err := Probe(ctx, w.opts)
			return err
		}, context.DeadlineExceeded, ""},
		{"no directory", gitserver.Options{}, func(w *world, srv *gitserver.Server) error {
			w.opts.URL = filepath.Join(w.TempDir(), "none")
			return ask(w)
		}, ErrNoRepository, "/none"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, srv := newHTTPWorld(t, tc.o)
			w.personPushes(map[string]string{"a": "1"})
			w.opts.Auth.CAFile = srv.CAFile
			err := tc.do(w, srv)
			if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v; want %v, with %q", err, tc.is, tc.says)
			}
			if err != nil && (strings.Contains(err.Error(), "wrong-one") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("a secret, or more than a line: %v", err)
			}
		})
	}
}

// TestStall has servers fall silent, and a limit that is short.
func TestStall(t *testing.T) {
	t.Parallel()
	w, srv := newHTTPWorld(t, gitserver.Options{})
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	srv.Hang()
	key := writeFile(t, "")
	_, private := newKey(t)
	if err := os.WriteFile(key, private, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{w.url, "http://" + silent.Addr().String() + "/x", "ssh://" + silent.Addr().String() + "/x"} {
		r, err := newRemote(Options{URL: url, Auth: Auth{SSHKeyFile: key, KnownHostsFile: writeFile(t, "")}}, patience{limit: 30 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		c.remote = r
		var timeout interface{ Timeout() bool }
		if _, err := c.RemoteHead(w.ctx()); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: %v, want a timeout", url, err)
		}
		r.close()
		ctx, cancel := context.WithCancel(w.ctx())
		cancel()
		if _, err := c.RemoteHead(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", url, err)
		}
	}
}

// TestKeptConnection polls over one connection, and over a new one when that
// broke.
func TestKeptConnection(t *testing.T) {
	w, s := newSSHWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	for range 5 {
		if _, err := c.RemoteHead(w.ctx()); err != nil {
			t.Fatal(err)
		}
	}
	if s.connections != 1 {
		t.Errorf("%d connections over SSH, want 1", s.connections)
	}
	s.hangUp()
	if _, err := c.RemoteHead(w.ctx()); err != nil {
		t.Error(err)
	}

	w, srv := newHTTPWorld(t, gitserver.Options{})
	w.personPushes(map[string]string{"a": "1"})
	c = w.clone()
	before := srv.Requests()
	sent, received := srv.Bytes()
	for range 5 {
		if _, err := c.RemoteHead(w.ctx()); err != nil {
			t.Fatal(err)
		}
	}
	after := srv.Requests()
	if n := after.LsRefs - before.LsRefs; n != 5 || after.AdvertiseFetch != before.AdvertiseFetch {
		t.Errorf("5 polls took %+v after %+v", after, before)
	}
	sent2, received2 := srv.Bytes()
	t.Logf("a poll: %d bytes", (sent2-sent+received2-received)/5)
	srv.Down()
	srv.Up()
	if _, err := c.RemoteHead(w.ctx()); err != nil {
		t.Errorf("after the server was away: %v", err)
	}
}

// TestRedirect: a repository that has moved is found, and credentials stay at
// home.
func TestRedirect(t *testing.T) {
	t.Parallel()
	w, srv := newHTTPWorld(t, gitserver.Options{})
	w.personPushes(map[string]string{"a": "1"})
	var authorized []string
	note := func(r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			authorized = append(authorized, r.Host)
		}
	}
	target, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	now := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		note(r)
		proxy.ServeHTTP(rw, r)
	}))
	defer now.Close()
	before := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		note(r)
		http.Redirect(rw, r, now.URL+strings.Replace(r.URL.String(), "/old", "/fabrics", 1), http.StatusMovedPermanently)
	}))
	defer before.Close()
	w.opts.URL = before.URL + "/old.git"
	w.opts.Auth.PasswordFile = writeFile(t, "secret")
	c := w.clone()
	w.commit(c, put("b", "1"))
	w.push(c)
	for _, host := range authorized {
		if "http://"+host != before.URL {
			t.Errorf("the credentials went to %s", host)
		}
	}
	if len(authorized) == 0 {
		t.Error("the credentials went nowhere")
	}
}

// TestCutOff: half an answer is no answer, and leaves nothing behind.
func TestCutOff(t *testing.T) {
	t.Parallel()
	w, srv := newHTTPWorld(t, gitserver.Options{})
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	files := make(map[string]string)
	for i := range 150 {
		files[fmt.Sprint("f", i)] = strings.Repeat(fmt.Sprint(i), 50)
	}
	tip := w.personPushes(files)
	before := tree(t, filepath.Join(w.dir, ".git"))
	for _, n := range []int{0, 1, 10, 300, 2000, 5000} {
		srv.Truncate(n)
		if h, err := c.Fetch(w.ctx()); err == nil {
			t.Errorf("cut off after %d bytes: fetched %s", n, h)
		}
	}
	same(t, "the git directory", tree(t, filepath.Join(w.dir, ".git")), before)
	srv.Clear()
	if got := w.fetch(c); got != tip {
		t.Errorf("Fetch: %s, want %s", got, tip)
	}
	w.advance(c, tip)
	w.clean()
}

// TestAgent takes the key from an SSH agent.
func TestAgent(t *testing.T) {
	w, s := newSSHWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	key, err := ssh.ParseRawPrivateKey([]byte(readAll(t, s.keyFile)))
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				agent.ServeAgent(ring, conn)
			})
		}
	})
	defer serving.Wait()
	defer l.Close()
	t.Setenv("SSH_AUTH_SOCK", socket)
	w.opts.Auth.SSHKeyFile = ""
	w.clone()
	w.clean()
	if err := ring.RemoveAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := Probe(w.ctx(), w.opts); !errors.Is(err, ErrAuth) || !strings.Contains(err.Error(), "a key of the agent at SSH_AUTH_SOCK") {
		t.Errorf("with an empty agent: %v", err)
	}
	// One that says nothing, as when it waits for somebody to agree.
	silent, err := net.Listen("unix", filepath.Join(t.TempDir(), "silent"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	t.Setenv("SSH_AUTH_SOCK", silent.Addr().String())
	r, err := newRemote(w.opts, patience{limit: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	var timeout interface{ Timeout() bool }
	if _, err := r.list(w.ctx(), "HEAD"); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("with a silent agent: %v, want a timeout", err)
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	if _, err := Probe(w.ctx(), w.opts); err == nil || !strings.Contains(err.Error(), "auth.sshKeyFile") {
		t.Errorf("without any key: %v", err)
	}
}

func TestSSHRefusals(t *testing.T) {
	t.Parallel()
	other, private := newKey(t)
	tests := []struct {
		name string
		do   func(w *world, s *sshServer)
		is   error
		says string
	}{
		{"wrong key", func(w *world, s *sshServer) { os.WriteFile(s.keyFile, private, 0o600) }, ErrAuth, "auth.sshKeyFile"},
		{"changed host key", func(w *world, s *sshServer) {
			os.WriteFile(s.knownHosts, []byte("# a comment\n"+s.known(other)+"\n"), 0o600)
		}, nil, "known_hosts line 2 has another one"},
		{"revoked host key", func(w *world, s *sshServer) {
			os.WriteFile(s.knownHosts, []byte("@revoked "+s.known(s.hostKey)+"\n"), 0o600)
		}, nil, "is revoked by "},
		{"key that was taken back", func(w *world, s *sshServer) { os.WriteFile(s.authorized, nil, 0o600) }, ErrAuth, "auth.sshKeyFile"},
		{"another user", func(w *world, s *sshServer) { w.opts.URL = strings.Replace(w.opts.URL, s.user+"@", "nobody-here@", 1) }, ErrAuth, "for the user nobody-here"},
		{"key with a passphrase", func(w *world, s *sshServer) {
			_, private, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				w.Fatal(err)
			}
			block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("hunter2"))
			if err != nil {
				w.Fatal(err)
			}
			os.WriteFile(s.keyFile, pem.EncodeToMemory(block), 0o600)
		}, nil, "has a passphrase: use one without"},
		{"no key in the file", func(w *world, s *sshServer) { os.WriteFile(s.keyFile, []byte("hunter2"), 0o600) }, nil, "/key"},
		{"unknown host", func(w *world, s *sshServer) { os.WriteFile(s.knownHosts, nil, 0o600) }, nil, "is not known"},
		{"no repository", func(w *world, s *sshServer) { w.opts.URL += "x" }, ErrNoRepository, "not appear to be a git repository"},
		{"no key", func(w *world, s *sshServer) { w.opts.Auth.SSHKeyFile = "/nowhere" }, os.ErrNotExist, "/nowhere"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, s := newSSHWorld(t)
			tc.do(w, s)
			_, err := Open(w.ctx(), w.opts)
			if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v; want %v, with %q", err, tc.is, tc.says)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("a secret, or more than a line: %v", err)
			}
		})
	}
}

// TestRotatedSSH changes the key and the host key of a server, and then the
// files in which they are.
func TestRotatedSSH(t *testing.T) {
	t.Parallel()
	w, s := newSSHWorld(t)
	w.personPushes(map[string]string{"a": "1"})
	c := w.clone()
	fails := func(says string) {
		t.Helper()
		s.hangUp()
		if _, err := c.RemoteHead(w.ctx()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want an error with %q", err, says)
		}
	}
	key, private := newKey(t)
	rewrite(t, s.authorized, string(ssh.MarshalAuthorizedKey(key.PublicKey())))
	fails("check auth.sshKeyFile")
	rewrite(t, s.keyFile, string(private))
	polls(w, c)
	key, private = newKey(t)
	rewrite(t, filepath.Join(filepath.Dir(s.config), "host_key"), string(private))
	fails("known_hosts line 1 has another one; if that is right, replace the line")
	rewrite(t, s.knownHosts, s.known(key)+"\n")
	polls(w, c)
}

func TestProbe(t *testing.T) {
	every(t, func(t *testing.T, w *world) {
		r, err := Probe(w.ctx(), w.opts)
		if err != nil || r.Head != "" || !r.Empty || r.Push != nil {
			t.Errorf("of an empty remote: %+v, %v", r, err)
		}
		head := w.personPushes(map[string]string{"a": "1"})
		r, err = Probe(w.ctx(), w.opts)
		if want := (Report{Head: head, Default: "main"}); err != nil || r != want {
			t.Errorf("got %+v, %v; want %+v", r, err, want)
		}
		w.opts.Branch = "other"
		r, err = Probe(w.ctx(), w.opts)
		if want := (Report{Default: "main"}); err != nil || r != want {
			t.Errorf("of an unborn branch: %+v, %v; want %+v", r, err, want)
		}
	})
}

// TestRotatedPassword changes the file between two requests.
func TestRotatedPassword(t *testing.T) {
	t.Parallel()
	w, _ := newHTTPWorld(t, gitserver.Options{Username: "robot", Password: "new"})
	w.personPushes(map[string]string{"a": "1"})
	file := writeFile(t, "new")
	w.opts.Auth = Auth{Username: "robot", PasswordFile: file}
	c := w.clone()
	for password, want := range map[string]error{"old": ErrAuth, " new\n": nil} {
		if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.RemoteHead(w.ctx()); !errors.Is(err, want) {
			t.Errorf("with %q: %v", password, err)
		}
	}
}

// TestUnbornDefaultBranch: the default branch of an empty remote need not be main.
func TestUnbornDefaultBranch(t *testing.T) {
	every(t, func(t *testing.T, w *world) {
		git(t, w.bare, "symbolic-ref", "HEAD", "refs/heads/trunk")
		w.opts.Branch = ""
		c := w.open()
		if strings.HasSuffix(t.Name(), "-v0") {
			// Version 0 of the protocol does not say it.
			if c.Branch() != "main" {
				t.Errorf("branch %s, want main", c.Branch())
			}
			return
		}
		w.commit(c, put("b", "1"))
		w.push(c)
		w.clean()
		if got := git(t, w.bare, "for-each-ref", "--format=%(refname)"); got != "refs/heads/trunk" {
			t.Errorf("the remote has %s", got)
		}
	})
}

// TestPoll: however many refs there are, a poll asks for one, and it touches no
// file of the clone.
func TestPoll(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"http", "https", "ssh"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var w *world
			var bytes func() int
			switch kind {
			case "ssh":
				var s *sshServer
				w, s = newSSHWorld(t)
				weir := startWeir(t, s.addr)
				s.addr = weir.addr
				rewrite(t, s.knownHosts, s.known(s.hostKey)+"\n")
				w.opts.URL = "ssh://" + s.user + "@" + weir.addr + w.bare
				bytes = weir.passed // from the server only
			default:
				var srv *gitserver.Server
				w, srv = newHTTPWorld(t, gitserver.Options{TLS: kind == "https", Username: "robot", Password: "a-token-of-forty-characters-as-forges-have"})
				w.opts.Auth = Auth{Username: "robot", PasswordFile: writeFile(t, "a-token-of-forty-characters-as-forges-have"), CAFile: srv.CAFile}
				bytes = func() int { sent, received := srv.Bytes(); return int(sent + received) }
			}
			head := w.personPushes(map[string]string{"a": "1"})
			c := w.clone()
			polls(w, c)
			poll := func() int {
				const times = 10 // as the server counts a moment later
				before := bytes()
				for range times {
					if got, err := c.RemoteHead(w.ctx()); err != nil || got != head {
						t.Fatalf("RemoteHead: %s, %v; want %s", got, err, head)
					}
				}
				return (bytes() - before) / times
			}
			git(t, w.dir, "status") // which may write the index
			clone := tree(t, w.dir)
			stats := func() string {
				out, err := exec.Command("find", w.dir, "-printf", `%p %i %T@ %C@\n`).Output()
				if err != nil {
					t.Fatal(err)
				}
				return string(out)
			}
			was := stats()
			few := poll()
			var refs strings.Builder
			for i := range 2000 {
				refs.WriteString(string(head) + " refs/heads/topic/" + fmt.Sprint(i) + "\n")
			}
			if err := os.WriteFile(filepath.Join(w.bare, "packed-refs"), []byte(refs.String()), 0o666); err != nil {
				t.Fatal(err)
			}
			many := poll()
			// The refs have some 60 bytes each. What varies is into how many
			// packets sshd divides what there is.
			if many > few+10_000 {
				t.Errorf("with 2,000 refs more a poll takes %d bytes, not %d", many, few)
			}
			t.Logf("a poll: %d bytes", few)
			if now := stats(); now != was {
				t.Errorf("a poll changed files:\n%s\nwas\n%s", now, was)
			}
			same(t, "the clone", tree(t, w.dir), clone)
		})
	}
}

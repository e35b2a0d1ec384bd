// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
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
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
)

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
	s.mu.Lock()
	n := s.connections
	s.mu.Unlock()
	if n != 1 {
		t.Errorf("%d connections over SSH, want 1", n)
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

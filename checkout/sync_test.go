// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
		var refused *refusedError
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

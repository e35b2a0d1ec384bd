// SPDX-License-Identifier: Apache-2.0

package gitserver

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// newRepo starts a server with a repository "fabrics" of one commit and
// returns a clone of it.
func newRepo(t testing.TB, opts Options) (*Server, *Work) {
	t.Helper()
	srv := Start(t, opts)
	srv.Create("fabrics")
	work := srv.Clone(t, "fabrics")
	work.Write("README", "fabrics\n")
	work.Commit("First")
	work.Push()
	return srv, work
}

func TestCloneCommitPushPull(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts Options
	}{
		{"plain", Options{}},
		{"auth", Options{Username: "hhwatchd", Password: "p@ss/word"}},
		{"TLS", Options{TLS: true}},
		{"TLS and auth", Options{TLS: true, Username: "hhwatchd", Password: "secret"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv, one := newRepo(t, tt.opts)
			two := srv.Clone(t, "fabrics")

			one.Write("raw/a b.yaml", "a: b\n")
			pushed := one.Commit("Add a file")
			one.Push()
			two.Pull()
			if got := strings.TrimSpace(two.Git("rev-parse", "HEAD")); got != pushed {
				t.Errorf("pulled %s, want %s", got, pushed)
			}
			content, err := os.ReadFile(filepath.Join(two.Dir, "raw/a b.yaml"))
			if err != nil || string(content) != "a: b\n" {
				t.Errorf("pulled file: %q, %v", content, err)
			}

			bare := Open(t, srv.Create("fabrics")) // exists: nothing happens to it
			if got := strings.TrimSpace(bare.Git("rev-parse", "refs/heads/main")); got != pushed {
				t.Errorf("main of the server's repository is %s, want %s", got, pushed)
			}
		})
	}
}

func TestPullPutsOwnWorkOnTop(t *testing.T) {
	srv, one := newRepo(t, Options{})
	two := srv.Clone(t, "fabrics")
	one.Write("one", "1\n")
	first := one.Commit("One")
	one.Push()
	two.Write("two", "2\n")
	two.Commit("Two")
	two.Pull()
	if got := strings.TrimSpace(two.Git("rev-parse", "HEAD~1")); got != first {
		t.Errorf("parent of the own commit is %s, want %s", got, first)
	}
	two.Push()
}

func TestPathsWithSlashes(t *testing.T) {
	srv := Start(t, Options{})
	dir := srv.Create("net/eu/fabrics")
	if want := filepath.Join("net", "eu", "fabrics.git"); !strings.HasSuffix(dir, want) {
		t.Errorf("Create returned %s, want ...%s", dir, want)
	}
	Clone(t, srv.RepoURL("net/eu/fabrics"))
	_, err := Open(t, t.TempDir()).TryGit("clone", srv.RepoURL("net/eu/none"), ".")
	wantError(t, err, "not found")
}

// A pack above http.postBuffer goes out chunked, after an empty request that
// asks whether the server would have it.
func TestLargePush(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts Options
	}{
		{"plain", Options{}},
		{"TLS and auth", Options{TLS: true, Username: "u", Password: "p"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv, work := newRepo(t, tt.opts)
			content := make([]byte, 2<<20)
			rand.Read(content)
			work.Write("big", string(content))
			work.Commit("Big")
			work.Push()

			other := srv.Clone(t, "fabrics")
			got, err := os.ReadFile(filepath.Join(other.Dir, "big"))
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("the large file came back with %d bytes, %v", len(got), err)
			}
			if sent, received := srv.Bytes(); sent < 2<<20 || received < 2<<20 {
				t.Errorf("sent %d and received %d bytes, want at least %d each", sent, received, 2<<20)
			}
		})
	}
}

// A fetch request above 1 KiB goes out gzipped.
func TestGzippedRequest(t *testing.T) {
	srv, work := newRepo(t, Options{})
	other := srv.Clone(t, "fabrics")
	// git offers what it has from the newest commit on. Each "have" takes 50
	// bytes, and these come before the commit that both sides know.
	other.env = append(other.env, "GIT_COMMITTER_DATE=4000000000 +0000")
	for i := range 60 {
		other.Git("commit", "--quiet", "--allow-empty", "--message", fmt.Sprint(i))
	}
	work.Write("new", "new\n")
	want := work.Commit("New")
	work.Push()
	trace := filepath.Join(t.TempDir(), "trace")
	other.env = append(other.env, "GIT_TRACE_CURL="+trace, "GIT_TRACE_CURL_NO_DATA=1")
	other.Git("fetch", "--quiet")
	if got := strings.TrimSpace(other.Git("rev-parse", "origin/main")); got != want {
		t.Errorf("fetched %s, want %s", got, want)
	}
	log, err := os.ReadFile(trace)
	if err != nil || !bytes.Contains(bytes.ToLower(log), []byte("content-encoding: gzip")) {
		t.Errorf("the fetch sent no gzipped request (%v): the test shows nothing", err)
	}
}

func TestAuth(t *testing.T) {
	srv := Start(t, Options{Username: "hhwatchd", Password: "secret"})
	srv.Create("fabrics")
	withUser := func(userinfo string) string {
		return strings.Replace(srv.RepoURL("fabrics"), "://", "://"+userinfo+"@", 1)
	}
	for _, tt := range []struct {
		name, url string
		err       string
	}{
		{"none", srv.RepoURL("fabrics"), "terminal prompts disabled"},
		{"wrong password", withUser("hhwatchd:wrong"), "Authentication failed"},
		{"wrong user", withUser("root:secret"), "Authentication failed"},
		{"right", withUser("hhwatchd:secret"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(t, t.TempDir()).TryGit("ls-remote", tt.url)
			wantError(t, err, tt.err)
		})
	}
}

func TestTLSIsNotTrustedWithoutCA(t *testing.T) {
	srv := Start(t, Options{TLS: true})
	srv.Create("fabrics")
	_, err := Open(t, t.TempDir()).TryGit("ls-remote", srv.RepoURL("fabrics"))
	wantError(t, err, "certificate")
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	newRepo(t, Options{Dir: dir})
	for _, opts := range []Options{
		{Dir: dir, ReadOnly: true},
		// git http-backend lets known users push when nothing is configured.
		{Dir: dir, ReadOnly: true, Username: "u", Password: "p"},
	} {
		work := Start(t, opts).Clone(t, "fabrics")
		work.Commit("Never to be seen")
		_, err := work.TryGit("push", "origin", "HEAD")
		wantError(t, err, "403")
	}
}

func TestRequestsAndProtocolVersions(t *testing.T) {
	srv, work := newRepo(t, Options{})
	for _, tt := range []struct {
		name string
		args []string
		want Requests
	}{
		{"ls-remote v2", []string{"-c", "protocol.version=2", "ls-remote", "origin"},
			Requests{AdvertiseFetch: 1, LsRefs: 1}},
		{"ls-remote v0", []string{"-c", "protocol.version=0", "ls-remote", "origin"},
			Requests{AdvertiseFetch: 1}},
		{"clone v2", []string{"-c", "protocol.version=2", "clone", srv.RepoURL("fabrics"), "v2"},
			Requests{AdvertiseFetch: 1, LsRefs: 1, Fetch: 1}},
		{"clone v0", []string{"-c", "protocol.version=0", "clone", srv.RepoURL("fabrics"), "v0"},
			Requests{AdvertiseFetch: 1, Fetch: 1}},
		{"push", []string{"push", "origin", "HEAD:refs/heads/other"},
			Requests{AdvertisePush: 1, Push: 1}},
		{"push of nothing", []string{"push", "origin", "HEAD:refs/heads/other"},
			Requests{AdvertisePush: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := srv.Requests()
			work.Git(tt.args...)
			if got := since(srv.Requests(), before); got != tt.want {
				t.Errorf("requests: %+v, want %+v", got, tt.want)
			}
		})
	}

	before := srv.Requests()
	resp, err := http.Get(srv.RepoURL("fabrics") + "/HEAD")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got, want := since(srv.Requests(), before), (Requests{Other: 1}); got != want {
		t.Errorf("requests: %+v, want %+v", got, want)
	}
}

func since(now, before Requests) Requests {
	return Requests{
		AdvertiseFetch: now.AdvertiseFetch - before.AdvertiseFetch,
		AdvertisePush:  now.AdvertisePush - before.AdvertisePush,
		LsRefs:         now.LsRefs - before.LsRefs,
		Fetch:          now.Fetch - before.Fetch,
		Push:           now.Push - before.Push,
		Other:          now.Other - before.Other,
	}
}

func TestListenForPrograms(t *testing.T) {
	if _, err := Listen(Options{}); err == nil {
		t.Error("Listen without a directory succeeded")
	}
	srv, err := Listen(Options{Dir: t.TempDir(), TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Create("fabrics")
	srv.Clone(t, "fabrics")
	srv.Close()
	srv.Up() // a closed server stays closed
	if _, err := os.Stat(srv.CAFile); !os.IsNotExist(err) {
		t.Errorf("after Close, the CA file: %v, want it gone", err)
	}
	_, err = Open(t, t.TempDir()).TryGit("ls-remote", srv.RepoURL("fabrics"))
	wantError(t, err, "Connection refused", "Failed to connect")
}

// wantError checks that the error holds one of the texts, or that there is
// none if the first is empty.
func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if texts[0] == "" {
		if err != nil {
			t.Error(err)
		}
		return
	}
	if err == nil {
		t.Errorf("no error, want one with %q", texts)
		return
	}
	for _, text := range texts {
		if strings.Contains(err.Error(), text) {
			return
		}
	}
	t.Errorf("error %q, want one with %q", err, texts)
}

func BenchmarkAdvertiseFetch(b *testing.B) {
	srv, _ := newRepo(b, Options{})
	for b.Loop() {
		resp, err := http.Get(srv.RepoURL("fabrics") + "/info/refs?service=git-upload-pack")
		if err != nil {
			b.Fatal(err)
		}
		var body bytes.Buffer
		body.ReadFrom(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			b.Fatal(resp.Status, body.String())
		}
	}
}

func BenchmarkPush(b *testing.B) {
	_, work := newRepo(b, Options{})
	for b.Loop() {
		b.StopTimer()
		work.Commit("Another")
		b.StartTimer()
		work.Push()
	}
}

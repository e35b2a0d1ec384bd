// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
)

// TestMain keeps the tests, which flush thousands of files, off the disk, unless
// TMPDIR says where they are to run. Benchmarks run where files usually lie.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv("TMPDIR") == "" && flag.Lookup("test.bench").Value.String() == "" && unix.Access("/dev/shm", unix.W_OK) == nil {
		os.Setenv("TMPDIR", "/dev/shm")
	}
	os.Exit(m.Run())
}

// gitEnv keeps the configuration of whoever runs the tests out of them.
var gitEnv = append(os.Environ(),
	"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TERMINAL_PROMPT=0",
	"GIT_AUTHOR_NAME=A Person", "GIT_AUTHOR_EMAIL=person@example.net",
	"GIT_COMMITTER_NAME=A Person", "GIT_COMMITTER_EMAIL=person@example.net",
	"LC_ALL=C", "GIT_OPTIONAL_LOCKS=0")

// git runs the real git in dir and returns what it says.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, err := tryGit(dir, args...)
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryGit(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-c", "init.defaultBranch=main", "-c", "gc.auto=0"}, args...)...)
	cmd.Dir, cmd.Env = dir, gitEnv
	out, err := cmd.CombinedOutput()
	return strings.TrimSuffix(string(out), "\n"), err
}

// gitIn runs git with an input.
func gitIn(t testing.TB, dir, in string, args ...string) string {
	t.Helper()
	return gitEnvIn(t, dir, "X=", in, args...)
}

func gitEnvIn(t testing.TB, dir, env, in string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, append(slices.Clip(gitEnv), env), strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSuffix(string(out), "\n")
}

func readAll(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A world is a remote and a person's clone of it.
type world struct {
	testing.TB
	url    string // of the remote
	bare   string // its directory
	person string // the directory of the person's clone, see desk
	dir    string // for our clone
	opts   Options
}

// newWorld makes a remote that is reached by its path.
func newWorld(t testing.TB) *world {
	dir := t.TempDir()
	w := &world{TB: t, bare: filepath.Join(dir, "remote.git"), person: filepath.Join(dir, "person"), dir: filepath.Join(dir, "state", "clone")}
	w.url = w.bare
	if err := InitBare(w.bare, "main"); err != nil {
		t.Fatal(err)
	}
	w.options()
	return w
}

// newHTTPWorld makes a remote behind a git server.
func newHTTPWorld(t testing.TB, o gitserver.Options) (*world, *gitserver.Server) {
	srv := gitserver.Start(t, o)
	dir := t.TempDir()
	w := &world{TB: t, bare: srv.Create("fabrics"), person: filepath.Join(dir, "person"), dir: filepath.Join(dir, "state", "clone")}
	w.url = srv.RepoURL("fabrics")
	w.options()
	return w, srv
}

func (w *world) options() {
	w.opts = Options{
		Dir: w.dir, URL: w.url, Branch: "main",
		Inputs: []string{"fabric/raw"}, Exclude: []string{"/fabric/unmanaged/"},
		AsideDir: filepath.Join(filepath.Dir(w.dir), "aside"),
	}
}

// open opens our clone.
func (w *world) open() *Clone {
	w.Helper()
	c, err := Open(w.ctx(), w.opts)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	return c
}

// clone opens our clone and checks it out.
func (w *world) clone() *Clone {
	w.Helper()
	c := w.open()
	w.advance(c, w.head(c))
	return c
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	w.Cleanup(cancel)
	return ctx
}

func (w *world) head(c *Clone) Hash {
	w.Helper()
	h, err := c.Head()
	if err != nil {
		w.Fatal(err)
	}
	return h
}

// advance expects that nothing has to be set aside.
func (w *world) advance(c *Clone, to Hash) {
	w.Helper()
	asides, err := c.Advance(w.ctx(), to)
	if err != nil || len(asides) > 0 {
		w.Fatalf("Advance: set aside %v, %v", asides, err)
	}
}

func (w *world) fetch(c *Clone) Hash {
	w.Helper()
	h, err := c.Fetch(w.ctx())
	if err != nil {
		w.Fatal(err)
	}
	return h
}

func (w *world) push(c *Clone) {
	w.Helper()
	if err := c.Push(w.ctx()); err != nil {
		w.Fatal(err)
	}
}

// save writes files in a directory; an empty content deletes the file.
func save(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if content == "" {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// noAside has a file in the way of the directory for what is set aside, so that
// nothing can be: what is in the way of a commit then stays in the way.
func (w *world) noAside() {
	w.Helper()
	save(w, filepath.Dir(w.opts.AsideDir), map[string]string{filepath.Base(w.opts.AsideDir): "a file"})
}

// desk returns the directory of the person's clone, and makes it when it is
// first needed.
func (w *world) desk() string {
	w.Helper()
	if _, err := os.Stat(w.person); err != nil {
		git(w, filepath.Dir(w.person), "clone", "-q", w.bare, w.person)
	}
	return w.person
}

// personPushes commits files on top of the remote's branch, as if a person
// had pushed them. An empty content deletes a file.
func (w *world) personPushes(files map[string]string) Hash {
	w.Helper()
	if _, err := os.Stat(w.person); err != nil {
		// No need for a clone.
		var in strings.Builder
		in.WriteString("commit refs/heads/main\ncommitter A Person <person@example.net> now\ndata 11\nby a person\n")
		if git(w, w.bare, "for-each-ref", "refs/heads/main") != "" {
			in.WriteString("from refs/heads/main^0\n")
		}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if files[name] == "" {
				fmt.Fprintf(&in, "D %s\n", name)
			} else {
				fmt.Fprintf(&in, "M 100644 inline %s\ndata %d\n%s\n", name, len(files[name]), files[name])
			}
		}
		gitIn(w, w.bare, in.String(), "fast-import", "--quiet", "--date-format=now")
	} else {
		save(w, w.person, files)
		git(w, w.person, "add", "-A")
		git(w, w.person, "commit", "-q", "--allow-empty", "-m", "by a person")
		git(w, w.person, "push", "-q", "origin", "HEAD:main")
	}
	return Hash(git(w, w.bare, "rev-parse", "refs/heads/main"))
}

var us = Signature{Name: "hhwatchd", Email: "hhwatchd@mgmt-1.example.net", When: time.Unix(1_790_000_000, 0).In(time.FixedZone("", 2*3600))}

func put(path, content string) Change { return Change{Path: path, Data: []byte(content)} }
func del(path string) Change          { return Change{Path: path, Delete: true} }

// commit makes a commit on the head of the clone and advances to it.
func (w *world) commit(c *Clone, changes ...Change) Hash {
	w.Helper()
	h, err := c.WriteCommit(w.head(c), changes, us, us, "Ingest\n\nCycle: 1\n")
	if err != nil {
		w.Fatal(err)
	}
	w.advance(c, h)
	return h
}

// clean checks that the real git finds nothing to complain about in our clone.
func (w *world) clean() {
	w.Helper()
	if out := git(w, w.dir, "status", "--porcelain", "--untracked-files=all"); out != "" {
		w.Errorf("git status:\n%s", out)
	}
	w.sound()
}

// sound checks that our clone is a sound repository.
func (w *world) sound() {
	w.Helper()
	if out, err := tryGit(w.dir, "fsck", "--strict", "--no-dangling"); err != nil || out != "" {
		w.Errorf("git fsck: %v\n%s", err, out)
	}
}

// has checks files in our work tree; an empty content means that it is absent.
func (w *world) has(files map[string]string) {
	w.Helper()
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(w.dir, name))
		if err != nil && !os.IsNotExist(err) {
			w.Error(err)
		}
		if string(got) != want || (err != nil) != (want == "") {
			w.Errorf("%s holds %q (%v), want %q", name, got, err, want)
		}
	}
}

// tree returns the files below a directory, with their content.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if os.IsNotExist(err) {
				err = nil
			}
			return err
		}
		var data []byte
		if d.Type().IsRegular() {
			data, err = os.ReadFile(path)
		}
		rel, _ := filepath.Rel(dir, path)
		out[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// same compares maps in a readable way.
func same(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}

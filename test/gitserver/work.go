// SPDX-License-Identifier: Apache-2.0

package gitserver

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Work is a clone that the git command works in, as a person would. Its git
// knows no configuration but the repository's own, never asks for anything,
// and commits as Dana Dropper <dana@example.net>. Failures end the test,
// except from TryGit.
type Work struct {
	// Dir is the top of the work tree.
	Dir string

	t   testing.TB
	env []string
}

// Clone clones the repository at the URL, which may hold credentials, into a
// temporary directory of the test.
func Clone(t testing.TB, url string) *Work {
	t.Helper()
	w := Open(t, t.TempDir())
	w.Git("clone", "--quiet", url, ".")
	return w
}

// Clone clones the server's repository of that name, with the credentials and
// the trust that this takes.
func (s *Server) Clone(t testing.TB, name string) *Work {
	t.Helper()
	u, err := url.Parse(s.RepoURL(name))
	if err != nil {
		t.Fatal(err)
	}
	if s.opts.Username != "" || s.opts.Password != "" {
		u.User = url.UserPassword(s.opts.Username, s.opts.Password)
	}
	w := Open(t, t.TempDir())
	if s.CAFile != "" {
		w.env = append(w.env, "GIT_SSL_CAINFO="+s.CAFile)
	}
	w.Git("clone", "--quiet", u.String(), ".")
	return w
}

// Open returns the repository that is in dir already: a clone of someone
// else's, or a bare one of the server's to look into.
func Open(t testing.TB, dir string) *Work {
	env := append(gitEnv(),
		// Whatever proxy the machine has, it does not know of our loopback.
		"no_proxy=127.0.0.1,localhost",
		"GIT_AUTHOR_NAME=Dana Dropper",
		"GIT_AUTHOR_EMAIL=dana@example.net",
		"GIT_COMMITTER_NAME=Dana Dropper",
		"GIT_COMMITTER_EMAIL=dana@example.net",
	)
	env = append(env, configEnv(
		// An empty repository that speaks v0 does not say its default branch.
		"init.defaultBranch", "main",
		// No git goes on in the background when the test's directory goes.
		"gc.auto", "0",
		"maintenance.auto", "false",
	)...)
	return &Work{Dir: dir, t: t, env: env}
}

// Write writes a file, whose path is relative to Dir, and its directories.
func (w *Work) Write(path, content string) {
	w.t.Helper()
	path = filepath.Join(w.Dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// Commit commits all that changed in the work tree and returns the commit's
// id. A commit without a change is made too.
func (w *Work) Commit(message string) string {
	w.t.Helper()
	w.Git("add", "--all")
	w.Git("commit", "--quiet", "--allow-empty", "--message", message)
	return strings.TrimSpace(w.Git("rev-parse", "HEAD"))
}

// Push pushes the branch that is checked out to the branch of the same name.
func (w *Work) Push() {
	w.t.Helper()
	w.Git("push", "--quiet", "origin", "HEAD")
}

// Pull fetches and puts what was not pushed on top of it.
func (w *Work) Pull() {
	w.t.Helper()
	w.Git("pull", "--quiet", "--rebase")
}

// Git runs git in Dir and returns its standard output as it is.
func (w *Work) Git(args ...string) string {
	w.t.Helper()
	out, err := w.TryGit(args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// TryGit is Git for what may fail: its error holds what git said on standard
// error.
func (w *Work) TryGit(args ...string) (string, error) {
	cmd := exec.CommandContext(w.t.Context(), "git", args...)
	cmd.Dir = w.Dir
	cmd.Env = w.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// sshKey makes a key with the real ssh-keygen and returns its file.
func sshKey(t *testing.T, kind string, more ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	command(t, nil, "", "ssh-keygen", append([]string{"-q", "-t", kind, "-N", "", "-f", file}, more...)...)
	return file
}

// pgpKey makes a key with the real gpg and returns files with its private and
// its public part, and gpg's directory.
func pgpKey(t *testing.T) (private, public, home string) {
	t.Helper()
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("gpg is not installed")
	}
	home, err := os.MkdirTemp("", "gpg") // its sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"GNUPGHOME=" + home}
	t.Cleanup(func() {
		command(t, env, "", "gpgconf", "--kill", "all")
		os.RemoveAll(home)
	})
	command(t, env, "", "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "Key <key@example.net>", "ed25519", "sign")
	private, public = filepath.Join(home, "private.asc"), filepath.Join(home, "public.asc")
	command(t, env, "", "gpg", "--batch", "--armor", "--output", private, "--export-secret-keys")
	command(t, env, "", "gpg", "--batch", "--armor", "--output", public, "--export")
	return private, public, home
}

func command(t *testing.T, env []string, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(gitEnv[:len(gitEnv):len(gitEnv)], env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// allow writes an allowed signers file with the keys.
func allow(t *testing.T, file string, keys ...string) {
	t.Helper()
	var text strings.Builder
	for _, key := range keys {
		fmt.Fprintf(&text, "person@example.net namespaces=\"git\" %s", readAll(t, key+".pub"))
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestSign has the real git verify our signatures.
func TestSign(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"ed25519", "rsa", "ecdsa"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.personPushes(map[string]string{"a": "1"})
			w.opts.SignKeyFile = sshKey(t, kind)
			signers := filepath.Join(t.TempDir(), "allowed")
			allow(t, signers, w.opts.SignKeyFile)
			c := w.clone()
			w.commit(c, put("b", "2"))
			w.push(c)
			git(t, w.dir, "-c", "gpg.ssh.allowedSignersFile="+signers, "verify-commit", "HEAD")
			w.clean()
			allow(t, signers, sshKey(t, kind))
			if out, err := tryGit(w.dir, "-c", "gpg.ssh.allowedSignersFile="+signers, "verify-commit", "HEAD"); err == nil {
				t.Errorf("git takes any signature: %s", out)
			}
		})
	}
	t.Run("openpgp", func(t *testing.T) {
		t.Parallel()
		private, _, home := pgpKey(t)
		w := newWorld(t)
		w.personPushes(map[string]string{"a": "1"})
		w.opts.SignKeyFile = private
		c := w.clone()
		w.commit(c, put("b", "2"))
		command(t, []string{"GNUPGHOME=" + home}, w.dir, "git", "verify-commit", "HEAD")
		w.clean()
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.personPushes(map[string]string{"a": "1"})
		c := w.clone()
		dir := t.TempDir()
		locked := filepath.Join(dir, "locked")
		command(t, nil, "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked)
		save(t, dir, map[string]string{"none": "hello"})
		for file, want := range map[string]string{
			filepath.Join(dir, "absent"): "no such file", locked: "has a passphrase", filepath.Join(dir, "none"): "neither a private key",
		} {
			c.opts.SignKeyFile = file
			if _, err := c.WriteCommit(w.head(c), []Change{put("b", "2")}, us, us, "x"); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", filepath.Base(file), err)
			}
		}
	})
}

// TestVerify has people push what is signed by the real git and what is not.
func TestVerify(t *testing.T) {
	t.Parallel()
	good, bad := sshKey(t, "ed25519"), sshKey(t, "ed25519")
	rsa := sshKey(t, "rsa")
	_, public, home := pgpKey(t)
	by := func(key string) []string {
		if key == "" {
			return []string{"-c", "commit.gpgSign=false"}
		}
		return []string{"-c", "commit.gpgSign=true", "-c", "gpg.format=ssh", "-c", "user.signingKey=" + key}
	}
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "unsigned, before"})
	desk := w.desk()
	env := []string{"GNUPGHOME=" + home}
	person := func(key, name, content string, more ...string) {
		t.Helper()
		save(t, desk, map[string]string{name: content})
		git(t, desk, "add", "-A")
		git(t, desk, append(append(by(key), "commit", "-qm", name), more...)...)
	}
	push := func(more ...string) {
		t.Helper()
		git(t, desk, append([]string{"push", "-q", "origin", "HEAD:main"}, more...)...)
	}
	signers := filepath.Join(t.TempDir(), "allowed")
	allow(t, signers, good, rsa)
	w.opts.Verify = Verify{AllowedSignersFile: signers, KeyringFile: public}
	clone := func(dir string) (*Clone, error) {
		o := w.opts
		o.Dir = filepath.Join(t.TempDir(), dir)
		c, err := Open(t.Context(), o)
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return c, err
	}
	refused := func(c *Clone, want string) {
		t.Helper()
		before, err := c.Upstream()
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Fetch(t.Context())
		unverified := (*unverifiedError)(nil)
		if !errors.As(err, &unverified) || !strings.Contains(err.Error(), want) {
			t.Fatalf("fetched: %v, want %s", err, want)
		}
		if after, err := c.Upstream(); err != nil || after != before {
			t.Fatalf("the branch moved from %s to %s (%v)", before, after, err)
		}
	}

	// A new clone needs a signed tip.
	if _, err := clone("new"); err == nil || !strings.Contains(err.Error(), "it is not signed") {
		t.Fatalf("cloned: %v", err)
	}
	person(good, "b", "signed")
	push()
	c := w.clone()
	w.has(map[string]string{"a": "unsigned, before", "b": "signed"})

	// All kinds of keys.
	person(rsa, "c", "by rsa")
	// (A passphrase takes its time, and git's time is from before.)
	committed := "GIT_COMMITTER_DATE=" + time.Now().Add(-20*time.Second).Format(time.RFC3339)
	command(t, append(slices.Clone(env), committed), desk, "git", "-c", "gpg.format=openpgp", "-c", "user.signingKey=key@example.net", "commit", "-q", "-S", "--allow-empty", "-m", "pgp")
	push()
	w.advance(c, w.fetch(c))

	// What is not signed, or by another key, stops everything, also under a
	// commit that is signed, and on a branch that was merged.
	person("", "d", "unsigned")
	push()
	refused(c, "it is not signed")
	person(good, "e", "signed, on top")
	push()
	refused(c, "it is not signed")
	w.has(map[string]string{"d": "", "e": ""})
	git(t, desk, "reset", "-q", "--hard", "HEAD~2")
	push("--force")
	w.advance(c, w.fetch(c)) // the branch is good again

	git(t, desk, "checkout", "-q", "-b", "side")
	person(bad, "f", "another key")
	git(t, desk, "checkout", "-q", "main")
	git(t, desk, append(by(good), "merge", "-q", "--no-ff", "-m", "merge", "side")...)
	push()
	refused(c, "is not allowed")
	// A person who fetches does not let it in.
	git(t, w.dir, "fetch", "-q")
	refused(c, "is not allowed")
	git(t, w.dir, "fetch", "-q")
	c = fresher(w, c)
	if up, err := c.Upstream(); err != nil || up != w.head(c) {
		t.Fatalf("the branch is at %s, not at %s (%v)", up, w.head(c), err)
	}
	// The key is allowed.
	allow(t, signers, good, bad)
	w.advance(c, w.fetch(c))
	w.has(map[string]string{"f": "another key"})
	w.clean()

	// What was signed is not something else.
	data := git(t, desk, "cat-file", "commit", "HEAD")
	forged := gitIn(t, desk, strings.Replace(data, "\n\nmerge", "\n\nforged", 1)+"\n", "hash-object", "-t", "commit", "-w", "--stdin")
	git(t, desk, "push", "-q", "-f", "origin", forged+":refs/heads/main")
	refused(c, "wrong SSH signature")
	git(t, desk, "push", "-q", "-f", "origin", "main:refs/heads/main")
	w.fetch(c)

	// Our own commits are ours, signed or not.
	w.commit(c, put("g", "ours"))
	w.push(c)
	if up, err := c.Upstream(); err != nil || up != w.head(c) {
		t.Fatalf("the branch is at %s, not at %s (%v)", up, w.head(c), err)
	}
	w.fetch(c)
	if err := c.Check(true); err != nil {
		t.Error(err)
	}
	// To somebody else they are not.
	if _, err := clone("other"); err == nil {
		t.Error("another clone takes what is not signed")
	}
	// Turned on later, it trusts what is there.
	w.opts.Verify = Verify{}
	c = fresher(w, c)
	git(t, desk, "pull", "-q", "--ff-only")
	person("", "h", "unsigned")
	push()
	w.advance(c, w.fetch(c))
	w.opts.Verify = Verify{AllowedSignersFile: signers}
	c = fresher(w, c)
	if up, err := c.Upstream(); err != nil || up != w.head(c) {
		t.Fatalf("the branch is at %s, not at %s (%v)", up, w.head(c), err)
	}
	person(good, "i", "signed")
	push()
	w.advance(c, w.fetch(c))
	w.has(map[string]string{"i": "signed"})
}

func TestAllowedSigners(t *testing.T) {
	t.Parallel()
	pub := strings.TrimSpace(readAll(t, sshKey(t, "ed25519")+".pub"))
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(pub))
	if err != nil {
		t.Fatal(err)
	}
	day := func(s string) time.Time {
		d, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, tt := range []struct {
		line, when, err string
		allowed         bool
	}{
		{line: "* " + pub, allowed: true},
		{line: "a@example.net,b@example.net " + pub, allowed: true},
		{line: `"A Person" ` + pub, allowed: true},
		{line: `a namespaces="file,git" ` + pub, allowed: true},
		{line: `a namespaces="file" ` + pub},
		{line: `a valid-after="20260101Z",valid-before="20270101Z" ` + pub, when: "2026-06-01", allowed: true},
		{line: `a valid-after="20260101Z",valid-before="20270101Z" ` + pub, when: "2025-12-31"},
		{line: `a valid-after="20260101Z",valid-before="20270101Z" ` + pub, when: "2027-01-01"},
		{line: `a valid-before="202606011200" ` + pub, when: "2026-01-01", allowed: true},
		{line: "# a comment\n\n"},
		{line: "a", err: "line 1"},
		{line: pub, err: "line 1: no key"},
		{line: "\n\na ssh-ed25519 AAAA", err: "line 3: no key"},
		{line: "a cert-authority " + pub, err: "certificate authorities"},
		{line: `a colour="red" ` + pub, err: `"colour" is not known`},
		{line: `a valid-after="soon" ` + pub, err: "not a time"},
	} {
		signers, err := parseAllowedSigners([]byte(tt.line))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: %v", tt.line, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", tt.line, err)
		}
		when := time.Now()
		if tt.when != "" {
			when = day(tt.when)
		}
		got := false
		for _, s := range signers {
			got = got || s.allows(key, when)
		}
		if got != tt.allowed {
			t.Errorf("%q at %s: allowed %v", tt.line, tt.when, got)
		}
	}
}

// FuzzSignature: no commit is taken for signed but the one that was.
func FuzzSignature(f *testing.F) {
	commit := []byte("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nhello\n")
	signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		f.Fatal(err)
	}
	armor, err := signSSH(signer, commit)
	if err != nil {
		f.Fatal(err)
	}
	a := &allowed{signers: []allowedSigner{{key: signer.PublicKey().Marshal()}}}
	f.Add(signed(commit, armor))
	f.Add(commit)
	f.Add([]byte("gpgsig -----BEGIN PGP SIGNATURE-----\n \n=x\n\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if a.refuses(data, time.Now()) != "" {
			return
		}
		if payload, _ := unsigned(data); string(payload) != string(commit) {
			t.Errorf("taken for signed: %q", data)
		}
	})
}

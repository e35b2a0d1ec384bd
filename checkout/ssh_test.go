// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func newSSHWorld(t testing.TB) (*world, *sshServer) {
	s := startSSH(t)
	w := newWorld(t)
	w.opts.URL = "ssh://" + s.user + "@" + s.addr + w.bare
	w.opts.Auth = Auth{SSHKeyFile: s.keyFile, KnownHostsFile: s.knownHosts}
	return w, s
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

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// An sshServer is OpenSSH's sshd, run for each connection as inetd does
// (sshd -i), so that it needs no port that somebody else may take first.
type sshServer struct {
	addr       string
	user       string // who may log in
	hostKey    ssh.Signer
	keyFile    string // a private key that it takes
	knownHosts string
	authorized string // its file of keys that it takes
	config     string

	mu          sync.Mutex
	connections int
	open        map[*net.TCPConn]bool
}

func newKey(t testing.TB) (ssh.Signer, []byte) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

func startSSH(t testing.TB) *sshServer {
	t.Helper()
	program := "/usr/sbin/sshd"
	if _, err := os.Stat(program); err != nil {
		t.Skip("openssh-server is not installed: make setup does that")
	}
	if _, err := os.Stat("/run/sshd"); err != nil && os.Getuid() == 0 {
		t.Skip("sshd needs the directory /run/sshd: make setup makes it")
	}
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &sshServer{
		user: who.Username, keyFile: filepath.Join(dir, "key"), knownHosts: filepath.Join(dir, "known_hosts"),
		authorized: filepath.Join(dir, "authorized_keys"), config: filepath.Join(dir, "sshd_config"), open: make(map[*net.TCPConn]bool),
	}
	client, private := newKey(t)
	var hostPrivate []byte
	s.hostKey, hostPrivate = newKey(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	rewrite(t, s.keyFile, string(private))
	rewrite(t, s.authorized, string(ssh.MarshalAuthorizedKey(client.PublicKey())))
	rewrite(t, s.knownHosts, s.known(s.hostKey)+"\n")
	rewrite(t, filepath.Join(dir, "host_key"), string(hostPrivate))
	// sshd_config(5). The files are not where sshd would trust them, below /tmp.
	rewrite(t, s.config, fmt.Sprintf(`
HostKey %s/host_key
AuthorizedKeysFile %s
AuthenticationMethods publickey
StrictModes no
UsePAM no
PermitUserRC no
PrintMotd no
LogLevel QUIET
AcceptEnv GIT_PROTOCOL
SetEnv GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
`, dir, s.authorized))

	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c := conn.(*net.TCPConn)
			s.mu.Lock()
			s.connections++
			s.open[c] = true
			s.mu.Unlock()
			serving.Go(func() {
				defer func() {
					s.mu.Lock()
					delete(s.open, c)
					s.mu.Unlock()
					c.Close()
				}()
				f, err := c.File()
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				cmd := exec.Command(program, "-i", "-f", s.config)
				cmd.Stdin, cmd.Stdout = f, f
				cmd.Run() // fails whenever a client just hangs up
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.hangUp()
		serving.Wait()
	})
	return s
}

// known is the line of known_hosts for the server with that key.
func (s *sshServer) known(key ssh.Signer) string {
	return knownhosts.Line([]string{knownhosts.Normalize(s.addr)}, key.PublicKey())
}

// withoutV2 keeps clients from asking for version 2 of git's protocol.
func (s *sshServer) withoutV2(t testing.TB) {
	t.Helper()
	rewrite(t, s.config, strings.Replace(readAll(t, s.config), "AcceptEnv GIT_PROTOCOL\n", "", 1))
}

// hangUp breaks all connections.
func (s *sshServer) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.CloseRead() // shutdown(2): also for the program that has the socket
		c.CloseWrite()
	}
}

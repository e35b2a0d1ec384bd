// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// An sshServer is an SSH server whose sessions run the real git programs.
type sshServer struct {
	addr       string
	hostKey    ssh.Signer
	keyFile    string // a private key that it takes
	knownHosts string

	v0 bool // do not let clients ask for version 2 of git's protocol

	mu          sync.Mutex
	connections int
	open        map[net.Conn]bool
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
	dir := t.TempDir()
	s := &sshServer{keyFile: filepath.Join(dir, "key"), knownHosts: filepath.Join(dir, "known_hosts"), open: make(map[net.Conn]bool)}
	client, private := newKey(t)
	s.hostKey, _ = newKey(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	write := func(name string, data []byte) {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(s.keyFile, private)
	write(s.knownHosts, []byte(knownhosts.Line([]string{knownhosts.Normalize(s.addr)}, s.hostKey.PublicKey())+"\n"))

	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if bytes.Equal(key.Marshal(), client.PublicKey().Marshal()) {
			return nil, nil
		}
		return nil, fmt.Errorf("unknown key")
	}}
	config.AddHostKey(s.hostKey)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.connections++
			s.open[conn] = true
			s.mu.Unlock()
			serving.Go(func() { s.serve(conn, config) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.hangUp()
		serving.Wait()
	})
	return s
}

// hangUp breaks all connections.
func (s *sshServer) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		conn.Close()
	}
}

func (s *sshServer) serve(conn net.Conn, config *ssh.ServerConfig) {
	defer func() {
		conn.Close()
		s.mu.Lock()
		delete(s.open, conn)
		s.mu.Unlock()
	}()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for ch := range channels {
		if ch.ChannelType() != "session" {
			ch.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		channel, requests, err := ch.Accept()
		if err != nil {
			return
		}
		sessions.Go(func() { s.session(channel, requests) })
	}
}

func (s *sshServer) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	env := slices.Clip(gitEnv)
	for req := range requests {
		switch req.Type {
		case "env":
			var v struct{ Name, Value string }
			ssh.Unmarshal(req.Payload, &v)
			if s.v0 {
				req.Reply(false, nil)
				continue
			}
			env = append(env, v.Name+"="+v.Value)
			req.Reply(true, nil)
		case "exec":
			var v struct{ Command string }
			ssh.Unmarshal(req.Payload, &v)
			req.Reply(true, nil)
			cmd := exec.Command("sh", "-c", v.Command)
			cmd.Env, cmd.Stdout, cmd.Stderr = env, channel, channel.Stderr()
			stdin, err := cmd.StdinPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				return
			}
			// Not waited for: it ends with the channel.
			go func() {
				defer stdin.Close()
				buf := make([]byte, 32<<10)
				for {
					n, err := channel.Read(buf)
					if n > 0 {
						stdin.Write(buf[:n])
					}
					if err != nil {
						return
					}
				}
			}()
			status := 0
			if cmd.Wait() != nil {
				status = 1
			}
			channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
			return
		default:
			req.Reply(false, nil)
		}
	}
}

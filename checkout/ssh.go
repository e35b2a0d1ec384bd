// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
)

// An sshRemote runs git's server programs over SSH. It keeps its connection
// between requests. Whatever is not answered in time is ended by closing the
// connection.
type sshRemote struct {
	loc   location
	auth  Auth
	stall patience

	client *ssh.Client // nil if there is no connection
}

func newSSHRemote(loc location, auth Auth, stall patience) *sshRemote {
	return &sshRemote{loc: loc, auth: auth, stall: stall}
}

func (s *sshRemote) close() {
	if s.client != nil {
		s.client.Close()
		s.client = nil
	}
}

// dial makes the connection.
func (s *sshRemote) dial(ctx context.Context) (err error) {
	addr := s.loc.addr()
	check, err := s.hostKeys()
	if err != nil {
		return err
	}
	config := &ssh.ClientConfig{
		User:              cmp.Or(s.loc.user, s.auth.Username, "git"),
		HostKeyCallback:   check.accept,
		HostKeyAlgorithms: check.algorithms(addr),
		ClientVersion:     "SSH-2.0-" + ourName,
	}
	keys, done, err := s.keys(ctx)
	if err != nil {
		return err
	}
	defer done()
	config.Auth = []ssh.AuthMethod{ssh.PublicKeysCallback(keys)}

	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	// Nothing in the handshake knows a context: it ends with the connections.
	ctx, w := newWatch(ctx, patience{limit: min(dialLimit, s.stall.limit)})
	defer w.stop()
	defer context.AfterFunc(ctx, func() {
		conn.Close()
		done()
	})()
	c, chans, reqs, err := ssh.NewClientConn(conn, addr, config)
	if err != nil {
		conn.Close()
		if check.refused != nil {
			return check.refused
		}
		if err = cause(ctx, err); strings.Contains(err.Error(), "unable to authenticate") {
			which := "auth.sshKeyFile, and that its public key is registered there"
			if s.auth.SSHKeyFile == "" {
				which = "that a key of the agent at SSH_AUTH_SOCK is registered there"
			}
			return fmt.Errorf("%w for the user %s: check %s", ErrAuth, config.User, which)
		}
		return fmt.Errorf("connecting over SSH: %w", err)
	}
	s.client = ssh.NewClient(c, chans, reqs)
	return nil
}

// keys returns what finds the private keys to offer, and what to call when
// they are no longer needed, or no longer waited for.
func (s *sshRemote) keys(ctx context.Context) (func() ([]ssh.Signer, error), func(), error) {
	if s.auth.SSHKeyFile == "" {
		socket := os.Getenv("SSH_AUTH_SOCK")
		if socket == "" {
			return nil, nil, errors.New("there is no SSH key: set auth.sshKeyFile")
		}
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, nil, fmt.Errorf("asking the SSH agent for keys: %w", err)
		}
		return agent.NewClient(conn).Signers, func() { conn.Close() }, nil
	}
	data, err := os.ReadFile(s.auth.SSHKeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the SSH key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(data)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		return nil, nil, fmt.Errorf("the SSH key in %s has a passphrase: use one without", s.auth.SSHKeyFile)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the SSH key in %s: %w", s.auth.SSHKeyFile, err)
	}
	return func() ([]ssh.Signer, error) { return []ssh.Signer{key}, nil }, func() {}, nil
}

// A hostKeyCheck accepts the host keys that are in files of known hosts.
type hostKeyCheck struct {
	files   []string
	known   ssh.HostKeyCallback
	refused error // why a key was refused
}

func (s *sshRemote) hostKeys() (*hostKeyCheck, error) {
	c := &hostKeyCheck{files: []string{s.auth.KnownHostsFile}}
	if s.auth.KnownHostsFile == "" {
		c.files = nil
		candidates := []string{"/etc/ssh/ssh_known_hosts"}
		if home, err := os.UserHomeDir(); err == nil {
			candidates = append(candidates, filepath.Join(home, ".ssh", "known_hosts"))
		}
		for _, f := range candidates {
			if _, err := os.Stat(f); err == nil {
				c.files = append(c.files, f)
			}
		}
		if c.files == nil {
			return nil, errors.New("no host keys are known: set auth.knownHostsFile")
		}
	}
	var err error
	if c.known, err = knownhosts.New(c.files...); err != nil {
		return nil, fmt.Errorf("reading the known host keys: %w", err)
	}
	return c, nil
}

func (c *hostKeyCheck) accept(host string, addr net.Addr, key ssh.PublicKey) error {
	err := c.known(host, addr, key)
	if err == nil {
		return nil
	}
	var unknown *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case errors.As(err, &revoked):
		c.refused = fmt.Errorf("the host key of %s is revoked by %s line %d", host, revoked.Revoked.Filename, revoked.Revoked.Line)
	case errors.As(err, &unknown) && len(unknown.Want) > 0:
		w := unknown.Want[0]
		c.refused = fmt.Errorf("the host key of %s has changed: it is now %s, and %s line %d has another one; if that is right, replace the line",
			host, ssh.FingerprintSHA256(key), w.Filename, w.Line)
	case errors.As(err, &unknown):
		c.refused = fmt.Errorf("the host key of %s is not known (%s %s): check it and add it to %s",
			host, key.Type(), ssh.FingerprintSHA256(key), c.files[0])
	default:
		c.refused = fmt.Errorf("the host key of %s: %w", host, err)
	}
	return c.refused
}

// algorithms returns those of the host keys that are known for addr, as a
// server that has several keys shows one of the first kind that both like.
// It is nil, which means all, if none is known.
func (c *hostKeyCheck) algorithms(addr string) []string {
	var want *knownhosts.KeyError
	if err := c.known(addr, &net.TCPAddr{}, noKey{}); !errors.As(err, &want) {
		return nil
	}
	var out []string
	for _, k := range want.Want {
		if t := k.Key.Type(); t == ssh.KeyAlgoRSA {
			out = append(out, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			out = append(out, t)
		}
	}
	return out
}

// noKey is a host key that no file knows.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return nil }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

// run runs a program of git on the server and hands its streams to fn.
func (s *sshRemote) run(ctx context.Context, service string, fn func(r *bufio.Reader, w io.Writer) error) (err error) {
	session, err := s.session(ctx)
	if err != nil {
		return err
	}
	client := s.client
	ctx, watch := newWatch(ctx, s.stall)
	defer watch.stop()
	defer context.AfterFunc(ctx, func() { client.Close() })()
	defer func() {
		session.Close()
		if err = cause(ctx, err); err != nil {
			s.close()
		}
	}()
	stdin, err := session.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := session.StdoutPipe()
	if err != nil {
		return err
	}
	said := &lockedTranscript{}
	session.Stderr = said
	if service == uploadPack {
		// Servers that do not allow it speak version 0.
		session.Setenv("GIT_PROTOCOL", "version=2")
	}
	if err := session.Start(service + " " + shellQuote(s.loc.path)); err != nil {
		return err
	}
	err = fn(bufio.NewReaderSize(touching{Reader: stdout, w: watch}, 64<<10), touching{Writer: stdin, w: watch})
	stdin.Close()
	if err != nil {
		// What the program said on its way out tells more than that its
		// output ended.
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			session.Wait()
			if text := said.String(); text != "" && ctx.Err() == nil {
				return &serverError{text}
			}
			return fmt.Errorf("the remote ended the connection: %w", io.ErrUnexpectedEOF)
		}
		return err
	}
	return nil
}

// session opens a session on the connection that is kept, or on a new one if
// that turns out to be dead.
func (s *sshRemote) session(ctx context.Context) (*ssh.Session, error) {
	if s.client != nil {
		if session, err := s.openSession(ctx); err == nil || ctx.Err() != nil {
			return session, err
		}
	}
	if err := s.dial(ctx); err != nil {
		return nil, err
	}
	return s.openSession(ctx)
}

func (s *sshRemote) openSession(ctx context.Context) (*ssh.Session, error) {
	client := s.client
	ctx, w := newWatch(ctx, patience{limit: min(dialLimit, s.stall.limit)})
	defer w.stop()
	defer context.AfterFunc(ctx, func() { client.Close() })()
	session, err := client.NewSession()
	if err = cause(ctx, err); err != nil {
		s.close()
		return nil, err
	}
	return session, nil
}

// shellQuote quotes s for the shell on the other side.
func shellQuote(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}

// lockedTranscript is a transcript that is written by another goroutine.
type lockedTranscript struct {
	mu sync.Mutex
	transcript
}

func (t *lockedTranscript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.transcript.Write(p)
}

func (t *lockedTranscript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

func (s *sshRemote) list(ctx context.Context, prefixes ...string) (l listing, err error) {
	err = s.run(ctx, uploadPack, func(r *bufio.Reader, w io.Writer) error {
		a, err := readAdvert(r, "", prefixes...)
		if err != nil {
			return err
		}
		if l = a.listing; a.v2 {
			if err := writeLsRefs(w, a, prefixes); err != nil {
				return err
			}
			if l, err = readLsRefs(r, prefixes); err != nil {
				return err
			}
		}
		return writePackets(w, "") // that is all
	})
	return l, err
}

func (s *sshRemote) fetch(ctx context.Context, want oid, haves []oid, sink func(io.Reader) error) error {
	return s.run(ctx, uploadPack, func(r *bufio.Reader, w io.Writer) error {
		a, err := readAdvert(r, "")
		if err != nil {
			return err
		}
		if err := writeFetch(w, a, want, haves); err != nil {
			return err
		}
		pack, err := readPack(r, a.v2)
		if err != nil {
			return err
		}
		if err := sink(pack); err != nil || !a.v2 {
			return err
		}
		return writePackets(w, "")
	})
}

func (s *sshRemote) push(ctx context.Context, ref string, decide func(old oid) (*update, error)) error {
	return s.run(ctx, receivePack, func(r *bufio.Reader, w io.Writer) error {
		a, err := readAdvert(r, "", ref)
		if err != nil {
			return err
		}
		old := a.refs[ref]
		u, err := decide(old)
		if err != nil {
			return err
		}
		if u == nil {
			return writePackets(w, "")
		}
		if err := writeUpdate(w, a, ref, old, u.new); err != nil {
			return err
		}
		if err := u.pack(w, true); err != nil {
			return err
		}
		return readReport(r, a, ref, new(transcript))
	})
}

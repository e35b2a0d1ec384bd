// SPDX-License-Identifier: Apache-2.0

// Package gitserver runs a real git server over HTTP on loopback, for tests,
// benchmarks and demonstrations.
//
// The protocol is git's own: each request is handed to git http-backend
// (git-http-backend(1)), which is run as a CGI program (RFC 3875) with the
// bodies of request and response streamed through. What this package adds is
// what a test cannot ask of a real host: the server can be told, while it
// runs, to fail, to hang, to talk garbage, to break off, to refuse a push or
// to go away; and [Server.BeforePush] lets a test win a push race every time.
//
//	srv := gitserver.Start(t, gitserver.Options{})
//	srv.Create("fabrics")
//	work := srv.Clone(t, "fabrics")
//	work.Write("raw/vpc.yaml", "...")
//	work.Commit("Add a VPC")
//	work.Push()
//
//	srv.RejectPush("main is protected")
//	... // what does the program under test make of that?
//	srv.Clear()
//
// [Work] is a clone that is driven by the git command, for the part of a test
// that plays a person or another host.
//
// All methods may be called at any time and from any goroutine. A fault
// applies to each request that arrives after it was set. The git and
// git-http-backend of the machine are used; the user's and the system's git
// configuration are not.
package gitserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Options say what kind of server is wanted. The zero value is a server
// without TLS that lets everybody fetch and push.
type Options struct {
	// Dir holds the bare repositories, each as Dir/<name>.git. Repositories
	// that are there already are served too. When empty, Start uses a
	// temporary directory of the test; Listen refuses.
	Dir string

	// Username and Password are asked for with basic authentication
	// (RFC 7617) when either is set.
	Username, Password string

	// TLS serves HTTPS with a certificate made for this server, which
	// Server.CAFile lets clients trust.
	TLS bool

	// ReadOnly refuses every push with status 403.
	ReadOnly bool
}

// Server is a running git server.
type Server struct {
	// URL is where the server listens, such as "http://127.0.0.1:40123". It
	// stays the same over Down and Up.
	URL string

	// CAFile is a PEM file with the certificate to trust; empty without TLS.
	// It exists until Close.
	CAFile string

	opts    Options
	t       testing.TB // nil for Listen
	program string     // git-http-backend
	tempDir string     // holds CAFile and the hooks of RejectPush
	hooks   string     // core.hooksPath while pushes are to be rejected
	addr    string     // host:port
	port    int        // socket that keeps the port ours while nobody listens
	tls     *tls.Config

	sent, received atomic.Int64

	handlers sync.WaitGroup // running handlers; Add only under mu and before closed

	mu         sync.Mutex
	changed    chan struct{} // closed and replaced with each change below
	fault      fault
	beforePush func()
	requests   Requests
	up         *listening // nil while down
	closed     bool
}

// listening is what exists between Up and Down.
type listening struct {
	http   *http.Server
	cancel context.CancelFunc // ends the requests in hand, and their git
	done   chan struct{}      // closed when the accepting goroutine is gone
}

// Start starts a server that is closed when the test ends. Failures end the
// test.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	s, err := Listen(opts)
	if err != nil {
		t.Fatalf("starting a git server: %v", err)
	}
	s.t = t
	t.Cleanup(s.Close)
	return s
}

// Listen starts a server for a program that is not a test. The caller closes
// it.
func Listen(opts Options) (_ *Server, err error) {
	if opts.Dir == "" {
		return nil, errors.New("no directory for the repositories given")
	}
	if opts.Dir, err = filepath.Abs(opts.Dir); err != nil {
		return nil, err
	}
	s := &Server{opts: opts, port: -1, changed: make(chan struct{})}
	defer func() {
		if err != nil {
			s.release()
		}
	}()

	if s.program, err = backendProgram(); err != nil {
		return nil, err
	}
	if s.tempDir, err = os.MkdirTemp("", "gitserver-"); err != nil {
		return nil, err
	}
	if s.hooks, err = writeRejectHook(s.tempDir); err != nil {
		return nil, fmt.Errorf("writing the pre-receive hook: %w", err)
	}
	if s.port, s.addr, err = reservePort(); err != nil {
		return nil, fmt.Errorf("reserving a port: %w", err)
	}
	s.URL = "http://" + s.addr
	if opts.TLS {
		s.URL = "https://" + s.addr
		s.CAFile = filepath.Join(s.tempDir, "ca.pem")
		if err := s.certify(time.Now().Add(24 * time.Hour)); err != nil {
			return nil, err
		}
	}
	if err = s.listen(); err != nil {
		return nil, err
	}
	return s, nil
}

// RepoURL returns the URL of the repository of that name, without
// credentials.
func (s *Server) RepoURL(name string) string {
	return s.URL + "/" + name + ".git"
}

// Create makes the bare repository Dir/<name>.git, whose default branch is
// main, and returns its directory. The name may have several elements, such
// as "net/fabrics". It is no error when the repository exists. Other failures
// end the test, or panic in a program without one.
func (s *Server) Create(name string) (dir string) {
	dir = filepath.Join(s.opts.Dir, filepath.FromSlash(name)+".git")
	// Without a template there are no sample hooks to copy.
	cmd := exec.Command("git", "init", "--quiet", "--bare", "--initial-branch=main", "--template=", dir)
	cmd.Env = gitEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		s.fail(fmt.Errorf("creating the repository %s: %w: %s", name, err, out))
	}
	return dir
}

// Requests are numbers of requests by what they ask for. A request counts
// when it arrives, whatever becomes of it: the one that a client sends first
// without credentials, to be told that some are needed, counts too.
type Requests struct {
	// AdvertiseFetch and AdvertisePush are GETs of info/refs for
	// git-upload-pack and git-receive-pack. With protocol v0 the answer
	// lists the refs; with v2 that for fetching lists capabilities only.
	AdvertiseFetch, AdvertisePush int
	// LsRefs are POSTs to git-upload-pack with protocol v2's ls-refs.
	LsRefs int
	// Fetch are all other POSTs to git-upload-pack. A fetch can take several.
	Fetch int
	// Push are POSTs to git-receive-pack. git announces a push of more than
	// 1 MiB (http.postBuffer) with one that is empty.
	Push int
	// Other is what is none of the above.
	Other int
}

// Requests returns how many requests have arrived.
func (s *Server) Requests() Requests {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// WaitRequests waits until enough holds for the requests that have arrived,
// so that a test knows that a client hangs, or was refused, without sleeping.
// Its error is the context's.
func (s *Server) WaitRequests(ctx context.Context, enough func(Requests) bool) error {
	for {
		s.mu.Lock()
		n, changed := s.requests, s.changed
		s.mu.Unlock()
		if enough(n) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Bytes returns how many bytes went over the server's connections: HTTP
// headers and, with TLS, its handshakes and framing included.
func (s *Server) Bytes() (sent, received int64) {
	return s.sent.Load(), s.received.Load()
}

// Close ends the requests in hand, waits for them and stops the server. The
// repositories stay.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.Down()
	s.handlers.Wait()
	s.release()
}

// release gives back what Listen took before it listened.
func (s *Server) release() {
	if s.port >= 0 {
		syscall.Close(s.port)
		s.port = -1
	}
	if s.tempDir != "" {
		os.RemoveAll(s.tempDir)
	}
}

// fail ends the test, or panics in a program.
func (s *Server) fail(err error) {
	if s.t == nil {
		panic("gitserver: " + err.Error())
	}
	s.t.Helper()
	s.t.Fatal(err)
}

// listen starts to accept connections on s.addr.
func (s *Server) listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up != nil || s.closed {
		return nil
	}
	ln, err := net.Listen("tcp", s.addr)
	if err != nil {
		return err
	}
	ln = countingListener{ln, s}
	ctx, cancel := context.WithCancel(context.Background())
	up := &listening{cancel: cancel, done: make(chan struct{})}
	// HTTP/1.1 also over TLS: with HTTP/2, libcurl 7.88 (Debian 12) may ask
	// git for more of a chunked body that has ended, and the push of a large
	// pack then hangs for ever, in the client.
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	up.http = &http.Server{
		TLSConfig: s.tls,
		Protocols: http1,
		// Clients that hang up or don't trust us are what tests are about.
		ErrorLog:    log.New(io.Discard, "", 0),
		BaseContext: func(net.Listener) context.Context { return ctx },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.handle(ctx, w, r)
		}),
	}
	s.up = up
	go func() {
		defer close(up.done)
		// Both return for no other reason than Close here.
		if s.tls != nil {
			up.http.ServeTLS(ln, "", "")
		} else {
			up.http.Serve(ln)
		}
	}()
	return nil
}

// reservePort binds, but does not listen on, a free port of 127.0.0.1. While
// the socket is open the kernel gives that port to nobody who asks for any
// port, and refuses connections to it. Both this socket and the listener of
// package net have SO_REUSEADDR, and so, on Linux, the one that listens can
// come and go beside the one that doesn't.
func reservePort() (fd int, addr string, err error) {
	fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, "", os.NewSyscallError("socket", err)
	}
	if err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	var name syscall.Sockaddr
	if err == nil {
		name, err = syscall.Getsockname(fd)
	}
	if err != nil {
		syscall.Close(fd)
		return -1, "", os.NewSyscallError("bind", err)
	}
	return fd, fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port), nil
}

// certify makes the certificate to serve while nobody listens, and CAFile.
func (s *Server) certify(notAfter time.Time) error {
	cert, err := newCertificate(notAfter)
	if err != nil {
		return fmt.Errorf("making a certificate: %w", err)
	}
	s.tls = &tls.Config{Certificates: []tls.Certificate{cert}}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	return os.WriteFile(s.CAFile, block, 0o644)
}

// newCertificate returns a self-signed certificate for 127.0.0.1 and
// localhost that is its own authority.
func newCertificate(notAfter time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "gitserver"},
		NotBefore:             notAfter.Add(-25 * time.Hour),
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:              []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// countingListener counts the bytes of its connections.
type countingListener struct {
	net.Listener
	s *Server
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c, l.s}, nil
}

type countingConn struct {
	net.Conn
	s *Server
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.s.received.Add(int64(n))
	return n, err
}

func (c countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.s.sent.Add(int64(n))
	return n, err
}

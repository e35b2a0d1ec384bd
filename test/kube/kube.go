// SPDX-License-Identifier: Apache-2.0

// Package kube starts real Kubernetes API servers for tests, the demo and the
// benchmarks.
//
// A server is a process of its own, etcd and kube-apiserver in one (see
// test/controlplane, a module of its own, so that hhwatchd does not depend on
// Kubernetes' sources). It is built once and kept in the user's cache
// directory; [Build] does that with visible progress, and everything else here
// does it when it is still missing. It is ready two to three seconds after its
// start and takes 300 to 400 MB. [Kubectl] builds a kubectl of the same version.
//
//	api := kube.Start(t, kube.Options{CRDs: []string{kube.CRDs()}})
//	// run hhwatchd with api.Kubeconfig
//	o, err := api.Get("vpc.githedgehog.com/v1beta1/vpcs", "default", "vpc-1")
//
// [Server.Kubeconfig] is for the user hhwatchd, who may do just what
// packaging/rbac.yaml grants: the tests that use it prove that this suffices.
// [Server.Restart] and [Server.Kill] keep the data, the port and thereby the
// kubeconfigs. No server outlives the process that started it.
//
// [Server.Get], [Server.Watch] and their like are the tests' own look at the API
// server: plain HTTPS, nothing shared with hhwatchd's client.
package kube

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Options say what server to start.
type Options struct {
	// Dir has the server's data, certificates, kubeconfigs and its log,
	// controlplane.log. A server started again on the same directory and port
	// goes on where the former one ended. [Start] makes one when it is empty;
	// [Launch] requires it.
	Dir string
	// Port is the TCP port on 127.0.0.1; 0 picks a free one.
	Port int
	// CRDs are directories of CustomResourceDefinitions (*.yaml) to install, such
	// as [CRDs].
	CRDs []string
}

// Server is a Kubernetes API server.
type Server struct {
	// URL is https://127.0.0.1:PORT.
	URL string
	// AdminKubeconfig is the file for a user of the group system:masters.
	AdminKubeconfig string
	// Kubeconfig is the file for the user hhwatchd, with the rights of
	// packaging/rbac.yaml.
	Kubeconfig string

	binary  string
	opts    Options
	process *process
	admin   *http.Client
}

// logFile is where the server logs, in its directory.
const logFile = "controlplane.log"

// startLimit bounds the start of a server, which takes three seconds on an idle
// machine.
const startLimit = 2 * time.Minute

// Start starts a server that ends with the test, building it first if needed.
// It fails the test when it cannot, and skips it in -short mode.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	if testing.Short() {
		t.Skip("starts an API server")
	}
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	s, err := Launch(t.Context(), opts)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(opts.Dir, logFile)) // perhaps it did not get as far
		t.Fatalf("%v\n%s", err, log[max(0, len(log)-4096):])
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Launch is [Start] for programs that are not tests: the caller ends the server
// with [Server.Stop]. The context is for the start alone.
func Launch(ctx context.Context, opts Options) (*Server, error) {
	if opts.Dir == "" {
		return nil, errors.New("starting the test API server: no directory given")
	}
	binary, err := Build(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	s := &Server{
		AdminKubeconfig: filepath.Join(opts.Dir, "admin.kubeconfig"),
		Kubeconfig:      filepath.Join(opts.Dir, "hhwatchd.kubeconfig"),
		binary:          binary,
		opts:            opts,
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	if s.admin, err = client(opts.Dir, "admin"); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Stop ends the server and waits for that. It is not an error if it has ended
// already.
func (s *Server) Stop() error {
	if s.admin != nil {
		s.admin.CloseIdleConnections()
	}
	s.process.stdin.Close()
	select {
	case <-s.process.done:
		return nil
	case <-time.After(10 * time.Second):
		s.Kill()
		return fmt.Errorf("the test API server did not end when its input was closed; see %s", s.log())
	}
}

// Kill ends the server with SIGKILL and waits for that.
func (s *Server) Kill() {
	s.process.cmd.Process.Kill()
	<-s.process.done
}

// Restart ends the server, unless it has ended already, and starts it again
// with the same data on the same port.
func (s *Server) Restart() error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.start(context.Background())
}

func (s *Server) log() string { return filepath.Join(s.opts.Dir, logFile) }

// process is one run of the server.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{} // closed when it has ended and was waited for
}

// start runs the server and returns when it is ready. The port that it got is
// kept for the next time.
func (s *Server) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()

	args := []string{
		"--dir", s.opts.Dir,
		"--port", strconv.Itoa(s.opts.Port),
		"--rbac", filepath.Join(root, "packaging", "rbac.yaml"),
	}
	for _, dir := range s.opts.CRDs {
		args = append(args, "--crds", dir)
	}
	cmd := exec.Command(s.binary, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe() // ends the server when it is closed, also by our own end
	if err != nil {
		return fmt.Errorf("starting the test API server: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("starting the test API server: %w", err)
	}
	// For a server that does not get as far as looking at its input.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	p := &process{cmd: cmd, stdin: stdin, done: make(chan struct{})}
	started := make(chan error, 1)
	ready := make(chan string, 1)
	go func() {
		defer close(p.done)
		// Pdeathsig goes by the thread that started the process: keep it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		r := bufio.NewReader(stdout)
		line, _ := r.ReadString('\n')
		ready <- line
		io.Copy(io.Discard, r)
		cmd.Wait() // the way it ended is told by what it said
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting the test API server: %w", err)
	}
	s.process = p

	select {
	case <-ctx.Done():
		s.Kill()
		return fmt.Errorf("starting the test API server: %w; see %s", context.Cause(ctx), s.log())
	case line := <-ready:
		url, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
		if !ok {
			s.Kill()
			said := cmp.Or(strings.TrimSpace(stderr.String()), "it ended at once")
			return fmt.Errorf("starting the test API server: %s; see %s", said, s.log())
		}
		if s.URL != "" {
			return nil // as before; others may be reading it
		}
		s.URL = url
		_, port, _ := strings.Cut(strings.TrimPrefix(url, "https://"), ":")
		s.opts.Port, err = strconv.Atoi(port)
		return err
	}
}

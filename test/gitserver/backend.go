// SPDX-License-Identifier: Apache-2.0

package gitserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// lsRefs is the first packet of a request with the ls-refs command
// (gitprotocol-v2(5)). Its four digits of length differ with an optional
// newline.
const lsRefs = "0014command=ls-refs"

// handle answers one request. Its context ends with the server's going down,
// the request's own also when the client goes away.
func (s *Server) handle(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	s.handlers.Add(1)
	s.mu.Unlock()
	defer s.handlers.Done()

	// git may speak before it has read all of the body. Without this, the rest
	// of the body would be taken away then.
	http.NewResponseController(w).EnableFullDuplex()
	body := bufio.NewReaderSize(r.Body, 32<<10)
	at := s.count(r, body)

	f, ok := s.misbehave(r.Context(), at)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	if f.cut {
		w = &cutWriter{w, f.cutAfter}
	}
	switch {
	case f.status != 0:
		if f.status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		}
		http.Error(w, "The server was told to fail.", f.status)
		return
	case f.garbage:
		w.Header().Set("Content-Type", expectedType(r))
		io.WriteString(w, "<!DOCTYPE html>\n<title>Welcome to the guest network</title>\n<p>Please log in.</p>\n")
		return
	case !s.authorized(r):
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "Credentials are needed.", http.StatusUnauthorized)
		return
	}
	if at == pushing {
		if fn := s.takeBeforePush(); fn != nil {
			fn()
		}
	}
	s.runBackend(ctx, w, r, body, f)
}

// A service is what a request is about, as far as faults tell it apart.
type service int

const (
	other service = iota
	fetching
	pushing
)

// count counts the request by its kind and tells what it is about.
func (s *Server) count(r *http.Request, body *bufio.Reader) (at service) {
	upload := strings.HasSuffix(r.URL.Path, "/git-upload-pack")
	receive := strings.HasSuffix(r.URL.Path, "/git-receive-pack")
	info := strings.HasSuffix(r.URL.Path, "/info/refs")
	service := r.URL.Query().Get("service")

	var n func(*Requests) *int
	switch {
	case r.Method == http.MethodGet && info && service == "git-upload-pack":
		n = func(q *Requests) *int { return &q.AdvertiseFetch }
	case r.Method == http.MethodGet && info && service == "git-receive-pack":
		n = func(q *Requests) *int { return &q.AdvertisePush }
	case r.Method == http.MethodPost && upload:
		at = fetching
		n = func(q *Requests) *int { return &q.Fetch }
		if r.Header.Get("Git-Protocol") != "" {
			// Too short a body is git's to refuse.
			start, _ := body.Peek(len(lsRefs))
			if len(start) > 4 && string(start[4:]) == lsRefs[4:] {
				at = other
				n = func(q *Requests) *int { return &q.LsRefs }
			}
		}
	case r.Method == http.MethodPost && receive:
		at = pushing
		n = func(q *Requests) *int { return &q.Push }
	default:
		n = func(q *Requests) *int { return &q.Other }
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	*n(&s.requests)++
	s.wake()
	return at
}

// authorized reports whether the request has the credentials that are needed.
func (s *Server) authorized(r *http.Request) bool {
	if s.opts.Username == "" && s.opts.Password == "" {
		return true
	}
	username, password, ok := r.BasicAuth()
	return ok && username == s.opts.Username && password == s.opts.Password
}

// expectedType is the content type of a right answer to the request
// (gitprotocol-http(5)).
func expectedType(r *http.Request) string {
	if service := r.URL.Query().Get("service"); service != "" {
		return "application/x-" + service + "-advertisement"
	}
	return "application/x-" + r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] + "-result"
}

// runBackend answers the request by git http-backend. A client that goes away
// is noticed by git as it would be elsewhere: its input ends, or its output
// breaks. The processes are killed only when ctx ends.
func (s *Server) runBackend(ctx context.Context, w http.ResponseWriter, r *http.Request, body io.Reader, f fault) {
	cmd := exec.CommandContext(ctx, s.program)
	cmd.Env = s.backendEnv(r, f)
	if r.Body != http.NoBody {
		cmd.Stdin = body
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	// Its own process group, so that what http-backend starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("Running git http-backend: %v", err), http.StatusInternalServerError)
		return
	}
	// The pipe is closed first: git must not wait for us to read while we wait
	// for it to end.
	end := sync.OnceFunc(func() {
		stdout.Close()
		cmd.Wait()
	})
	defer end() // also when a cutWriter panics

	out := bufio.NewReaderSize(stdout, 32<<10)
	header, err := textproto.NewReader(out).ReadMIMEHeader()
	if err != nil {
		end() // stderr is complete then
		http.Error(w, fmt.Sprintf("git http-backend: %v: %s", err, stderr.Bytes()), http.StatusInternalServerError)
		return
	}
	status := http.StatusOK
	if line := header.Get("Status"); line != "" {
		// "404 Not Found"
		code, _, _ := strings.Cut(line, " ")
		if n, err := strconv.Atoi(code); err == nil {
			status = n
		}
		header.Del("Status")
	}
	for name, values := range header {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
	// A failure means that the client is gone; git then sees its output
	// break.
	io.Copy(w, out)
}

// backendEnv is the environment of git http-backend: the variables of
// RFC 3875 that it reads, and the server's own settings.
func (s *Server) backendEnv(r *http.Request, f fault) []string {
	config := []string{
		"http.receivepack", strconv.FormatBool(!s.opts.ReadOnly),
		// No git of ours outlives its request, to be in the way of a test's
		// clean-up.
		"receive.autogc", "false",
	}
	env := append(gitEnv(),
		"GIT_PROJECT_ROOT="+s.opts.Dir,
		"GIT_HTTP_EXPORT_ALL=1",
		"REQUEST_METHOD="+r.Method,
		"PATH_INFO="+r.URL.Path,
		"QUERY_STRING="+r.URL.RawQuery,
		"CONTENT_TYPE="+r.Header.Get("Content-Type"),
		"HTTP_CONTENT_ENCODING="+r.Header.Get("Content-Encoding"),
		"GIT_PROTOCOL="+r.Header.Get("Git-Protocol"),
	)
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		env = append(env, "REMOTE_ADDR="+host)
	}
	// Without a length the backend reads until its input ends, as it must for
	// a chunked body.
	if r.ContentLength >= 0 {
		env = append(env, fmt.Sprintf("CONTENT_LENGTH=%d", r.ContentLength))
	}
	if s.opts.Username != "" {
		env = append(env, "REMOTE_USER="+s.opts.Username)
	}
	if f.reject != "" {
		env = append(env, rejectMessage+"="+f.reject)
		config = append(config, "core.hooksPath", s.hooks)
	}
	return append(env, configEnv(config...)...)
}

// gitEnv is an environment for git in which only the machine's PATH and
// temporary directory matter.
func gitEnv() []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"LC_ALL=C",
		"GIT_CONFIG_GLOBAL=" + os.DevNull,
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0",
	}
	if dir := os.Getenv("TMPDIR"); dir != "" {
		env = append(env, "TMPDIR="+dir)
	}
	return env
}

// configEnv gives git configuration through its environment (git-config(1),
// GIT_CONFIG_COUNT): names and values in turn.
func configEnv(pairs ...string) []string {
	env := []string{fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(pairs)/2)}
	for i := 0; i < len(pairs); i += 2 {
		env = append(env,
			fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i/2, pairs[i]),
			fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i/2, pairs[i+1]))
	}
	return env
}

// backendProgram returns the path of git-http-backend, which is not in PATH:
// running it directly saves running git for each request.
var backendProgram = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return "", fmt.Errorf("asking git where its programs are: %w", err)
	}
	program := filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("looking for git http-backend: %w", err)
	}
	return program, nil
})

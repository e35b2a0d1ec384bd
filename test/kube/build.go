// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Binary returns the path of the API server's program, building it first if
// needed. It fails the test when it cannot.
func Binary(t testing.TB) string {
	t.Helper()
	binary, err := Build(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// Build returns the path of the API server's program in the user's cache
// directory, and builds it if it is not there. That takes some minutes: what it
// is doing goes to stderr, a line every ten seconds. When several processes
// call it at the same time, one builds and the others wait.
//
// The name of the program has a hash of its sources and of the version of Go,
// so each of the source trees on a machine finds its own.
func Build(ctx context.Context, stderr io.Writer) (string, error) {
	return apiServer.cached(ctx, stderr)
}

// Kubectl is [Build] for a kubectl of the API server's own version, which takes
// one to two minutes after the API server has been built. It keeps what it
// learns of a server in the user's home directory: give each server a
// KUBECACHEDIR of its own.
func Kubectl(ctx context.Context, stderr io.Writer) (string, error) {
	return kubectl.cached(ctx, stderr)
}

// A program is what test/controlplane's module can build.
type program struct {
	name string // of the file in the cache
	pkg  string // the package, seen from the module's directory
	what string // it is, for people
	time string // that it takes, with cold caches
}

var (
	apiServer = program{"controlplane", ".", "the test API server", "about 5 minutes on 2 cores"}
	kubectl   = program{"kubectl", "k8s.io/kubernetes/cmd/kubectl", "kubectl", "about 2 minutes on 2 cores"}
)

// cached returns the path of the program in the cache directory.
func (p program) cached(ctx context.Context, stderr io.Writer) (string, error) {
	binary, err := p.build(ctx, stderr)
	if err != nil {
		return "", fmt.Errorf("building %s: %w", p.what, err)
	}
	return binary, nil
}

func (p program) build(ctx context.Context, stderr io.Writer) (string, error) {
	if root == "" {
		return "", errNoRoot
	}
	src := filepath.Join(root, "test", "controlplane")
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "hhwatchd")
	hash, err := hashSources(src)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(cache, p.name+"-"+hash)
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}

	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(cache, p.name+".lock"), p.what, stderr)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(binary); err == nil {
		return binary, nil // another process has built it meanwhile
	}
	// A build that is cut off leaves no program that looks whole.
	tmp, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	made := filepath.Join(tmp, p.name)
	if err := p.compile(ctx, src, made, stderr); err != nil {
		return "", err
	}
	return binary, os.Rename(made, binary)
}

// hashSources stands for all that decides what a program is.
func hashSources(src string) (string, error) {
	files, err := filepath.Glob(filepath.Join(src, "*.go"))
	if err != nil {
		return "", err
	}
	files = append(files, filepath.Join(src, "go.mod"), filepath.Join(src, "go.sum"))
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %s\n", runtime.Version(), runtime.GOARCH, ldflags)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(file), len(b), b)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}

// lock waits for the exclusive lock of a file, under which one process builds
// what. It ends with the process, too.
func lock(ctx context.Context, path, what string, stderr io.Writer) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for waited := false; ; waited = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		if !waited {
			fmt.Fprintf(stderr, "another process is building %s: waiting for it\n", what)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// ldflags take the release, and its major and minor number. Without them the
// programs say that they are v0.0.0-master.
const ldflags = "-s -w" +
	" -X k8s.io/component-base/version.gitVersion=%s" +
	" -X k8s.io/component-base/version.gitMajor=%s" +
	" -X k8s.io/component-base/version.gitMinor=%s" +
	" -X k8s.io/component-base/version.gitTreeState=clean"

// kubernetesVersion finds the release in a go.mod.
var kubernetesVersion = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\S*)`)

// compile runs go build in the directory src and reports how far it is.
func (p program) compile(ctx context.Context, src, binary string, stderr io.Writer) error {
	mod, err := os.ReadFile(filepath.Join(src, "go.mod"))
	if err != nil {
		return err
	}
	version := kubernetesVersion.FindSubmatch(mod)
	if version == nil {
		return errors.New("its go.mod does not require k8s.io/kubernetes")
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-v", "-buildvcs=false",
		"-ldflags", fmt.Sprintf(ldflags, version[1], version[2], version[3]), "-o", binary, p.pkg)
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off") // needs no C compiler
	out, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	fmt.Fprintf(stderr, "building %s (Kubernetes %s), once: %s\n", p.what, version[1], p.time)
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()

	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	modules, packages := 0, 0
	var rest bytes.Buffer // neither progress: what is wrong
	for lines != nil {
		select {
		case line, ok := <-lines:
			switch {
			case !ok:
				lines = nil
			case strings.HasPrefix(line, "go: downloading "):
				modules++
			case strings.ContainsAny(line, " \t:"):
				fmt.Fprintf(&rest, "\n%s", line)
			default: // -v names each package as its turn comes
				packages++
			}
		case <-tick.C:
			fmt.Fprintf(stderr, "  %v: %d modules downloaded, %d packages compiled\n",
				time.Since(began).Round(time.Second), modules, packages)
		}
	}
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("go build: %w%s", err, rest.Bytes())
	}
	fmt.Fprintf(stderr, "built %s in %v\n", p.what, time.Since(began).Round(time.Second))
	return nil
}

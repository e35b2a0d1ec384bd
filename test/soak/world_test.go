// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
	"github.com/hhwatchd/hhwatchd/test/kube"
)

// The fabrics: objects that leave the first are pruned from the cluster, those
// of the second stay there.
const (
	pruned   = "fabric-1"
	unpruned = "fabric-2"
)

var fabrics = []string{pruned, unpruned}

// token is the password of the git server, which nobody may print.
const token = "s3cr3t-token"

// A world is a git server, an API server, and the hosts.
type world struct {
	t     *testing.T
	dir   string
	git   *gitserver.Server
	bare  string
	api   *kube.Server
	hosts []*host
	*model

	stirred chan struct{} // something was dropped or pushed; capacity 1

	found findings
}

// A host is a management host with its daemon.
type host struct {
	w      *world
	name   string
	state  string
	config string
	log    string

	cmd     *exec.Cmd
	ended   chan struct{} // closed when cmd has ended
	started time.Time
	scanned int64 // bytes of log that were looked at

	mu       sync.Mutex
	expected bool // that it ends
}

func newWorld(t *testing.T, dir string) *world {
	w := &world{t: t, dir: dir, model: newModel(), stirred: make(chan struct{}, 1)}
	w.found.init()
	w.git = gitserver.Start(t, gitserver.Options{Dir: filepath.Join(dir, "git"), Username: "hhwatchd", Password: token})
	w.bare = w.git.Create("fabrics")
	w.inGit(w.bare, "config", "receive.autogc", "false")
	tree := w.inGit(w.bare, "mktree") // of nothing
	first := w.inGit(w.bare, "commit-tree", "-m", "The first commit", strings.TrimSpace(tree))
	w.inGit(w.bare, "update-ref", "refs/heads/main", strings.TrimSpace(first))
	w.api = kube.Start(t, kube.Options{Dir: filepath.Join(dir, "kube"), CRDs: []string{kube.FixtureCRDs()}})
	w.write(filepath.Join(dir, "token"), token+"\n")
	w.hosts = []*host{w.newHost("mgmt-1", true), w.newHost("mgmt-2", false)}
	return w
}

// newHost makes a host. Only one of them applies: two that prune would each
// have to know what the other one applied.
func (w *world) newHost(name string, applies bool) *host {
	h := &host{
		w: w, name: name,
		state:  filepath.Join(w.dir, name),
		config: filepath.Join(w.dir, name+".yaml"),
		log:    filepath.Join(w.dir, name+".log"),
	}
	var b strings.Builder
	fmt.Fprintf(&b, `stateDir: %s
settle: {quiet: 50ms, max: 1s}
rescan: 1m
repositories:
  - name: site-a
    url: %s
    interval: 1s
    auth: {username: hhwatchd, passwordFile: %q}
    author: {name: hhwatchd, email: hhwatchd@%s.example.net}
    fabrics:
`, h.state, w.git.RepoURL("fabrics"), filepath.Join(w.dir, "token"), name)
	for _, f := range fabrics {
		// Its words are made up one by one, and would want each other's VLANs.
		fmt.Fprintf(&b, "      - name: %s\n        path: %s\n        references: off\n", f, fabricPath(f))
		if applies {
			fmt.Fprintf(&b, "        cluster: {kubeconfig: %s}\n        prune: %v\n", w.api.Kubeconfig, f == pruned)
		}
	}
	w.write(h.config, b.String())
	w.write(h.log, "")
	return h
}

func (h *host) clone() string            { return filepath.Join(h.state, "repos", "site-a") }
func (h *host) raw(fabric string) string { return filepath.Join(h.state, "raw", fabric) }
func (h *host) unmanaged(f string) string {
	return filepath.Join(h.clone(), fabricPath(f), "unmanaged")
}
func (h *host) journal() string { return filepath.Join(h.state, "journal") }
func (h *host) email() string   { return "hhwatchd@" + h.name + ".example.net" }

// start starts the daemon.
func (h *host) start() {
	out, err := os.OpenFile(h.log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		h.w.t.Errorf("starting the daemon on %s: %v", h.name, err)
		return
	}
	defer out.Close()
	fmt.Fprintf(out, "---- start %.3fs\n", time.Since(h.w.start).Seconds())
	cmd := exec.Command(binary, "--config", h.config, "run")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began, ended := make(chan error, 1), make(chan struct{})
	h.expect(false)
	go func() {
		defer close(ended)
		// Pdeathsig goes by the thread that started the process: keep it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		began <- err
		if err != nil {
			return
		}
		err = cmd.Wait()
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.expected {
			h.w.t.Errorf("the daemon on %s ended by itself: %v; the end of its log:\n%s", h.name, err, h.tail())
		}
	}()
	if err := <-began; err != nil {
		h.w.t.Errorf("starting the daemon on %s: %v", h.name, err)
		return
	}
	h.cmd, h.ended, h.started = cmd, ended, time.Now()
}

func (h *host) expect(end bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expected = end
}

func environment() []string {
	return append(os.Environ(), "XDG_RUNTIME_DIR=", "RUNTIME_DIRECTORY=", "no_proxy=127.0.0.1,localhost", "GORACE=halt_on_error=1")
}

// end ends the daemon with a signal, waits for that, and looks at what it
// said.
func (h *host) end(sig syscall.Signal) {
	if h.cmd == nil {
		return
	}
	h.expect(true)
	h.cmd.Process.Signal(sig)
	select {
	case <-h.ended:
	case <-time.After(patience):
		h.w.t.Errorf("the daemon on %s does not end on %v:\n%s", h.name, sig, h.tail())
		h.cmd.Process.Signal(syscall.SIGQUIT) // its stacks go to the log
		time.Sleep(time.Second)
		h.cmd.Process.Kill()
		<-h.ended
	}
	status := h.cmd.ProcessState.Sys().(syscall.WaitStatus)
	// Before it has got as far as to handle it, a signal ends any process.
	if !(status.Signaled() && status.Signal() == sig) && status.ExitStatus() != 0 {
		h.w.t.Errorf("the daemon on %s ended with %v upon %v:\n%s", h.name, h.cmd.ProcessState, sig, h.tail())
	}
	h.cmd = nil
	h.scan()
}

// scan looks for what a daemon must never say in what was added to its log.
func (h *host) scan() {
	f, err := os.Open(h.log)
	if err != nil {
		h.w.t.Error(err)
		return
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, h.scanned, 1<<40))
	if err != nil {
		h.w.t.Error(err)
		return
	}
	h.scanned += int64(len(text))
	for _, bad := range []string{"panic:", "DATA RACE", "fatal error:", "SIGSEGV", token, marker} {
		if i := bytes.Index(text, []byte(bad)); i >= 0 {
			h.w.t.Errorf("the daemon on %s says %q:\n%s", h.name, bad, text[max(0, i-1000):min(len(text), i+6000)])
		}
	}
}

func (h *host) tail() string {
	text, _ := os.ReadFile(h.log)
	return string(text[max(0, len(text)-4000):])
}

// hhwatchd runs a command on the host.
func (h *host) hhwatchd(args ...string) (string, error) {
	cmd := exec.Command(client, append([]string{"--config", h.config}, args...)...)
	cmd.Env = environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("hhwatchd %s: %w:\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// status is the part of "status -o json" that is of interest.
type status struct {
	Head     string
	Unpushed int
	Down     string
	Cycles   int
	Error    string
	Fabrics  []struct {
		Name             string
		Objects, Applied int
		Commit           string
		Down, Held       string
		Failed           []string
		Skipped, Waiting []string
	}
}

func (h *host) status() (status, error) {
	out, err := h.hhwatchd("status", "-o", "json")
	var doc struct{ Repositories []status }
	if jerr := json.Unmarshal([]byte(out), &doc); jerr != nil || len(doc.Repositories) != 1 {
		return status{}, errors.Join(err, jerr)
	}
	return doc.Repositories[0], nil // the exit code says no more than it
}

// input lists what lies in a raw directory of the host and is input.
func (h *host) input(fabric string) []string {
	var left []string
	dir := h.raw(fabric) + "/"
	filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != ".gitkeep" {
			left = append(left, strings.TrimPrefix(p, dir))
		}
		return nil // what vanishes meanwhile is not there
	})
	return left
}

// stir tells who waits for it that something was dropped or pushed.
func (w *world) stir() {
	select {
	case w.stirred <- struct{}{}:
	default:
	}
}

func (w *world) write(file, content string) {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// runGit runs git in a directory with that input.
func runGit(dir string, stdin []byte, args ...string) (string, error) {
	// Without renames, as a rebase otherwise takes a new managed file for the
	// raw one under another name, and what was said in raw/ is said there.
	cmd := exec.Command("git", append([]string{"-c", "safe.directory=*", "-c", "merge.renames=false"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Dana Dropper", "GIT_AUTHOR_EMAIL=dana@example.net",
		"GIT_COMMITTER_NAME=Dana Dropper", "GIT_COMMITTER_EMAIL=dana@example.net", "GIT_OPTIONAL_LOCKS=0")
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), err
}

// inGit is runGit for what has to go well.
func (w *world) inGit(dir string, args ...string) string {
	w.t.Helper()
	out, err := runGit(dir, nil, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// tree lists the files of the remote branch below gitops/: path to blob.
func (w *world) tree() map[string]string {
	files := map[string]string{}
	out, err := runGit(w.bare, nil, "ls-tree", "-r", "-z", "main", "--", "gitops/")
	if err != nil {
		return files // no commit yet
	}
	for e := range strings.SplitSeq(out, "\x00") {
		if info, path, ok := strings.Cut(e, "\t"); ok {
			files[path] = info[strings.LastIndexByte(info, ' ')+1:]
		}
	}
	return files
}

// head is the remote branch.
func (w *world) head() string {
	out, _ := runGit(w.bare, nil, "rev-parse", "-q", "--verify", "main")
	return strings.TrimSpace(out)
}

// few names the first of many.
func few(names []string) string {
	slices.Sort(names)
	if len(names) > 12 {
		return fmt.Sprintf("%q and %d more", names[:12], len(names)-12)
	}
	return fmt.Sprintf("%q", names)
}

// stop ends the daemon for good.
func (h *host) stop() { h.end(syscall.SIGTERM) }

// awaitLook waits until the daemon has had its first look, so that files can be
// dropped. Of what happened before, its journal tells the result only.
func (h *host) awaitLook() {
	h.w.t.Helper()
	if !h.awaitCycle(h.w.t.Context(), patience) {
		h.w.t.Fatalf("no first look on %s:\n%s", h.name, h.tail())
	}
}

// awaitCycle waits for the end of the daemon's first cycle, for so long at
// most, and reports whether it came.
func (h *host) awaitCycle(ctx context.Context, most time.Duration) bool {
	for began := time.Now(); time.Since(began) < most && ctx.Err() == nil; pause(ctx, 50*time.Millisecond) {
		if st, err := h.status(); err == nil && st.Cycles > 0 {
			return true
		}
	}
	return false
}

// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hhwatchd/hhwatchd/journal"
	"github.com/hhwatchd/hhwatchd/test/gitserver"
	"github.com/hhwatchd/hhwatchd/test/kube"
	"github.com/hhwatchd/hhwatchd/test/trace"
)

const (
	repository = "site-a"
	fabric     = "fabric-1"
	fabricPath = "gitops/hedgehog/" + fabric
	email      = "hhwatchd@mgmt-1.example.net" // of the daemon's commits
)

// A host is a management host, with its git server and its part of the API
// server. It is used for one run after the other.
type host struct {
	dir string
	git *gitserver.Server
	api *kube.Server
	n   int // runs so far

	// Of the run.
	bare, state, config, namespace string
	output                         *os.File
	client                         *http.Client // of the control socket

	daemon process
}

// A process is the running daemon.
type process interface {
	Signal(syscall.Signal) error
	Done() <-chan struct{}
}

// plain is a daemon that is not traced.
type plain struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func (p plain) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }
func (p plain) Done() <-chan struct{}         { return p.done }

// reset gives the host a new state directory, repository and namespace.
func (h *host) reset(s *scenario, template string) error {
	if h.output != nil {
		h.output.Close()
	}
	if h.state != "" {
		if err := errors.Join(os.RemoveAll(h.state), os.RemoveAll(h.bare)); err != nil {
			return err
		}
	}
	h.n++
	name := fmt.Sprintf("r%d", h.n)
	h.bare = filepath.Join(h.dir, "git", name+".git")
	h.state = filepath.Join(h.dir, name)
	h.config = filepath.Join(h.dir, "hhwatchd.yaml")
	h.namespace = fmt.Sprintf("%s-%s", filepath.Base(h.dir), name)
	h.git.Clear()
	if err := os.CopyFS(h.bare, os.DirFS(template)); err != nil {
		return err
	}
	ns := fmt.Sprintf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"ns-%s"}}`, h.namespace)
	h.namespace = "ns-" + h.namespace
	if _, err := h.api.Do(http.MethodPost, "/api/v1/namespaces", "application/json", []byte(ns)); err != nil {
		return err
	}
	var err error
	if h.output, err = os.Create(filepath.Join(h.dir, "hhwatchd.log")); err != nil {
		return err
	}
	h.client = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(h.state, "control.sock"))
		},
	}}
	return os.WriteFile(h.config, fmt.Appendf(nil, `stateDir: %s
settle: {quiet: 10ms, max: 1s}
rescan: 1h
repositories:
  - name: %s
    url: %s
    interval: 1h
    author: {name: hhwatchd, email: %s}
    fabrics:
      - name: %s
        path: %s
        cluster: {kubeconfig: %s, namespace: %s}
        prune: %v
        partial: %v
`, h.state, repository, h.git.RepoURL(name), email, fabric, fabricPath, h.api.AdminKubeconfig, h.namespace, s.prune, s.partial), 0o644)
}

func (h *host) clone() string     { return filepath.Join(h.state, "repos", repository) }
func (h *host) raw() string       { return filepath.Join(h.clone(), fabricPath, "raw") }
func (h *host) unmanaged() string { return filepath.Join(h.clone(), fabricPath, "unmanaged") }

// drop puts files into raw/, one after the other.
func (h *host) drop(files []file) error {
	for _, f := range files {
		p := filepath.Join(h.clone(), fabricPath, f.path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, []byte(f.text()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (h *host) args() []string { return []string{"hhwatchd", "--config", h.config, "run"} }

func environment() []string {
	return append(os.Environ(), "XDG_RUNTIME_DIR=", "RUNTIME_DIRECTORY=", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1")
}

// start starts the daemon.
func (h *host) start() error {
	cmd := exec.Command(binary)
	cmd.Args, cmd.Env = h.args(), environment()
	cmd.Stdout, cmd.Stderr = h.output, h.output
	if err := cmd.Start(); err != nil {
		return err
	}
	p := plain{cmd, make(chan struct{})}
	go func() {
		defer close(p.done)
		cmd.Wait() // how it ended is told by what it wrote
	}()
	h.daemon = p
	return nil
}

// trace starts the daemon and shows its calls.
func (h *host) trace(enter func(*trace.Call) trace.Verdict) error {
	p, err := trace.Start(trace.Command{Path: binary, Args: h.args(), Env: environment(), Output: h.output, Enter: enter})
	if err == nil {
		h.daemon = p
	}
	return err
}

// kill ends the daemon in the hard way and waits for that.
func (h *host) kill() {
	if h.daemon != nil {
		h.daemon.Signal(syscall.SIGKILL) // perhaps it has ended
		<-h.daemon.Done()
	}
}

// stop ends the daemon as systemd does.
func (h *host) stop() error {
	if err := h.daemon.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-h.daemon.Done():
		return nil
	case <-time.After(patience):
		return errors.New("the daemon does not stop")
	}
}

func (h *host) awaitEnd(ctx context.Context) error {
	select {
	case <-h.daemon.Done():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(patience):
		return errors.New("the daemon goes on")
	}
}

// counts says whether a call is a crash point: it changes a file of the
// daemon's, or sends something to the git or the API server. What it tells its
// log and those who ask for its status changes nothing.
func (h *host) counts(c *trace.Call) bool {
	return strings.HasPrefix(c.Path, h.state) || strings.HasPrefix(c.To, h.state) || strings.HasPrefix(c.Path, "tcp:")
}

// status is the part of the daemon's status that tells whether it is at rest.
type status struct {
	Repositories []struct {
		Head, Remote string
		Unpushed     int
		Down, Error  string
		Cycles       int
		Fabrics      []struct {
			Objects, Applied          int
			Commit, Down, Error, Held string
			Failed, Skipped, Waiting  []string
		}
	}
}

func (h *host) status() (status, error) {
	var st status
	resp, err := h.client.Get("http://hhwatchd/v1/status")
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil {
		return st, err
	}
	if len(st.Repositories) != 1 || len(st.Repositories[0].Fabrics) != 1 {
		return st, errors.New("it is not up yet")
	}
	return st, nil
}

// errEnded says that the daemon has ended while it was waited for.
var errEnded = errors.New("the daemon has ended")

// await waits until the daemon has done all that the model wants.
func (h *host) await(ctx context.Context, m *model) error {
	deadline := time.Now().Add(patience)
	for {
		err := h.atRest(m)
		if err == nil {
			return nil
		}
		select {
		case <-h.daemon.Done():
			return errEnded
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not in %v: %w", patience, err)
		}
	}
}

func (h *host) atRest(m *model) error {
	st, err := h.status()
	if err != nil {
		return err
	}
	r := st.Repositories[0]
	f := r.Fabrics[0]
	switch {
	case r.Cycles == 0:
		return errors.New("it has not looked yet")
	case r.Down != "" || r.Error != "" || f.Down != "" || f.Error != "" || f.Held != "" || f.Failed != nil || f.Skipped != nil || f.Waiting != nil:
		return fmt.Errorf("it has a complaint: %+v", r)
	case r.Unpushed > 0 || r.Head != r.Remote || f.Commit != r.Head:
		return fmt.Errorf("it has not pushed or applied all: %+v", r)
	case f.Objects != len(m.managed) || f.Applied != len(m.managed):
		return fmt.Errorf("%d objects, %d of them applied, not %d", f.Objects, f.Applied, len(m.managed))
	}
	if tip, err := git(h.bare, "rev-parse", branch); err != nil || tip != r.Head {
		return fmt.Errorf("it is at %s, not at the remote's %s: %v", r.Head, tip, err)
	}
	return errors.Join(m.disk(h), m.remote(h))
}

// sitsStill wants a further full cycle to do nothing at all.
func (h *host) sitsStill() []string {
	before, err := h.everything()
	if err != nil {
		return []string{err.Error()}
	}
	resp, err := h.client.Post("http://hhwatchd/v1/sync", "application/json", strings.NewReader("{}"))
	if err != nil {
		return []string{"asking for a cycle: " + err.Error()}
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil || bytes.Contains(said, []byte(`"error"`)) {
		return []string{fmt.Sprintf("a further cycle: %v: %s", err, said)}
	}
	after, err := h.everything()
	if err != nil {
		return []string{err.Error()}
	}
	var wrong []string
	for i := range before {
		if before[i] != after[i] {
			wrong = append(wrong, fmt.Sprintf("a further cycle changes something:\n%s\nbecomes\n%s", before[i], after[i]))
		}
	}
	return wrong
}

// everything is the state of the world that a cycle without work leaves alone:
// the refs here and there, the objects in the cluster, the journal.
func (h *host) everything() ([]string, error) {
	there, err := git(h.bare, "for-each-ref")
	if err != nil {
		return nil, err
	}
	here, err := git(h.clone(), "for-each-ref")
	if err != nil {
		return nil, err
	}
	objects, err := h.objects()
	if err != nil {
		return nil, err
	}
	var cluster, records strings.Builder
	for _, o := range objects {
		fmt.Fprintf(&cluster, "%s at resource version %s\n", o.Metadata.Name, o.Metadata.ResourceVersion)
	}
	for r, err := range journal.Read(h.journal(), 0) {
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(&records, r.Seq, r.Step)
	}
	return []string{there, here, cluster.String(), records.String()}, nil
}

// An object as the API server has it.
type object struct {
	Metadata struct {
		Name, ResourceVersion string
		Generation            int
		DeletionTimestamp     string
	}
	Spec struct {
		Subnets map[string]struct{ VLAN int }
	}
}

func (h *host) objects() ([]object, error) {
	answer, err := h.api.Do(http.MethodGet, kube.Path("vpc.githedgehog.com/v1beta1/vpcs", h.namespace), "", nil)
	if err != nil {
		return nil, err
	}
	var list struct{ Items []object }
	return list.Items, json.Unmarshal(answer, &list)
}

func (h *host) journal() string { return filepath.Join(h.state, "journal") }

// history shows the journal for people.
func (h *host) history() string {
	out, err := h.hhwatchd("history")
	if err != nil {
		out += err.Error()
	}
	return out
}

// verify checks the journal, and compares it with git.
func (h *host) verify() (string, error) { return h.hhwatchd("journal", "verify") }

// hhwatchd runs a command and returns what it prints.
func (h *host) hhwatchd(args ...string) (string, error) {
	cmd := exec.Command(binary, append([]string{"--config", h.config}, args...)...)
	cmd.Env = environment()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// withLog adds what the daemon had to say to an error.
func (h *host) withLog(err error) error {
	text, rerr := os.ReadFile(h.output.Name())
	return fmt.Errorf("%w\nlog:\n%s", errors.Join(err, rerr), text)
}

// git runs git in a repository and returns what it prints.
func git(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "core.quotePath=false"}, args...)...)
	cmd.Env = environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// filesBelow lists the files below a directory, hidden ones too.
func filesBelow(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, p) // both are absolute
			files = append(files, rel)
		}
		return err
	})
	slices.Sort(files)
	return files, err
}

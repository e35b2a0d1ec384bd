// SPDX-License-Identifier: Apache-2.0

// Package e2e runs the real daemon on real parts: git http-backend, the
// Kubernetes API server, and a file system, as an operator would see it.
package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
	"github.com/hhwatchd/hhwatchd/test/kube"
)

// The program under test: the daemon is built with the race detector, the
// commands that tests run by the hundred are not.
var binary, client string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		defer stopClusters()
		dir, err := os.MkdirTemp("", "hhwatchd-e2e-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary, client = filepath.Join(dir, "hhwatchd-race"), filepath.Join(dir, "hhwatchd")
		for _, build := range [][]string{{"build", "-race", "-o", binary}, {"build", "-o", client}} {
			out, err := exec.Command("go", append(build, "../../cmd/hhwatchd")...).CombinedOutput()
			if err != nil {
				fmt.Fprintf(os.Stderr, "building hhwatchd: %v\n%s", err, out)
				return 1
			}
		}
		return m.Run()
	}())
}

// patience is how long anything that is expected may take before a test
// gives up on it. It is a bound for broken code, not a measure of speed.
const patience = 60 * time.Second

// A world is a git server with one repository, perhaps an API server, and a
// management host with the daemon.
type world struct {
	t      *testing.T
	git    *gitserver.Server
	bare   string // the repository on the git server
	repo   string // its name in the config
	token  string // the file with the password for the git server
	secret string // the file with the webhook's secret
	kube   *kube.Server
	proxy  *kube.Proxy // before it, or nil
	state  string
	config string
	daemon *daemon
}

// options of a world.
type options struct {
	cluster  bool
	crds     string   // directory; default: the project's fixtures
	interval string   // default: 1h, so that nothing but the test wakes the cycle
	rescan   string   // default: 1h
	fabrics  []string // default: fabric-1
	prune    bool
	partial  bool
	drift    string // default: that of the daemon
	lax      bool   // objects are not held against the cluster's schemas before it sees them
	http     bool   // with a webhook, whose secret is in w.secret

	admission string // default: that of the daemon
	proxied   bool   // the API server is reached through w.proxy
}

func newWorld(t *testing.T, o options) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, repo: "site-a", state: filepath.Join(dir, "state"), config: filepath.Join(dir, "hhwatchd.yaml"), token: filepath.Join(dir, "token")}
	w.git = gitserver.Start(t, gitserver.Options{Dir: filepath.Join(dir, "git"), Username: "hhwatchd", Password: "s3cr3t-token"})
	w.bare = w.git.Create("fabrics")
	kubeconfig := ""
	if o.cluster {
		crds := o.crds
		if crds == "" {
			crds = kube.FixtureCRDs()
		}
		w.kube = cluster(t, crds)
		kubeconfig = w.kube.Kubeconfig
		if o.proxied {
			w.proxy = kube.NewProxy(t, w.kube)
			kubeconfig = w.proxy.Kubeconfig
		}
	}
	if o.interval == "" {
		o.interval = "1h"
	}
	if o.rescan == "" {
		o.rescan = "1h"
	}
	if o.fabrics == nil {
		o.fabrics = []string{"fabric-1"}
	}
	write(t, w.token, "s3cr3t-token\n")
	var b strings.Builder
	if o.http {
		w.listen(&b)
	}
	fmt.Fprintf(&b, `stateDir: %s
settle: {quiet: 50ms, max: 1s}
rescan: %s
repositories:
  - name: site-a
    url: %s
    interval: %s
    auth: {username: hhwatchd, passwordFile: %q}
    author: {name: hhwatchd, email: hhwatchd@mgmt-1.example.net}
    fabrics:
`, w.state, o.rescan, w.git.RepoURL("fabrics"), o.interval, w.token)
	for _, f := range o.fabrics {
		fmt.Fprintf(&b, "      - name: %s\n        path: gitops/hedgehog/%s\n", f, f)
		if o.cluster {
			fmt.Fprintf(&b, "        cluster: {kubeconfig: %s}\n        prune: %v\n", kubeconfig, o.prune)
		}
		if o.partial {
			b.WriteString("        partial: true\n")
		}
		if o.admission != "" {
			fmt.Fprintf(&b, "        admission: %s\n", o.admission)
		}
		if o.drift != "" {
			fmt.Fprintf(&b, "        drift: %s\n", o.drift)
		}
		if o.lax {
			fmt.Fprintf(&b, "        crds: %s\n", dir)
		}
	}
	write(t, w.config, b.String())
	return w
}

// clusters are the API servers that tests share, by their CRDs: starting one
// for each test would take most of the time.
var clusters = map[string]*kube.Server{}

// cluster returns an API server that holds no object.
func cluster(t *testing.T, crds string) *kube.Server {
	t.Helper()
	if testing.Short() {
		t.Skip("needs an API server")
	}
	s := clusters[crds]
	if s == nil {
		dir, err := os.MkdirTemp("", "hhwatchd-e2e-kube-")
		if err != nil {
			t.Fatal(err)
		}
		if s, err = kube.Launch(t.Context(), kube.Options{Dir: dir, CRDs: []string{crds}}); err != nil {
			t.Fatal(err)
		}
		clusters[crds] = s
		clusterDirs = append(clusterDirs, dir)
	}
	for _, r := range resources {
		if _, err := s.Do("DELETE", kube.Path(r, "default"), "", nil); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

var clusterDirs []string

func stopClusters() {
	for _, s := range clusters {
		s.Stop()
	}
	for _, dir := range clusterDirs {
		os.RemoveAll(dir)
	}
}

func write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A daemon is a running hhwatchd.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error

	mu  sync.Mutex
	out bytes.Buffer
}

func (d *daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.Write(p)
}

func (d *daemon) output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.String()
}

// start starts the daemon and waits until it has had its first look.
func (w *world) start() {
	w.t.Helper()
	w.launch(exec.Command(binary, "--config", w.config, "run"))
	w.eventually("the daemon's first look", func() error {
		st, err := w.status()
		if err != nil {
			return err
		}
		if len(st.Repositories) == 0 || st.Repositories[0].Cycles == 0 {
			return fmt.Errorf("no cycle yet")
		}
		return nil
	})
}

func (w *world) launch(cmd *exec.Cmd) {
	w.t.Helper()
	d := &daemon{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = d, d
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR=", "RUNTIME_DIRECTORY=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		d.err = cmd.Wait()
		close(d.done)
	}()
	w.daemon = d
	w.t.Cleanup(func() {
		cmd.Process.Kill()
		<-d.done
		if w.t.Failed() {
			w.t.Logf("the daemon's output:\n%s", d.output())
		}
		if out := d.output(); strings.Contains(out, "DATA RACE") || strings.Contains(out, "s3cr3t-token") {
			w.t.Errorf("a race, or a secret in the output:\n%s", out)
		}
	})
}

// stop ends the daemon as systemd would, and wants it gone soon.
func (w *world) stop() {
	w.t.Helper()
	w.daemon.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-w.daemon.done:
		if w.daemon.err != nil {
			w.t.Fatalf("the daemon ended with %v:\n%s", w.daemon.err, w.daemon.output())
		}
	case <-time.After(patience):
		w.t.Fatal("the daemon does not stop")
	}
}

// eventually waits until check has no complaint.
func (w *world) eventually(what string, check func() error) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	var err error
	for time.Now().Before(deadline) {
		if err = check(); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.t.Fatalf("waiting for %s: %v", what, err)
}

// hh runs a command of hhwatchd and returns what it prints and its exit code.
func (w *world) hh(args ...string) (string, int) {
	w.t.Helper()
	cmd := exec.Command(client, append([]string{"--config", w.config}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR=", "RUNTIME_DIRECTORY=")
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		w.t.Fatal(err)
	}
	if strings.Contains(string(out), "s3cr3t-token") {
		w.t.Errorf("hhwatchd %s prints a secret:\n%s", strings.Join(args, " "), out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must is hh for a command that has to exit with 0.
func (w *world) must(args ...string) string {
	w.t.Helper()
	out, code := w.hh(args...)
	if code != 0 {
		w.t.Fatalf("hhwatchd %s: exit code %d:\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// statusDoc is the part of `status -o json` that tests look at.
type statusDoc struct {
	Repositories []repositoryDoc
}

type repositoryDoc struct {
	Name     string
	Head     string
	Unpushed int
	Down     string
	Tries    int
	Cycles   int
	Aside    int
	Error    string
	Fabrics  []fabricDoc
}

type fabricDoc struct {
	Name             string
	Objects, Applied int
	Commit           string // that was applied
	Down, Held       string
	Tries            int
	Failed, Drifts   []string
}

func (w *world) status() (statusDoc, error) {
	var st statusDoc
	out, code := w.hh("status", "-o", "json")
	if code != 0 {
		return st, fmt.Errorf("status: exit code %d: %s", code, out)
	}
	return st, json.Unmarshal([]byte(out), &st)
}

// raw is a fabric's raw directory on the management host, the short way.
func (w *world) raw(fabric string) string { return filepath.Join(w.state, "raw", fabric) }

// clone is the working clone on the management host.
func (w *world) clone() string { return filepath.Join(w.state, "repos", w.repo) }

// drop puts a file into a raw directory as cp does.
func (w *world) drop(fabric, name, content string) {
	w.t.Helper()
	write(w.t, filepath.Join(w.raw(fabric), name), content)
}

// push adds a file to the repository from another clone, and pushes it; anew,
// if somebody else was first.
func (w *world) push(path, content string) {
	w.t.Helper()
	w.eventually("a push", func() error {
		c := w.git.Clone(w.t, "fabrics")
		c.Write(path, content)
		c.Commit("add " + path)
		_, err := c.TryGit("push", "--quiet", "origin", "HEAD")
		return err
	})
}

// remote runs git in the bare repository of the server.
func (w *world) remote(args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "safe.directory=*", "-c", "core.quotePath=false", "-C", w.bare}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// managed returns the files below managed/ of a fabric on the remote branch,
// by path, with their content.
func (w *world) managed(fabric string) map[string]string {
	w.t.Helper()
	files := map[string]string{}
	dir := "gitops/hedgehog/" + fabric + "/managed/"
	for _, p := range strings.Fields(w.remote("ls-tree", "-r", "--name-only", "main", "--", dir)) {
		if strings.HasSuffix(p, ".yaml") {
			files[strings.TrimPrefix(p, dir)] = w.remote("show", "main:"+p) + "\n"
		}
	}
	return files
}

// commits counts the commits of the remote branch.
func (w *world) commits() string { return w.remote("rev-list", "--count", "main") }

// inCluster waits until the API server has an object.
func (w *world) inCluster(resource, name string) map[string]any {
	w.t.Helper()
	var obj map[string]any
	w.eventually(resource+" "+name+" in the API server", func() (err error) {
		obj, err = w.kube.Get(resource, "default", name)
		return err
	})
	return obj
}

// pushed waits until the remote has a managed file.
func (w *world) pushed(fabric, path string) {
	w.t.Helper()
	w.eventually(path+" on the remote", func() error {
		cmd := exec.Command("git", "-C", w.bare, "-c", "safe.directory=*", "cat-file", "-e", "main:gitops/hedgehog/"+fabric+"/managed/"+path)
		return cmd.Run()
	})
}

// clean wants the working clone to be clean for a person, and sound, and the
// journal to agree with it.
func (w *world) clean() {
	w.t.Helper()
	c := gitserver.Open(w.t, w.clone())
	if out := c.Git("status", "--porcelain"); out != "" {
		w.t.Errorf("git status in the clone is not clean:\n%s", out)
	}
	if out, err := c.TryGit("fsck", "--strict"); err != nil {
		w.t.Errorf("git fsck: %v\n%s", err, out)
	}
	if out, code := w.hh("journal", "verify"); code != 0 {
		w.t.Errorf("journal verify: exit code %d\n%s", code, out)
	}
}

// history is the journal, a record a line.
func (w *world) history(args ...string) string {
	w.t.Helper()
	return w.must(append([]string{"history"}, args...)...)
}

// vpc is a file with one VPC.
func vpc(name string, vlan int) string {
	return fmt.Sprintf(`apiVersion: vpc.githedgehog.com/v1beta1
kind: VPC
metadata:
  name: %s
spec:
  subnets:
    default: # the only one
      subnet: 10.%d.%d.0/24
      gateway: 10.%d.%d.1
      vlan: %d
`, name, vlan/256, vlan%256, vlan/256, vlan%256, vlan)
}

const vpcs = "vpc.githedgehog.com/v1beta1/vpcs"

// SPDX-License-Identifier: Apache-2.0

package power

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
	"github.com/hhwatchd/hhwatchd/test/trace"
)

// patience is how long anything that is expected may take before the test
// gives up on it. It is a bound for broken code, not a measure of speed.
const patience = 60 * time.Second

// Where things are in the repository and in the state directory.
const (
	fabricDir = "gitops/hedgehog/fabric-1/"
	cloneDir  = "repos/site-a/"
	rawDir    = cloneDir + fabricDir + "raw/"
)

// recorded is the name of the repository that the recorded daemon works with.
// Those that are started on what a power loss left have copies of it.
const recorded = "recorded"

// A world is a git server and a management host, on which a daemon is
// recorded.
type world struct {
	t      *testing.T
	git    *gitserver.Server
	gitDir string
	state  string
	config string
	out    *os.File
	daemon *trace.Process
	rec    *recorder
	words  []word
	loose  bool // files are dropped without being synced
}

// A word is what somebody said: a file with one object, dropped or pushed into
// raw/.
type word struct {
	object string // the managed file that it is about; "" for what is no object
	file   string // in raw/
	text   string
	// When it cannot be lost any more: once so many operations have been
	// done, or once the remote branch was at a commit.
	after int
	head  string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, gitDir: filepath.Join(dir, "git"), state: filepath.Join(dir, "state"), config: filepath.Join(dir, "hhwatchd.yaml")}
	w.git = gitserver.Start(t, gitserver.Options{Dir: w.gitDir})
	w.git.Create(recorded)
	err := writeConfig(w.config, w.state, w.git.RepoURL(recorded))
	if err != nil {
		t.Fatal(err)
	}
	if w.out, err = os.Create(filepath.Join(dir, "output")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.out.Close() })
	return w
}

func writeConfig(name, state, url string) error {
	text := fmt.Sprintf(`stateDir: %s
settle: {quiet: 20ms, max: 1s}
rescan: 1h
repositories:
  - name: site-a
    url: %s
    interval: 1h
    author: {name: hhwatchd, email: hhwatchd@mgmt-1.example.net}
    fabrics:
      - name: fabric-1
        path: %s
`, state, url, strings.TrimSuffix(fabricDir, "/"))
	return os.WriteFile(name, []byte(text), 0o644)
}

// run runs hhwatchd to its end and returns what it printed.
func run(config string, args ...string) (string, int, error) {
	cmd := exec.Command(program, append([]string{"--config", config}, args...)...)
	cmd.Env = environ(config)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		return "", -1, err
	}
	return string(out), cmd.ProcessState.ExitCode(), nil
}

// environ has the control socket beside the config: it is no file that a power
// loss could take.
func environ(config string) []string {
	return append(os.Environ(), "RUNTIME_DIRECTORY=", "XDG_RUNTIME_DIR="+filepath.Dir(config))
}

// prepare runs a cycle that is not recorded.
func (w *world) prepare() {
	w.t.Helper()
	if out, code, err := run(w.config, "sync", "--once"); err != nil || code != 0 {
		w.t.Fatalf("sync --once: exit code %d, %v:\n%s", code, err, out)
	}
}

// head is the commit that the remote branch is at, "" if there is none.
func (w *world) head() string {
	b, err := os.ReadFile(filepath.Join(w.gitDir, recorded+".git", "refs", "heads", "main"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// record starts the daemon and the recording. What is there now is on disk.
func (w *world) record() {
	w.t.Helper()
	if err := os.MkdirAll(w.state, 0o755); err != nil {
		w.t.Fatal(err)
	}
	rec, err := newRecorder(w.state, w.head)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := trace.Start(trace.Command{
		Path: program, Args: []string{"hhwatchd", "--config", w.config, "run"}, Env: environ(w.config),
		Output: w.out, Enter: rec.enter, Exit: rec.exit,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.rec, w.daemon = rec, p
	w.t.Cleanup(func() {
		p.Signal(unix.SIGKILL)
		<-p.Done()
		if w.t.Failed() {
			out, _ := os.ReadFile(w.out.Name())
			w.t.Logf("the recorded daemon's output:\n%s", out)
		}
	})
	w.eventually("the daemon's first cycle", func() error {
		out, code, err := run(w.config, "status", "-o", "json")
		if err != nil || code != 0 || strings.Contains(out, `"cycles": 0`) {
			return fmt.Errorf("exit code %d, %v: %s", code, err, out)
		}
		return nil
	})
}

// end stops the daemon and returns what was recorded.
func (w *world) end() *recording {
	w.t.Helper()
	w.daemon.Signal(syscall.SIGTERM)
	select {
	case <-w.daemon.Done():
	case <-time.After(patience):
		w.t.Fatal("the daemon does not stop")
	}
	if ws, err := w.daemon.Wait(); err != nil || ws.ExitStatus() != 0 {
		w.t.Fatalf("the daemon ended with %v, %v", ws, err)
	}
	rec, err := w.rec.end()
	if err != nil {
		w.t.Fatal(err)
	}
	return rec
}

func (w *world) eventually(what string, check func() error) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	var err error
	for time.Now().Before(deadline) {
		if err = check(); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("waiting for %s: %v", what, err)
}

// reload wakes the daemon to look at the remote.
func (w *world) reload() { w.daemon.Signal(unix.SIGHUP) }

// dropping is what a file is called while it is written.
const dropping = ".dropping.tmp"

// drop puts files into raw/ all at once, and makes sure that they are on disk:
// written beside, flushed, renamed, the directory flushed.
func (w *world) drop(words ...word) {
	w.t.Helper()
	w.rec.mu.Lock()
	defer w.rec.mu.Unlock()
	for i, x := range words {
		name := rawDir + x.file
		tmp := rawDir + dropping
		w.do(Op{Kind: Create, Path: tmp, Mode: 0o644})
		w.do(Op{Kind: Write, Path: tmp, Data: []byte(x.text)})
		if !w.loose {
			w.do(Op{Kind: Sync, Path: tmp})
		}
		w.do(Op{Kind: Rename, Path: tmp, To: name})
		if !w.loose {
			w.do(Op{Kind: Sync, Path: strings.TrimSuffix(rawDir, "/")})
		}
		words[i].after = len(w.rec.ops)
	}
	w.words = append(w.words, words...)
}

// do does an operation of whoever drops files, and records it.
func (w *world) do(op Op) {
	w.t.Helper()
	op.Called = len(w.rec.ops)
	name := filepath.Join(w.state, op.Path)
	var err error
	switch op.Kind {
	case Create:
		var f *os.File
		if f, err = os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, op.Mode); err == nil {
			err = f.Close()
		}
	case Write:
		err = os.WriteFile(name, op.Data, 0)
	case Rename:
		err = os.Rename(name, filepath.Join(w.state, op.To))
	case Sync:
		var f *os.File
		if f, err = os.Open(name); err == nil {
			err = f.Sync()
			f.Close()
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.rec.byHand[len(w.rec.ops)] = true
	w.rec.add(op)
}

// push pushes files into raw/ from another clone.
func (w *world) push(words ...word) {
	c := w.git.Clone(w.t, recorded)
	w.pushFrom(c, words...)
	if err := w.tryPush(c); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) pushFrom(c *gitserver.Work, words ...word) {
	for _, x := range words {
		c.Write(fabricDir+"raw/"+x.file, x.text)
	}
	head := c.Commit("Add files")
	for _, x := range words {
		x.head = head
		w.words = append(w.words, x)
	}
}

func (w *world) tryPush(c *gitserver.Work) error {
	if out, err := c.TryGit("push", "--quiet", "origin", "HEAD:main"); err != nil {
		return fmt.Errorf("git push: %w: %s", err, out)
	}
	return nil
}

// show returns a file of the remote branch.
func (w *world) show(path string) (string, error) {
	cmd := exec.Command("git", "-c", "safe.directory=*", "-C", filepath.Join(w.gitDir, recorded+".git"), "cat-file", "blob", "main:"+path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.Bytes())
	}
	return string(out), err
}

// settled waits until the last word on each object is on the remote, raw/ is
// empty there and on disk, and what was rejected is in unmanaged/.
func (w *world) settled() {
	w.t.Helper()
	last := map[string]string{}
	var rejected []string
	for _, x := range w.words {
		if x.object == "" {
			rejected = append(rejected, x.file)
			continue
		}
		last[x.object] = x.text
	}
	w.eventually("the last words on the remote", func() error {
		for object, text := range last {
			if got, err := w.show(fabricDir + "managed/" + object); err != nil || got != text {
				return fmt.Errorf("%s: %v, %q", object, err, got)
			}
		}
		for _, name := range rejected {
			if _, err := os.Stat(filepath.Join(w.state, cloneDir, fabricDir, "unmanaged", name+".reason")); err != nil {
				return err
			}
		}
		return w.rawEmpty()
	})
}

func (w *world) rawEmpty() error {
	names, err := filepath.Glob(filepath.Join(w.state, rawDir, "*"))
	hidden, herr := filepath.Glob(filepath.Join(w.state, rawDir, ".*"))
	if names = append(names, hidden...); err != nil || herr != nil || len(names) > 0 {
		return fmt.Errorf("raw/ holds %v (%v, %v)", names, err, herr)
	}
	return nil
}

// vpc is a word about a VPC.
func vpc(file, name string, vlan int) word {
	return word{object: "vpcs/" + name + ".yaml", file: file, text: fmt.Sprintf(`apiVersion: vpc.githedgehog.com/v1beta1
kind: VPC
metadata:
  name: %s
spec:
  subnets:
    default: # the only one
      subnet: 10.%d.%d.0/24
      gateway: 10.%d.%d.1
      vlan: %d
`, name, vlan/256, vlan%256, vlan/256, vlan%256, vlan)}
}

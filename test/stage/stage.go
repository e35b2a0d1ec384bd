// SPDX-License-Identifier: Apache-2.0

// Package stage sets the scene for programs that show or measure hhwatchd at
// work: a git server with one repository, a Kubernetes API server with
// Hedgehog's kinds, and a management host, on which the real daemon runs. (Tests
// have test/e2e, where failures end the test.)
//
//	s, err := stage.Open(ctx, stage.Options{Hhwatchd: "bin/hhwatchd", Interval: time.Minute})
//	defer s.Close()
//	err = s.StartDaemon(ctx)
//	os.WriteFile(filepath.Join(s.Raw, "vpc.yaml"), ..., 0o644)
//	err = s.Await(ctx, "the VPC", func(ctx context.Context) error { ... })
//
// Everything lies in one temporary directory. [Stage.Close] ends and removes it
// all; should the program be killed before, its servers and the daemon end with
// it.
package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
	"github.com/hhwatchd/hhwatchd/test/kube"
)

const (
	// Fabric is the name of the fabric.
	Fabric = "fabric-1"
	// FabricPath is its directory in the repository.
	FabricPath = "gitops/hedgehog/" + Fabric
	// Quiet is the quiet period of the config, hhwatchd's default.
	Quiet = 500 * time.Millisecond

	// patience bounds every wait. It is for what is broken: nothing takes half
	// as long, even on a slow machine.
	patience = 3 * time.Minute
)

// Options say what is to be on stage.
type Options struct {
	// Hhwatchd is the program.
	Hhwatchd string
	// Interval is how often the daemon is to ask the remote.
	Interval time.Duration
}

// A Stage is a git server, an API server and a management host.
type Stage struct {
	Dir  string            // what is below it goes with Close
	Git  *gitserver.Server // without credentials
	Bare string            // the repository on the git server, named fabrics
	API  *kube.Server

	// State is the daemon's state directory, Clone its working clone, and Raw
	// where a person drops files.
	State, Clone, Raw string
	// PID is the daemon's, once it has been started.
	PID int

	hhwatchd string
	config   string
	log      string
	daemon   *process
}

// Open starts the servers, and shows that on standard error. The context is for
// their start alone.
func Open(ctx context.Context, o Options) (_ *Stage, err error) {
	s := &Stage{}
	if s.hhwatchd, err = filepath.Abs(o.Hhwatchd); err != nil {
		return nil, err
	}
	if _, err := os.Stat(s.hhwatchd); err != nil {
		return nil, fmt.Errorf("%w: run make build", err)
	}
	if _, err := kube.Build(ctx, os.Stderr); err != nil { // with its own progress, if there is a need
		return nil, err
	}
	defer Show("starting a git server and an API server")()
	if s.Dir, err = os.MkdirTemp("", "hhwatchd-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Close() // what failed first is what matters
		}
	}()
	s.State = filepath.Join(s.Dir, "state")
	s.Clone = filepath.Join(s.State, "repos", "site-a")
	s.Raw = filepath.Join(s.State, "raw", Fabric)
	s.config = filepath.Join(s.Dir, "hhwatchd.yaml")
	s.log = filepath.Join(s.Dir, "hhwatchd.log")

	if s.Git, err = gitserver.Listen(gitserver.Options{Dir: filepath.Join(s.Dir, "git")}); err != nil {
		return nil, fmt.Errorf("starting the git server: %w", err)
	}
	s.Bare = s.Git.Create("fabrics")
	api := kube.Options{Dir: filepath.Join(s.Dir, "kube"), CRDs: []string{kube.CRDs()}}
	if s.API, err = kube.Launch(ctx, api); err != nil {
		return nil, err
	}
	return s, os.WriteFile(s.config, []byte(s.configText(o.Interval)), 0o644)
}

func (s *Stage) configText(interval time.Duration) string {
	return fmt.Sprintf(`stateDir: %s
settle: {quiet: %v, max: 5s}
repositories:
  - name: site-a
    url: %s
    branch: main
    interval: %v
    author: {name: hhwatchd, email: hhwatchd@mgmt-1.example.net}
    fabrics:
      - name: %s
        path: %s
        cluster: {kubeconfig: %s}
`, s.State, Quiet, s.Git.RepoURL("fabrics"), interval, Fabric, FabricPath, s.API.Kubeconfig)
}

// Close ends the daemon and the servers and removes the directory.
func (s *Stage) Close() error {
	var errs []error
	if s.daemon != nil {
		errs = append(errs, s.daemon.stop())
	}
	if s.API != nil {
		errs = append(errs, s.API.Stop())
	}
	if s.Git != nil {
		s.Git.Close()
	}
	return errors.Join(append(errs, os.RemoveAll(s.Dir))...)
}

// A process is the daemon.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how, after that
}

// StartDaemon runs hhwatchd and returns when it has had a first look at the
// repository. It shows that on standard error.
func (s *Stage) StartDaemon(ctx context.Context) error {
	log, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.hhwatchd, "--config", s.config, "run")
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = log, log
	// A process group of its own: Ctrl-C is for this program, which then stops
	// the daemon in its turn.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		// Pdeathsig goes by the thread that started the process: keep it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting hhwatchd: %w", err)
	}
	s.daemon, s.PID = p, cmd.Process.Pid
	defer Show("waiting for hhwatchd")()
	return s.Await(ctx, "hhwatchd", func(ctx context.Context) error {
		st, err := s.Status(ctx)
		if err == nil && st.Cycles == 0 {
			err = errors.New("it has not looked at the repository yet")
		}
		return err
	})
}

// stop ends the daemon as systemd does. One that has ended already is no error:
// who needed it has noticed.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
		return errors.New("hhwatchd did not stop within 20s of SIGTERM")
	}
	if p.err != nil {
		return fmt.Errorf("hhwatchd ended: %w", p.err)
	}
	return nil
}

// Log returns the last n lines of the daemon's log.
func (s *Stage) Log(n int) string {
	text, _ := os.ReadFile(s.log) // there is none before the start
	lines := strings.SplitAfter(string(text), "\n")
	return strings.Join(lines[max(0, len(lines)-1-n):], "")
}

// environment keeps the control socket in the state directory and git away from
// the user's and the machine's settings. The person who pushes is Dana Dropper.
func environment() []string {
	return append(os.Environ(),
		"XDG_RUNTIME_DIR=", "RUNTIME_DIRECTORY=",
		"GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=Dana Dropper", "GIT_AUTHOR_EMAIL=dana@example.net",
		"GIT_COMMITTER_NAME=Dana Dropper", "GIT_COMMITTER_EMAIL=dana@example.net",
		// Whatever proxy the machine has, it does not know of our loopback.
		"no_proxy=127.0.0.1,localhost", "NO_PROXY=127.0.0.1,localhost",
		// No git goes on in the background while others are measured, and the
		// directory is removed.
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=gc.autoDetach", "GIT_CONFIG_VALUE_0=false",
		"GIT_CONFIG_KEY_1=maintenance.autoDetach", "GIT_CONFIG_VALUE_1=false",
	)
}

// Hhwatchd runs a command of hhwatchd's and returns what it prints. The error
// has that too.
func (s *Stage) Hhwatchd(ctx context.Context, args ...string) (string, error) {
	return s.Run(ctx, "", nil, s.hhwatchd, append([]string{"--config", s.config}, args...)...)
}

// Run runs a program in the directory ("" for the current one) with variables
// (NAME=value) besides the environment that all have here, and returns what it
// prints. The error has that too.
func (s *Stage) Run(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(environment(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out.Bytes())
	}
	return out.String(), nil
}

// Status is what "hhwatchd status -o json" tells of the repository and its
// fabric, as far as it is of use here.
type Status struct {
	Head     string // the local branch
	Unpushed int    // commits
	Cycles   int    // since the start
	Error    string // that stopped the last cycle

	Down string    // why the remote or the cluster cannot be used
	Next time.Time // when that is asked again, or else when the remote is

	Objects, Applied int
	Failed           []string // objects that the API server refused
	Commit           string   // that was applied
}

// Status asks the daemon.
func (s *Stage) Status(ctx context.Context) (Status, error) {
	out, err := s.Hhwatchd(ctx, "status", "-o", "json")
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !(ok && exit.ExitCode() == 1) { // 1: not all is well
		return Status{}, err
	}
	var doc struct {
		Repositories []struct {
			Status
			Fabrics []Status
		}
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		return Status{}, fmt.Errorf("hhwatchd status -o json: %w", err)
	}
	if len(doc.Repositories) != 1 || len(doc.Repositories[0].Fabrics) != 1 {
		return Status{}, errors.New("hhwatchd status -o json: not one repository with one fabric")
	}
	st, fabric := doc.Repositories[0].Status, doc.Repositories[0].Fabrics[0]
	if fabric.Down != "" {
		st.Down = fabric.Down
		if fabric.Next.Before(st.Next) { // each look at the remote leads to one at the cluster
			st.Next = fabric.Next
		}
	}
	st.Objects, st.Applied, st.Failed, st.Commit = fabric.Objects, fabric.Applied, fabric.Failed, fabric.Commit
	return st, nil
}

// Settled is nil when the daemon has done all that is to be done: the remote has
// its commits, and the API server every object, of which there are so many.
func (s *Stage) Settled(ctx context.Context, objects int) error {
	st, err := s.Status(ctx)
	switch {
	case err != nil:
		return err
	case st.Error != "":
		return errors.New(st.Error)
	case st.Down != "":
		return errors.New(st.Down)
	case len(st.Failed) > 0:
		return fmt.Errorf("not applied: %s", strings.Join(st.Failed, ", "))
	case st.Objects != objects || st.Applied != objects:
		return fmt.Errorf("%d objects, %d of them applied, where %d should be", st.Objects, st.Applied, objects)
	case st.Unpushed > 0 || st.Commit != st.Head:
		return fmt.Errorf("%d commits are not pushed, %q is applied of %q", st.Unpushed, st.Commit, st.Head)
	}
	return nil
}

// Await calls ready until it returns nil. It gives up when the context or the
// daemon ends, or after three minutes; the error says what it waited for.
func (s *Stage) Await(ctx context.Context, what string, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not in %v", patience))
	defer cancel()
	var ended chan struct{}
	if s.daemon != nil {
		ended = s.daemon.done
	}
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last: %v", what, context.Cause(ctx), err)
		case <-ended:
			return fmt.Errorf("waiting for %s: hhwatchd ended: %v", what, s.daemon.err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

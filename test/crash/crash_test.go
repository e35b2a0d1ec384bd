// SPDX-License-Identifier: Apache-2.0

// Package crash kills the real daemon at every step by which it changes the
// world, and wants nothing lost and nothing done twice.
//
// A crash point is a system call of the daemon that writes, renames, removes,
// flushes or sends something, from the moment when something was dropped or
// pushed until all of it is done. Between two of them nothing changes that
// outlives the process, so killing it (SIGKILL) at the entry of each is killing
// it everywhere. The calls are counted by test/trace; nothing in hhwatchd knows
// of this.
//
// For each scenario and each point there is a run: a repository on a git
// server, a namespace of an API server and an empty state directory of its own;
// the daemon brings them in line, then something is dropped or pushed, the
// daemon is killed at the point and started again. When it has come to rest,
// the remote, the clone, the API server and the journal are compared with a
// model, which is told no more than what was dropped and pushed.
//
// The threads of a program do not take turns in the same order each time, so
// that point 40 of one run need not be that of another. A scenario is at its end
// only when three points in a row lay beyond it.
//
//	go test ./test/crash                                 # every 12th point, others each time
//	go test ./test/crash -all                            # all points
//	go test ./test/crash -all -run TestCrash/drop        # of one scenario
//	go test ./test/crash -run TestCrash/drop -point 37   # one point
package crash

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
	"github.com/hhwatchd/hhwatchd/test/kube"
	"github.com/hhwatchd/hhwatchd/test/trace"
)

var (
	onePoint = flag.Int("point", 0, "run this crash point only")
	all      = flag.Bool("all", false, "run every crash point of every scenario, not a sample")
	seed     = flag.Uint64("seed", 0, "choose this sample of the crash points (0: another one each time)")
	race     = flag.Bool("hhwatchd.race", false, "build hhwatchd with the race detector")
)

// stride is from one crash point to the next where they are sampled.
const stride = 12

// workers is how many runs go on at a time.
const workers = 2

// patience is how long anything that is expected may take before a run is given
// up. It is a bound for broken code, not a measure of speed.
const patience = 20 * time.Second

// binary is the program under test.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "hhwatchd-crash-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "hhwatchd")
		args := []string{"build", "-o", binary}
		if *race {
			args = append(args, "-race")
		}
		out, err := exec.Command("go", append(args, "../../cmd/hhwatchd")...).CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "building hhwatchd: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

func TestCrash(t *testing.T) {
	api := kube.Start(t, kube.Options{CRDs: []string{kube.FixtureCRDs()}})
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000) + 1
	}
	// Short: the path of the control socket has to fit into 108 bytes.
	dir, err := os.MkdirTemp("", "crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var hosts []*host
	for i := range workers {
		d := filepath.Join(dir, fmt.Sprint(i))
		hosts = append(hosts, &host{dir: d, api: api, git: gitserver.Start(t, gitserver.Options{Dir: filepath.Join(d, "git")})})
	}
	points, runs := 0, 0
	for i := range scenarios {
		s := &scenarios[i]
		t.Run(s.name, func(t *testing.T) {
			r := &round{t: t, scenario: s, hosts: hosts, next: 1, last: math.MaxInt, step: 1}
			if *onePoint > 0 {
				r.next, r.last = *onePoint, *onePoint
			} else if !*all {
				r.next += int(rand.New(rand.NewPCG(*seed, uint64(i))).Uint64N(stride))
				r.step = stride
			}
			r.crash()
			points, runs = points+r.points, runs+r.runs
		})
	}
	how := "all points"
	if !*all {
		how = fmt.Sprintf("a sample: -seed %d", *seed)
	}
	t.Logf("%d crash points, %d runs (%s)", points, runs, how)
}

// A round runs one scenario at its crash points.
type round struct {
	t        *testing.T
	scenario *scenario
	hosts    []*host

	mu     sync.Mutex
	next   int // the point to be run next
	last   int // the last one to be run
	step   int // from one to the next
	beyond int // how many in a row were not reached
	points int // the last one that was
	killed int // runs that were
	runs   int
	failed int
}

func (r *round) crash() {
	template := filepath.Join(r.t.TempDir(), "template.git")
	r.scenario.prepare(r.t, r.hosts[0].git, template)
	var wg sync.WaitGroup
	for _, h := range r.hosts {
		wg.Go(func() {
			for k, ok := r.take(); ok; k, ok = r.take() {
				r.one(h, template, k)
			}
		})
	}
	wg.Wait()
	r.t.Logf("%-12s %4d points %4d runs, of those killed %4d, failed %d", r.scenario.name, r.points, r.runs, r.killed, r.failed)
	if r.killed == 0 {
		r.t.Error("no run was killed: there is no such point")
	}
}

// take hands out the next point.
func (r *round) take() (k int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next > r.last || r.beyond >= 3 || r.failed >= 5 {
		return 0, false
	}
	k, r.next = r.next, r.next+r.step
	if r.beyond > 0 {
		r.step = 1 // near the end, to meet it
	}
	return k, true
}

// one kills the daemon at the k-th point and reports what that did.
func (r *round) one(h *host, template string, k int) {
	at, wrong := h.run(r.t, r.scenario, template, k)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runs++
	if at == "" {
		r.beyond++
	} else {
		r.killed++
		r.beyond = 0
		r.points = max(r.points, k)
	}
	if len(wrong) == 0 {
		return
	}
	r.failed++
	if at == "" {
		at = "(it was not reached)"
	}
	r.t.Errorf("point %d, %s:\n\t%s\nhistory:\n%s\nagain: go test ./test/crash -run 'TestCrash/%s$' -point %d",
		k, at, strings.Join(wrong, "\n\t"), h.history(), r.scenario.name, k)
}

// run lets the scenario happen on the host and kills the daemon at the k-th
// crash point. It returns the call at which that was, "" if there are fewer,
// and what is wrong afterwards.
func (h *host) run(t *testing.T, s *scenario, template string, k int) (at string, wrong []string) {
	fail := func(what string, err error) []string { return []string{what + ": " + err.Error()} }
	if err := h.reset(s, template); err != nil {
		return "", fail("preparing the run", err)
	}
	defer h.kill()
	m := s.model()

	var armed atomic.Bool
	n := 0 // of the tracing goroutine
	point := func(c *trace.Call) trace.Verdict {
		if !armed.Load() || !h.counts(c) {
			return trace.Continue
		}
		if n++; n < k {
			return trace.Continue
		}
		at = strings.ReplaceAll(c.String(), h.state, "…")
		return trace.Kill
	}

	switch s.when {
	case running:
		if err := h.trace(point); err != nil {
			return "", fail("starting", err)
		}
		if err := h.await(t.Context(), s.base()); err != nil {
			return "", fail("before anything happened", h.withLog(err))
		}
		armed.Store(true)
		if err := s.happen(h); err != nil {
			return "", fail("dropping and pushing", err)
		}
	case stopped, crashed:
		start := h.start
		var seen atomic.Bool
		if s.when == crashed {
			start = func() error {
				return h.trace(func(c *trace.Call) trace.Verdict {
					if seen.Load() && s.first(c) {
						return trace.Kill
					}
					return trace.Continue
				})
			}
		}
		if err := start(); err != nil {
			return "", fail("starting", err)
		}
		if err := h.await(t.Context(), s.base()); err != nil {
			return "", fail("before anything happened", h.withLog(err))
		}
		if s.when == stopped {
			if err := h.stop(); err != nil {
				return "", fail("stopping", err)
			}
		}
		seen.Store(true)
		if err := s.happen(h); err != nil {
			return "", fail("dropping and pushing", err)
		}
		if s.when == crashed {
			if err := h.awaitEnd(t.Context()); err != nil {
				return "", fail("waiting for the first crash", err)
			}
			if err := h.drop(s.again); err != nil {
				return "", fail("dropping again", err)
			}
		}
		fallthrough
	case fresh:
		armed.Store(true)
		if err := h.trace(point); err != nil {
			return "", fail("starting", err)
		}
	}

	err := h.await(t.Context(), m)
	killed := errors.Is(err, errEnded)
	if !killed && err != nil {
		return at, fail("it does not come to rest, without a crash", h.withLog(err))
	}
	h.kill() // the tracing goroutine has ended after this, and at may be read
	if killed && at == "" {
		return at, fail("running", errors.New("the daemon ended by itself"))
	}
	if err := h.start(); err != nil {
		return at, fail("starting again", err)
	}
	if err := h.await(t.Context(), m); err != nil {
		return at, fail("it does not come to rest after the crash", h.withLog(err))
	}
	wrong = append(wrong, h.sitsStill()...)
	if err := h.stop(); err != nil {
		return at, append(wrong, "stopping: "+err.Error())
	}
	if log, err := os.ReadFile(h.output.Name()); err != nil || bytes.Contains(log, []byte("panic: ")) || bytes.Contains(log, []byte("DATA RACE")) {
		wrong = append(wrong, fmt.Sprintf("%v, the log:\n%s", err, log))
	}
	return at, append(wrong, m.compare(h)...)
}

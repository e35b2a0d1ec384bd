// SPDX-License-Identifier: Apache-2.0

// Package soak lets a small world live at random, kills the daemon in it
// again and again, and compares what became of the world with a model that is
// told only what was dropped and pushed.
//
// In the world there are a git server, an API server, two management hosts
// that watch the same repository with two fabrics, people and programs who
// drop files on the hosts, and people who push from clones of their own. The
// git server has outages of all kinds; the API server is restarted. Every now
// and then all stand still, the world is given time to settle, and is
// compared with the model:
//
//   - managed/ on the remote holds each object as it was said last, and
//     nothing else; the cluster and both hosts' inventories agree with it;
//   - the exact bytes of each file that was taken in are in the remote's
//     history, once for each time that it was dropped; each rejected file lies
//     in unmanaged/ beside its reason, and no git object holds any of it;
//   - each file was ingested as a whole, and no object was applied as it was
//     before a version that had been applied;
//   - raw/ is empty, the clones are clean and sound, history is linear;
//   - the journals are whole, and tell once of each file that came in and of
//     each commit;
//   - a further cycle changes nothing.
//
// A file that its own dropper replaced while it still lay in raw/ is not owed:
// the daemon may have been too late for it, but then the version that took its
// place is.
//
//	go test ./test/soak -v -kills 1000 -duration 25m -seed 7
//
// What the actors do depends on the seed; when, on the machine.
package soak

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	kills    = flag.Int("kills", 30, "how often to kill a daemon")
	duration = flag.Duration("duration", 20*time.Second, "how long to go on at most, the last check apart")
	seed     = flag.Uint64("seed", 0, "chooses what happens; 0 takes one from the clock")
	keep     = flag.String("keep", "", "a directory to make the world in and to keep; it must not be there yet")
)

// patience bounds every wait for what is expected. It is for what is broken.
const patience = 3 * time.Minute

// killsPerCheck is how many kills there are between two comparisons.
const killsPerCheck = 50

// The program under test: the daemon is built with the race detector where
// the test is, the commands that are run by the hundred are not.
var (
	binary, client string
	buildFlags     []string
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "hhwatchd-soak-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary, client = filepath.Join(dir, "hhwatchd-daemon"), filepath.Join(dir, "hhwatchd")
		for to, flags := range map[string][]string{binary: buildFlags, client: nil} {
			args := slices.Concat([]string{"build", "-o", to}, flags, []string{"../../cmd/hhwatchd"})
			if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "building hhwatchd: %v\n%s", err, out)
				return 1
			}
		}
		return m.Run()
	}())
}

func TestRandomLife(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an API server")
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) % 1e9
	}
	t.Logf("seed %d", *seed)
	dir := *keep
	if dir == "" {
		dir = t.TempDir()
	} else if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, dir)
	// Also when a check ends the test.
	defer func() {
		for _, h := range w.hosts {
			h.stop()
		}
	}()
	for _, h := range w.hosts {
		h.start()
		h.awaitLook()
	}

	k := &killer{world: w, rng: source(*seed, "killer")}
	o := &outages{world: w, rng: source(*seed, "outages")}
	a := &outages{world: w, rng: source(*seed, "restarts")}
	actors := []func(context.Context){
		w.newDropper(*seed, "d1", w.hosts[0], pruned).run,
		w.newDropper(*seed, "d2", w.hosts[0], unpruned).run,
		w.newDropper(*seed, "d3", w.hosts[1], pruned).run,
		w.newPusher(*seed, "p1", pruned).run,
		w.newPusher(*seed, "p2", unpruned).run,
		o.trouble,
		a.restart,
	}
	var took []time.Duration
	began := time.Now()
	for k.kills < *kills && time.Since(began) < *duration && !t.Failed() {
		ctx, stop := context.WithDeadline(t.Context(), began.Add(*duration))
		var life sync.WaitGroup
		for _, act := range actors {
			life.Go(func() { act(ctx) })
		}
		// Of what is short, the half is looked at too.
		k.run(ctx, min(killsPerCheck, (*kills+1)/2, *kills-k.kills))
		stop()
		life.Wait()
		took = append(took, w.settle())
		w.check()
		t.Logf("%v: %d kills, %d documents, %d commits, settled in %v", time.Since(began).Round(time.Second), k.kills, w.documents, len(w.found.order), took[len(took)-1].Round(time.Millisecond))
	}
	slices.Sort(took)
	f := &w.found
	rejected, records, replanned := 0, uint64(0), 0
	for _, d := range w.deliveries {
		if d.rejected() {
			rejected++
		}
	}
	for _, b := range f.books {
		records += b.seq
		replanned += b.replanned
	}
	t.Log(strings.Join([]string{
		fmt.Sprintf("seed %d, %v, %d kills and %d other signals", *seed, time.Since(began).Round(time.Second), k.kills, k.other),
		fmt.Sprintf("actions             %s", w.counts()),
		fmt.Sprintf("deliveries          %d files with %d documents, %d to be rejected, %d replaced before they were read", len(w.deliveries), w.documents, rejected, f.replaced),
		fmt.Sprintf("outages             %d of the remote, %d restarts of the API server", o.remote, a.api),
		fmt.Sprintf("commits             %d, work planned anew after a lost race %d times", len(f.order), replanned),
		fmt.Sprintf("journal records     %d", records),
		fmt.Sprintf("settled             in %v (median), %v at most", took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond)),
		fmt.Sprintf("lost                %d", f.lost),
		fmt.Sprintf("duplicated          %d", f.duplicated),
		fmt.Sprintf("half-applied        %d", f.half),
		fmt.Sprintf("otherwise wrong     %d", f.other),
	}, "\n"))
}

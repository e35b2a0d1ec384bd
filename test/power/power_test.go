// SPDX-License-Identifier: Apache-2.0

package power

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

var (
	all  = flag.Bool("all", false, "try every state, not a sample")
	seed = flag.Uint64("seed", rand.Uint64(), "what a power loss takes by chance, and which states are tried")
)

// program is the daemon under test.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "hhwatchd-power-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "hhwatchd")
		if out, err := exec.Command("go", "build", "-o", program, "../../cmd/hhwatchd").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building hhwatchd: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// Each scenario is lived through once and recorded.
var scenarios = []struct {
	name string
	live func(*world)
}{
	{"first clone", func(w *world) {
		w.push(vpc("first.yaml", "vpc-1", 1001))
		w.record()
		w.settled()
		w.drop(vpc("second.yaml", "vpc-2", 1002))
	}},
	{"first clone, received as a pack", func(w *world) {
		c := w.git.Clone(w.t, recorded)
		for i := range 110 {
			c.Write(fmt.Sprintf("other/%d.txt", i), fmt.Sprintln(i))
		}
		w.pushFrom(c, vpc("first.yaml", "vpc-1", 1001))
		if err := w.tryPush(c); err != nil {
			w.t.Fatal(err)
		}
		w.record()
		w.settled()
		w.wantPack()
	}},
	{"drop", func(w *world) {
		w.prepare()
		w.record()
		w.drop(vpc("x.yaml", "vpc-1", 1001))
	}},
	{"drop without a sync", func(w *world) {
		w.prepare()
		w.record()
		w.loose = true
		w.drop(vpc("x.yaml", "vpc-1", 1001))
	}},
	{"several, one of them rejected", func(w *world) {
		w.prepare()
		w.record()
		w.drop(vpc("a.yaml", "vpc-1", 1001), word{file: "b.yaml", text: "no: object\n"}, vpc("c.yaml", "vpc-2", 1002), vpc("d.yaml", "vpc-3", 1003))
	}},
	{"two words on one object", func(w *world) {
		w.prepare()
		w.record()
		w.drop(vpc("a.yaml", "vpc-1", 1001), vpc("b.yaml", "vpc-1", 1002))
	}},
	{"many at once, stored as a pack", func(w *world) {
		w.prepare()
		w.record()
		var words []word
		for i := range 45 { // the first few may go on their own
			words = append(words, vpc(fmt.Sprint(i, ".yaml"), fmt.Sprint("vpc-", i), 1001+i))
		}
		w.drop(words...)
		w.settled()
		w.wantPack()
	}},
	{"update", func(w *world) {
		w.prepare()
		w.record()
		w.drop(vpc("x.yaml", "vpc-1", 1001))
		w.settled()
		w.drop(vpc("x.yaml", "vpc-1", 1002))
		w.settled()
		w.drop(vpc("y.yaml", "vpc-1", 1001))
	}},
	{"pull", func(w *world) {
		w.prepare()
		w.record()
		w.push(vpc("x.yaml", "vpc-1", 1001))
		w.reload()
		w.settled()
		w.push(vpc("x.yaml", "vpc-1", 1002), vpc("y.yaml", "vpc-2", 1003))
		w.reload()
	}},
	{"remote away", func(w *world) {
		w.prepare()
		w.record()
		w.git.Down()
		for i := range 3 {
			w.drop(vpc("x.yaml", "vpc-1", 1001+i), vpc(fmt.Sprint(i, ".yaml"), fmt.Sprint("vpc-1", i), 1010+i))
			w.eventually("the drop to be committed", w.rawEmpty)
		}
		w.git.Up()
		w.reload()
	}},
	{"lost race", func(w *world) {
		w.prepare()
		w.record()
		w.drop(vpc("first.yaml", "vpc-0", 1000))
		w.settled()
		other := w.git.Clone(w.t, recorded)
		w.pushFrom(other, vpc("other.yaml", "vpc-2", 1002))
		w.git.BeforePush(func() {
			if err := w.tryPush(other); err != nil {
				w.t.Error(err)
			}
		})
		w.drop(vpc("ours.yaml", "vpc-1", 1001))
	}},
	{"recovery from a power loss", func(w *world) {
		w.prepare()
		w.record()
		w.drop(vpc("a.yaml", "vpc-1", 1001), word{file: "b.yaml", text: "no: object\n"}, vpc("c.yaml", "vpc-1", 1002))
		w.settled()
		w.goBack(w.end())
		w.record()
	}},
}

// goBack loses the power, in what was recorded, when the drops were committed
// and lay in raw/ still. They cannot be lost any more.
func (w *world) goBack(rec *recording) {
	w.t.Helper()
	states, _, err := rec.states(w.words, *seed, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	i := slices.IndexFunc(states, func(s state) bool {
		return s.loss == Unsynced && len(s.tree[cloneDir+".git/refs/heads/main"].Data) > 0
	})
	if i < 0 {
		w.t.Fatal("it was never committed")
	}
	url := w.git.RepoURL(recorded)
	if err := moved(states[i].tree, w.state, w.state, url, url).Write(w.state); err != nil {
		w.t.Fatal(err)
	}
	if states[i].head != "" {
		w.t.Fatal("it was pushed already")
	}
	if err := os.Remove(filepath.Join(w.gitDir, recorded+".git", "refs", "heads", "main")); err != nil {
		w.t.Fatal(err)
	}
	for i := range w.words {
		w.words[i].after = 0
	}
}

// wantPack wants the clone to hold a pack.
func (w *world) wantPack() {
	packs, err := filepath.Glob(filepath.Join(w.state, cloneDir, ".git/objects/pack/pack-*.idx"))
	if err != nil || len(packs) == 0 {
		w.t.Errorf("there is no pack in the clone (%v)", err)
	}
}

func slug(name string) string { return strings.NewReplacer(" ", "-", ",", "").Replace(name) }

// live returns the recording of a scenario.
func live(t *testing.T, scenario func(*world)) (*world, *recording) {
	t.Helper()
	w := newWorld(t)
	scenario(w)
	w.settled()
	rec := w.end()
	if w.loose {
		// Nobody promised anything until hhwatchd took it.
		for i := range w.words {
			n, err := rec.retired(w.words[i].file, w.words[i].after)
			if err != nil {
				t.Fatal(err)
			}
			w.words[i].after = n
		}
	}
	return w, rec
}

// sample is how many states of a scenario are tried without -all.
const sample = 100

// TestPowerLoss loses the power after each system call of each scenario, in
// every way that the model knows, and wants no word lost.
func TestPowerLoss(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(slug(sc.name), func(t *testing.T) {
			w, rec := live(t, sc.live)
			states, total, err := rec.states(w.words, *seed, nil)
			if err != nil {
				t.Fatal(err)
			}
			tried := states
			if !*all {
				tried = choose(states, sample, true, *seed)
			}
			n := tryAll(t, w, rec, tried, 3)
			t.Logf("%s: %d operations, %d prefixes, %d losses of power that leave %d different states, %d tried: in %d something was lost, in %d it did not go through, in %d something else was wrong (-seed %d)",
				sc.name, len(rec.ops), len(rec.ops)+1, total, len(states), len(tried), n.lost, n.stuck, n.wrong, *seed)
		})
	}
}

// TestWithoutSyncs takes flushes of the daemon's out of what was recorded, and
// wants the check to find what is lost then: it can fail, and each kind of
// flush is needed.
func TestWithoutSyncs(t *testing.T) {
	for _, tc := range []struct {
		name     string
		scenario string
		ignore   func(Op) bool
		found    func(tally) bool
	}{
		{"all", "remote away", func(Op) bool { return true }, tally.losses},
		{"the objects of a commit", "remote away", func(op Op) bool { return op.Kind == SyncAll }, tally.losses},
		{"refs", "remote away", func(op Op) bool { return strings.Contains(op.Path, ".git/refs/") }, tally.losses},
		{"what was rejected", "several, one of them rejected", func(op Op) bool {
			return strings.Contains(op.Path, "/unmanaged") || op.Path == strings.TrimSuffix(rawDir, "/")
		}, tally.losses},
		{"the raw directory", "two words on one object", func(op Op) bool { return op.Path == strings.TrimSuffix(rawDir, "/") }, tally.losses},
		{"the journal", "several, one of them rejected", func(op Op) bool { return strings.HasPrefix(op.Path, "journal") }, tally.mistakes},
	} {
		t.Run(slug(tc.name), func(t *testing.T) {
			var sc func(*world)
			for _, s := range scenarios {
				if s.name == tc.scenario {
					sc = s.live
				}
			}
			w, rec := live(t, sc)
			states, _, err := rec.states(w.words, *seed, nil)
			if err != nil {
				t.Fatal(err)
			}
			possible := map[stateKey]bool{}
			for _, s := range states {
				possible[s.key] = true
			}
			states, _, err = rec.states(w.words, *seed, func(n int) bool { return !rec.byHand[n] && tc.ignore(rec.ops[n]) })
			if err != nil {
				t.Fatal(err)
			}
			states = slices.DeleteFunc(states, func(s state) bool { return possible[s.key] })
			states = choose(states, len(states), false, *seed)
			var n tally
			tried := 0
			for part := range slices.Chunk(states, 30) {
				n = tryAll(t, w, rec, part, 0)
				if tried += len(part); tc.found(n) {
					break
				}
			}
			t.Logf("without flushing %s: %d more states; %d tried, and in %d of the last of them something was lost, in %d it did not go through, in %d something else was wrong (-seed %d)",
				tc.name, len(states), tried, n.lost, n.stuck, n.wrong, *seed)
			if !tc.found(n) {
				t.Error("what is lost was not found")
			}
		})
	}
}

// A tally counts the states in which something was not as it should be.
type tally struct{ lost, stuck, wrong int }

func (n tally) losses() bool   { return n.lost > 0 }
func (n tally) mistakes() bool { return n.wrong > 0 }

// tryAll brings states to life on as many hosts at a time as there are
// processors, and counts those that did not come right. Of the first tell the
// test hears in detail.
func tryAll(t *testing.T, w *world, rec *recording, states []state, tell int) (n tally) {
	var mu sync.Mutex
	next := make(chan state)
	var hosts sync.WaitGroup
	for k := range runtime.GOMAXPROCS(0) {
		h := newHost(t, w, rec, k)
		hosts.Go(func() {
			for s := range next {
				v, err := h.check(s)
				mu.Lock()
				if err != nil {
					v.wrong = append(v.wrong, err.Error())
				}
				if len(v.lost) > 0 {
					n.lost++
				}
				if len(v.stuck) > 0 {
					n.stuck++
				}
				if len(v.wrong) > 0 {
					n.wrong++
				}
				if !v.good() && tell > 0 {
					tell--
					var near string
					for i := max(0, s.n-3); i < min(len(rec.ops), s.n+1); i++ {
						near += fmt.Sprintf("  %d %s\n", i+1, rec.ops[i])
					}
					t.Errorf("%s:\n  %s\n%swhat the disk forgot (-):\n%sthe last cycle:\n%sto see it: %s", s,
						strings.Join(v.all(), "\n  "), near, rec.forgot(s), v.output, h.keep(s))
				}
				mu.Unlock()
			}
		})
	}
	for _, s := range states {
		next <- s
	}
	close(next)
	hosts.Wait()
	return n
}

func (rec *recording) forgot(s state) string {
	d, err := rec.replay(s.n)
	if err != nil {
		return err.Error()
	}
	return d.After(Nothing, nil).Diff(s.tree)
}

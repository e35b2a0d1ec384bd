// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
)

var (
	gitBench   = flag.String("git-bench", "50", "measure beside git, with these `numbers` of files")
	gitHistory = flag.Int("git-history", 10, "the `number` of commits in the repositories of -git-bench")
	gitAge     = flag.Int("git-age", 10, "the `number` of small fetches and commits that the largest clone of -git-bench lives through")
	gitRuns    = flag.Int("git-runs", 1, "how `often` -git-bench does each thing; it tells the medians")
)

// TestGitBench measures what the operations of a clone cost, beside the git
// command that does the same in the same run, by turns; then again in a clone
// that has lived through thousands of small fetches and commits, with the
// maintenance that the daemon gives it. Both talk to git http-backend. make
// bench-git measures in earnest; whatever the figures are, it passes.
func TestGitBench(t *testing.T) {
	var rows []*benchRow
	sizes := strings.Split(*gitBench, ",")
	for i, text := range sizes {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		r := newGitRace(t, n, *gitHistory)
		rows = append(rows, r.measure(fmt.Sprint(n)))
		if i == len(sizes)-1 {
			r.age(*gitAge)
			rows = append(rows, r.measure(fmt.Sprintf("%d, aged", n)))
		}
	}
	printRows(t.Output(), rows)
}

// A benchRow is what was measured in one repository.
type benchRow struct {
	name          string
	cells         []benchCell
	bytes, memory string
	bare          time.Duration // of the HTTP request of a poll, by itself
}

// A benchCell is one operation: our time, and that of git.
type benchCell struct {
	what      string
	ours, git time.Duration
}

func printRows(w io.Writer, rows []*benchRow) {
	fmt.Fprintf(w, "\n| files |")
	for _, c := range rows[0].cells {
		fmt.Fprintf(w, " %s |", c.what)
	}
	fmt.Fprintf(w, " bytes of a poll | its bare request | memory |\n|%s\n", strings.Repeat("---|", len(rows[0].cells)+4))
	for _, r := range rows {
		fmt.Fprintf(w, "| %s |", r.name)
		for _, c := range r.cells {
			if c.git == 0 {
				fmt.Fprint(w, " |")
				continue
			}
			fmt.Fprintf(w, " %s (%s, %s) |", round(c.ours), round(c.git), ratio(c.ours, c.git))
		}
		fmt.Fprintf(w, " %s | %s | %s |\n", r.bytes, round(r.bare), r.memory)
	}
}

func round(d time.Duration) string {
	if d > 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	if d > 100*time.Millisecond {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}

func ratio(ours, git time.Duration) string {
	if ours < git {
		return fmt.Sprintf("1/%.1f", float64(git)/float64(ours))
	}
	return fmt.Sprintf("%.2f×", float64(ours)/float64(git))
}

// A gitRace is two equal repositories behind one server: in one of them, the
// remote and a clone are ours, in the other git's.
type gitRace struct {
	*testing.T
	srv    *gitserver.Server
	world  *world // ours
	c      *Clone // nil until it is cloned
	bare   string // of git's remote
	url    string
	theirs string // git's clone
	files  int
	round  int
}

// newGitRace makes both repositories, of so many files and commits.
func newGitRace(t *testing.T, files, commits int) *gitRace {
	w, srv := newHTTPWorld(t, gitserver.Options{})
	w.bare, w.url = srv.Create("ours"), srv.RepoURL("ours")
	w.opts.URL = w.url
	r := &gitRace{T: t, srv: srv, world: w, bare: srv.Create("theirs"), url: srv.RepoURL("theirs"), files: files}
	r.theirs = filepath.Join(filepath.Dir(w.dir), "theirs")
	importHistory(t, w.bare, files, commits)
	git(t, r.bare, "fetch", "-q", w.bare, "main:main")
	for _, dir := range []string{w.bare, r.bare} {
		git(t, dir, "config", "receive.autogc", "false")
		git(t, dir, "repack", "-adbq")
	}
	return r
}

// importHistory gives a repository a history of so many files and commits, of
// which each after the first changes one file, in one pack.
func importHistory(t testing.TB, bare string, files, commits int) {
	t.Helper()
	cmd := exec.Command("git", "fast-import", "--quiet")
	cmd.Dir, cmd.Env, cmd.Stderr = bare, gitEnv, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriter(in)
	for c := range commits {
		fmt.Fprintf(out, "commit refs/heads/main\ncommitter C <c@example.net> %d +0000\ndata 1\nx\n", 1_700_000_000+60*c)
		for i := range files {
			if c > 0 {
				i = c * 7919 % files
			}
			text := benchText(i, c)
			fmt.Fprintf(out, "M 100644 inline %s\ndata %d\n%s\n", benchPath(i), len(text), text)
			if c > 0 {
				break
			}
		}
	}
	out.Flush()
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	git(t, bare, "repack", "-adq")
}

func benchText(i, version int) string {
	return fmt.Sprintf("apiVersion: wiring.githedgehog.com/v1beta1\nkind: Switch\nmetadata:\n  name: leaf-%d\nspec:\n  description: number %d, version %d\n", i, i*i, version)
}

// changes are n files with a new content each time.
func (r *gitRace) changes(n int) []Change {
	r.round++
	out := make([]Change, n)
	for i := range out {
		k := (r.round*7919 + i*i*31 + i) % r.files
		for slices.ContainsFunc(out[:i], func(c Change) bool { return c.Path == benchPath(k) }) {
			k = (k + 1) % r.files
		}
		out[i] = put(benchPath(k), benchText(k, 1_000_000+r.round))
	}
	return out
}

// race runs ours and git's by turns, and takes the medians. Each returns how
// long it took of what is to be measured.
func (r *gitRace) race(what string, ours, git func() time.Duration) benchCell {
	var a, b []time.Duration
	for range *gitRuns {
		a = append(a, ours())
		b = append(b, git())
	}
	r.Logf("%s: %v, git %v", what, a, b)
	return benchCell{what, median(a), median(b)}
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

func took(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

func (r *gitRace) measure(name string) *benchRow {
	row := &benchRow{name: name}
	add := func(what string, ours, git func() time.Duration) {
		row.cells = append(row.cells, r.race(what, ours, git))
	}
	var peak, gitPeak int64
	if r.c == nil {
		add("first clone", func() time.Duration {
			os.RemoveAll(r.world.dir)
			d, kib := r.child("clone")
			peak = max(peak, kib)
			return d
		}, func() time.Duration {
			os.RemoveAll(r.theirs)
			cmd := exec.Command("git", "clone", "-q", r.url, r.theirs)
			cmd.Env = gitEnv
			d := took(func() {
				if out, err := cmd.CombinedOutput(); err != nil {
					r.Fatalf("%v\n%s", err, out)
				}
			})
			gitPeak = max(gitPeak, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
			return d
		})
		r.c = r.world.clone()
	} else {
		row.cells = append(row.cells, benchCell{what: "first clone"})
	}
	c, w := r.c, r.world
	ctx := r.Context()
	check := func(err error) {
		if err != nil {
			r.Helper()
			r.Fatal(err)
		}
	}
	_, err := c.RemoteHead(ctx)
	check(err)
	sent, received := r.srv.Bytes()
	for range 10 {
		_, err := c.RemoteHead(ctx)
		check(err)
	}
	s, rec := r.srv.Bytes()
	row.bytes = fmt.Sprint((s - sent + rec - received) / 10)
	var bare []time.Duration
	add("idle poll", func() time.Duration {
		bare = append(bare, r.bareRequest())
		return took(func() {
			_, err := c.RemoteHead(ctx)
			check(err)
		})
	}, func() time.Duration {
		return took(func() { git(r, r.theirs, "ls-remote", "origin", "refs/heads/main") })
	})
	row.bare = median(bare)
	add("update, one file", func() time.Duration {
		r.somebody(w.bare)
		return took(func() {
			h, err := c.Fetch(ctx)
			check(err)
			_, err = c.Advance(ctx, h)
			check(err)
		})
	}, func() time.Duration {
		r.somebody(r.bare)
		return took(func() { git(r, r.theirs, "pull", "-q", "--ff-only") })
	})
	for _, files := range []int{1, 50} {
		var ours, theirs [2][]time.Duration
		cell := r.race(fmt.Sprintf("commit of %d", files), func() time.Duration {
			changes := r.changes(files)
			commit := took(func() {
				h, err := c.WriteCommit(w.head(c), changes, us, us, "Benchmark")
				check(err)
				_, err = c.Advance(ctx, h)
				check(err)
			})
			push := took(func() { check(c.Push(ctx)) })
			ours[0], ours[1] = append(ours[0], push), append(ours[1], commit+push)
			return commit
		}, func() time.Duration {
			changes := r.changes(files)
			commit := took(func() {
				paths := []string{"add", "--"}
				for _, ch := range changes {
					check(os.WriteFile(filepath.Join(r.theirs, ch.Path), ch.Data, 0o666))
					paths = append(paths, ch.Path)
				}
				git(r, r.theirs, paths...)
				git(r, r.theirs, "commit", "-qm", "Benchmark")
			})
			push := took(func() { git(r, r.theirs, "push", "-q", "origin", "main") })
			theirs[0], theirs[1] = append(theirs[0], push), append(theirs[1], commit+push)
			return commit
		})
		row.cells = append(row.cells, cell)
		for i, what := range []string{"push", "both"} {
			row.cells = append(row.cells, benchCell{what, median(ours[i]), median(theirs[i])})
		}
	}
	check(c.Close())
	_, held := r.child("live")
	row.memory = fmt.Sprintf("%d MiB", held>>10)
	if peak > 0 {
		row.memory += fmt.Sprintf(", at most %d (git: %d) while cloning", peak>>10, gitPeak>>10)
	}
	r.c = w.open()
	return row
}

// bareRequest asks the server what a poll asks it, with nothing around it: the
// least that a poll can take.
func (r *gitRace) bareRequest() time.Duration {
	h := r.c.remote.(*httpRemote)
	var body bytes.Buffer
	if err := writeLsRefs(&body, h.upload, []string{"refs/heads/main"}); err != nil {
		r.Fatal(err)
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, r.world.url+"/git-upload-pack", &body)
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
	req.Header.Set("Git-Protocol", "version=2")
	return took(func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			r.Fatal(err)
		}
		defer resp.Body.Close()
		if answer, err := io.ReadAll(resp.Body); err != nil || !bytes.Contains(answer, []byte("refs/heads/main")) {
			r.Fatalf("%s: %q, %v", resp.Status, answer, err)
		}
	})
}

// somebody commits a change of one file to the branch of a remote.
func (r *gitRace) somebody(bare string) {
	ch := r.changes(1)[0]
	gitIn(r, bare, fmt.Sprintf("commit refs/heads/main\ncommitter C <c@example.net> now\ndata 1\nx\nfrom refs/heads/main^0\nM 100644 inline %s\ndata %d\n%s\n",
		ch.Path, len(ch.Data), ch.Data), "fast-import", "--quiet", "--date-format=now")
}

// age has our clone live through n small fetches and commits.
func (r *gitRace) age(n int) {
	c, w, ctx := r.c, r.world, r.Context()
	maintained := time.Duration(0)
	pieces, longest := 0, time.Duration(0)
	maintain := func() {
		for {
			began := time.Now()
			worked, err := c.Maintain(ctx)
			if err != nil {
				r.Fatal(err)
			}
			if !worked {
				return
			}
			d := time.Since(began)
			pieces, maintained, longest = pieces+1, maintained+d, max(longest, d)
		}
	}
	began := time.Now()
	for range n / 2 {
		h, err := c.WriteCommit(w.head(c), r.changes(1), us, us, "Benchmark")
		if err != nil {
			r.Fatal(err)
		}
		w.advance(c, h)
		w.push(c)
		maintain()
		r.somebody(w.bare)
		w.advance(c, w.fetch(c))
		maintain()
	}
	r.Logf("aged by %d in %v; maintenance: %d pieces, %v, the longest %v", n, time.Since(began), pieces, maintained, longest)
	w.clean()
	git(r, w.bare, "repack", "-adbq")
}

// child runs a part in a process of its own, and returns how long it took and
// its memory in KiB.
func (r *gitRace) child(part string) (time.Duration, int64) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestGitBenchChild$")
	cmd.Env = append(os.Environ(), "GIT_BENCH_PART="+part, "GIT_BENCH_DIR="+r.world.dir, "GIT_BENCH_URL="+r.world.url)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		r.Fatalf("%s: %v\n%s", part, err, out)
	}
	var d time.Duration
	var kib int64
	if _, err := fmt.Sscanf(string(out), "%d %d\n", &d, &kib); err != nil {
		r.Fatalf("%s: %v\n%s", part, err, out)
	}
	return d, kib
}

// TestGitBenchChild is the part of TestGitBench that is measured from outside:
// a first clone, with the most memory that it took; or a life, with what is
// held after it.
func TestGitBenchChild(t *testing.T) {
	part := os.Getenv("GIT_BENCH_PART")
	if part == "" {
		t.Skip("run by TestGitBench")
	}
	check := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	began := time.Now()
	c, err := Open(t.Context(), Options{Dir: os.Getenv("GIT_BENCH_DIR"), URL: os.Getenv("GIT_BENCH_URL"), Branch: "main"})
	check(err)
	head, err := c.Head()
	check(err)
	_, err = c.Advance(t.Context(), head)
	check(err)
	d := time.Since(began)
	field := "VmHWM:"
	if part == "live" {
		field = "VmRSS:"
		for i := range 10 {
			_, err := c.RemoteHead(t.Context())
			check(err)
			h, err := c.WriteCommit(head, []Change{put("note", fmt.Sprint(i))}, us, us, "Benchmark")
			check(err)
			_, err = c.Advance(t.Context(), h)
			check(err)
			check(c.Push(t.Context()))
			head = h
		}
		debug.FreeOSMemory() // what the runtime does by itself in some minutes
	}
	for line := range strings.Lines(readAll(t, "/proc/self/status")) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			fmt.Println(int64(d), strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
		}
	}
	check(c.Close())
	os.Exit(0) // nothing more on the standard output
}

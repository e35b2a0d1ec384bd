// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
)

var benchFiles = flag.Int("files", 10_000, "the number of files in the repository of the benchmarks")

// A bench is a repository with many files behind a git server.
type bench struct {
	*world
	n int
}

func newBench(b *testing.B) *bench {
	w, _ := newHTTPWorld(b, gitserver.Options{})
	var in strings.Builder
	in.WriteString("commit refs/heads/main\ncommitter C <c@example.net> 1700000000 +0000\ndata 1\nx\n")
	for i := range *benchFiles {
		text := fmt.Sprintf("apiVersion: wiring.githedgehog.com/v1beta1\nkind: Switch\nmetadata:\n  name: leaf-%d\nspec:\n  description: number %d\n", i, i*i)
		fmt.Fprintf(&in, "M 100644 inline %s\ndata %d\n%s\n", benchPath(i), len(text), text)
	}
	gitIn(b, w.bare, in.String(), "fast-import", "--quiet")
	return &bench{world: w}
}

// benchPath spreads the files over fabrics and kinds.
func benchPath(i int) string {
	return fmt.Sprintf("fabrics/fabric-%02d/managed/kind-%d/object-%06d.yaml", i%20, i/20%10, i)
}

// changes are n files with a new content each time.
func (w *bench) changes(n int) []Change {
	w.n++
	out := make([]Change, n)
	for i := range out {
		out[i] = put(benchPath((w.n*n+i)*7%*benchFiles), fmt.Sprintf("spec: {round: %d, file: %d}\n", w.n, i))
	}
	return out
}

func (w *bench) write(b *testing.B, c *Clone, n int) Hash {
	b.Helper()
	head, err := c.Head()
	if err != nil {
		b.Fatal(err)
	}
	h, err := c.WriteCommit(head, w.changes(n), us, us, "Benchmark")
	if err != nil {
		b.Fatal(err)
	}
	return h
}

func benchmarkCommit(b *testing.B, n int) {
	w := newBench(b)
	c := w.clone()
	for b.Loop() {
		if _, err := c.Advance(b.Context(), w.write(b, c, n)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommit1 and BenchmarkCommit50 write a commit and advance to it.
func BenchmarkCommit1(b *testing.B)  { benchmarkCommit(b, 1) }
func BenchmarkCommit50(b *testing.B) { benchmarkCommit(b, 50) }

// BenchmarkWrite50 is the part of that which writes objects.
func BenchmarkWrite50(b *testing.B) {
	w := newBench(b)
	c := w.clone()
	for b.Loop() {
		w.write(b, c, 50)
	}
}

// BenchmarkGitCommit50 is the same done by git.
func BenchmarkGitCommit50(b *testing.B) {
	w := newBench(b)
	w.clone()
	for b.Loop() {
		var paths []string
		for _, ch := range w.changes(50) {
			if err := os.WriteFile(filepath.Join(w.dir, ch.Path), ch.Data, 0o666); err != nil {
				b.Fatal(err)
			}
			paths = append(paths, ch.Path)
		}
		git(b, w.dir, append([]string{"add", "--"}, paths...)...)
		git(b, w.dir, "commit", "-qm", "Benchmark")
	}
}

// BenchmarkAdvanceNothing is Advance where there is nothing to do.
func BenchmarkAdvanceNothing(b *testing.B) {
	w := newBench(b)
	c := w.clone()
	head := w.head(c)
	for b.Loop() {
		if _, err := c.Advance(b.Context(), head); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRestore looks at all files.
func BenchmarkRestore(b *testing.B) {
	w := newBench(b)
	c := w.clone()
	for b.Loop() {
		if got, err := c.Restore(b.Context(), []string{"fabrics"}); err != nil || len(got) > 0 {
			b.Fatal(got, err)
		}
	}
}

// BenchmarkPoll asks for the remote's branch; BenchmarkGitPoll has git do it.
func BenchmarkPoll(b *testing.B) {
	w := newBench(b)
	c := w.open()
	for b.Loop() {
		if _, err := c.RemoteHead(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGitPoll(b *testing.B) {
	w := newBench(b)
	for b.Loop() {
		git(b, w.desk(), "ls-remote", w.url, "refs/heads/main")
	}
}

// BenchmarkPush makes a commit of one file and pushes it.
func BenchmarkPush(b *testing.B) {
	w := newBench(b)
	c := w.clone()
	for b.Loop() {
		if _, err := c.Advance(b.Context(), w.write(b, c, 1)); err != nil {
			b.Fatal(err)
		}
		if err := c.Push(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUpdate fetches a commit of one file and advances to it.
func BenchmarkUpdate(b *testing.B) {
	w := newBench(b)
	c := w.clone()
	other := *w.world
	other.dir += "-other"
	other.opts.Dir = other.dir
	theirs := other.clone()
	for b.Loop() {
		b.StopTimer()
		if _, err := theirs.Advance(b.Context(), w.write(b, theirs, 1)); err != nil {
			b.Fatal(err)
		}
		if err := theirs.Push(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		h, err := c.Fetch(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Advance(b.Context(), h); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkClone makes a clone and checks it out; BenchmarkGitClone has git do
// it.
func BenchmarkClone(b *testing.B) {
	w := newBench(b)
	for i := 0; b.Loop(); i++ {
		w.opts.Dir = fmt.Sprintf("%s-%d", w.dir, i)
		c, err := Open(b.Context(), w.opts)
		if err != nil {
			b.Fatal(err)
		}
		head, err := c.Head()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Advance(b.Context(), head); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

func BenchmarkGitClone(b *testing.B) {
	w := newBench(b)
	for i := 0; b.Loop(); i++ {
		cmd := exec.Command("git", "clone", "-q", w.url, fmt.Sprintf("%s-%d", w.dir, i))
		cmd.Env = gitEnv
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
	}
}

// BenchmarkReceive takes in a pack with so many files, and commits as
// -git-history says; BenchmarkGitIndexPack has git do it.
func BenchmarkReceive(b *testing.B) {
	benchmarkReceive(b, func(dir string, pack *os.File) error {
		s, err := openStore(filepath.Join(dir, "objects"))
		if err != nil {
			return err
		}
		defer s.close()
		return s.receive(b.Context(), pack, nil)
	})
}

func BenchmarkGitIndexPack(b *testing.B) {
	benchmarkReceive(b, func(dir string, pack *os.File) error {
		cmd := exec.Command("git", "index-pack", "--stdin")
		cmd.Dir, cmd.Env, cmd.Stdin = dir, gitEnv, pack
		return cmd.Run()
	})
}

func benchmarkReceive(b *testing.B, receive func(dir string, pack *os.File) error) {
	from := b.TempDir()
	git(b, from, "init", "-q", "--bare", ".")
	importHistory(b, from, *benchFiles, *gitHistory)
	name := mustGlob(b, from, "objects/pack/*.pack")[0]
	to := b.TempDir()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		dir := filepath.Join(to, fmt.Sprint(i))
		git(b, to, "init", "-q", "--bare", dir)
		pack, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := receive(dir, pack); err != nil {
			b.Fatal(err)
		}
		pack.Close()
	}
}

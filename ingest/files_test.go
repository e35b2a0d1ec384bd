// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// onCPUs plans a batch as a host with so many CPUs does.
func onCPUs(t *testing.T, n int, p Policy, files []File, managed tree, fabric *Fabric) Plan {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
	plan, err := p.Plan(files, managed.managed, fabric)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// TestPlanAtOnce: files that are read at once come to what they come to one
// after the other, also where a file is held against what one before it says.
func TestPlanAtOnce(t *testing.T) {
	documents := []string{
		widget("  size: 1\n"), widget("  size: 1\n", "  fixed: a\n"), widget("  size: 1\n", "  fixed: b\n"), // a rule lets no b follow an a
		widget("  size: 1\n", "  label: Abc\n"), widget("  size: 2\n", "  label: Abc\n"), // is let be where it was so before
		widget("  size: 0\n"), "a: [\n", "# nothing\n",
		strings.Replace(widget(), "name: a", "name: a\n  annotations: {"+EnsureAnnotation+": absent}", 1),
	}
	random := rand.New(rand.NewPCG(1, 2))
	pick := func() string { return documents[random.IntN(len(documents))] }
	p := widgets(t)
	several, rejected := 0, 0
	for range 300 {
		p.Partial = random.IntN(3) == 0
		managed := tree{}
		if random.IntN(2) == 0 {
			managed["managed/widgets/a.yaml"] = pick()
		}
		// Behind as much as is read at once, a file is read alone.
		var files, apart []File
		var texts []string
		for i := range random.IntN(8) + 1 {
			text := pick()
			for n := range random.IntN(3) {
				text += "---\n" + strings.Replace(pick(), "name: a", fmt.Sprintf("name: a%d", n), 1)
			}
			f := File{Path: fmt.Sprintf("%d.yaml", i), Data: []byte(text)}
			files, texts = append(files, f), append(texts, text)
			apart = append(apart, f, File{Path: "no-name", Data: make([]byte, atOnce)})
		}
		want := onCPUs(t, 1, p, apart, managed, nil)
		var steps []Step
		for _, s := range want.Files {
			if s.File == "no-name" {
				continue
			}
			s.Input /= 2
			steps = append(steps, s)
			if len(s.Problems) > 0 {
				rejected++
			}
		}
		want.Files = steps
		for _, cpus := range []int{1, 4} {
			got := onCPUs(t, cpus, p, files, managed, nil)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("on %d CPUs, managed %q, files %q:\n%s\n%s", cpus, managed, texts, told(got), told(want))
			}
		}
		if len(files) > 1 {
			several++
		}
	}
	if several < 100 || rejected < 100 {
		t.Errorf("the batches say little: %d of several files, %d files rejected", several, rejected)
	}
}

// TestPlanOnCPUs: of a large file, too, it does not matter on how many CPUs it is
// read: not for the order of what is wrong, where that is cut off, or what is said
// of documents that are larger than all that is read at once.
func TestPlanOnCPUs(t *testing.T) {
	var b strings.Builder
	for i := range 2200 {
		b.WriteString("---\n" + fabricDocument(i))
		switch {
		case i == 1000:
			b.WriteString("  # " + strings.Repeat("x", atOnce) + "\n")
		case i%2 == 1:
			b.WriteString("  on: yes\n\t# tab\n")
		}
	}
	bad := []byte(b.String())
	good := fabricFiles(1000, 1000)[0].Data
	for _, test := range []struct {
		data     []byte
		problems int
	}{{bad, maxProblems + 1}, {good, 0}} {
		files := []File{{Path: "a.yaml", Data: test.data}, {Path: "b.yaml", Data: test.data[len(test.data)/2:]}}
		want := onCPUs(t, 1, hedgehog, files, tree{}, NewFabric(hedgehog))
		if n := len(want.Files[0].Problems); n != test.problems {
			t.Errorf("%d problems", n)
		}
		for _, cpus := range []int{3} {
			if got := onCPUs(t, cpus, hedgehog, files, tree{}, NewFabric(hedgehog)); !reflect.DeepEqual(got, want) {
				t.Errorf("on %d CPUs there is another plan", cpus)
			}
		}
	}
}

// TestPlanErrorInOrder: of several managed files that cannot be read the error
// names the first, however they were asked for.
func TestPlanErrorInOrder(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	var text strings.Builder
	for i := range 50 {
		text.WriteString("---\n" + strings.Replace(widget("  size: 1\n"), "name: a", fmt.Sprintf("name: a%d", i), 1))
	}
	p, asking := widgets(t), 0
	for range 20 {
		_, err := p.Plan([]File{{Path: "x.yaml", Data: []byte(text.String())}}, func(path string) ([]byte, bool, error) {
			asking++ // by one at a time, or the race detector will tell
			return nil, false, errors.New("gone")
		}, nil)
		if err == nil || err.Error() != "reading managed/widgets/a0.yaml: gone" {
			t.Fatalf("got %v", err)
		}
	}
	if asking < 20 {
		t.Errorf("asked %d times", asking)
	}
}

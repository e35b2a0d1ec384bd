// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
	"github.com/hhwatchd/hhwatchd/test/trace"
)

// A scenario is what is dropped and pushed.
type scenario struct {
	name    string
	when    moment
	prune   bool
	partial bool

	has   []file // in the repository before the daemon starts
	drops []file // into raw/ on the host, in this order
	push  []file // in one commit of another clone
	races bool   // the push comes just before the daemon's own

	// first is where a crashed scenario's daemon is killed before it is
	// killed again; again is what is dropped after the first crash.
	first func(*trace.Call) bool
	again []file
}

// A moment is when it happens, and from when on crash points are counted.
type moment int

const (
	running moment = iota // while the daemon runs; from then on
	stopped               // while it does not run; from its next start on
	crashed               // while it runs; from its start after a first crash on
	fresh                 // before it ever ran; from its first start on
)

// A file has a path below the fabric's directory. Content without documents is
// such that it is rejected; content after documents is such that it is all that
// is. A file with neither is one that is removed.
type file struct {
	path    string
	docs    []doc
	content string
}

func (f file) text() string {
	texts := []string{}
	for _, d := range f.docs {
		texts = append(texts, d.text())
	}
	return strings.Join(texts, "---\n") + f.content
}

// A doc is a VPC.
type doc struct {
	name string
	vlan int
}

// text is the document as a person writes it and as it is to be in managed/.
func (d doc) text() string {
	return fmt.Sprintf(`apiVersion: vpc.githedgehog.com/v1beta1
kind: VPC
metadata:
  name: %s
spec:
  subnets:
    default: # the only one
      subnet: 10.0.%d.0/24
      vlan: %d
`, d.name, d.vlan%256, d.vlan)
}

func managed(d doc) file { return file{path: "managed/vpcs/" + d.name + ".yaml", docs: []doc{d}} }

// old is in managed/, and in the cluster, before anything happens.
var old = managed(doc{"old", 1000})

// secret is what must never get into git by way of a drop.
const secret = `apiVersion: v1
kind: Secret
metadata:
  name: bgp
stringData: {password: hunter2}
`

var scenarios = []scenario{
	{
		name: "drop", has: []file{old},
		drops: []file{
			{path: "raw/new.yaml", docs: []doc{{"a", 1001}, {"b", 1002}}},
			{path: "raw/sub/more.yaml", docs: []doc{{"c", 1003}}},
		},
	},
	{
		name: "pull", has: []file{old},
		push: []file{
			{path: "raw/new.yaml", docs: []doc{{"a", 1001}, {"b", 1002}}},
			{path: "raw/sub/more.yaml", docs: []doc{{"c", 1003}}},
		},
	},
	{
		name: "update", has: []file{old},
		drops: []file{
			{path: "raw/change.yaml", docs: []doc{{"old", 1100}}},
		},
	},
	{
		name: "edit", has: []file{old},
		push: []file{managed(doc{"old", 1100})},
	},
	{
		name: "reject", has: []file{old},
		drops: []file{
			{path: "raw/secret.yaml", content: secret},
			{path: "raw/good.yaml", docs: []doc{{"a", 1001}}},
		},
	},
	{
		name: "reject-push", has: []file{old},
		push: []file{
			{path: "raw/secret.yaml", content: secret},
			{path: "raw/good.yaml", docs: []doc{{"a", 1001}}},
		},
	},
	{
		name: "partial", has: []file{old}, partial: true,
		drops: []file{
			{path: "raw/mixed.yaml", docs: []doc{{"a", 1001}, {"b", 1002}}, content: "---\n" + secret},
		},
	},
	{
		name: "race", has: []file{old}, races: true,
		drops: []file{
			{path: "raw/ours.yaml", docs: []doc{{"a", 1001}}},
		},
		push: []file{
			{path: "raw/theirs.yaml", docs: []doc{{"b", 1002}}},
			managed(doc{"old", 1100}),
		},
	},
	{
		name: "prune", has: []file{old, managed(doc{"kept", 1001})}, prune: true,
		push: []file{{path: old.path}},
	},
	{
		name: "first-start", when: fresh,
		has: []file{old, {path: "raw/new.yaml", docs: []doc{{"a", 1001}}}},
	},
	{
		name: "start", when: stopped, has: []file{old},
		drops: []file{
			{path: "raw/new.yaml", docs: []doc{{"a", 1001}, {"b", 1002}}},
			{path: "raw/secret.yaml", content: secret},
		},
		push: []file{managed(doc{"old", 1100})},
	},
	{
		name: "crash-again", when: crashed, has: []file{old},
		drops: []file{
			{path: "raw/new.yaml", docs: []doc{{"a", 1001}, {"b", 1002}}},
		},
		// The commit is there, and the raw file is just about to leave.
		first: func(c *trace.Call) bool {
			return strings.HasPrefix(c.Name, "rename") && strings.HasSuffix(c.To, ".spent")
		},
	},
	{
		name: "drop-again", when: crashed, has: []file{old},
		drops: []file{
			{path: "raw/1.yaml", docs: []doc{{"a", 1001}}},
			{path: "raw/2.yaml", docs: []doc{{"a", 1002}}},
		},
		// The raw files are out, and just about to be known to be.
		first: func(c *trace.Call) bool {
			return strings.HasPrefix(c.Name, "rename") && strings.HasSuffix(c.To, "/refs/hhwatchd/archived")
		},
		again: []file{
			{path: "raw/1.yaml", docs: []doc{{"a", 1001}}},
		},
	},
}

// The branch of the repository, and the ref that holds what somebody else is
// going to push to it.
const (
	branch = "refs/heads/main"
	theirs = "refs/crash/theirs"
)

// prepare makes the repository that each run begins with a copy of.
func (s *scenario) prepare(t *testing.T, srv *gitserver.Server, template string) {
	t.Helper()
	made := srv.Create("template-" + s.name)
	w := srv.Clone(t, "template-"+s.name)
	put := func(files []file) {
		for _, f := range files {
			p := filepath.Join(fabricPath, f.path)
			if text := f.text(); text != "" {
				w.Write(p, text)
			} else {
				w.Git("rm", "--quiet", p)
			}
		}
		w.Commit("by hand")
	}
	put(s.has)
	w.Push()
	if s.push != nil {
		put(s.push)
		w.Git("push", "--quiet", "origin", "HEAD:"+theirs)
	}
	if err := os.CopyFS(template, os.DirFS(made)); err != nil {
		t.Fatal(err)
	}
}

// happen drops and pushes.
func (s *scenario) happen(h *host) error {
	push := func() error { _, err := git(h.bare, "update-ref", branch, theirs); return err }
	if s.races {
		h.git.BeforePush(func() { push() }) // an error shows: what was pushed is missing
	}
	if err := h.drop(s.drops); err != nil {
		return err
	}
	if s.push == nil || s.races {
		return nil
	}
	if err := push(); err != nil {
		return err
	}
	if s.when != running {
		return nil
	}
	if err := h.daemon.Signal(syscall.SIGHUP); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// base is the model before anything was dropped or pushed.
func (s *scenario) base() *model {
	m := &model{managed: map[string]doc{}, generation: map[string]int{}}
	m.pushed(s.has)
	return m
}

// model is what the world has to be in the end.
func (s *scenario) model() *model {
	m := s.base()
	// Whoever wins a race: these touch no object in common.
	if s.push != nil {
		m.pushed(s.push)
	}
	m.dropped(s.drops)
	m.dropped(s.again)
	m.commits += 1 // s.has
	if s.push != nil {
		m.commits++
	}
	m.names = slices.Sorted(maps.Keys(m.managed))
	return m
}

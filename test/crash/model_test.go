// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hhwatchd/hhwatchd/journal"
)

// A model is what the world has to be. It knows only what was dropped and
// pushed.
type model struct {
	managed    map[string]doc // by name
	names      []string       // of managed, sorted
	generation map[string]int // in the cluster: 1, and 1 more for each change
	gone       []string       // names of objects that were removed

	raws    []delivery
	commits int // made by people
}

// blob is the id of the content in git.
func (f file) blob() string {
	text := f.text()
	sum := sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(text), text))
	return hex.EncodeToString(sum[:])
}

// A delivery is a raw file.
type delivery struct {
	file
	dropped, rejected bool
}

func (d delivery) inRepo() string { return fabricPath + "/" + d.path }

// times is how often the very same is delivered.
func (m *model) times(d delivery) int {
	n := 0
	for _, e := range m.raws {
		if e.path == d.path && e.text() == d.text() && e.dropped == d.dropped {
			n++
		}
	}
	return n
}

// kept is where a rejected file is to lie, below the fabric's directory.
func (d delivery) kept() string { return "unmanaged/" + strings.TrimPrefix(d.path, "raw/") }

func (m *model) pushed(files []file) { m.came(files, false) }

func (m *model) dropped(files []file) { m.came(files, true) }

func (m *model) came(files []file, dropped bool) {
	for _, f := range files {
		if strings.HasPrefix(f.path, "raw/") {
			if f.docs != nil && f.content != "" {
				rest := file{path: f.path, content: f.content}
				m.raws = append(m.raws, delivery{rest, dropped, true})
				f.content = ""
			}
			m.raws = append(m.raws, delivery{f, dropped, f.docs == nil})
		} else if f.docs == nil {
			name := strings.TrimSuffix(filepath.Base(f.path), ".yaml")
			m.gone = append(m.gone, name)
			delete(m.managed, name)
		}
		for _, d := range f.docs {
			if was, ok := m.managed[d.name]; !ok || was != d {
				m.generation[d.name]++
			}
			m.managed[d.name] = d
		}
	}
}

// tree is what the remote's tree has below the fabric's directory, by path; ""
// where only the path matters.
func (m *model) tree() map[string]string {
	want := map[string]string{}
	for name, d := range m.managed {
		want["managed/vpcs/"+name+".yaml"] = managed(d).blob()
	}
	for _, d := range m.raws {
		if d.rejected && !d.dropped {
			want[d.kept()], want[d.kept()+".reason"] = d.blob(), ""
		}
	}
	return want
}

// remote compares the remote's tree.
func (m *model) remote(h *host) error {
	out, err := git(h.bare, "ls-tree", "-r", branch)
	if err != nil {
		return err
	}
	want := m.tree()
	for line := range strings.Lines(out) {
		meta, p, _ := strings.Cut(strings.TrimSpace(line), "\t")
		p = strings.TrimPrefix(p, fabricPath+"/")
		blob, ok := want[p]
		if !ok {
			return fmt.Errorf("the remote has %s", p)
		}
		if got := strings.Fields(meta)[2]; blob != "" && blob != got {
			return fmt.Errorf("the remote has other content in %s", p)
		}
		delete(want, p)
	}
	for p := range want {
		return fmt.Errorf("the remote does not have %s", p)
	}
	return nil
}

// disk compares raw/ and unmanaged/ of the clone.
func (m *model) disk(h *host) error {
	raw, err := filesBelow(h.raw())
	if err != nil {
		return err
	}
	if len(raw) > 0 {
		return fmt.Errorf("in raw/ there is %q", raw)
	}
	var want []string
	for _, d := range m.raws {
		if !d.rejected {
			continue
		}
		name := strings.TrimPrefix(d.kept(), "unmanaged/")
		want = append(want, name, name+".reason")
		if got, err := os.ReadFile(filepath.Join(h.unmanaged(), name)); err != nil || string(got) != d.text() {
			return fmt.Errorf("unmanaged/%s: %v: %q", name, err, got)
		}
		if reason, err := os.ReadFile(filepath.Join(h.unmanaged(), name+".reason")); err != nil || !strings.Contains(string(reason), "HH") {
			return fmt.Errorf("unmanaged/%s.reason: %v: %q", name, err, reason)
		}
	}
	slices.Sort(want)
	if got, err := filesBelow(h.unmanaged()); err != nil || !slices.Equal(got, want) {
		return fmt.Errorf("in unmanaged/ there is %q, not %q: %v", got, want, err)
	}
	return nil
}

// compare returns in what the world is not what it has to be. The daemon has
// ended.
func (m *model) compare(h *host) (wrong []string) {
	for _, check := range []func(*host) []string{m.past, m.clone, m.cluster, m.told} {
		wrong = append(wrong, check(h)...)
	}
	for _, err := range []error{m.remote(h), m.disk(h)} {
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	return wrong
}

// past looks at the remote's history: it is a line, holds each raw file once,
// byte for byte, and has no commit too many.
func (m *model) past(h *host) (wrong []string) {
	out, err := git(h.bare, "log", "--reverse", "--raw", "--no-abbrev", "--no-renames", "--root", "--format=commit %H %P", branch)
	if err != nil {
		return []string{err.Error()}
	}
	type change struct{ path, blob string }
	added, removed := map[change]int{}, map[change]int{}
	commits := 0
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "commit":
			commits++
			if len(words) > 3 {
				wrong = append(wrong, "the history has a merge: "+line)
			}
		default: // :100644 000000 OLD NEW D PATH
			if words[4] != "D" {
				added[change{words[5], words[3]}]++
			}
			if words[4] != "A" {
				removed[change{words[5], words[2]}]++
			}
		}
	}
	limit := m.commits
	for _, d := range m.raws {
		c := change{d.inRepo(), d.blob()}
		want := m.times(d)
		if d.rejected && d.dropped {
			want = 0
			for a := range added {
				if a.blob == d.blob() {
					wrong = append(wrong, fmt.Sprintf("%s, which was rejected, is in git as %s", d.path, a.path))
				}
			}
		} else if limit++; d.dropped {
			limit++ // at most a commit that records it and one that moves it on
		}
		if added[c] != want || removed[c] != want {
			wrong = append(wrong, fmt.Sprintf("history takes %s in %d times and moves it on %d times, not %d", d.path, added[c], removed[c], want))
		}
	}
	if commits > limit {
		wrong = append(wrong, fmt.Sprintf("history has %d commits, %d at most are needed", commits, limit))
	}
	return wrong
}

// clone wants the working clone sound, clean, and at the remote's commit.
func (m *model) clone(h *host) (wrong []string) {
	there, err := git(h.bare, "rev-parse", branch)
	if err != nil {
		return []string{err.Error()}
	}
	for want, args := range map[string][]string{
		there: {"rev-parse", "HEAD"},
		"":    {"status", "--porcelain"},
	} {
		if got, err := git(h.clone(), args...); err != nil || got != want {
			wrong = append(wrong, fmt.Sprintf("in the clone, git %s: %v: %q, not %q", strings.Join(args, " "), err, got, want))
		}
	}
	if _, err := git(h.clone(), "fsck", "--strict"); err != nil {
		wrong = append(wrong, err.Error())
	}
	for _, d := range m.raws {
		if !d.rejected || !d.dropped {
			continue
		}
		if _, err := git(h.clone(), "cat-file", "-e", d.blob()); err == nil {
			wrong = append(wrong, fmt.Sprintf("the clone's git has %s, which was rejected", d.path))
		}
	}
	return wrong
}

// cluster wants the objects of managed/ in the API server, no others, and none
// changed more often than it was.
func (m *model) cluster(h *host) (wrong []string) {
	objects, err := h.objects()
	if err != nil {
		return []string{err.Error()}
	}
	var names []string
	for _, o := range objects {
		name := o.Metadata.Name
		names = append(names, name)
		if d, ok := m.managed[name]; ok && (o.Spec.Subnets["default"].VLAN != d.vlan || o.Metadata.Generation > m.generation[name] || o.Metadata.DeletionTimestamp != "") {
			wrong = append(wrong, fmt.Sprintf("the API server has %+v, want vlan %d, at most generation %d", o, d.vlan, m.generation[name]))
		}
	}
	if slices.Sort(names); !slices.Equal(names, m.names) {
		wrong = append(wrong, fmt.Sprintf("the API server has %q, not %q", names, m.names))
	}
	return wrong
}

// told wants the journal whole, and to tell what happened once.
func (m *model) told(h *host) (wrong []string) {
	if said, err := h.verify(); err != nil {
		wrong = append(wrong, fmt.Sprintf("hhwatchd journal verify: %v: %s", err, said))
	}
	type fate struct{ path, blob, origin, outcome string }
	files := map[fate]int{}
	applied := map[string]map[string]int{}     // by outcome and name
	last := map[string]journal.Object{}        // by name, what was told of it last
	moves := map[journal.Step]map[string]int{} // by commit
	tell := func(step journal.Step, commits []string) {
		if moves[step] == nil {
			moves[step] = map[string]int{}
		}
		for _, c := range commits {
			moves[step][c]++
		}
	}
	replans := 0
	for r, err := range journal.Read(h.journal(), 0) {
		if err != nil {
			return append(wrong, err.Error())
		}
		switch r.Step {
		case journal.StepIngest, journal.StepReject:
			files[fate{r.File.Path, r.File.Blob, r.File.Origin, r.File.Outcome}]++
		case journal.StepReplan:
			replans++
			tell(journal.StepCommit, r.Commits)
		case journal.StepApply, journal.StepPrune:
			for _, o := range r.Objects {
				if applied[o.Outcome] == nil {
					applied[o.Outcome] = map[string]int{}
				}
				applied[o.Outcome][o.Name]++
				last[o.Name] = o
			}
		case journal.StepCommit:
			tell(r.Step, r.Commits)
		case journal.StepPush, journal.StepPull:
			if r.From == "" { // the clone was made
				all, err := git(h.bare, "rev-list", r.To)
				if err != nil {
					return append(wrong, err.Error())
				}
				r.Commits = strings.Fields(all)
			}
			tell(r.Step, r.Commits)
			if _, err := git(h.bare, "merge-base", "--is-ancestor", r.To, branch); err != nil {
				wrong = append(wrong, fmt.Sprintf("the journal has a %s of %s, which the remote does not have", r.Step, r.To))
			}
		}
	}
	told := map[fate]bool{}
	for _, d := range m.raws {
		want := fate{d.inRepo(), d.blob(), journal.Pulled, journal.Ingested}
		if d.dropped {
			want.origin = journal.Dropped
		}
		if d.rejected {
			want.outcome = journal.Rejected
		}
		told[want] = true
		least := m.times(d)
		most := least
		if d.dropped && !d.rejected {
			most += replans // told before a lost race, and again of the new commits
		}
		if n := files[want]; n < least || n > most {
			wrong = append(wrong, fmt.Sprintf("the journal tells %d times, not %d times, that %s was %s", n, least, d.path, want.outcome))
		}
	}
	for f, n := range files {
		if told[f] {
			continue
		}
		wrong = append(wrong, fmt.Sprintf("the journal tells of a file %+v (%d times)", f, n))
	}
	commits, err := git(h.bare, "log", "--format=%H %ce", branch)
	if err != nil {
		return append(wrong, err.Error())
	}
	for line := range strings.Lines(commits) {
		c, by, _ := strings.Cut(strings.TrimSpace(line), " ")
		ours, theirs := 0, 1
		if by == email {
			ours, theirs = 1, 0
		}
		if n := moves[journal.StepPull][c]; n != theirs {
			wrong = append(wrong, fmt.Sprintf("the journal tells %d times that %s by %s was pulled", n, c, by))
		}
		for _, step := range []journal.Step{journal.StepCommit, journal.StepPush} {
			if n := moves[step][c]; n != ours {
				wrong = append(wrong, fmt.Sprintf("the journal tells %d times of a %s of %s by %s", n, step, c, by))
			}
		}
	}
	for name, d := range m.managed {
		if o := last[name]; o.Blob != managed(d).blob() || o.Error != "" || o.Outcome == journal.Pruned {
			wrong = append(wrong, fmt.Sprintf("what the journal tells last of applying %v is %+v", d, o))
		}
		if n := applied[journal.Created][name]; n > 1 {
			wrong = append(wrong, fmt.Sprintf("the journal tells %d times that %v was created", n, d))
		}
		if n := applied[journal.Configured][name]; n > m.generation[name]-1 {
			wrong = append(wrong, fmt.Sprintf("the journal tells %d times that %v was configured", n, d))
		}
	}
	for _, name := range m.gone {
		if n := applied[journal.Pruned][name] + applied[journal.Gone][name]; n != 1 {
			wrong = append(wrong, fmt.Sprintf("the journal tells %d times that %s was pruned", n, name))
		}
	}
	for name := range applied[journal.Pruned] {
		if !slices.Contains(m.gone, name) {
			wrong = append(wrong, fmt.Sprintf("the journal tells that %s was pruned", name))
		}
	}
	return wrong
}

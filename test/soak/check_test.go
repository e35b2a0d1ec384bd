// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// findings are what the checks count, and where they have got to: each one
// looks only at what came since the last.
type findings struct {
	lost, duplicated, half, other int
	replaced                      int // drops that their own dropper replaced before they were read

	head     string              // of the remote, up to which history was read
	commits  map[string]*commit  // of the remote, by id
	order    []*commit           // oldest first
	blobs    map[string]bool     // raw ones in the remote's history
	drops    map[string]int      // how often a blob was committed as dropped
	versions map[string][]string // blobs that a managed path had, in order; "" where it was removed
	objects  map[string]map[string]bool
	pos      map[string]int // by host and path, which version was applied last
	books    map[*host]*told
}

func (f *findings) init() {
	f.commits = map[string]*commit{}
	f.blobs, f.drops, f.versions = map[string]bool{}, map[string]int{}, map[string][]string{}
	f.objects, f.pos, f.books = map[string]map[string]bool{}, map[string]int{}, map[*host]*told{}
}

// A commit of the remote branch.
type commit struct {
	id, email, step string
	parents         int
	files           []string // raw files that its trailers name, with their blobs
	changes         []change
}

type change struct{ path, old, new string }

// violate reports what must not be. The words choose the actions to show.
func (w *world) violate(count *int, words []string, format string, args ...any) {
	w.t.Helper()
	*count++
	if w.found.lost+w.found.duplicated+w.found.half+w.found.other > 25 {
		return // enough is known
	}
	w.t.Errorf("at %.3fs: %s\nWhat was done about it:\n%s", time.Since(w.start).Seconds(), fmt.Sprintf(format, args...), w.story(words...))
}

// settle waits until all is through: nobody acts any more and nothing is
// broken. It returns how long that took.
func (w *world) settle() time.Duration {
	began := time.Now()
	deadline := began.Add(patience)
	for {
		err := w.settled()
		if err == nil {
			return time.Since(began)
		}
		if time.Now().After(deadline) {
			for _, h := range w.hosts {
				w.t.Logf("the log of %s ends with\n%s", h.name, h.tail())
			}
			w.violate(&w.found.other, nil, "it does not settle: %v", err)
			return time.Since(began)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// settled is nil when there is nothing left to do.
func (w *world) settled() error {
	head, tree := w.head(), w.tree()
	for path := range tree {
		if isRaw(path) {
			return fmt.Errorf("the remote's tree still holds %q", path)
		}
	}
	for _, h := range w.hosts {
		for _, f := range fabrics {
			if left := h.input(f); len(left) > 0 {
				return fmt.Errorf("raw/ of %s on %s still holds %s", f, h.name, few(left))
			}
		}
		st, err := h.status()
		switch {
		case err != nil:
			return err
		case st.Error != "" || st.Down != "":
			return fmt.Errorf("%s is in trouble: %s%s", h.name, st.Error, st.Down)
		case st.Head != head || st.Unpushed > 0:
			return fmt.Errorf("%s is at %s with %d commits unpushed, the remote at %s", h.name, st.Head, st.Unpushed, head)
		}
		for _, f := range st.Fabrics {
			switch {
			case len(f.Skipped)+len(f.Waiting)+len(f.Failed) > 0:
				return fmt.Errorf("%s on %s: skipped %q, waiting for %q, failed %q", f.Name, h.name, f.Skipped, f.Waiting, f.Failed)
			case h != w.hosts[0]: // does not apply
			case f.Down != "":
				return fmt.Errorf("the cluster of %s: %s", f.Name, f.Down)
			case f.Held != "":
				w.note("prune", ": a person agrees: %s", f.Held)
				h.hhwatchd("sync", "--fabric", f.Name, "--prune")
				return errors.New(f.Held)
			case f.Commit != head || f.Applied != f.Objects:
				return fmt.Errorf("%s has %d of %d objects applied, at %s of %s", f.Name, f.Applied, f.Objects, f.Commit, head)
			}
		}
	}
	return nil
}

func isRaw(path string) bool {
	_, below, ok := strings.Cut(path, "/raw/")
	return ok && below != ".gitkeep"
}

// check compares the world with the model.
func (w *world) check() {
	tree := w.tree()
	w.readHistory()
	w.checkManaged(tree)
	w.checkCluster(tree)
	w.checkDeliveries(tree)
	w.checkObjects()
	for _, h := range w.hosts {
		w.checkJournal(h, tree)
		w.checkClone(h)
		h.scan()
	}
	w.inGit(w.bare, "fsck", "--strict", "--no-progress")
	w.checkIdle()
}

// checkManaged wants managed/ to hold each object as its writers' last words
// have it, and nothing else.
func (w *world) checkManaged(tree map[string]string) {
	for o, by := range w.last {
		have := w.texts[tree[o.path()]]
		if have == "" && tree[o.path()] != "" {
			w.violate(&w.found.other, []string{o.name}, "%s holds what nobody said", o.path())
		} else if !slices.Contains(slices.Collect(maps.Values(by)), have) {
			w.violate(&w.found.lost, []string{" " + o.name + " ", o.path()}, "%s is\n%s\nbut the last words were\n%s", o.path(), have, by)
		}
	}
	want := w.wanted()
	for path := range tree {
		if strings.Contains(path, "/managed/") && strings.HasSuffix(path, ".yaml") && want[path] == nil {
			w.violate(&w.found.other, []string{path}, "%s is there", path)
		}
	}
}

// checkCluster wants the API server to hold what managed/ holds.
func (w *world) checkCluster(tree map[string]string) {
	live := map[string]bool{}
	for _, kind := range []string{"VPC", "Server"} {
		list, err := w.api.List(resource(kind), "default")
		if err != nil {
			w.t.Errorf("listing: %v", err)
			return
		}
		for _, o := range list {
			meta := o["metadata"].(map[string]any)
			spec, _ := o["spec"].(map[string]any)
			name := meta["name"].(string)
			annotations, _ := meta["annotations"].(map[string]any)
			word, _ := annotations["soak/word"].(string)
			for _, f := range fabrics {
				obj := object{f, kind, name}
				if w.last[obj] == nil {
					continue
				}
				live[obj.path()] = true
				want, ok := tree[obj.path()]
				switch {
				case !ok && f == pruned:
					w.violate(&w.found.other, []string{" " + name + " ", obj.path()}, "%s is in the cluster, although it left managed/", obj.path())
				case !ok:
				case w.texts[want] != obj.text(word):
					w.violate(&w.found.other, []string{" " + name + " ", obj.path()}, "the cluster has %s as %q said, managed/ as\n%s", obj.path(), word, w.texts[want])
				case kind == "Server" && spec["description"] != word:
					w.violate(&w.found.half, []string{" " + name + " ", obj.path()}, "the cluster has %s by halves: %v", obj.path(), o)
				}
				if n, _ := meta["generation"].(float64); int(n) > len(w.found.versions[obj.path()]) {
					w.violate(&w.found.duplicated, []string{" " + name + " ", obj.path()}, "%s is of generation %v in the cluster, and had %d versions", obj.path(), n, len(w.found.versions[obj.path()]))
				}
			}
		}
	}
	for path := range tree {
		if strings.Contains(path, "/managed/") && strings.HasSuffix(path, ".yaml") && !live[path] {
			w.violate(&w.found.lost, []string{path}, "%s is not in the cluster", path)
		}
	}
}

// checkDeliveries wants the bytes of each good file in history, once for each
// time that it was dropped at most, and each bad one beside its reason, out of
// git where it was dropped.
func (w *world) checkDeliveries(tree map[string]string) {
	kept := map[string]string{} // content of files in unmanaged/ that have a reason, by host and blob
	for _, h := range w.hosts {
		for _, f := range fabrics {
			filepath.WalkDir(h.unmanaged(f), func(p string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() && exists(p+".reason") {
					data, err := os.ReadFile(p)
					if err == nil {
						kept[h.name+blobHash(string(data))] = p
					}
				}
				return nil
			})
		}
	}
	for path, blob := range tree {
		if strings.Contains(path, "/unmanaged/") && tree[path+".reason"] != "" {
			kept[blob] = path
		}
	}
	w.found.replaced = 0
	for blob, ds := range w.byBlob {
		owed := slices.ContainsFunc(ds, func(d *delivery) bool { return !d.doubtful })
		d := ds[0]
		there := w.found.blobs[blob]
		if d.rejected() {
			where := ""
			if d.host != nil {
				where = d.host.name
			}
			there = kept[where+blob] != ""
		}
		switch {
		case owed && !there:
			w.violate(&w.found.lost, []string{fmt.Sprintf("%.12s", blob), fmt.Sprintf("%q", d.path)}, "lost: %s", d)
		case !there:
			w.found.replaced++
		}
		if w.found.drops[blob] > len(ds) {
			w.violate(&w.found.duplicated, []string{fmt.Sprintf("%.12s", blob)}, "committed %d times as dropped, and was dropped %d times: %s", w.found.drops[blob], len(ds), d)
		}
	}
}

// readHistory reads what the remote's history has got since the last time.
func (w *world) readHistory() {
	head := w.head()
	if head == w.found.head {
		return
	}
	span := head
	if w.found.head != "" {
		if _, err := runGit(w.bare, nil, "merge-base", "--is-ancestor", w.found.head, head); err != nil {
			w.violate(&w.found.lost, nil, "the remote's history was rewritten: %v", err)
		}
		span = w.found.head + ".." + head
	}
	out := w.inGit(w.bare, "log", "--reverse", "-z", "--raw", "--no-renames", "--no-abbrev", "--root", "-m", "--format=%x01%H%x02%P%x02%ce%x02%B%x02", span)
	for entry := range strings.SplitSeq(out, "\x01") {
		fields := strings.SplitN(entry, "\x02", 5)
		if len(fields) < 5 {
			continue
		}
		c := &commit{id: fields[0], parents: len(strings.Fields(fields[1])), email: fields[2]}
		for line := range strings.Lines(fields[3]) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch key {
			case "Hhwatchd-Step":
				c.step = value
			case "Raw-File":
				if unquoted, err := strconv.Unquote(value); err == nil {
					value = unquoted
				}
				c.files = append(c.files, value)
			}
		}
		raw := strings.Split(strings.Trim(fields[4], "\x00\n"), "\x00")
		for i := 0; i+1 < len(raw); i += 2 {
			f := strings.Fields(raw[i]) // :100644 100644 old new M
			c.changes = append(c.changes, change{raw[i+1], f[2], f[3]})
		}
		w.enterCommit(c)
	}
	w.found.head = head
}

const noBlob = "0000000000000000000000000000000000000000"

func (w *world) enterCommit(c *commit) {
	if c.parents > 1 {
		w.violate(&w.found.other, nil, "%s is a merge", c.id)
	}
	w.found.commits[c.id] = c
	w.found.order = append(w.found.order, c)
	now := map[string]string{} // managed files that it changes
	for _, ch := range c.changes {
		switch {
		case isRaw(ch.path) && ch.new != noBlob:
			w.found.blobs[ch.new] = true
			if c.step == "drop" {
				w.found.drops[ch.new]++
			}
		case strings.Contains(ch.path, "/managed/"):
			now[ch.path] = ch.new
			if ch.new == noBlob {
				ch.new = ""
			}
			w.found.versions[ch.path] = append(w.found.versions[ch.path], ch.new)
		}
	}
	// A file is ingested as a whole: each of its objects is what it says, or
	// what another file of the same commit says.
	if c.step != "ingest" {
		return
	}
	said := map[string]map[string]bool{}
	whole := map[string]*delivery{}
	for _, ch := range c.changes {
		if ds := w.byBlob[ch.old]; isRaw(ch.path) && ch.new == noBlob && ds != nil {
			whole[ch.old] = ds[0]
			for o, text := range ds[0].objects {
				if said[o.path()] == nil {
					said[o.path()] = map[string]bool{}
				}
				said[o.path()][blobHash(text)] = true
			}
		}
	}
	for _, d := range whole {
		for o := range d.objects {
			have := ""
			if v := w.found.versions[o.path()]; len(v) > 0 {
				have = v[len(v)-1]
			}
			if !said[o.path()][have] {
				w.violate(&w.found.half, []string{o.name, fmt.Sprintf("%.12s", d.blob)}, "commit %s ingested %s, but %s is another one after it", c.id, d, o.path())
			}
		}
	}
}

// checkObjects wants no object of the remote or of a clone to hold anything of
// a dropped file that was rejected.
func (w *world) checkObjects() {
	dirs := []string{w.bare}
	for _, h := range w.hosts {
		dirs = append(dirs, h.clone())
	}
	for _, dir := range dirs {
		seen := w.found.objects[dir]
		if seen == nil {
			seen = map[string]bool{}
			w.found.objects[dir] = seen
		}
		var fresh bytes.Buffer
		for id := range strings.FieldsSeq(w.inGit(dir, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)", "--unordered")) {
			if !seen[id] {
				seen[id] = true
				fmt.Fprintln(&fresh, id)
			}
		}
		out, err := runGit(dir, fresh.Bytes(), "cat-file", "--batch")
		if err != nil {
			w.t.Error(err)
		}
		if i := strings.Index(out, marker); i >= 0 {
			w.violate(&w.found.other, []string{out[i : i+strings.IndexByte(out[i:], '\n')]}, "git in %s has what was rejected: %q", dir, out[max(0, i-200):min(len(out), i+100)])
		}
	}
}

// checkClone wants a host's clone to be clean and sound.
func (w *world) checkClone(h *host) {
	if out := w.inGit(h.clone(), "status", "--porcelain"); out != "" {
		w.violate(&w.found.other, nil, "git status in the clone of %s says\n%s", h.name, out)
	}
	if out, err := runGit(h.clone(), nil, "fsck", "--strict", "--no-progress"); err != nil {
		w.violate(&w.found.other, nil, "the clone of %s: %v\n%s", h.name, err, out)
	}
	for _, f := range fabrics {
		filepath.WalkDir(filepath.Join(h.clone(), fabricPath(f)), func(p string, d os.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(p, ".spent") {
				w.violate(&w.found.other, []string{filepath.Base(p)}, "%s was left", p)
			}
			return nil
		})
	}
}

// checkIdle wants another full cycle to change nothing.
func (w *world) checkIdle() {
	head := w.head()
	for _, h := range w.hosts {
		if out, err := h.hhwatchd("sync"); err != nil {
			w.violate(&w.found.other, nil, "with nothing to do on %s: %v\n%s", h.name, err, out)
		}
	}
	if now := w.head(); now != head {
		w.violate(&w.found.duplicated, nil, "the next cycle commits again:\n%s", w.inGit(w.bare, "log", "--oneline", head+".."+now))
	}
}

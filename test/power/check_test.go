// SPDX-License-Identifier: Apache-2.0

package power

import (
	"bytes"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A host is a place where states are brought to life: a state directory and
// a remote of its own.
type host struct {
	rec    *recording
	words  []word
	blobs  []string // of the words' texts, in git's naming
	loose  bool
	state  string
	config string
	bare   string
	from   string // the URL in the recorded clone's config
	url    string
}

// newHost makes the host number k of a world whose recording has ended.
func newHost(t *testing.T, w *world, rec *recording, k int) *host {
	t.Helper()
	name := fmt.Sprintf("host-%d", k)
	dir := filepath.Join(filepath.Dir(w.config), name)
	h := &host{
		rec: rec, words: w.words, loose: w.loose, state: filepath.Join(dir, "state"), config: filepath.Join(dir, "hhwatchd.yaml"),
		bare: filepath.Join(w.gitDir, name+".git"), from: w.git.RepoURL(recorded), url: w.git.RepoURL(name),
	}
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.RemoveAll(h.bare)); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(h.bare, os.DirFS(filepath.Join(w.gitDir, recorded+".git"))); err != nil {
		t.Fatal(err)
	}
	if err := writeConfig(h.config, h.state, h.url); err != nil {
		t.Fatal(err)
	}
	for _, x := range w.words {
		h.blobs = append(h.blobs, blobOf(x.text))
	}
	return h
}

// blobOf is git's name for a blob (git-hash-object(1)).
func blobOf(text string) string {
	return fmt.Sprintf("%x", sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(text), text)))
}

// put brings the host into a state. The remote keeps the objects that it got
// later; nothing refers to them.
func (h *host) put(s state) error {
	if err := moved(s.tree, h.rec.dir, h.state, h.from, h.url).Write(h.state); err != nil {
		return err
	}
	ref := filepath.Join(h.bare, "refs", "heads", "main")
	if s.head == "" {
		if err := os.Remove(ref); err != nil && !os.IsNotExist(err) {
			return err
		}
		return nil
	}
	return os.WriteFile(ref, []byte(s.head+"\n"), 0o644)
}

// moved returns t as it is with its directory and its remote elsewhere, and in
// another boot: the link to the raw directory is absolute, the clone's config
// has the URL, and the clone and its locks have the boot.
func moved(t Tree, dir, newDir, url, newURL string) Tree {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	id := strings.TrimSpace(string(boot))
	t = maps.Clone(t)
	for p, f := range t {
		if rest, ok := strings.CutPrefix(f.Target, dir+"/"); ok {
			f.Target = newDir + "/" + rest
		}
		if id != "" {
			f.Target = strings.ReplaceAll(f.Target, id, "an-earlier-one")
		}
		if strings.HasSuffix(p, "/hhwatchd/boot") && id != "" {
			f.Data = bytes.ReplaceAll(f.Data, []byte(id), []byte("an-earlier-one"))
		}
		if p == cloneDir+".git/config" || strings.HasSuffix(p, ".clone/config") {
			f.Data = bytes.ReplaceAll(f.Data, []byte(url), []byte(newURL))
		}
		t[p] = f
	}
	return t
}

// cycles is how many cycles a host gets to come right. A file that a power loss
// left empty has to stay so for the quiet period before it is looked at.
const cycles = 5

// A verdict is what became of a state.
type verdict struct {
	lost   []string // words that are nowhere, or overruled by an earlier one
	stuck  []string // words that are somewhere on the host, but did not go through
	wrong  []string // anything else that should not be
	output string
}

// check starts the daemon's cycle in the state s until all is as it should be,
// and says what is not.
func (h *host) check(s state) (v verdict, err error) {
	if err := h.put(s); err != nil {
		return v, err
	}
	for range cycles {
		out, code, err := run(h.config, "sync", "--once")
		if err != nil {
			return v, err
		}
		before := v
		v = verdict{output: fmt.Sprintf("%s(exit code %d)\n", out, code)}
		if err := h.judge(s, &v); err != nil {
			return v, err
		}
		if v.good() || slices.Equal(v.all(), before.all()) {
			return v, nil
		}
	}
	return v, nil
}

func (v verdict) all() []string { return slices.Concat(v.lost, v.stuck, v.wrong) }

func (v verdict) good() bool { return len(v.all()) == 0 }

func (h *host) judge(s state, v *verdict) error {
	files, err := h.remote("ls-tree", "-r", "main")
	if err != nil && s.head != "" {
		return err
	}
	at := map[string]string{} // path to blob
	for line := range strings.Lines(files) {
		meta, path, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		at[path] = strings.Fields(meta)[2]
	}
	history, err := h.remote("rev-list", "--objects", "main")
	if err != nil && s.head != "" {
		return err
	}
	h.findWords(s, at, history, v)

	// The clone is one that git is content with, and nobody edited anything.
	clone := filepath.Join(h.state, cloneDir)
	if out, err := git(clone, "fsck", "--strict", "--no-dangling"); err != nil {
		v.wrong = append(v.wrong, fmt.Sprintf("git fsck: %v: %s", err, out))
	}
	if out, err := git(clone, "status", "--porcelain", "--", ".", ":(exclude)"+fabricDir+"raw/"+dropping); err != nil || out != "" {
		v.wrong = append(v.wrong, fmt.Sprintf("git status: %v: %s", err, out))
	}
	if info, err := os.Stat(filepath.Join(h.state, rawDir)); err != nil || info.Mode()&0o020 == 0 {
		v.wrong = append(v.wrong, fmt.Sprintf("the group may not drop files (%v)", err))
	}
	if err := filepath.WalkDir(filepath.Join(h.state, "aside"), func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			v.wrong = append(v.wrong, "taken for a local edit: "+name)
		}
		return nil
	}); err != nil {
		return err
	}
	return h.judgeJournal(s, at, v)
}

// findWords looks for each word that cannot be lost.
func (h *host) findWords(s state, at map[string]string, history string, v *verdict) {
	allowed := map[string][]string{} // by object: the blobs that it may have
	known := map[string]bool{}
	for i, x := range h.words {
		managed := fabricDir + "managed/" + x.object
		known[managed] = true
		if !h.rec.kept(x, s) {
			if x.object != "" && len(allowed[managed]) > 0 {
				allowed[managed] = append(allowed[managed], h.blobs[i]) // it may have made it
			}
			continue
		}
		if x.object == "" {
			if !h.rejected(x) {
				v.lost = append(v.lost, fmt.Sprintf("%s is neither in unmanaged/, with a reason, nor in raw/", x.file))
			}
			continue
		}
		allowed[managed] = []string{h.blobs[i]}
		if strings.Contains(history, h.blobs[i]) {
			continue
		}
		if h.waits(x, h.blobs[i]) {
			v.stuck = append(v.stuck, x.file+" has not gone through")
			delete(allowed, managed)
		} else {
			v.lost = append(v.lost, fmt.Sprintf("%s (%s): its bytes are not in the history, nor here", x.file, x.object))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(allowed)) {
		if slices.Contains(allowed[path], at[path]) {
			continue
		}
		if strings.Contains(v.output, "STOPPED") {
			v.stuck = append(v.stuck, path+" has not gone through")
		} else {
			v.lost = append(v.lost, fmt.Sprintf("%s is %q, not one of %q", path, at[path], allowed[path]))
		}
	}
	for path := range at {
		if strings.HasPrefix(path, fabricDir+"managed/") && !known[path] && !strings.HasSuffix(path, ".gitkeep") && !h.loose {
			v.wrong = append(v.wrong, path+" comes from nowhere")
		}
		if strings.HasPrefix(path, fabricDir+"unmanaged/") && !h.loose {
			v.wrong = append(v.wrong, path+" was rejected")
		}
	}
}

// waits reports whether a word lies in raw/, or in a commit of the clone, or
// has been pushed and is about to be pulled again.
func (h *host) waits(x word, blob string) bool {
	if data, err := os.ReadFile(filepath.Join(h.state, rawDir, x.file)); err == nil && string(data) == x.text {
		return true
	}
	out, err := git(filepath.Join(h.state, cloneDir), "rev-list", "--objects", "main")
	return err == nil && strings.Contains(out, blob)
}

// rejected reports whether a rejected word has its place.
func (h *host) rejected(x word) bool {
	if data, err := os.ReadFile(filepath.Join(h.state, rawDir, x.file)); err == nil && string(data) == x.text {
		return true
	}
	name := filepath.Join(h.state, cloneDir, fabricDir, "unmanaged", x.file)
	data, err := os.ReadFile(name)
	reason, rerr := os.ReadFile(name + ".reason")
	return err == nil && rerr == nil && string(data) == x.text && len(reason) > 0
}

// judgeJournal wants a journal that is whole, that tells of each word what became
// of it, once, and that has the objects that are there.
func (h *host) judgeJournal(s state, at map[string]string, v *verdict) error {
	out, code, err := run(h.config, "history", "-o", "json")
	if err != nil {
		return err
	}
	if code != 0 {
		v.wrong = append(v.wrong, fmt.Sprintf("history: exit code %d: %s", code, out))
	}
	replans := 0
	told := map[string]int{} // by outcome, file and blob
	for line := range strings.Lines(out) {
		var r struct {
			Step string
			File struct{ Path, Blob, Outcome string }
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return fmt.Errorf("history: %w in %q", err, line)
		}
		switch r.Step {
		case "damaged", "aside":
			v.wrong = append(v.wrong, "the journal says: "+line)
		case "replan":
			replans++
		}
		told[r.File.Outcome+" "+r.File.Path+" "+r.File.Blob]++
	}
	for i, x := range h.words {
		if !h.rec.kept(x, s) {
			continue
		}
		about := " " + fabricDir + "raw/" + x.file + " " + h.blobs[i]
		// It was ingested anew where unpushed work was planned anew.
		if n := told["ingested"+about]; x.object != "" && (n == 0 || n > 1+replans) {
			v.wrong = append(v.wrong, fmt.Sprintf("the journal tells %d times that %s (%s) was ingested", n, x.file, x.object))
		}
		// Between the record and the move it may have been told in vain.
		if n := told["rejected"+about]; x.object == "" && n == 0 {
			v.wrong = append(v.wrong, "the journal does not tell that "+x.file+" was rejected")
		}
	}
	var objects []struct{ Managed, State string }
	if out, code, err = run(h.config, "get", "-o", "json"); err != nil {
		return err
	} else if err := json.Unmarshal([]byte(out), &objects); err != nil {
		return fmt.Errorf("get: exit code %d, %w: %s", code, err, out)
	}
	want := map[string]bool{}
	for path := range at {
		if strings.HasPrefix(path, fabricDir+"managed/") && strings.HasSuffix(path, ".yaml") {
			want[path] = true
		}
	}
	for _, o := range objects {
		if !want[o.Managed] {
			v.wrong = append(v.wrong, "the inventory has what managed/ has not: "+o.Managed)
		}
		delete(want, o.Managed)
	}
	for path := range want {
		v.wrong = append(v.wrong, "the inventory lacks "+path)
	}
	return nil
}

func (h *host) remote(args ...string) (string, error) { return git(h.bare, args...) }

func git(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-c", "safe.directory=*", "-c", "core.quotePath=false", "-C", dir}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("git %s: %w: %s", args[0], err, out)
	}
	return string(out), err
}

// keep copies a state to a directory outside of the test's, with a remote that
// needs no server, and says how to look at it.
func (h *host) keep(s state) string {
	dir, err := os.MkdirTemp("", "hhwatchd-power-")
	if err != nil {
		return err.Error()
	}
	bare := filepath.Join(dir, "remote.git")
	config := filepath.Join(dir, "hhwatchd.yaml")
	err = h.put(s)
	if err == nil {
		err = os.CopyFS(bare, os.DirFS(h.bare))
	}
	if err == nil {
		err = moved(s.tree, h.rec.dir, filepath.Join(dir, "state"), h.from, bare).Write(filepath.Join(dir, "state"))
	}
	if err == nil {
		err = writeConfig(config, filepath.Join(dir, "state"), bare)
	}
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("hhwatchd --config %s sync --once", config)
}

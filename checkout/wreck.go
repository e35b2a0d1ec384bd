// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	gitobject "github.com/go-git/go-git/v5/plumbing/object"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// Git directories that were set aside lie beside the clone, as Dir.broken-1 and
// so on; carriedMark in one says that there is nothing more to be had from it.
const (
	brokenSuffix = ".broken-"
	carriedMark  = "hhwatchd-carried"
)

// wrecks lists what was set aside of the clone in dir, oldest first.
func wrecks(dir string) ([]string, error) {
	names, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		return nil, err
	}
	number := make(map[string]int)
	for _, e := range names {
		if n, ok := strings.CutPrefix(e.Name(), filepath.Base(dir)+brokenSuffix); ok && e.IsDir() {
			if i, err := strconv.Atoi(n); err == nil && i > 0 {
				number[filepath.Join(filepath.Dir(dir), e.Name())] = i
			}
		}
	}
	return slices.SortedFunc(maps.Keys(number), func(a, b string) int { return number[a] - number[b] }), nil
}

// SetAside moves the git directory of the broken clone in dir, which must not
// be open, out of the way, durably: to dir.broken-1, or the next free number.
// The work tree stays as it is. [Open] then makes a new git directory.
//
// Earlier ones go for good if all that they held was carried over; the others
// stay until a person removes them. kept is empty if there is no git directory.
func SetAside(ctx context.Context, dir string) (kept string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("setting the broken clone %s aside: %w", dir, err)
		}
	}()
	l, err := lockFile(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer l.Close()
	old, err := wrecks(dir)
	if err != nil {
		return "", err
	}
	n := 1
	for _, name := range old {
		i, _ := strconv.Atoi(strings.TrimPrefix(name, dir+brokenSuffix))
		n = max(n, i+1)
		if data, err := os.ReadFile(filepath.Join(name, carriedMark)); err == nil && string(data) == carriedAll {
			if err := os.RemoveAll(name); err != nil {
				return "", err
			}
		}
	}
	for kept = fmt.Sprint(dir, brokenSuffix, n); ; kept = fmt.Sprint(dir, brokenSuffix, n) {
		if _, err := os.Lstat(kept); err != nil {
			break
		}
		n++
	}
	err = durable.Rename(filepath.Join(dir, ".git"), kept)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return kept, err
}

// What carriedMark holds.
const (
	carriedAll  = "all that was not on the remote is in the new clone; this directory may be removed\n"
	carriedPart = "not everything could be carried over into the new clone; remove this directory when nobody needs it\n"
)

// A Wreck is the git directory of a broken clone, to be read as far as that
// goes. What the new clone has of the remote's objects stands in for the
// wreck's own copies of them.
type Wreck struct {
	Dir  string // "" if there is none: the git directory is gone
	refs map[string]oid
	*store
}

// Carried says what became of a broken clone's work; see Options.Carry.
type Carried struct {
	// Head is where the local branch begins: a commit that the new clone has.
	Head Hash
	// WorkTree is the commit that the work tree was brought to last, if it is
	// known and the new clone has it. Files that are as they are there are
	// not local edits.
	WorkTree Hash
	// Partly says that something of the wreck was not carried over.
	Partly bool
	// Report is kept in the new clone until [Clone.ForgetReport].
	Report []byte
}

// newWreck reads the wreck in dir, with the help of the new repository.
func newWreck(dir string, new *repository) *Wreck {
	w := &Wreck{Dir: dir, refs: make(map[string]oid)}
	if dir == "" {
		w.store = readStore(new.dirs...)
		return w
	}
	w.store = readStore(filepath.Join(dir, "objects"))
	w.lenient = true
	w.store.alternates()
	w.dirs = append(w.dirs, new.dirs...)
	w.listed = make([]packDir, len(w.dirs))
	repo := &repository{dir: dir, store: w.store}
	// A packed-refs that is cut off is good up to there.
	packed, _ := readOptional(filepath.Join(dir, "packed-refs"))
	for line := range strings.Lines(string(packed)) {
		hash, name, ok := strings.Cut(line, " ")
		if id, valid := parseOID(hash); ok && valid && strings.HasSuffix(name, "\n") {
			w.refs[strings.TrimSpace(name)] = id
		}
	}
	fs.WalkDir(os.DirFS(dir), "refs", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		delete(w.refs, path) // it is older
		if id, err := repo.ref(path); err == nil && id != (oid{}) {
			w.refs[path] = id
		}
		return nil
	})
	return w
}

// Ref returns what the ref name, in full, points to, whether or not that can
// be read; the empty Hash if that is not to be had.
func (w *Wreck) Ref(name string) Hash { return hashOf(w.refs[name]) }

// Refs returns the names of the refs below prefix that can be read, sorted.
func (w *Wreck) Refs(prefix string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(w.refs)), func(name string) bool { return !strings.HasPrefix(name, prefix) })
}

// Commit returns the commit h.
func (w *Wreck) Commit(h Hash) (Commit, error) {
	c, err := w.commit(h.id())
	if err != nil {
		return Commit{}, err
	}
	return exported(c), nil
}

// Blob returns the content of a blob.
func (w *Wreck) Blob(h Hash) ([]byte, error) { return w.typed(h.id(), plumbing.BlobObject) }

// Line returns the commits on the line of first parents from h back to the
// first one that known knows, or that cannot be read, the oldest first. What
// cannot be read is left out.
func (w *Wreck) Line(h Hash, known func(Hash) bool) ([]Commit, error) {
	var out []Commit
	for id := h.id(); id != (oid{}) && !known(hashOf(id)); {
		c, err := w.commit(id)
		if Lost(err) {
			break
		}
		if err != nil {
			return nil, err
		}
		out = append(out, exported(c))
		if id = (oid{}); len(c.ParentHashes) > 0 {
			id = c.ParentHashes[0]
		}
	}
	slices.Reverse(out)
	return out, nil
}

// Copy copies the commit h into the clone with everything that it needs, and
// that the commit have, which the clone has, does not bring. Nothing refers to
// it yet. [Lost] tells an error that says that something cannot be read.
func (w *Wreck) Copy(to *Clone, have, h Hash) error {
	objects, err := w.newObjects(have.id(), h.id())
	if err != nil {
		return err
	}
	// Commits last, oldest first, so that none is there before what it needs.
	var commits []*gitobject.Commit
	if commits, err = w.between(have.id(), h.id()); err != nil {
		return err
	}
	isCommit := make(map[oid]bool)
	for _, c := range commits {
		isCommit[c.Hash] = true
	}
	write := func(id oid) error {
		o, err := w.get(id)
		if err != nil {
			return err
		}
		if to.repo.has(id) {
			return nil
		}
		to.repo.mu.Lock()
		defer to.repo.mu.Unlock()
		return to.repo.writeLoose(id, o)
	}
	for _, o := range objects {
		if !isCommit[o.id] {
			if err := write(o.id); err != nil {
				return err
			}
		}
	}
	for _, c := range commits {
		if err := write(c.Hash); err != nil {
			return err
		}
	}
	return nil
}

// carry lets Options.Carry bring over into the new repository, which is not in
// its place yet, what the wreck holds, and returns what it said.
func (c *Clone) carry(ctx context.Context, tip oid) (err error) {
	head := tip
	if c.opts.Carry != nil {
		old, err := pendingWreck(c.opts.Dir)
		if err != nil {
			return err
		}
		w := newWreck(old, c.repo)
		defer w.close()
		got, err := c.opts.Carry(ctx, c, w)
		if err != nil {
			return fmt.Errorf("carrying over the work of the broken clone %s: %w", old, err)
		}
		head = got.Head.id()
		state := filepath.Join(c.repo.dir, stateDir)
		if err := durable.MkdirAll(state, 0o777); err != nil {
			return err
		}
		files := map[string][]byte{}
		if got.WorkTree != "" {
			files["worktree"] = []byte(got.WorkTree + "\n")
		}
		if len(got.Report) > 0 {
			files["report"] = got.Report
		}
		if old != "" && got.Partly {
			files[partlyMark] = nil
		}
		for name, data := range files {
			if err := durable.WriteFile(filepath.Join(state, name), data, 0o644); err != nil {
				return err
			}
		}
	}
	if head == (oid{}) {
		return nil
	}
	return c.repo.setRef(ctx, branchRef(c.opts.Branch), oid{}, head)
}

// partlyMark is there, in stateDir, from when a clone was rebuilt until its
// wreck is marked as partly carried over.
const partlyMark = "partly"

// pendingWreck returns the newest wreck that nothing was carried over from.
func pendingWreck(dir string) (string, error) {
	all, err := wrecks(dir)
	if err != nil {
		return "", err
	}
	for _, name := range slices.Backward(all) {
		if _, err := os.Lstat(filepath.Join(name, carriedMark)); errors.Is(err, fs.ErrNotExist) {
			return name, nil
		} else if err != nil {
			return "", err
		}
	}
	return "", nil
}

// settleWrecks notes, once the new git directory is in its place, that nothing
// more is to be carried over from wrecks.
func (c *Clone) settleWrecks() error {
	partly := filepath.Join(c.repo.dir, stateDir, partlyMark)
	text := carriedAll
	if _, err := os.Lstat(partly); err == nil {
		text = carriedPart
	}
	all, err := wrecks(c.opts.Dir)
	if err != nil {
		return err
	}
	for _, name := range all {
		mark := filepath.Join(name, carriedMark)
		if _, err := os.Lstat(mark); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := durable.WriteFile(mark, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.Remove(partly); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (c *Clone) reportPath() string { return filepath.Join(c.repo.dir, stateDir, "report") }

// Report returns what Options.Carry had to report when this clone was made;
// nothing, if it had nothing or that was forgotten.
func (c *Clone) Report() ([]byte, error) { return readOptional(c.reportPath()) }

// ForgetReport says that the report was taken note of.
func (c *Clone) ForgetReport() error {
	if err := durable.Remove(c.reportPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

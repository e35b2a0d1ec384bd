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
	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// Check looks whether the git directory is still the one that was opened and
// is sound as far as every operation relies on it: its parts are there, the
// refs that this package keeps can be read, and the commits that they point to
// can, with their root trees, from the disk and not from memory. The packs are
// looked at where their files have changed. It takes some 50 system calls.
//
// With full, the objects of the commits that the remote does not have are read
// too: there is no other copy of them.
//
// The error is a *BrokenError if the git directory is damaged.
func (c *Clone) Check(full bool) error {
	if err := c.repo.check(c.opts.Branch, full); err != nil {
		return fmt.Errorf("checking the clone: %w", err)
	}
	return nil
}

func (r *repository) check(branch string, full bool) error {
	if err := r.layout(); err != nil {
		return err
	}
	if err := r.checkPacks(); err != nil {
		return err
	}
	refs, err := r.refs([]string{branchRef(branch), upstreamRef(branch), "refs/hhwatchd/"})
	if err != nil {
		return err
	}
	head, upstream := refs[branchRef(branch)], refs[upstreamRef(branch)]
	seen := make(map[oid]bool)
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		if id := refs[name]; !seen[id] {
			seen[id] = true
			if err := r.readable(id); err != nil {
				return r.lacks(name, err)
			}
		}
	}
	if r.followed() != branch {
		return nil // what follows is of another branch
	}
	// A branch that is gone leaves traces of what it was.
	base := refs["refs/hhwatchd/base"]
	at, _ := r.worktreeAt()
	switch {
	case head == (oid{}) && (base != (oid{}) || at != (oid{})):
		return r.broken("%s is gone", branchRef(branch))
	case upstream == (oid{}) && base != (oid{}):
		return r.broken("%s is gone", upstreamRef(branch))
	}
	if !full || head == upstream {
		return nil
	}
	objects, err := r.newObjects(upstream, head)
	if err != nil {
		return r.lacks(branchRef(branch), err)
	}
	for _, o := range objects {
		if _, err := r.fromDisk(o.id); err != nil {
			return r.lacks(branchRef(branch), err)
		}
	}
	return nil
}

// layout checks that what makes a directory a git directory is there
// (gitrepository-layout(5)).
func (r *repository) layout() error {
	var st unix.Stat_t
	err := unix.Stat(r.dir, &st)
	switch {
	case err == nil && st.Ino != r.ino:
		return r.broken("another directory was put into its place")
	case err != nil && !ofTheMachine(err):
		return r.broken("it is gone")
	case err != nil:
		return named("stat", r.dir, err)
	}
	for _, name := range []string{"objects", "objects/pack", "refs"} {
		switch err := unix.Stat(filepath.Join(r.dir, name), &st); {
		case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		case err == nil || !ofTheMachine(err):
			if name == "objects/pack" && err == unix.ENOENT {
				continue // git makes it when it is needed
			}
			return r.broken("%s is not there", name)
		default:
			return named("stat", filepath.Join(r.dir, name), err)
		}
	}
	head, err := os.ReadFile(filepath.Join(r.dir, "HEAD"))
	if err != nil {
		return r.unreadable("HEAD", err)
	}
	target, symbolic := strings.CutPrefix(strings.TrimSpace(string(head)), "ref:")
	if _, ok := parseOID(target); symbolic && !strings.HasPrefix(strings.TrimSpace(target), "refs/") || !symbolic && !ok {
		return r.broken("HEAD holds %q, neither a ref nor a commit", cut(string(head), 60))
	}
	if _, err := readConfig(filepath.Join(r.dir, "config")); err != nil {
		return r.unreadable("config", err)
	}
	return nil
}

// unreadable tells what err, of reading the file name, says of the repository.
func (r *repository) unreadable(name string, err error) error {
	switch {
	case ofTheMachine(err):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return r.broken("%s is gone", name)
	}
	return r.broken("%s cannot be read: %v", name, err)
}

// lacks makes err, of reading what the ref name needs, an error of the
// repository: what can be reached is there, or the repository is broken.
func (r *repository) lacks(name string, err error) error {
	if errors.Is(err, ErrNotFound) {
		return r.broken("%s needs an object that is gone: %v", name, err)
	}
	return err
}

// checkPacks looks for packs that changed, though no pack ever does.
func (r *repository) checkPacks() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fs.ErrClosed
	}
	if _, err := r.list(); err != nil {
		return err
	}
	for _, p := range r.packs {
		err := p.check()
		if _, gone := os.Stat(p.idxName); errors.Is(gone, fs.ErrNotExist) {
			continue // removed by git, which begins with the index
		}
		if err != nil && !ofTheMachine(err) {
			err = r.broken("%v", err)
		}
		if err != nil {
			return err
		}
	}
	if len(r.torn) > 0 {
		return r.broken("%v", r.torn[0])
	}
	return nil
}

// fromDisk reads an object past what is kept in memory.
func (s *store) fromDisk(id oid) (object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load(id)
}

// readable reads a commit and its root tree from the disk.
func (s *store) readable(id oid) error {
	o, err := s.fromDisk(id)
	if err != nil {
		return err
	}
	if o.typ != plumbing.CommitObject {
		return fmt.Errorf("object %s is a %s, not a commit", id, o.typ)
	}
	c, err := s.commit(id)
	if err != nil {
		return err
	}
	_, err = s.fromDisk(c.TreeHash)
	return err
}

// Git directories that were set aside lie beside the clone, as Dir.broken-1 and so on; carriedMark in
// one says that there is nothing more to be had from it.
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

// Lost reports whether err, of reading something, says that it is gone or
// damaged, for good. An input/output error counts as that: of a sector that
// cannot be read there is nothing to wait for.
func Lost(err error) bool {
	var broken *BrokenError
	return err != nil && (errors.Is(err, ErrNotFound) || errors.As(err, &broken) || errors.Is(err, unix.EIO))
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

// worktreeAt returns the commit that index and work tree were brought to last.
func (r *repository) worktreeAt() (oid, error) {
	data, err := os.ReadFile(filepath.Join(r.dir, stateDir, "worktree"))
	if err != nil {
		return oid{}, err
	}
	id, ok := parseOID(strings.TrimSpace(string(data)))
	if !ok {
		return oid{}, ErrNotFound
	}
	return id, nil
}

func (r *repository) followedPath() string { return filepath.Join(r.dir, stateDir, "branch") }

// followed returns the branch that the clone followed last, "" if that is not
// known.
func (r *repository) followed() string {
	data, err := readOptional(r.followedPath())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

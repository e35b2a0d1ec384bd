// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// Options say which clone of what is wanted.
type Options struct {
	// Dir is the directory of the work tree; its git directory is Dir/.git.
	// Dir.lock, beside it, keeps other processes out.
	Dir string

	// URL is where the remote is: http, https, ssh and file URLs,
	// [user@]host:path, or a path, see [CheckURL].
	URL string

	// Proxy is the URL of the proxy for HTTP and HTTPS, see [CheckProxy]. If
	// it is empty, that is what HTTPS_PROXY, HTTP_PROXY and NO_PROXY say in
	// the environment.
	Proxy string

	// Branch is the branch that is followed. If it is empty, that is the
	// remote's default branch at the time of the first clone.
	Branch string

	Auth Auth

	// SignKeyFile holds the private key that signs the commits which
	// WriteCommit makes: one for SSH, or an armoured one of OpenPGP, without a
	// passphrase. It is read for each commit. Empty: they are not signed.
	SignKeyFile string

	// Verify says who has to have signed what is fetched, see [Clone.Fetch].
	// Its files are read when something new was fetched.
	Verify Verify

	// Inputs are directories in the work tree whose local files are input:
	// they are never overwritten, set aside or taken for local edits.
	Inputs []string

	// Sparse are the directories that are checked out, with the files that lie
	// directly in those above them (git-sparse-checkout(1), cone mode); all, if
	// there is none. When they change, what comes to lie outside stays in the
	// work tree. What a person sets in the clone holds until they change.
	Sparse []string

	// Exclude are patterns (gitignore(5)) of what in the work tree is no
	// business of git. They are kept in .git/info/exclude, between two lines
	// that mark them.
	Exclude []string

	// AsideDir is where local edits are set aside, each as AsideDir/<path>,
	// with .1, .2 and so on after it if that is taken. It should be on the
	// file system of Dir, outside of the work tree or excluded in it. The
	// default is the directory "aside" in the git directory.
	AsideDir string

	// Carry, if it is not nil, is called when a git directory is made: it
	// brings what a broken one held that the remote does not have into the
	// new one, which is not in its place yet. Upstream is what the remote has,
	// the branch is unborn; commits can be written and refs saved. The wreck is
	// empty if none was set aside. An error undoes everything.
	Carry func(ctx context.Context, c *Clone, old *Wreck) (Carried, error)

	// Progress is told how far long work is, if it is not nil: its phase,
	// what is done, and the total (0 where it is not known). The phases are
	// "download" (in KiB), "index" (in objects) and "checkout" (in files). It
	// is called from within the methods of the Clone.
	Progress func(phase string, done, total int)

	// Waiting reports, if it is not nil, whether other work waits for the one
	// in hand. A remote that is silent for 10 s then is given up, where it
	// would be waited for longer. It is called from another goroutine.
	Waiting func() bool

	// Alive, if it is not nil, is called about once a second while the remote
	// sends or takes something, also where there is no progress to speak of: a
	// sign that work goes on. It may be called from another goroutine.
	Alive func()
}

// stateDir is where a clone keeps files of its own, in its git directory.
const stateDir = "hhwatchd"

// A Clone is a working clone. Its methods may be called by several goroutines
// at a time; those that use the network wait for each other, and so do those
// that change the work tree.
type Clone struct {
	opts Options
	repo *repository
	work *worktree
	lock *os.File // Dir.lock, locked

	net    sync.Mutex // for remote
	remote remote

	mu      sync.Mutex // for the index, the work tree and the following
	at      oid        // the commit that they are at, if atIndex is the index
	atIndex fileStat
	// rebooted says that the machine was restarted since the work tree was
	// last brought in order, see noteBoot.
	rebooted bool

	told atomic.Pointer[oid] // what Head said last
}

// Open opens the clone that o describes, and makes it if it is not there:
// then it fetches the branch into a directory beside, and puts it into its
// place when it is complete and durable. The work tree is not checked out yet,
// [Clone.Advance] does that. The clone of an empty remote, or of a branch that
// is not there, is empty.
//
// To open a clone that is there takes no request to the remote. If o has
// another URL or another branch than before, the clone is changed over to it:
// Head and Upstream then tell of the new branch, which may be nothing until
// Fetch. Commits of the branch before that were not pushed are not left behind:
// Head is at them.
//
// The error is ErrInUse if another process has the clone open, a *BrokenError
// if the git directory is damaged ([SetAside] makes way for a new one); see
// [Clone.Fetch] for those of the remote.
func Open(ctx context.Context, o Options) (_ *Clone, err error) {
	c := &Clone{opts: o}
	defer func() {
		if err != nil {
			c.Close()
			err = fmt.Errorf("opening the clone %s: %w", o.Dir, err)
		}
	}()
	if c.opts.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	for i, in := range o.Inputs {
		if !fs.ValidPath(in) || in == "." {
			return nil, fmt.Errorf("input directory %q: not a path in the work tree", o.Inputs[i])
		}
	}
	if o.Branch != "" {
		if err := validBranch(o.Branch); err != nil {
			return nil, err
		}
	}
	if c.remote, err = newRemote(o, patience{stallLimit, hurriedLimit, o.Waiting, o.Alive}); err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(filepath.Dir(c.opts.Dir), 0o777); err != nil {
		return nil, err
	}
	if c.lock, err = lockFile(ctx, c.opts.Dir+".lock"); err != nil {
		return nil, err
	}
	git := filepath.Join(c.opts.Dir, ".git")
	if _, err := os.Lstat(git); errors.Is(err, fs.ErrNotExist) {
		if err := c.create(ctx, git); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	} else if err := c.reopen(git); err != nil {
		return nil, err
	}
	if err := c.settleWrecks(); err != nil {
		return nil, err
	}
	if c.opts.Branch == "" {
		head, err := c.repo.symbolic()
		if err != nil {
			return nil, err
		}
		if c.opts.Branch = branchName(head); c.opts.Branch == "" {
			return nil, errors.New("HEAD is not at a branch: say which one is to be followed")
		}
	}
	if err := c.repo.check(c.opts.Branch, true); err != nil {
		return nil, err
	}
	if err := c.takeOver(ctx); err != nil {
		return nil, err
	}
	if err := c.configure(ctx); err != nil {
		return nil, err
	}
	if err := c.sparsify(ctx); err != nil {
		return nil, err
	}
	if err := c.noteBoot(); err != nil {
		return nil, err
	}
	aside := o.AsideDir
	if aside == "" {
		aside = filepath.Join(git, stateDir, "aside")
	} else if aside, err = filepath.Abs(aside); err != nil {
		return nil, err
	}
	c.work, err = newWorktree(c.opts.Dir, filepath.Join(git, stateDir, "stage"), aside, c.repo.has)
	return c, err
}

// reopen opens a git directory that is there.
func (c *Clone) reopen(git string) (err error) {
	if c.repo, err = openRepository(git); err == nil {
		return c.repo.layout()
	}
	if !ofTheMachine(err) {
		err = &BrokenError{git, err.Error()}
	}
	return err
}

// lockFile opens and locks a file, for as long as it is open or this process
// lives. It waits a moment for a process that is just ending, and for one that
// was started from this one and has not yet closed what it inherited.
func lockFile(ctx context.Context, name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(time.Second)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err != unix.EWOULDBLOCK || time.Now().After(deadline) {
			f.Close()
			if err == unix.EWOULDBLOCK {
				err = ErrInUse
			}
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Close gives up the connections, files and locks of the clone.
func (c *Clone) Close() error {
	var errs []error
	if c.remote != nil {
		c.net.Lock()
		c.remote.close()
		c.net.Unlock()
	}
	if c.repo != nil {
		errs = append(errs, c.repo.close())
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Close())
	}
	return errors.Join(errs...)
}

// create makes the git directory of a new clone.
func (c *Clone) create(ctx context.Context, git string) error {
	// What a crash left beside is begun again.
	beside := c.opts.Dir + ".clone"
	if err := os.RemoveAll(beside); err != nil {
		return err
	}
	if c.opts.Branch == "" {
		l, err := c.remote.list(ctx, "HEAD")
		if err != nil {
			return c.remoteError("asking", err)
		}
		c.opts.Branch = cmp.Or(branchName(l.head), "main")
	}
	if err := initRepository(beside, c.opts.Branch, false); err != nil {
		return err
	}
	repo, err := openRepository(beside)
	if err != nil {
		return err
	}
	c.repo = repo
	tip, err := c.fetch(ctx)
	if err != nil {
		os.RemoveAll(beside)
		return c.remoteError("cloning", err)
	}
	if err := c.carry(ctx, tip); err != nil {
		return err
	}
	if err := c.inOrder(); err != nil {
		return err
	}
	if err := repo.sync(); err != nil {
		return err
	}
	repo.close()
	c.repo = nil
	// There may be a directory already, with files in it that wait.
	if err := durable.MkdirAll(c.opts.Dir, 0o777); err != nil {
		return err
	}
	if err := durable.Rename(beside, git); err != nil {
		return err
	}
	c.repo, err = openRepository(git)
	return err
}

func branchName(ref string) string {
	name, ok := strings.CutPrefix(ref, "refs/heads/")
	if !ok {
		return ""
	}
	return name
}

// configure brings the clone's config and its list of excluded files up to
// date.
func (c *Clone) configure(ctx context.Context) (err error) {
	if err := os.MkdirAll(filepath.Join(c.repo.dir, stateDir), 0o777); err != nil {
		return err
	}
	if err := c.exclude(); err != nil {
		return err
	}
	path := filepath.Join(c.repo.dir, "config")
	cfg, err := readConfig(path)
	if err != nil {
		return err
	}
	origin := cfg.Section("remote").Subsection("origin")
	branch := cfg.Section("branch").Subsection(c.opts.Branch)
	if origin.Option("url") == c.opts.URL && branch.Option("remote") == "origin" && branch.Option("merge") == branchRef(c.opts.Branch) {
		return nil
	}
	origin.SetOption("url", c.opts.URL)
	origin.SetOption("fetch", "+refs/heads/*:refs/remotes/origin/*")
	branch.SetOption("remote", "origin")
	branch.SetOption("merge", branchRef(c.opts.Branch))
	unlock, err := lock(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return writeConfig(path, cfg)
}

func (c *Clone) excludePath() string { return filepath.Join(c.repo.dir, "info", "exclude") }

// The lines around what hhwatchd writes into .git/info/exclude.
const (
	excludeBegin = "# hhwatchd writes what follows"
	excludeEnd   = "# hhwatchd wrote what precedes"
)

func (c *Clone) exclude() error {
	old, err := readOptional(c.excludePath())
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(string(old), "\n"), "\n")
	if i := slices.Index(lines, excludeBegin); i >= 0 {
		if n := slices.Index(lines[i:], excludeEnd); n >= 0 {
			lines = slices.Delete(lines, i, i+n+1)
		}
	}
	if len(lines) == 1 && lines[0] == "" {
		lines = nil
	}
	if len(c.opts.Exclude) > 0 {
		lines = slices.Concat(lines, []string{excludeBegin}, c.opts.Exclude, []string{excludeEnd})
	}
	text := strings.Join(lines, "\n")
	if text != "" {
		text += "\n"
	}
	if text == string(old) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.excludePath()), 0o777); err != nil {
		return err
	}
	return durable.WriteFile(c.excludePath(), []byte(text), 0o644)
}

// readOptional reads a file that need not be there.
func readOptional(name string) ([]byte, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return data, err
}

func (c *Clone) progress(phase string, done, total int) {
	if c.opts.Progress != nil {
		c.opts.Progress(phase, done, total)
	}
}

// Branch returns the name of the branch that is followed.
func (c *Clone) Branch() string { return c.opts.Branch }

// Head returns the commit of the local branch; the empty Hash if it is unborn.
func (c *Clone) Head() (Hash, error) {
	id, err := c.repo.ref(branchRef(c.opts.Branch))
	if err != nil {
		return "", err
	}
	c.told.Store(&id)
	return hashOf(id), nil
}

// Upstream returns the commit of the remote-tracking branch: what the remote
// had when it was last fetched from or pushed to. It is empty if it had no
// such branch. Where Options.Verify is set and a person's git fetch brought what
// Fetch would refuse, the remote-tracking branch goes back to what it was.
func (c *Clone) Upstream() (Hash, error) {
	id, err := c.repo.ref(upstreamRef(c.opts.Branch))
	if err == nil && c.opts.Verify.on() {
		id, err = c.vouched(id)
	}
	return hashOf(id), err
}

// SaveRef makes refs/hhwatchd/<name> point to the commit h, durably, so that
// it stays in the clone whatever becomes of the branch. The empty Hash takes
// the ref away.
func (c *Clone) SaveRef(name string, h Hash) error {
	ref := "refs/hhwatchd/" + name
	old, err := c.repo.ref(ref)
	if err == nil && old != h.id() {
		err = c.saveRef(ref, old, h.id())
	}
	if err != nil {
		return fmt.Errorf("saving %s: %w", ref, err)
	}
	return nil
}

func (c *Clone) saveRef(ref string, old, new oid) error {
	if why := checkPath(ref); why != "" {
		return errors.New(why)
	}
	if new != (oid{}) {
		if !c.repo.has(new) {
			return ErrNotFound
		}
		// What a branch has is durable. Anything else may just have been
		// written.
		for _, name := range []string{branchRef(c.opts.Branch), upstreamRef(c.opts.Branch)} {
			if id, err := c.repo.ref(name); err == nil && id == new {
				return c.repo.setRef(context.Background(), ref, old, new)
			}
		}
		if err := c.repo.sync(); err != nil {
			return err
		}
	}
	return c.repo.setRef(context.Background(), ref, old, new)
}

// Ref returns the commit that refs/hhwatchd/<name> points to; the empty Hash
// if there is no such ref.
func (c *Clone) Ref(name string) (Hash, error) {
	id, err := c.repo.ref("refs/hhwatchd/" + name)
	return hashOf(id), err
}

// Refs returns the names <name> of the refs refs/hhwatchd/<name> that begin
// with prefix, sorted.
func (c *Clone) Refs(prefix string) ([]string, error) {
	const ours = "refs/hhwatchd/"
	refs, err := c.repo.refs([]string{ours + prefix})
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", ours+prefix, err)
	}
	var names []string
	for name := range refs {
		names = append(names, strings.TrimPrefix(name, ours))
	}
	slices.Sort(names)
	return names, nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/internal/durable"
	"github.com/hhwatchd/hhwatchd/journal"
	"github.com/hhwatchd/hhwatchd/poller"
	"github.com/hhwatchd/hhwatchd/watcher"
)

// A repository is one configured git repository with its fabrics. One
// goroutine (run) owns it and is the only one that runs cycles; the mutex
// guards only what status shows.
type repository struct {
	cfg      *RepositoryConfig
	settle   Settle
	limits   LimitsConfig
	rescan   time.Duration
	stateDir string
	cloneDir string
	asideDir string

	journalDir string

	log     *slog.Logger
	book    *book
	clone   *checkout.Clone // nil until the first clone went well
	remote  *poller.Schedule
	retry   *poller.Schedule // of a cycle that was stopped, or could not use a raw/
	watch   *watcher.Watcher
	fabrics []*fabric

	requests chan trigger
	calls    chan struct{}                // of the webhook, noted by call
	hurried  atomic.Bool                  // a drop waits for the remote's answer to be committed
	again    bool                         // the cycle saw that it must look again soon
	progress progressFunc                 // of the cycle's trigger
	pulse    pulse                        // of the cycle
	spent    []*watcher.File              // retired, to be buried
	left     map[leftover]int             // how many of each may still lie in raw/; nil until known
	parts    map[leftover][]checkout.Hash // of left: which parts of them were committed
	told     map[leftover]bool            // those in raw/ that the journal knows of, refused ones too
	skipped  map[string]bool              // what is left alone in raw/, as it was logged
	faults   map[string]*fault            // that last, by fabric; "" is the cycle as a whole
	broken   string                       // why the clone has to be made again; "" when it is there
	resaid   bool                         // it was, and the first cycle has to take files in again
	remade   string                       // the damage because of which it was; "" once a cycle met none

	maintained   checkout.Hash // the head at which the clone needed no maintenance
	unmaintained string        // why it could not be maintained

	mu     sync.Mutex
	status repositoryStatus
	met    error // what a cluster met in the clone
}

// A fabric is one configured fabric of a repository.
type fabric struct {
	cfg     *FabricConfig
	schemas *schemas
	known   known
	cluster *cluster       // nil without one
	agreed  *checkout.Hash // managed tree that was last found to be what the inventory says
}

// policy is what the fabric accepts, as far as is known now.
func (f *fabric) policy() ingest.Policy { return f.schemas.current() }

func (f *fabric) rawPath(p string) string { return f.cfg.raw() + "/" + p }

// repositoryStatus is what `hhwatchd status` shows of a repository.
type repositoryStatus struct {
	Name      string         `json:"name"`
	URL       string         `json:"url"`
	Clone     string         `json:"clone"` // the directory of the working clone
	Branch    string         `json:"branch"`
	Head      string         `json:"head,omitempty"`   // of the local branch
	Remote    string         `json:"remote,omitempty"` // of the remote's, when it was last seen
	Unpushed  int            `json:"unpushed"`
	Looked    time.Time      `json:"looked,omitzero"`  // the last answer of the remote
	Aside     int            `json:"aside,omitempty"`  // local commits that the remote went on without
	Asking    string         `json:"asking,omitempty"` // what the remote is doing for us just now
	Asked     time.Time      `json:"asked,omitzero"`   // since when
	Down      string         `json:"down,omitempty"`   // why the remote cannot be used
	DownSince time.Time      `json:"downSince,omitzero"`
	Tries     int            `json:"tries,omitempty"` // that failed since then
	Next      time.Time      `json:"next,omitzero"`   // the next look
	Cycle     string         `json:"cycle,omitempty"`
	Cycles    int            `json:"cycles"`
	Error     string         `json:"error,omitempty"`    // what stopped the last cycle
	Stopped   time.Time      `json:"stopped,omitzero"`   // since when none came through
	Retry     time.Time      `json:"retry,omitzero"`     // when it is tried again
	Succeeded time.Time      `json:"succeeded,omitzero"` // the end of the last cycle that went well and asked the remote
	Fabrics   []fabricStatus `json:"fabrics"`
}

type fabricStatus struct {
	Name      string    `json:"name"`
	Raw       string    `json:"raw"` // where to drop a file
	Objects   int       `json:"objects"`
	Applied   int       `json:"applied"`
	Waiting   []string  `json:"waiting,omitempty"` // files that are still being written
	Skipped   []string  `json:"skipped,omitempty"` // what in raw/ cannot be taken, and why
	Error     string    `json:"error,omitempty"`   // why its raw/ cannot be used
	Commit    string    `json:"commit,omitempty"`  // the last one that was applied
	Cluster   string    `json:"cluster,omitempty"` // its API server
	Failed    []string  `json:"failed,omitempty"`
	Drifts    []string  `json:"drifts,omitempty"`    // what others changed in the cluster and is left so
	Repaired  string    `json:"repaired,omitempty"`  // what others changed and was put right last
	RepairAt  time.Time `json:"repairAt,omitzero"`   // when that was
	Unwatched string    `json:"unwatched,omitempty"` // why its cluster cannot be watched
	Held      string    `json:"held,omitempty"`
	Deleting  []string  `json:"deleting,omitempty"`  // what a prune waits for
	Ahead     bool      `json:"ahead,omitempty"`     // Commit is not on the remote yet
	Schemas   int       `json:"schemas"`             // kinds that are held against their schema
	Unchecked string    `json:"unchecked,omitempty"` // why there are none, or not all
	Down      string    `json:"down,omitempty"`      // why its cluster cannot be used
	DownSince time.Time `json:"downSince,omitzero"`
	Tries     int       `json:"tries,omitempty"`    // that failed since then
	Next      time.Time `json:"next,omitzero"`      // the next attempt, while something waits for it
	Succeeded time.Time `json:"succeeded,omitzero"` // when its cluster last held all that it should; without one, as the repository's

	Health *clusterHealth `json:"health,omitempty"` // of its cluster, once that was checked
}

func newRepository(c *Config, cfg *RepositoryConfig, b *book, log *slog.Logger) *repository {
	r := &repository{
		cfg: cfg, settle: c.Settle, limits: c.Limits, rescan: c.Rescan, stateDir: c.StateDir,
		cloneDir: c.cloneDir(cfg.Name), asideDir: c.asideDir(cfg.Name), journalDir: c.journalDir(),
		log: log.With("repository", cfg.Name), book: b,
		remote:   poller.New(cfg.Interval),
		retry:    poller.NewRetry(),
		requests: make(chan trigger),
		calls:    make(chan struct{}, 1),
		told:     map[leftover]bool{},
		faults:   map[string]*fault{},
	}
	r.status = repositoryStatus{Name: cfg.Name, URL: cfg.URL, Clone: r.cloneDir, Branch: cfg.Branch, Fabrics: make([]fabricStatus, len(cfg.Fabrics))}
	var raws []string
	for i := range cfg.Fabrics {
		fc := &cfg.Fabrics[i]
		f := &fabric{cfg: fc, schemas: newSchemas(c, fc)}
		if fc.Cluster != nil {
			f.cluster = newCluster(r, f)
		}
		r.fabrics = append(r.fabrics, f)
		r.status.Fabrics[i] = fabricStatus{Name: fc.Name, Raw: filepath.Join(c.StateDir, "raw", fc.Name)}
		raws = append(raws, r.onDisk(fc.raw()))
	}
	r.watch = watcher.New(raws, watcher.Settle{Quiet: c.Settle.Quiet, Max: c.Settle.Max}, c.Rescan, r.log)
	return r
}

// run owns the repository until ctx is done: every trigger wakes the cycle,
// and nothing else does any work. It returns when all that it started ended.
func (r *repository) run(ctx context.Context, firstLook func()) {
	defer r.close() // when those that read the clone have ended
	var owned sync.WaitGroup
	defer owned.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // also in a panic, which has to end the process, not to wait
	for _, f := range r.fabrics {
		if f.cluster != nil {
			owned.Go(func() { f.cluster.run(ctx) })
			owned.Go(func() { f.cluster.stayHealthy(ctx) })
		}
	}
	owned.Go(func() { r.watch.Run(ctx) })
	owned.Go(func() { r.heedCalls(ctx) })
	rescan := time.NewTicker(r.rescan)
	defer rescan.Stop()

	t := trigger{why: "start", full: true}
	full := false // a full look was stopped, and is still to be had
	for {
		rep := r.cycle(ctx, t)
		r.finish(rep, t)
		full = rep.Error != "" && (full || t.full)
		if firstLook != nil {
			firstLook()
			firstLook = nil
		}
		idle := always
		for woken := false; !woken; {
			woken = true
			select {
			case <-ctx.Done():
				return
			case <-r.watch.C():
				t = trigger{why: "drop"}
			case <-r.remote.C():
				t = trigger{why: "interval"}
			case <-rescan.C:
				t = trigger{why: "rescan", full: true}
			case <-r.retry.C():
				t = trigger{why: "retry", full: full}
			case t = <-r.requests:
			case <-idle:
				if woken = false; !r.maintain(ctx) {
					idle = nil
				}
			}
		}
	}
}

// always is a channel from which can always be received.
var always = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// finish publishes the outcome of a cycle, and decides when one that was
// stopped is tried again.
func (r *repository) finish(rep *report, t trigger) {
	if r.again {
		r.again = false
		r.watch.Wake(r.settle.Quiet)
	}
	if !t.dryRun {
		if rep.stopped() {
			r.retry.Failed()
		} else {
			r.retry.Succeeded()
		}
		r.noteFaults(rep)
		r.logSkipped(rep)
		r.logWarnings(rep)
		r.publish(rep, t)
		r.book.metrics.cycle(rep)
	}
	rep.only(t.fabric)
	if t.done != nil {
		t.done <- rep
	}
}

// logSkipped says in the log which files in raw/ cannot be taken, and what
// keeps objects from being held against their schemas, once, until that
// changes.
func (r *repository) logSkipped(rep *report) {
	if rep.Error != "" {
		return // it may not have come to look
	}
	now := map[string]bool{}
	for _, f := range rep.Fabrics {
		for _, s := range few(f.Skipped) {
			now[f.Name+"  left alone in raw/: "+s] = true
		}
	}
	for _, f := range r.fabrics {
		if _, trouble := f.schemas.state(); trouble != "" {
			now[f.cfg.Name+"  "+trouble] = true
		}
	}
	for line := range now {
		if !r.skipped[line] {
			r.log.Error(line, "cycle", rep.Cycle)
		}
	}
	r.skipped = now
}

// logWarnings says in the log what may be wrong with files that were ingested.
func (r *repository) logWarnings(rep *report) {
	for _, f := range rep.Fabrics {
		for _, file := range f.Files {
			if file.Outcome != journal.Ingested || rep.Error != "" {
				continue
			}
			var lines []string
			for _, p := range file.Warnings {
				lines = append(lines, problemLine(p))
			}
			for _, line := range few(lines) {
				r.log.Warn(fmt.Sprintf("%s  ingested raw/%s, but: %s", f.Name, file.Path, line), "cycle", rep.Cycle)
			}
		}
	}
}

// lookAgain asks for another cycle soon after this one.
func (r *repository) lookAgain() { r.again = true }

func (r *repository) newReport(t trigger) *report {
	rep := &report{Repository: r.cfg.Name, Cycle: newCycleID(), Trigger: t.why, DryRun: t.dryRun, Steps: stepTimes{}}
	for _, f := range r.fabrics {
		rep.Fabrics = append(rep.Fabrics, fabricReport{Name: f.cfg.Name})
	}
	return rep
}

// open makes sure that there is a working clone, and that it is sound.
func (r *repository) open(ctx context.Context, t trigger) error {
	if r.clone != nil {
		// A target that is outdated may be of commits that are gone by now.
		if err := r.suspect(r.takeMet()); isBroken(err) {
			return err
		}
		return r.clone.Check(t.full)
	}
	o := checkout.Options{
		Dir: r.cloneDir, URL: r.cfg.URL, Proxy: r.cfg.Proxy, Branch: r.cfg.Branch, Auth: r.cfg.Auth.checkout(),
		AsideDir: r.asideDir,

		SignKeyFile: credentialFile(r.cfg.Signing.KeyFile),
		Verify: checkout.Verify{
			AllowedSignersFile: credentialFile(r.cfg.Verify.AllowedSignersFile),
			KeyringFile:        credentialFile(r.cfg.Verify.KeyringFile),
		},

		Carry:    r.carry,
		Progress: func(phase string, done, total int) { r.progress.report(phase, done, total) },
		Waiting:  func() bool { return r.hurried.Load() || len(r.watch.C()) > 0 },
		Alive:    r.pulse.beat,
	}
	for _, f := range r.fabrics {
		o.Inputs = append(o.Inputs, f.cfg.raw())
		if r.cfg.Sparse {
			o.Sparse = append(o.Sparse, f.cfg.Path)
		}
		o.Exclude = append(o.Exclude, "/"+f.cfg.unmanaged()+"/", "/"+f.cfg.raw()+"/**/.*"+watcher.SpentSuffix, "/"+f.cfg.raw()+"/.*"+watcher.SpentSuffix)
	}
	answered := r.asking("sending a clone")
	c, err := checkout.Open(ctx, o)
	answered()
	if err != nil {
		return err
	}
	r.clone, r.broken = c, ""
	if err := r.beginArchive(); err != nil {
		r.clone = nil
		return errors.Join(err, c.Close())
	}
	return nil
}

// beginArchive notes in a clone that was just made of a branch with history
// that nothing of it lies in raw/ here. Without the note, as in a clone that
// was made of an empty branch, everything may.
func (r *repository) beginArchive() error {
	upTo, err := r.clone.Ref(archivedRef)
	if err != nil || upTo != "" {
		return err
	}
	head, err := r.clone.Head()
	if err != nil {
		return err
	}
	up, err := r.clone.Upstream()
	if err != nil || head == "" || head != up {
		return err // there are commits of ours, and a crash came before they were archived
	}
	return r.clone.SaveRef(archivedRef, head)
}

// layRaw makes a fabric's raw directory, which git does not keep when it is
// empty, and the short way to it, <stateDir>/raw/<fabric>. At the first look
// it also sees to files that a crash left half retired.
func (r *repository) layRaw(f *fabric) error {
	dir := r.onDisk(f.cfg.raw())
	if err := r.noLinks(f.cfg.raw()); err != nil {
		return err
	}
	if info, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := makeRaw(dir); err != nil {
			return fmt.Errorf("making %s: %w", dir, err)
		}
	} else if err != nil {
		return fmt.Errorf("looking at %s: %w", dir, err)
	} else if !info.IsDir() {
		return fmt.Errorf("%s is not a directory; move it away, and the directory is made again", dir)
	}
	link := filepath.Join(r.stateDir, "raw", f.cfg.Name)
	if to, err := os.Readlink(link); err == nil && to == dir {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return fmt.Errorf("making %s: %w", filepath.Dir(link), err)
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replacing %s: %w", link, err)
	}
	return os.Symlink(dir, link)
}

// noLinks wants no symbolic link on the way from the clone to p: somebody who
// can push could lead us out of the clone by one.
func (r *repository) noLinks(p string) error {
	for i := range len(p) + 1 {
		if i < len(p) && p[i] != '/' {
			continue
		}
		info, err := os.Lstat(r.onDisk(p[:i]))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return fmt.Errorf("%s is a symbolic link, which is not followed; make it a directory", p[:i])
		}
		if i < len(p) && !info.IsDir() {
			return fmt.Errorf("%s is not a directory; move it away, and the directory is made again", r.onDisk(p[:i]))
		}
	}
	return nil
}

// makeRaw makes a raw directory that the group may write to. It is made beside
// and then renamed: a crash in between must not leave it without those rights,
// as one that is there is left alone.
func makeRaw(dir string) error {
	if err := durable.MkdirAll(filepath.Dir(dir), 0o775); err != nil {
		return err
	}
	// What a crash left goes. Anything but an empty directory is not ours, such
	// as a link that somebody pushed.
	beside := filepath.Join(filepath.Dir(dir), ".hhwatchd-raw")
	if err := unix.Rmdir(beside); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "rmdir", Path: beside, Err: err}
	}
	if err := os.Mkdir(beside, 0o775); err != nil {
		return err
	}
	if err := letGroupDrop(beside); err != nil {
		return fmt.Errorf("letting the group write to it: %w", err)
	}
	if err := durable.SyncDir(beside); err != nil {
		return err
	}
	return durable.Rename(beside, dir)
}

// letGroupDrop lets the directory's group put files into it and into what is
// made below it, whatever the umask of whoever makes it. It is done by POSIX
// ACLs, because chmod(2) would clear the setgid bit that the directory has
// from its parent, and setting that bit is what a hardened unit forbids
// (RestrictSUIDSGID). The attribute's format is that of
// linux/posix_acl_xattr.h: a version, and an entry each for user, group and
// others.
func letGroupDrop(dir string) error {
	acl := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][2]uint16{{0x01, 7}, {0x04, 7}, {0x20, 5}} {
		acl = binary.LittleEndian.AppendUint16(acl, e[0])
		acl = binary.LittleEndian.AppendUint16(acl, e[1])
		acl = binary.LittleEndian.AppendUint32(acl, 0xffffffff) // no one in particular
	}
	for _, attr := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
		if err := unix.Setxattr(dir, attr, acl, 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return nil
}

// restore undoes what people edited in managed/ by hand, keeping it aside,
// and finishes the removal of raw files that a crash interrupted.
func (r *repository) restore(ctx context.Context, rep *report) error {
	var dirs []string
	for _, f := range r.fabrics {
		dirs = append(dirs, f.cfg.managed())
		fr := rep.fabric(f.cfg.Name)
		if fr.Error != "" {
			continue
		}
		if err := r.sweep(f); err != nil {
			fr.Error = r.inWords(err)
		}
	}
	asides, err := r.clone.Restore(ctx, dirs)
	return errors.Join(err, r.recordAsides(rep, asides))
}

// push sends what the remote does not have. It returns checkout.ErrRaced
// when somebody else was first.
func (r *repository) push(ctx context.Context, t trigger, rep *report) error {
	head, err := r.clone.Head()
	if err != nil {
		return err
	}
	up, err := r.clone.Upstream()
	if err != nil || head == up {
		return err
	}
	if rep.Pull.Error != "" {
		rep.Push.Skipped = "the remote is not to be had"
		return nil
	}
	if r.spared(t) {
		rep.Push.Skipped = "the remote is failing; next try at " + r.remote.Due().Format(time.TimeOnly)
		return nil
	}
	commits, err := r.clone.Log(up, head)
	if err != nil {
		return err
	}
	t.progress.report("push", 0, len(commits))
	defer rep.Steps.begin("push")()
	defer r.asking("taking a push of " + plural(len(commits), "commit"))()
	if err := r.clone.Push(ctx); err != nil {
		if errors.Is(err, checkout.ErrRaced) {
			// They are planned anew. The first try is nobody's business but
			// the report's.
			rep.Commits = nil
		}
		return err
	}
	rep.Push = pushReport{Commits: len(commits), Head: string(head)}
	return nil
}

func hashes(commits []checkout.Commit) []string {
	out := make([]string, len(commits))
	for i, c := range commits {
		out[i] = string(c.Hash)
	}
	return out
}

// misplaced says what somebody pushed in the place of a fabric's directories;
// "" if there is nothing. Until it is gone from there the fabric waits, and its
// cluster stays as it is: nobody meant to delete all objects by that.
func (r *repository) misplaced(f *fabric, tip checkout.Hash) (string, error) {
	for _, dir := range []string{f.cfg.raw(), f.cfg.managed()} {
		if p, err := r.clone.NoDirectory(tip, dir); err != nil {
			return "", err
		} else if p != "" {
			return fmt.Sprintf("%s is not a directory in git: remove it there, or put the directory back; what is dropped waits", p), nil
		}
	}
	return "", nil
}

// apply hands what the remote has to each fabric's cluster; to those that are
// to go ahead of it, what is committed here. If that is planned anew after a
// lost race, they follow the new plan.
func (r *repository) apply(t trigger, rep *report) error {
	up, err := r.clone.Upstream()
	if err != nil {
		return err
	}
	head, err := r.clone.Head()
	if err != nil {
		return err
	}
	for i, f := range r.fabrics {
		fr := &rep.Fabrics[i]
		asked := t.fabric == "" || t.fabric == f.cfg.Name
		commit := up
		if f.cluster != nil && f.cfg.Cluster.Apply == applyCommitted {
			commit = head
		}
		wrong, err := r.misplaced(f, commit)
		if err != nil {
			return err
		}
		switch {
		case f.cluster == nil:
			fr.Apply.Skipped = "no cluster is configured"
		case commit == "":
			fr.Apply.Skipped = "the remote branch has no commit yet"
		case wrong != "":
			fr.Apply.Skipped = wrong
		default:
			done := make(chan applyReport, 1)
			fr.applying = done
			f.cluster.want(target{
				clone: r.clone, commit: commit, ahead: commit != up, cycle: rep.Cycle, full: t.full && asked, anew: t.why == "sync" || t.why == "reload", prune: t.prune && asked, progress: t.progress, done: done,
			})
		}
	}
	return nil
}

// record appends to the journal on the repository's behalf.
func (r *repository) record(recs ...journal.Record) error {
	for i := range recs {
		recs[i].Repository = r.cfg.Name
	}
	return r.book.append(recs...)
}

// remoteWent notes how the remote took what the cycle asked of it. The journal
// hears of a fault once, when it begins or changes its face, and of its end,
// not of each try.
func (r *repository) remoteWent(ctx context.Context, rep *report) error {
	if ctx.Err() != nil {
		return nil // we stop; that says nothing of the remote
	}
	failure := cmp.Or(rep.Pull.Error, rep.Push.Error)
	switch {
	case failure != "":
		r.remote.Failed()
	case rep.Pull.Skipped != "" && rep.Push.Commits == 0:
		return nil // it was not asked anything
	default:
		r.remote.Succeeded()
	}
	r.mu.Lock()
	down, since := r.status.Down, r.status.DownSince
	r.status.Down = failure
	if failure == "" {
		r.status.DownSince, r.status.Tries, r.status.Looked = time.Time{}, 0, time.Now()
	} else {
		r.status.Tries++
		if down == "" {
			r.status.DownSince = time.Now()
		}
	}
	r.mu.Unlock()
	switch {
	case failure != "" && failure != down:
		return r.record(journal.Record{Cycle: rep.Cycle, Step: journal.StepFault, Error: failure})
	case failure == "" && down != "":
		return r.record(journal.Record{Cycle: rep.Cycle, Step: journal.StepClear, Took: time.Since(since)})
	}
	return nil
}

// spared reports whether a failing remote is left alone: it is asked when its
// schedule says so, or a person. What else wakes the cycle, a drop above all,
// does not wait for a remote that may well hang.
func (r *repository) spared(t trigger) bool {
	return r.remote.Failing() && !t.ask && t.why != "interval"
}

// asking notes what the remote is asked to do, for status; the function that
// it returns notes the answer.
func (r *repository) asking(what string) (answered func()) {
	note := func(what string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.status.Asking, r.status.Asked = what, time.Now()
	}
	note(what)
	return func() { note("") }
}

// publish refreshes what status shows.
func (r *repository) publish(rep *report, t trigger) {
	var head, up checkout.Hash
	unpushed, aside := 0, 0
	if r.clone != nil {
		head, _ = r.clone.Head()
		up, _ = r.clone.Upstream()
		if head != up {
			commits, _ := r.clone.Log(up, head)
			unpushed = len(commits)
		}
		// It takes reading a directory: when there may be news only.
		if t.full || rep.setAside || r.status.Aside > 0 {
			refs, _ := r.clone.Refs(asideRef)
			aside = len(refs)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.status
	s.Head, s.Remote, s.Unpushed, s.Aside = string(head), string(up), unpushed, aside
	s.Next, s.Cycle, s.Error, s.Retry = r.remote.Due(), rep.Cycle, rep.Error, r.retry.Due()
	s.Stopped = time.Time{}
	if f := r.faults[""]; f != nil && rep.Error != "" {
		s.Stopped = f.since
	}
	s.Cycles++
	well := rep.Error == "" && rep.Pull.Error == "" && rep.Push.Error == "" && rep.Pull.Skipped == ""
	if well {
		s.Succeeded = time.Now()
	}
	for i, fr := range rep.Fabrics {
		s.Fabrics[i].Waiting, s.Fabrics[i].Skipped, s.Fabrics[i].Error = fr.Waiting, fr.Skipped, fr.Error
		if well && fr.Error == "" {
			s.Fabrics[i].Succeeded = s.Succeeded
		}
	}
}

// currentStatus is a copy of what status shows; any goroutine may call it.
func (r *repository) currentStatus() repositoryStatus {
	r.mu.Lock()
	s := r.status
	s.Fabrics = append([]fabricStatus(nil), s.Fabrics...)
	r.mu.Unlock()
	for i := range s.Fabrics {
		fs := &s.Fabrics[i]
		n := r.book.inventory().Counts(fs.Name)
		fs.Objects, fs.Applied = n.Pending+n.Applied+n.Failed, n.Applied
		f := r.fabricNamed(fs.Name)
		fs.Schemas, fs.Unchecked = f.schemas.state()
		if f.cluster != nil {
			f.cluster.fill(fs)
		}
	}
	return s
}

func (r *repository) close() {
	if r.clone != nil {
		if err := r.clone.Close(); err != nil {
			r.log.Error("closing the clone", "err", err)
		}
	}
	r.remote.Stop()
	r.retry.Stop()
}

func (r *repository) onDisk(p string) string { return filepath.Join(r.cloneDir, filepath.FromSlash(p)) }

func (r *repository) fabricNamed(name string) *fabric {
	for _, f := range r.fabrics {
		if f.cfg.Name == name {
			return f
		}
	}
	return nil
}

// fabricOf names the fabric that a path in the repository belongs to.
func (r *repository) fabricOf(p string) string {
	for _, f := range r.fabrics {
		if strings.HasPrefix(p, f.cfg.Path+"/") {
			return f.cfg.Name
		}
	}
	return ""
}

// owner is the git identity of who dropped a file: its owner on this host.
func (r *repository) owner(f *watcher.File) checkout.Signature {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return checkout.Signature{Name: f.Owner, Email: f.Owner + "@" + host, When: f.Time}
}

func (a Auth) checkout() checkout.Auth {
	out := checkout.Auth{
		Username: a.Username, PasswordFile: credentialFile(a.PasswordFile), TokenFile: credentialFile(a.TokenFile),
		NetrcFile: credentialFile(a.NetrcFile), CAFile: credentialFile(a.CAFile),
		ClientCertFile: credentialFile(a.ClientCertFile), ClientKeyFile: credentialFile(a.ClientKeyFile),
		SSHKeyFile: credentialFile(a.SSHKeyFile), KnownHostsFile: credentialFile(a.KnownHostsFile),
	}
	if app := a.GitHubApp; app != nil {
		out.GitHubApp = &checkout.GitHubApp{ID: app.ID, Installation: app.Installation, KeyFile: credentialFile(app.KeyFile)}
	}
	return out
}

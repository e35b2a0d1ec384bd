// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
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
	answers map[leftover]answers // of the cluster, by the file in raw/ that they are about
	cluster *cluster             // nil without one
	agreed  *checkout.Hash       // managed tree that was last found to be what the inventory says
}

// policy is what the fabric accepts, as far as is known now.
func (f *fabric) policy() ingest.Policy { return f.schemas.current() }

func (f *fabric) rawPath(p string) string { return f.cfg.raw() + "/" + p }

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
		f := &fabric{cfg: fc, schemas: newSchemas(c, fc), answers: map[leftover]answers{}}
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

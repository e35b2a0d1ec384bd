// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hhwatchd/hhwatchd/apply"
	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/journal"
	"github.com/hhwatchd/hhwatchd/poller"
)

// A target is what a cluster is to hold: managed/ at a commit that the
// remote has, unless the cluster goes ahead of it.
type target struct {
	clone    *checkout.Clone
	commit   checkout.Hash
	ahead    bool // the remote does not have that commit yet
	cycle    string
	full     bool // compare with everything that is live, not only what changed
	anew     bool // and not only with what the watch knows of it
	prune    bool // a person said that a held prune may go on
	progress progressFunc
	done     chan<- applyReport // capacity 1; may be nil
}

// A cluster brings one fabric's Kubernetes API to the newest target. It has
// a goroutine of its own: a slow API server holds up nobody else.
type cluster struct {
	repo   *repository
	fabric *fabric
	retry  *poller.Schedule
	pulse  pulse

	// Owned by run.
	api      *apply.Cluster
	watch    *apply.Watch           // of api
	read     map[string]managedFile // managed paths that were read as objects
	suspects map[string]bool        // managed paths of objects that others have changed
	drifts   map[string]string      // managed paths of those that are left so, and why
	fights   fights
	tried    time.Time         // when pending was tried again because of what others did
	applied  checkout.Hash     // the commit whose managed/ was compared or applied last
	pending  map[string]bool   // managed paths (below the fabric) that failed and may do better later
	broken   map[string]string // managed paths that are not in the cluster as they should be, and why
	missed   bool              // the API was out of reach: what it holds is not known
	deleting bool              // a prune is not through yet
	going    []string          // what it waits for
	kept     []string          // what the last prune could not delete, and why
	held     string            // why a prune waits for a person, as the last full look found it

	mu      sync.Mutex
	next    *target
	stopped bool // nobody takes a target any more
	done    []chan<- applyReport
	wake    chan struct{}
	status  fabricStatus
	health  clusterHealth
	met     time.Time     // when it last did what it was asked
	silent  time.Time     // when it last gave no answer to what an inquiry asked; zero if it did
	ailing  chan struct{} // asks for a check

	resting map[apply.Key]time.Time // objects that others fight over, which are left as they are until then; not changed in place

	generations map[string]int64 // of the switches' agents, when last seen; nil before that; not changed in place
	rollouts    []*rollout       // that are waited for
	rolling     chan struct{}    // there is a new one
}

func newCluster(r *repository, f *fabric) *cluster {
	return &cluster{
		repo: r, fabric: f, retry: poller.NewRetry(),
		pending: map[string]bool{}, broken: map[string]string{}, missed: true,
		read: map[string]managedFile{}, suspects: map[string]bool{}, drifts: map[string]string{}, fights: fights{},
		wake: make(chan struct{}, 1), ailing: make(chan struct{}, 1),
		rolling: make(chan struct{}, 1),
	}
}

// want sets the newest target; one that was not begun yet is overtaken.
func (c *cluster) want(t target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		if t.done != nil {
			t.done <- applyReport{Error: "stopped"}
		}
		return
	}
	if t.done != nil {
		c.done = append(c.done, t.done)
	}
	if c.next != nil {
		t.full = t.full || c.next.full
		t.anew = t.anew || c.next.anew
		t.prune = t.prune || c.next.prune
	}
	c.next = &t
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *cluster) take() (*target, []chan<- applyReport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, done := c.next, c.done
	c.next, c.done = nil, nil
	return t, done
}

func (c *cluster) run(ctx context.Context) {
	defer func() {
		c.retry.Stop()
		if c.api != nil {
			c.watch.Close()
			c.api.Close()
		}
		c.mu.Lock()
		c.stopped = true
		done := c.done
		c.mu.Unlock()
		for _, d := range done {
			d <- applyReport{Error: "stopped"}
		}
	}()
	var last target
	rest := time.NewTimer(0) // ends when that of a fight does
	defer rest.Stop()
	for {
		var changes <-chan struct{}
		if c.watch != nil {
			changes = c.watch.C()
		}
		own := false // not for a target, nor a retry
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-c.retry.C():
		case <-changes:
			if own = true; !c.heed() {
				continue
			}
		case <-rest.C:
			if own = true; !c.resume() {
				continue
			}
		}
		t, done := c.take()
		if t == nil {
			t = &last
			t.prune, t.progress = false, nil
			if own {
				t.cycle = newCycleID()
			}
		}
		rep := c.bring(ctx, *t)
		last = *t
		last.full, last.anew = false, false
		if over, next := c.fights.due(time.Now()); len(over) > 0 {
			rest.Reset(time.Minute)
		} else if !next.IsZero() {
			rest.Reset(time.Until(next))
		}
		for _, d := range done {
			d <- rep
		}
	}
}

// bring makes the cluster hold what the target says, and records what that
// took. Nothing to do costs no request.
func (c *cluster) bring(ctx context.Context, t target) applyReport {
	c.pulse.start("apply")
	defer c.pulse.stop()
	t.progress = c.pulse.through(t.progress)
	rep := applyReport{Commit: string(t.commit)}
	start := time.Now()
	c.mu.Lock()
	before := c.generations
	c.mu.Unlock()
	err := c.steps(ctx, t, &rep)
	for pass := 1; err == nil && pass <= morePasses && rep.moved && len(c.pending) > 0; pass++ {
		// What was refused for the want of another object may be taken now.
		rep.Objects[string(apply.Failed)] -= len(c.pending)
		t.full, t.prune = false, false
		err = c.steps(ctx, t, &rep)
	}
	rep.Took = time.Since(start)
	if rep.changed {
		c.await(&rollout{cycle: t.cycle, commit: string(t.commit), began: start, ended: time.Now(), before: before})
	}
	if ctx.Err() != nil || errors.Is(err, fs.ErrClosed) {
		// We stop, or the clone is made again: then there is a new target soon.
		rep.Error, c.missed = "stopped", true
		return rep
	}
	if isBroken(err) || errors.Is(err, checkout.ErrNotFound) {
		c.repo.damaged(err)
	}
	if err != nil {
		rep.Error = err.Error()
		c.missed = true
	}
	rep.Failed, rep.Drifts, rep.Held = c.failures(), c.driftLines(), c.held
	if t.prune && !c.fabric.cfg.Prune {
		rep.Held = "prune is off in the config of " + c.fabric.cfg.Name + "; nothing is deleted"
	}
	c.finish(t, &rep)
	return rep
}

// morePasses is how often refused objects are tried again at once after others
// went in; a longer chain of such waits for the retry.
const morePasses = 3

func (c *cluster) steps(ctx context.Context, t target, rep *applyReport) error {
	straight, err := c.straight(t)
	if err != nil {
		return err
	}
	t.full, t.anew = t.full || !straight, t.anew || !straight
	files, full, err := c.look(t)
	if err != nil {
		return err
	}
	if !full && len(files) == 0 {
		c.applied = t.commit
		return nil
	}
	if c.api == nil {
		if c.api, err = c.fabric.cfg.Cluster.connect(); err != nil {
			return err
		}
		c.watch = c.api.Watch()
	}
	anew := t.anew
	if full {
		schemas := c.fabric.policy().Schemas
		c.fabric.schemas.follow(ctx, c.api)
		anew = anew || c.fabric.policy().Schemas != schemas
	}
	policy := c.fabric.policy()

	var held map[apply.Key]string
	if full {
		clear(c.broken)
		clear(c.drifts)
		if !anew {
			files, held = c.known(files)
		}
	}
	objs, blobs, unread, err := readManaged(t.clone, files, c.fabric.cfg, policy)
	if err != nil {
		return err
	}
	maps.Copy(c.broken, unread)
	for i := range objs {
		c.read[objs[i].Path] = managedFile{checkout.Hash(objs[i].Digest), objs[i].Key()}
	}
	now := time.Now()
	leave(objs, c.fabric.cfg, c.repo.book.inventory(), c.fights.rests(now), now)
	clear(c.suspects)

	rec := journal.Record{Cycle: t.cycle, Repository: c.repo.cfg.Name, Fabric: c.fabric.cfg.Name, Step: journal.StepApply, To: string(t.commit)}
	if t.ahead {
		rec.Note = "ahead of the remote, which does not have it yet"
	}
	if rep.Objects == nil {
		rep.Objects = map[string]int{}
	}
	rep.moved = false
	clear(c.pending)
	n := 0
	start := time.Now()
	t.progress.report("apply "+c.fabric.cfg.Name, 0, len(objs))
	drift := rec
	drift.Step = journal.StepDrift
	// Where the watch knows of all but a few, listing them all is not for these.
	err = c.api.Apply(ctx, objs, full && len(held) == 0, func(res apply.Result) {
		n++
		t.progress.report("apply "+c.fabric.cfg.Name, n, len(objs))
		key := res.Object.Key()
		p := res.Object.Path
		rep.Objects[string(res.Outcome)]++
		rep.moved = rep.moved || res.Outcome == apply.Created || res.Outcome == apply.Configured
		rep.changed = rep.changed || rep.moved
		delete(c.broken, p)
		delete(c.drifts, p)
		o := journal.Object{
			Group: key.Group, Kind: key.Kind, Namespace: key.Namespace, Name: key.Name,
			Path: path.Join(c.fabric.cfg.Path, p), Blob: blobs[key], Outcome: string(res.Outcome), ResourceVersion: res.ResourceVersion,
		}
		if res.Err != nil {
			o.Error, o.From = res.Err.Error(), c.origin(p)
			c.broken[p] = res.Err.Error()
			if !res.Permanent {
				c.pending[p] = true
			}
		}
		to := &rec
		if c.drifted(res, &o) {
			to = &drift
			if res.Outcome == apply.Drifted {
				c.drifts[p] = o.Error
			} else {
				rep.Drifted++
			}
		} else if res.Outcome == apply.Unchanged {
			c.fights.agreed(key)
		}
		if c.news(o) || !straight && o.Error == "" {
			to.Objects = append(to.Objects, o)
		}
	})
	for _, r := range []*journal.Record{&rec, &drift} {
		if len(r.Objects) > 0 {
			r.Took = time.Since(start)
			err = errors.Join(err, c.repo.book.append(*r))
		}
	}
	c.noteRepairs(drift.Objects)
	if len(held) > 0 {
		rep.Objects[journal.Unchanged] += len(held)
		maps.Copy(blobs, held)
	}
	if err == nil && full && c.fabric.cfg.Prune {
		err = c.prune(ctx, t, blobs, len(unread), rep)
	}
	if err != nil {
		return err
	}
	c.applied, c.missed = t.commit, false
	return nil
}

// straight reports whether the target follows on what the cluster was brought
// to. Where the branch was rewritten, everything is looked at, and the journal
// is told again of what is as it was: by the commit from which an object was
// applied, a prune knows whether there was a commit that took it away.
func (c *cluster) straight(t target) (bool, error) {
	last := cmp.Or(c.applied, checkout.Hash(c.repo.book.inventory().Applied(c.fabric.cfg.Name)))
	if last == "" || last == t.commit {
		return true, nil
	}
	return t.clone.IsAncestor(last, t.commit)
}

// managedFiles lists a fabric's managed files in a commit.
func managedFiles(t tree, at checkout.Hash, f *FabricConfig) ([]checkout.Entry, error) {
	files, err := t.Files(at, f.managed())
	return slices.DeleteFunc(files, func(e checkout.Entry) bool { return !isManaged(e.Path) }), err
}

// readManaged reads managed files as the objects to apply, with the blob that
// each is in. Those that cannot be read are in unread, by their path below the
// fabric, with what is wrong with them.
func readManaged(t tree, files []checkout.Entry, f *FabricConfig, policy ingest.Policy) (objs []apply.Object, blobs map[apply.Key]string, unread map[string]string, err error) {
	blobs, unread = map[apply.Key]string{}, map[string]string{}
	for _, e := range files {
		p := below(e.Path, f.Path)
		data, err := t.Blob(e.Blob)
		if err != nil {
			return nil, nil, nil, err
		}
		o, problems := policy.ReadManaged(p, data)
		if len(problems) > 0 {
			unread[p] = strings.TrimPrefix(problems[0].String(), p+": ")
			continue
		}
		obj := toApply(o, p, e.Blob)
		objs = append(objs, obj)
		blobs[obj.Key()] = string(e.Blob)
	}
	return objs, blobs, unread, nil
}

func toApply(o ingest.Object, p string, blob checkout.Hash) apply.Object {
	return apply.Object{
		Group: o.Group, Version: path.Base(o.APIVersion), Kind: o.Kind, Plural: o.Plural,
		Namespace: o.Namespace, Name: o.Name, Value: o.Value, Path: p, Digest: string(blob),
	}
}

// failures tells of the managed files that are not in the cluster as they
// should be, a line for each reason.
func (c *cluster) failures() []string {
	var lines []string
	of := map[string][]string{} // files by reason
	for _, p := range slices.Sorted(maps.Keys(c.broken)) {
		of[c.broken[p]] = append(of[c.broken[p]], p)
	}
	for why, files := range of {
		line := files[0]
		if more := len(files) - 1; more > 0 {
			line += fmt.Sprintf(" and %d more", more)
		}
		line += ": " + why
		if from := c.origin(files[0]); from != "" {
			line += " (" + from + ")"
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return append(lines, c.kept...)
}

// origin says which raw file a managed file came from, and which commit has it.
func (c *cluster) origin(p string) string {
	e, ok := c.repo.book.inventory().Get(c.fabric.cfg.Name, journal.Key(c.read[p].key))
	switch d := e.Desired; {
	case !ok || d.Commit == "":
		return ""
	case d.RawPath == "":
		return "from commit " + short(d.Commit)
	default:
		return fmt.Sprintf("from %s, document %d, line %d, commit %s", below(d.RawPath, c.fabric.cfg.Path), d.Document, d.Line, short(d.Commit))
	}
}

// look lists the managed files that have to be looked at to bring the cluster
// to the target: those that changed since the last commit that it was brought
// to, and those that failed and may do better; or, with full set, all of them.
func (c *cluster) look(t target) (files []checkout.Entry, full bool, err error) {
	full = t.full || t.prune || c.missed || c.deleting || c.applied == ""
	managed := c.fabric.cfg.managed()
	if !full {
		diff, err := t.clone.Diff(c.applied, t.commit, managed)
		if errors.Is(err, checkout.ErrNotFound) {
			// The remote has lost it, and so has the clone.
			c.applied, full = "", true
		} else if err != nil {
			return nil, false, err
		}
		for _, d := range diff {
			switch {
			case !isManaged(d.Path):
			case d.New == "":
				full = true // before anything is deleted, everything is looked at
			default:
				files = append(files, checkout.Entry{Path: d.Path, Blob: d.New})
			}
		}
	}
	if full {
		files, err = managedFiles(t.clone, t.commit, c.fabric.cfg)
		return files, true, err
	}
	again := maps.Clone(c.pending)
	maps.Copy(again, c.suspects)
	for _, e := range files {
		delete(again, below(e.Path, c.fabric.cfg.Path)) // it is looked at as it is now
	}
	for p := range again {
		p = path.Join(c.fabric.cfg.Path, p)
		blob, ok, err := t.clone.Lookup(t.commit, p)
		if err != nil {
			return nil, false, err
		}
		if ok {
			files = append(files, checkout.Entry{Path: p, Blob: blob})
		}
	}
	return files, false, nil
}

// news reports whether a result tells the journal something. That an object
// is as it was, and known to be, or fails as it did, does not.
func (c *cluster) news(o journal.Object) bool {
	e, known := c.repo.book.inventory().Get(c.fabric.cfg.Name, o.Key())
	switch {
	case !known:
		return o.Outcome != journal.Pruned
	case o.Error != "":
		return e.Error != o.Error
	case o.Outcome == journal.Unchanged:
		return e.Applied.Blob != o.Blob || e.Error != ""
	}
	return true
}

// finish decides when to try again, and publishes how the cluster is.
func (c *cluster) finish(t target, rep *applyReport) {
	if rep.Error != "" || len(c.pending) > 0 || c.deleting {
		c.retry.Failed()
	} else {
		c.retry.Succeeded()
	}
	c.repo.book.metrics.applied(c.repo.cfg.Name, c.fabric.cfg.Name, rep)
	server := ""
	if c.api != nil {
		server = c.api.Server()
	}
	c.mu.Lock()
	if server != "" {
		c.status.Cluster = server
	}
	down, since := c.status.Down, c.status.DownSince
	if rep.Error != down || !slices.Equal(rep.Failed, c.status.Failed) {
		c.ail() // or got well
	}
	if rep.Error == "" && rep.Objects != nil {
		c.met = time.Now()
	}
	c.status.Down = rep.Error
	if rep.Error == "" {
		c.status.DownSince, c.status.Tries = time.Time{}, 0
		c.status.Commit, c.status.Ahead = string(c.applied), t.ahead
	} else {
		c.status.Tries++
		if down == "" {
			c.status.DownSince = time.Now()
		}
	}
	c.status.Next = c.retry.Due()
	c.status.Failed, c.status.Drifts, c.status.Held = rep.Failed, rep.Drifts, rep.Held
	c.status.Deleting = slices.Clone(c.going)
	c.resting = c.fights.rests(time.Now())
	if rep.Error == "" && rep.Held == "" && len(rep.Failed)+len(rep.Drifts) == 0 {
		c.status.Succeeded = time.Now()
	}
	c.mu.Unlock()
	rec := journal.Record{Cycle: t.cycle, Repository: c.repo.cfg.Name, Fabric: c.fabric.cfg.Name}
	switch {
	case rep.Error != "" && rep.Error != down:
		rec.Step, rec.Error = journal.StepFault, rep.Error
	case rep.Error == "" && down != "":
		rec.Step, rec.Took = journal.StepClear, time.Since(since)
	default:
		return
	}
	if err := c.repo.book.append(rec); err != nil {
		c.repo.log.Error("recording", "fabric", c.fabric.cfg.Name, "err", err)
	}
}

// fill enters what status shows of the cluster.
func (c *cluster) fill(fs *fabricStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fs.Cluster = c.status.Cluster
	if fs.Cluster == "" {
		fs.Cluster = cmp.Or(c.fabric.cfg.Cluster.Kubeconfig, "in-cluster")
	}
	fs.Commit, fs.Failed, fs.Held = c.status.Commit, c.status.Failed, c.status.Held
	fs.Drifts, fs.Unwatched = c.status.Drifts, c.status.Unwatched
	fs.Unheard, fs.UnheardAt = c.status.Unheard, c.status.UnheardAt
	fs.Repaired, fs.RepairAt = c.status.Repaired, c.status.RepairAt
	fs.Deleting, fs.Ahead = c.status.Deleting, c.status.Ahead
	fs.Down, fs.DownSince, fs.Tries, fs.Next = c.status.Down, c.status.DownSince, c.status.Tries, c.status.Next
	fs.Succeeded = c.status.Succeeded
	if !c.health.Checked.IsZero() {
		h := c.health
		if h.Checked.Before(c.met) {
			h.Error = "" // it answers since
		}
		fs.Health = &h
	}
}

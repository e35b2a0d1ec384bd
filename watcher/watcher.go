// SPDX-License-Identifier: Apache-2.0

package watcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

const (
	// checkEvery is how often the watched directories are compared with what
	// is there: no event tells that a parent of one was renamed. While
	// inotify does not work it is also how often Watcher wakes and tries
	// again.
	checkEvery = 5 * time.Second

	// A directory that is not there is looked for more often, at first very
	// soon: it is usually just being made.
	missingFirst = 50 * time.Millisecond
	missingMax   = 1 * time.Second

	// awaitEvery is how often files are looked at that somebody is writing
	// to. That a file was closed is no event in fsnotify.
	awaitEvery = 250 * time.Millisecond
)

// A Watcher watches raw directories and says when to look at them.
type Watcher struct {
	dirs   []string
	settle Settle
	rescan time.Duration
	every  time.Duration // checkEvery
	log    *slog.Logger
	c      chan struct{}

	mu      sync.Mutex
	wakeAt  time.Time // zero: not asked for
	awaited map[awaited]bool
	asked   chan struct{} // capacity 1: one of the two above is news to Run

	// The rest is Run's.
	inotify *fsnotify.Watcher // nil: there is none to be had
	failed  chan error        // capacity 1: what inotify reported
	drained sync.WaitGroup    // the goroutine that fills failed
	roots   map[string]inode  // those of dirs that are watched
	tree    map[string]bool   // all watched directories
	doubt   bool              // a directory may be unwatched: go through them all
	trouble string            // why inotify does not work, as it was logged
	missing time.Duration     // until a missing directory is looked for again
}

type inode struct{ dev, ino uint64 }

type awaited struct{ dir, path string }

// New returns a Watcher for directories, which need not exist yet. It wakes
// after a burst of events as settle says, and every rescan (which must be
// positive) without any event, because events can be missed.
func New(dirs []string, settle Settle, rescan time.Duration, log *slog.Logger) *Watcher {
	w := &Watcher{
		settle: settle, rescan: rescan, every: checkEvery, log: log,
		c:       make(chan struct{}, 1),
		awaited: make(map[awaited]bool),
		asked:   make(chan struct{}, 1),
		failed:  make(chan error, 1),
		roots:   make(map[string]inode),
		tree:    make(map[string]bool),
	}
	for _, dir := range dirs {
		w.dirs = append(w.dirs, filepath.Clean(dir))
	}
	return w
}

// C returns the channel that receives when it is time to look: once as soon as
// the directories are watched, and then whenever something changed and has
// settled, or a rescan is due. It holds one wake-up; more than one before it
// is received from are one.
func (w *Watcher) C() <-chan struct{} { return w.c }

// Wake asks for a wake-up after d, or sooner if an earlier one was asked for.
func (w *Watcher) Wake(d time.Duration) {
	w.mu.Lock()
	if at := time.Now().Add(d); w.wakeAt.IsZero() || at.Before(w.wakeAt) {
		w.wakeAt = at
	}
	w.mu.Unlock()
	w.ask()
}

// Await asks for a wake-up when nobody is writing to the file path below dir
// any more, as [Read] understands it. It is for files that were [ErrBusy]: the
// last thing a writer does is to close the file, which is no event. Looking
// costs a few system calls a file, four times a second.
func (w *Watcher) Await(dir, path string) {
	w.mu.Lock()
	w.awaited[awaited{dir, path}] = true
	w.mu.Unlock()
	w.ask()
}

func (w *Watcher) ask() {
	select {
	case w.asked <- struct{}{}:
	default:
	}
}

func (w *Watcher) wake() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

// Run watches until ctx is done. It keeps going through every failure: where
// inotify does not work, because its limits are reached, it says so in the
// log, wakes every few seconds instead, and goes back to inotify when it works
// again; a directory that is deleted or replaced is watched again when it is
// there again. Run must be called once.
func (w *Watcher) Run(ctx context.Context) {
	defer w.closeInotify()
	b := newBurst(w.settle)
	rescan := time.NewTicker(w.rescan)
	defer rescan.Stop()
	check := time.NewTimer(0)
	await := time.NewTimer(0)
	await.Stop()
	wakeAt := time.NewTimer(0)
	wakeAt.Stop()

	for {
		var events <-chan fsnotify.Event
		if w.inotify != nil {
			events = w.inotify.Events
		}
		select {
		case <-ctx.Done():
			return

		case ev := <-events:
			// First the watches, then the wake-up: a file that was put into
			// a new directory before it was watched is found by the listing
			// that follows.
			news, doubt := w.event(ev)
			if news {
				b.add()
			}
			if doubt {
				w.doubt = true
				check.Reset(0)
			}

		case err := <-w.failed:
			w.doubt = true // events were lost, of new directories too
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				check.Reset(0)
			} else {
				w.closeInotify()
				check.Reset(missingFirst)
			}

		case <-b.over():
			b.end()
			w.wake()

		case <-rescan.C:
			w.doubt = true
			check.Reset(0)

		case <-check.C:
			again, news := w.check()
			if news {
				w.wake()
			}
			check.Reset(again)

		case <-w.asked:
			await.Reset(0)
			w.mu.Lock()
			if !w.wakeAt.IsZero() {
				wakeAt.Reset(time.Until(w.wakeAt))
			}
			w.mu.Unlock()

		case <-wakeAt.C:
			w.mu.Lock()
			w.wakeAt = time.Time{}
			w.mu.Unlock()
			w.wake()

		case <-await.C:
			free, left := w.lookAwaited()
			if free {
				b.add()
			}
			if left {
				await.Reset(awaitEvery)
			}
		}
	}
}

// event sees to what an event means for the watches. It reports whether the
// event can mean new input, and whether something may be unwatched now. The
// path of an event is where something was when the event was queued.
func (w *Watcher) event(ev fsnotify.Event) (news, doubt bool) {
	_, isRoot := w.roots[ev.Name]
	switch {
	case ev.Op == 0: // fsnotify sends these for what it handles itself
		return false, false
	case isRoot:
		if ev.Has(fsnotify.Remove) || ev.Has(fsnotify.Rename) {
			w.forget(ev.Name)
			return false, true
		}
		return true, false
	case filepath.Base(ev.Name)[0] == '.':
		return false, false // hidden names are not input, ours among them
	case ev.Has(fsnotify.Create) || ev.Has(fsnotify.Chmod):
		if fi, err := os.Lstat(ev.Name); err == nil && fi.IsDir() {
			// Made, moved here, or now perhaps readable.
			w.forget(ev.Name)
			return true, w.addBelow(ev.Name) != nil
		}
		return true, false
	case ev.Has(fsnotify.Write):
		return true, false
	}
	// Removed or moved away: at most there is less to watch.
	w.forget(ev.Name)
	return false, false
}

// check compares what is watched with what is there. It returns when to do so
// again, and whether there is a reason to wake.
func (w *Watcher) check() (again time.Duration, news bool) {
	var trouble error
	if w.inotify == nil {
		trouble = w.openInotify()
	}
	all, gone := w.doubt, false
	news, w.doubt = w.doubt, false
	for _, dir := range w.dirs {
		id, err := identifyDir(dir)
		was, watched := w.roots[dir]
		if watched && was != id {
			w.forget(dir)
			watched, news = false, true
		}
		if err == nil && w.inotify != nil && (all || !watched) {
			if err = w.add(dir); err == nil {
				w.roots[dir] = id
				news = news || !watched
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			gone = true
		} else if err != nil {
			trouble = err
		}
	}
	w.report(trouble)
	if trouble != nil {
		w.doubt = true
		return w.every, true
	}
	if !gone {
		w.missing = 0
		return w.every, news
	}
	w.missing = min(max(2*w.missing, missingFirst), missingMax)
	return w.missing, news
}

// report logs that inotify does not work, or does again; once each.
func (w *Watcher) report(trouble error) {
	var text string
	if trouble != nil {
		text = trouble.Error()
	}
	if text == w.trouble {
		return
	}
	w.trouble = text
	if trouble != nil {
		w.log.Warn("raw directories cannot be watched, looking at them regularly instead", "every", w.every, "err", trouble)
	} else {
		w.log.Info("raw directories are watched again")
	}
}

func identifyDir(dir string) (inode, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return inode{}, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	return inode{uint64(st.Dev), st.Ino}, nil
}

// add watches dir and the directories below it, each before it is listed.
// Hidden ones are left out.
func (w *Watcher) add(dir string) error {
	if err := w.inotify.Add(dir); err != nil {
		return &fs.PathError{Op: "watch", Path: dir, Err: hint(err, "fs.inotify.max_user_watches")}
	}
	w.tree[dir] = true
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() && e.Name()[0] != '.' {
			if err := w.addBelow(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// addBelow is add for a sub-directory, which may have vanished again, or be
// closed to this process: then List reports it, and an event tells when that
// changes.
func (w *Watcher) addBelow(dir string) error {
	err := w.add(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// forget ends the watches of dir and of the directories below it.
func (w *Watcher) forget(dir string) {
	delete(w.roots, dir)
	if !w.tree[dir] {
		return
	}
	for d := range w.tree {
		if d == dir || strings.HasPrefix(d, dir+"/") {
			delete(w.tree, d)
			w.inotify.Remove(d) // fails if the kernel was faster
		}
	}
}

func (w *Watcher) openInotify() error {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return hint(err, "fs.inotify.max_user_instances")
	}
	w.inotify = n
	// fsnotify can report an error while it holds the lock that Add and
	// Remove need, so whoever calls those must not be who receives it.
	w.drained.Go(func() {
		for err := range n.Errors {
			select {
			case w.failed <- err:
			default:
			}
		}
	})
	return nil
}

// hint adds what to do where one of inotify's limits is reached.
func hint(err error, limit string) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("%w (sysctl %s may have to be raised)", err, limit)
	}
	return err
}

func (w *Watcher) closeInotify() {
	if w.inotify != nil {
		w.inotify.Close()
		w.drained.Wait()
		w.inotify = nil
	}
	clear(w.roots)
	clear(w.tree)
}

// lookAwaited reports whether one of the awaited files is free now, and
// whether others are left.
func (w *Watcher) lookAwaited() (free, left bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for a := range w.awaited {
		switch err := w.probe(a); {
		case errors.Is(err, ErrBusy):
			continue
		case !errors.Is(err, ErrGone):
			free = true // or the cycle is to say what is wrong with it
		}
		delete(w.awaited, a)
	}
	return free, len(w.awaited) > 0
}

func (w *Watcher) probe(a awaited) error {
	root, err := os.Open(a.dir)
	if err != nil {
		return ErrGone
	}
	defer root.Close()
	h, err := hold(int(root.Fd()), a.path, w.settle.Quiet)
	if err != nil {
		return err
	}
	defer h.release()
	if h.st.Size == 0 && h.young(w.settle.Quiet) {
		return ErrBusy
	}
	return nil
}

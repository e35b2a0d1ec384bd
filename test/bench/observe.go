// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/hhwatchd/hhwatchd/test/kube"
	"github.com/hhwatchd/hhwatchd/test/stage"
)

// watched are the resources of all objects that are dropped.
var watched = []string{
	"wiring.githedgehog.com/v1beta1/vlannamespaces",
	"vpc.githedgehog.com/v1beta1/ipv4namespaces",
	"wiring.githedgehog.com/v1beta1/switchgroups",
	"wiring.githedgehog.com/v1beta1/switches",
	"wiring.githedgehog.com/v1beta1/servers",
	"wiring.githedgehog.com/v1beta1/connections",
	"vpc.githedgehog.com/v1beta1/vpcs",
}

// dropLimit bounds the wait for a dropped file. What takes longer is broken.
const dropLimit = time.Minute

// A sight is something that the observer saw, at the time that it saw it.
type sight struct {
	at    time.Time
	local bool   // the branch moved in the daemon's clone
	bare  bool   // the branch moved on the git server
	run   string // of the object that the API server has now
	object
	err error // the observer cannot see any more
}

// An observer sees from outside how far the daemon has come.
type observer struct {
	sights  chan sight
	refs    *fsnotify.Watcher
	watches []*kube.Watch
	owned   sync.WaitGroup
	closing chan struct{}
}

// observe begins to observe the daemon's clone, the git server's repository and
// the API server.
func observe(ctx context.Context, st *stage.Stage) (_ *observer, err error) {
	o := &observer{sights: make(chan sight, 1024), closing: make(chan struct{})}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	if o.refs, err = fsnotify.NewWatcher(); err != nil {
		return nil, err
	}
	local := filepath.Join(st.Clone, ".git", "refs", "heads")
	bare := filepath.Join(st.Bare, "refs", "heads")
	for _, dir := range []string{local, bare} {
		// git packs refs, but a branch that moves is a file of its own.
		if err := errors.Join(os.MkdirAll(dir, 0o755), o.refs.Add(dir)); err != nil {
			return nil, err
		}
	}
	o.owned.Go(func() { o.seeRefs(local, bare) })
	for _, resource := range watched {
		w, err := st.API.Watch(ctx, resource, "default")
		if err != nil {
			return nil, err
		}
		o.watches = append(o.watches, w)
		o.owned.Go(func() { o.seeObjects(w) })
	}
	return o, nil
}

func (o *observer) close() {
	close(o.closing)
	if o.refs != nil {
		o.refs.Close()
	}
	for _, w := range o.watches {
		w.Close()
	}
	o.owned.Wait()
}

func (o *observer) see(s sight) {
	select {
	case o.sights <- s:
	case <-o.closing:
	}
}

// seeRefs tells of the branch main: git moves it by renaming a file onto it,
// which inotify shows as the creation of that name.
func (o *observer) seeRefs(local, bare string) {
	for {
		select {
		case e, ok := <-o.refs.Events:
			s := sight{at: time.Now(), local: e.Name == filepath.Join(local, "main"), bare: e.Name == filepath.Join(bare, "main")}
			if !ok {
				return
			}
			if (s.local || s.bare) && e.Has(fsnotify.Create|fsnotify.Write) {
				o.see(s)
			}
		case err, ok := <-o.refs.Errors:
			if !ok {
				return
			}
			o.see(sight{err: err})
		}
	}
}

func (o *observer) seeObjects(w *kube.Watch) {
	for {
		e, err := w.Next()
		s := sight{at: time.Now(), err: err}
		if err == nil {
			s.kind, _ = e.Object["kind"].(string)
			metadata, _ := e.Object["metadata"].(map[string]any)
			s.name, _ = metadata["name"].(string)
			annotations, _ := metadata["annotations"].(map[string]any)
			s.run, _ = annotations[runAnnotation].(string)
		}
		o.see(s)
		if err != nil {
			return
		}
	}
}

// An arrival is when a dropped file arrived where, counted from its being
// closed.
type arrival struct{ committed, pushed, applied time.Duration }

// drop writes a file as cp does and waits until all of it has arrived. When a
// branch moves more than once on the way, its last move counts.
func (o *observer) drop(ctx context.Context, dir string, f *file) (arrival, error) {
	for len(o.sights) > 0 {
		if s := <-o.sights; s.err != nil {
			return arrival{}, s.err
		}
	}
	missing := map[object]bool{}
	for _, obj := range f.objects {
		missing[obj] = true
	}
	limit := time.NewTimer(dropLimit)
	defer limit.Stop()

	if err := os.WriteFile(filepath.Join(dir, f.name), f.text, 0o644); err != nil {
		return arrival{}, err
	}
	closed := time.Now()
	var a arrival
	for len(missing) > 0 || a.committed == 0 || a.pushed == 0 {
		select {
		case s := <-o.sights:
			since := s.at.Sub(closed)
			switch {
			case s.err != nil:
				return a, s.err
			case s.local:
				a.committed = since
			case s.bare:
				a.pushed = since
			case s.run == f.run && missing[s.object]:
				delete(missing, s.object)
				a.applied = since
			}
		case <-ctx.Done():
			return a, ctx.Err()
		case <-limit.C:
			return a, fmt.Errorf("%v after %s was dropped, %d of its objects are not in the API server (committed: %v, pushed: %v)",
				dropLimit, f.name, len(missing), a.committed > 0, a.pushed > 0)
		}
	}
	return a, nil
}

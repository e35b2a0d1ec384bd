// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
)

const (
	// A watch is asked to end after a time between watchLife and twice that,
	// as client-go's own do, and is begun again where it ended: one whose
	// connection is dead without anybody knowing, and one that was begun with
	// credentials that were revoked since, does not last for ever.
	watchLife = 5 * time.Minute
	// watchGrace is what the server may be late by.
	watchGrace = 30 * time.Second

	// A watch that failed is begun again after a time that doubles from the
	// first of these to the second.
	watchRetryFirst = 500 * time.Millisecond
	watchRetryMost  = 30 * time.Second
	// watchForbidden is how long a right is taken to be missing.
	watchForbidden = 5 * time.Minute

	// metadataPage is how many objects a list of metadata asks for.
	metadataPage = 500
)

// A Watch notices when others change objects that were applied, or delete
// them, as it happens. See [Cluster.Watch].
type Watch struct {
	cluster *Cluster
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	c       chan struct{}

	mu       sync.Mutex
	closed   bool
	kinds    map[place]*followed
	changed  map[Key]uint64 // and the resource version as of which; see sighting
	stirred  bool
	troubles map[place]string
}

// Watch has the Cluster follow the objects that Apply is given, from the end
// of that call on, until Close: the metadata of all objects of their kinds in
// their namespaces is watched. There is one Watch at a time.
//
// The Watch says which objects are to be looked at again ([Watch.Take]), and
// which are known to be as they were ([Watch.Holds]). It outlives restarts of
// the API server, lost connections, expired resource versions and CRDs that
// come and go: it then knows of nothing until it has caught up.
func (c *Cluster) Watch() *Watch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watch{
		cluster: c, ctx: ctx, cancel: cancel, c: make(chan struct{}, 1),
		kinds: map[place]*followed{}, changed: map[Key]uint64{}, troubles: map[place]string{},
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch = w
	return w
}

// Close ends the watch, and waits until it has ended.
func (w *Watch) Close() {
	w.cluster.mu.Lock()
	w.cluster.watch = nil
	w.cluster.mu.Unlock()
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cancel()
	w.wg.Wait()
}

// C is readable when [Watch.Take] has something to tell, or [Watch.Trouble] may
// have changed.
func (w *Watch) C() <-chan struct{} { return w.c }

// Take returns the objects that were applied, or were to be, and that have
// changed since they were looked at; each is returned once. stirred says that
// beside them something came or went on which it may depend whether an object
// is refused: another object, or a CRD.
func (w *Watch) Take() (changed []Key, stirred bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k := range w.changed {
		changed = append(changed, k)
	}
	clear(w.changed)
	stirred, w.stirred = w.stirred, false
	return changed, stirred
}

// Holds reports whether the cluster is known to hold the object as it was
// applied or found to be, in an [Object] of that digest, without asking it; and
// the live object's resource version.
func (w *Watch) Holds(k Key, digest string) (resourceVersion string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.kinds[place{k.Group, k.Kind, k.Namespace}]
	if f == nil || !f.stands || digest == "" {
		return "", false
	}
	s := f.objects[k.Name]
	if s == nil || s.gone || s.digest != digest {
		return "", false
	}
	return fmt.Sprint(s.version), true
}

// Renew takes up a kubeconfig that has changed, and credentials: what is watched
// by others is watched anew, from a list on, and nothing is known of it until
// then. An error is about the kubeconfig.
func (w *Watch) Renew() error {
	conn, err := w.cluster.connection()
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.kinds {
		if f.conn != nil && f.conn != conn {
			f.stands, f.doubt = false, true
			f.cancel()
		}
	}
	return nil
}

// Trouble says on one line why kinds cannot be watched, and for how many that
// is so; empty if there is no reason that a person has to see to.
func (w *Watch) Trouble() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, why := range w.troubles {
		all = append(all, why)
	}
	if len(all) == 0 {
		return ""
	}
	slices.Sort(all)
	if more := len(all) - 1; more > 0 {
		return fmt.Sprintf("%s (and %d more kinds)", all[0], more)
	}
	return all[0]
}

// A place is where objects are told apart by their names.
type place struct{ group, kind, namespace string }

func (b batch) place() place { return place{b.group, b.kind, b.namespace} }

// followed is what is known of the objects of a place.
type followed struct {
	batch
	objects map[string]*sighting // by name
	running bool                 // has a goroutine
	stands  bool                 // what changes is heard of
	doubt   bool                 // it has to be listed before it is watched again
	conn    *connection          // by which it is watched; cancel ends that
	cancel  context.CancelFunc
	version string // the resource version up to which that is so; empty: to be listed
	newest  uint64 // the newest resource version heard of
	round   uint32 // counts the lists
}

// A sighting is how an object was seen last: by the watch, or by Apply, the
// order of which the resource versions tell. (That these can be compared as
// numbers, of one resource, is Kubernetes' word since 1.35, and was so in all
// versions before:
// https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions.)
// The number is 0 where one is not a number; it is older than nothing then.
type sighting struct {
	version uint64
	print   fingerprint
	gone    bool   // it was not there
	ours    bool   // Apply was given it: its changes are told
	digest  string // of the Object that it was found to hold; empty: it may hold none
	round   uint32 // the list in which it was seen
}

// follow enters objects that are looked at from now on.
func (w *Watch) follow(b batch, objs []Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.kinds[b.place()]
	if f == nil {
		f = &followed{batch: b, objects: make(map[string]*sighting, len(objs))}
		w.kinds[b.place()] = f
	}
	for _, o := range objs {
		if s := f.objects[o.Name]; s != nil {
			s.ours = true
		} else {
			f.objects[o.Name] = &sighting{ours: true, gone: true}
		}
	}
}

// begin begins to watch what is not watched yet.
func (w *Watch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.kinds {
		if !f.running && !w.closed {
			f.running = true
			w.wg.Go(func() { w.run(f) })
		}
	}
}

// regard notes how Apply found or left an object: m is the live one's metadata,
// and digest that of the Object that it holds, or empty.
func (w *Watch) regard(o *Object, m meta, digest string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.kinds[place{o.Group, o.Kind, o.Namespace}].objects[o.Name]
	version, print := m.version(), m.fingerprint()
	if version < s.version {
		// The watch was faster. It may have been about nothing of ours.
		if s.gone || s.print != print {
			s.digest = ""
			w.tell(o.Key(), s.version)
			return
		}
		s.digest = digest
		return
	}
	s.version, s.print, s.gone, s.digest = version, print, false, digest
	if at, ok := w.changed[o.Key()]; ok && at <= version {
		delete(w.changed, o.Key()) // that was our own doing, or is seen to
	}
}

// see notes what the watch says of an object: in an event, or in a list as of
// the resource version listed.
func (w *Watch) see(f *followed, m meta, gone bool, listed uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	version := m.version()
	f.newest = max(f.newest, version)
	s := f.objects[m.name()]
	if s == nil {
		s = &sighting{gone: true}
		f.objects[m.name()] = s
	}
	s.round = f.round
	// A list has the newest that there was. When that is older than what was
	// seen before, the object is that of another cluster.
	other := version < s.version && s.version <= listed
	if version != 0 && version <= s.version && !other {
		return // what Apply has seen is as new
	}
	s.version = version
	if !s.ours {
		// It is not compared with anything, only known to be there.
		if s.gone != gone {
			s.gone, w.stirred = gone, true
			w.signal()
		}
		return
	}
	var print fingerprint
	if !gone {
		print = m.fingerprint()
	}
	if s.gone == gone && s.print == print {
		return
	}
	s.gone, s.print, s.digest = gone, print, ""
	w.tell(Key{f.group, f.kind, f.namespace, m.name()}, version)
}

func (w *Watch) tell(k Key, version uint64) {
	w.changed[k] = max(version, w.changed[k])
	w.signal()
}

func (w *Watch) signal() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

// run watches a place until the Watch is closed.
func (w *Watch) run(f *followed) {
	wait := watchRetryFirst
	for {
		began := time.Now()
		err := w.once(f)
		if w.ctx.Err() != nil {
			return
		}
		w.lost(f, err)
		switch {
		case err == nil && time.Since(began) > time.Second:
			wait = watchRetryFirst
			continue // its time was up
		case apierrors.IsForbidden(err):
			wait = watchForbidden
		case time.Since(began) > watchRetryMost:
			wait = watchRetryFirst
		}
		select {
		case <-w.ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
		wait = min(2*wait, watchRetryMost)
	}
}

// once lists what is there, unless that is known, and watches what becomes of
// it. It returns an error, or nil when the server ended the watch.
func (w *Watch) once(f *followed) error {
	conn, err := w.cluster.connection()
	if err != nil {
		return err
	}
	life := watchLife + rand.N(watchLife)
	ctx, cancel := context.WithTimeout(w.ctx, life+watchGrace)
	defer cancel()
	w.mu.Lock()
	if f.doubt {
		f.version, f.doubt = "", false
	}
	f.conn, f.cancel = conn, cancel
	w.mu.Unlock()
	from := conn.metadata.Resource(schema.GroupVersionResource{Group: f.group, Version: f.batch.version, Resource: f.plural}).Namespace(f.namespace)
	if f.version == "" {
		if err := w.list(ctx, conn, f, from); err != nil {
			return w.judge(conn, f, "list", err)
		}
	}
	seconds := int64(life / time.Second)
	stream, err := from.Watch(ctx, metav1.ListOptions{ResourceVersion: f.version, AllowWatchBookmarks: true, TimeoutSeconds: &seconds})
	if err != nil {
		return w.judge(conn, f, "watch", err)
	}
	defer stream.Stop()
	w.stands(ctx, f)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e, ok := <-stream.ResultChan():
			if !ok {
				return nil
			}
			if e.Type == watch.Error {
				return w.judge(conn, f, "watch", apierrors.FromObject(e.Object))
			}
			m, ok := e.Object.(*metav1.PartialObjectMetadata)
			if !ok {
				f.version = ""
				return fmt.Errorf("watching %s: the server sent %T", f.plural, e.Object)
			}
			if e.Type != watch.Bookmark {
				w.see(f, (*partial)(m), e.Type == watch.Deleted, 0)
			}
			f.version = m.ResourceVersion
		}
	}
}

// list makes a followed place hold what is there now.
func (w *Watch) list(ctx context.Context, conn *connection, f *followed, from metadata.ResourceInterface) error {
	w.mu.Lock()
	f.round++
	w.mu.Unlock()
	opts := metav1.ListOptions{Limit: metadataPage}
	var version string
	for {
		limited, cancel := context.WithTimeout(ctx, conn.readLimit)
		page, err := from.List(limited, opts)
		cancel()
		if err != nil {
			return err
		}
		if version == "" {
			version = page.ResourceVersion
			w.rewound(f, parseVersion(version))
		}
		for i := range page.Items {
			w.see(f, (*partial)(&page.Items[i]), false, parseVersion(version))
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			break
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, s := range f.objects {
		switch listed := parseVersion(version); {
		case s.round == f.round || s.version > listed && listed != 0:
		case !s.ours:
			delete(f.objects, name)
		case !s.gone:
			s.gone, s.print, s.digest, s.version = true, fingerprint{}, "", listed
			w.tell(Key{f.group, f.kind, f.namespace, name}, listed)
		}
	}
	f.version = version
	w.stirred = true // its CRD may have come
	w.signal()
	return nil
}

// rewound forgets all when the server's resource versions have gone backwards:
// its data is of a backup, and nothing that was seen is newer than it.
func (w *Watch) rewound(f *followed, version uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if version == 0 || version >= f.newest {
		return
	}
	f.newest = version
	for name, s := range f.objects {
		s.version, s.print, s.digest = 0, fingerprint{}, ""
		if s.ours {
			w.tell(Key{f.group, f.kind, f.namespace, name}, 0)
		}
	}
}

// judge notes what a failure means for the watch of a place, and returns it.
func (w *Watch) judge(conn *connection, f *followed, verb string, err error) error {
	if isAnswer(err) && !apierrors.IsForbidden(err) {
		// 410 Gone above all: the changes since then are not kept any more.
		f.version = ""
	}
	if !apierrors.IsForbidden(err) {
		return err
	}
	if missingRight(err) == "" || !conn.ready(w.ctx) {
		return errors.New("not ready") // the server is starting, and knows no rights yet
	}
	resource := strings.TrimSuffix(f.plural+"."+f.group, ".")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.troubles[f.place()] = fmt.Sprintf("the right to %s %s is missing", verb, resource)
	w.signal()
	return err
}

func (w *Watch) stands(ctx context.Context, f *followed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f.stands = ctx.Err() == nil // or it was to be begun anew meanwhile
	if w.troubles[f.place()] != "" {
		delete(w.troubles, f.place())
		w.signal()
	}
}

func (w *Watch) lost(f *followed, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// One that ended in good order is begun again where it ended, at once.
	f.stands = f.stands && err == nil
}

// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// pageSize is how many objects a list request asks for. It bounds the memory
// that a full comparison takes, whatever the cluster holds.
const pageSize = 250

// getCost is how many objects the API server lists in the time in which it
// answers a request for one.
const getCost = 4

// An Object is a managed object: what it is, and what is to be applied.
type Object struct {
	Group, Version, Kind string
	Plural               string         // the kind's name in URLs
	Namespace            string         // empty for a kind without namespaces
	Name                 string         // metadata.name
	Value                map[string]any // the object as JSON, metadata.namespace included; it is not changed
	Path                 string         // its managed file, for messages

	// Digest tells Values of the object apart: where it is the same, so are
	// they. With a [Watch] the cluster is known to hold it. Optional.
	Digest string
	// ReportOnly has the object left as it is, and reported as [Drifted], where
	// it is not there or has other values. (Where its values are the wanted
	// ones, and only entered as somebody else's, it is applied all the same.)
	ReportOnly bool
}

// A Key identifies an object in a cluster, whatever version it is written in.
type Key struct{ Group, Kind, Namespace, Name string }

// Key returns the object's identity.
func (o *Object) Key() Key { return Key{o.Group, o.Kind, o.Namespace, o.Name} }

// An Outcome is what became of an object.
type Outcome string

const (
	Created    Outcome = "created"    // it was not there, and is now
	Configured Outcome = "configured" // it was changed
	Unchanged  Outcome = "unchanged"  // it was as wanted
	Failed     Outcome = "failed"     // it is not as wanted
	Drifted    Outcome = "drifted"    // it is not as wanted, and is left so because only a report is
	Pruned     Outcome = "pruned"     // it was there, and is no longer
	Gone       Outcome = "gone"       // it was to be deleted, and was not there
	Deleting   Outcome = "deleting"   // it is being deleted, and waits for finalizers
	Skipped    Outcome = "skipped"    // it was to be deleted, and is left because it is not ours
)

// A Result is what became of one object.
type Result struct {
	Object
	Outcome Outcome
	// Field is, for Configured and Drifted, a field in which the live object
	// differed, as in ".spec.role"; empty for Drifted if it is not there. There
	// may be more: it is the first by name.
	Field string
	// Manager is the field manager who has that field, or a part of it, by now,
	// and Changed when they last changed what is theirs in the object, to the
	// second; empty where nobody has it, such as when the field was removed.
	Manager string
	Changed time.Time
	// ResourceVersion is the object's version in the cluster: for Created,
	// Configured and Unchanged.
	ResourceVersion string
	// Err says why, on one line, for Failed, Deleting and Skipped. Objects
	// that failed for the same reason, such as a CRD that is not installed,
	// share one error value.
	Err error
	// Permanent says that the object will fail again however often it is
	// tried, until it, or the definition of its kind, changes.
	Permanent bool
}

// Apply makes the cluster hold objs, each of which is to be named once. They
// are applied in the order of [Sort].
//
// The live objects are looked at first, and only those that differ are sent.
// With full set, each kind that occurs in objs is listed: right for all
// objects that there are to be. Without it each object is asked for by itself,
// unless listing its kind is less work: right for those that changed.
//
// report is called once for each object, by one goroutine at a time. Apply
// returns an error if it ended early, because ctx was done or because of
// something that concerns the whole cluster; objects that were not reported
// are then as they were or, a few, already as wanted.
func (c *Cluster) Apply(ctx context.Context, objs []Object, full bool, report func(Result)) error {
	conn, err := c.connection()
	if err != nil {
		return err
	}
	op := &operation{cluster: c, conn: conn, watch: c.watched(), report: report}
	if op.watch != nil {
		defer op.watch.begin()
	}
	order, of := batches(objs)
	for _, b := range order {
		objs := op.sendable(of[b])
		if op.watch != nil {
			op.watch.follow(b, objs)
		}
		if err := op.apply(ctx, b, objs, full); err != nil {
			return err
		}
	}
	return nil
}

// An operation is one call of Apply or Prune.
type operation struct {
	cluster *Cluster
	conn    *connection
	watch   *Watch // nil if there is none

	schemasMu sync.Mutex
	schemas   map[Kind]*structural // nil for a kind whose schema cannot be had

	mu     sync.Mutex
	report func(Result)
}

func (op *operation) done(r Result) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.report(r)
}

func (op *operation) fail(o Object, err error) {
	op.done(Result{Object: o, Outcome: Failed, Err: err, Permanent: isPermanent(err)})
}

func (op *operation) resource(b batch) dynamic.ResourceInterface {
	r := op.conn.dynamic.Resource(schema.GroupVersionResource{Group: b.group, Version: b.version, Resource: b.plural})
	if b.namespace == "" {
		return r
	}
	return r.Namespace(b.namespace)
}

// sendable reports the objects whose names cannot stand in a URL as failed,
// and returns the others.
func (op *operation) sendable(objs []Object) []Object {
	return slices.DeleteFunc(objs, func(o Object) bool {
		var wrong []string
		if o.Name == "" {
			wrong = []string{"is empty"}
		}
		for _, s := range []string{o.Plural, o.Namespace, o.Name} {
			wrong = append(wrong, rest.IsValidPathSegmentName(s)...)
		}
		if len(wrong) == 0 {
			return false
		}
		op.done(Result{Object: o, Outcome: Failed, Permanent: true,
			Err: fmt.Errorf("%s %q in namespace %q: the name %s", o.Plural, o.Name, o.Namespace, strings.Join(wrong, ", "))})
		return true
	})
}

// each calls do for each item, as many at a time as the API server takes, until
// one returns an error.
func each[T any](ctx context.Context, conn *connection, items []T, do func(context.Context, T) error) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, item := range items {
		if conn.gate.enter(gctx) != nil {
			break
		}
		g.Go(func() error {
			defer conn.gate.leave()
			return do(gctx, item)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// A task is an object to see to, and what is known of the live one.
type task struct {
	Object
	known   bool   // it was looked at, and differs
	was     string // its resource version; empty: there is none
	field   string // where it differs
	manager string // whose that is
	changed time.Time
}

// apply looks at the objects of a batch, and sends those that differ.
func (op *operation) apply(ctx context.Context, b batch, objs []Object, full bool) error {
	budget := math.MaxInt
	if !full {
		budget = getCost * len(objs)
		if len(objs) <= inFlight {
			budget = 0
		}
	}
	tasks, err := op.list(ctx, b, objs, budget)
	if err != nil {
		return err
	}
	var unknown atomic.Pointer[error] // why none of the batch can be applied
	return each(ctx, op.conn, tasks, func(ctx context.Context, t task) error {
		if t.known {
			return op.send(ctx, b, t)
		}
		if why := unknown.Load(); why != nil {
			op.fail(t.Object, *why)
			return nil
		}
		live, err := op.get(ctx, b, t.Name)
		switch {
		case err == nil:
			t, differs, err := op.compare(ctx, t.Object, live)
			if err != nil || !differs {
				return err
			}
			return op.send(ctx, b, t)
		case apierrors.IsNotFound(err) && !isUnknownResource(err):
			return op.send(ctx, b, t)
		}
		stop, refusal := op.conn.judge(ctx, err, op.conn.readLimit)
		if stop != nil {
			return stop
		}
		refusal = b.explain(refusal)
		if isUnknownResource(refusal) {
			if !unknown.CompareAndSwap(nil, &refusal) {
				refusal = *unknown.Load()
			}
		}
		op.fail(t.Object, refusal)
		return nil
	})
}

// list lists the batch's kind, as long as no more than about budget objects
// come of it, and compares what is there. It returns what is left to do.
func (op *operation) list(ctx context.Context, b batch, objs []Object, budget int) (tasks []task, err error) {
	unseen := make(map[string]Object, len(objs))
	for _, o := range objs {
		unseen[o.Name] = o
	}
	complete := false
	opts := metav1.ListOptions{}
	for len(unseen) > 0 && budget > 0 && !complete {
		opts.Limit = int64(min(budget, pageSize))
		page, err := op.page(ctx, b, opts)
		if err != nil {
			stop, refusal := op.conn.judge(ctx, err, op.conn.readLimit)
			if stop != nil {
				return nil, stop
			}
			refusal = b.explain(refusal)
			for _, o := range objs {
				if _, ok := unseen[o.Name]; ok {
					op.fail(o, refusal)
				}
			}
			return tasks, nil
		}
		for i := range page.Items {
			live := &page.Items[i]
			o, ok := unseen[live.GetName()]
			if !ok {
				continue
			}
			delete(unseen, o.Name)
			t, differs, err := op.compare(ctx, o, live)
			if err != nil {
				return nil, err
			}
			if differs {
				tasks = append(tasks, t)
			}
		}
		budget -= len(page.Items)
		opts.Continue = page.GetContinue()
		complete = opts.Continue == ""
		if more := page.GetRemainingItemCount(); more != nil && *more > int64(budget) {
			break // it would not end within the budget
		}
	}
	for _, o := range objs {
		if _, ok := unseen[o.Name]; ok {
			tasks = append(tasks, task{Object: o, known: complete})
		}
	}
	return tasks, nil
}

// explain puts into words what the server's are too short for.
func (b batch) explain(err error) error {
	if isUnknownResource(err) {
		return lined{fmt.Sprintf("the cluster does not know %s in %s/%s: its CRD is not installed, or does not serve this version", b.plural, b.group, b.version), err}
	}
	if who := missingRight(err); who != "" {
		return lined{"a right is missing (hhwatchd validate tells all that are needed): " + who, err}
	}
	return err
}

// compare reports an object that is as wanted, or cannot be made so now. It
// returns a task for one that has to be sent.
func (op *operation) compare(ctx context.Context, o Object, live *unstructured.Unstructured) (t task, differs bool, err error) {
	if live.GetDeletionTimestamp() != nil {
		op.regard(o, live, "")
		op.fail(o, fmt.Errorf("it is being deleted, and waits for finalizers (%s); it can be applied anew once it is gone", strings.Join(live.GetFinalizers(), ", ")))
		return task{}, false, nil
	}
	var c comparison
	field, ok := c.holds(o.Value, live.Object)
	ok = ok || op.isSettled(o, live)
	if !ok && c.doubt {
		if field, ok, err = op.resolve(ctx, &c, o, live); err != nil {
			return task{}, false, err
		}
	}
	if ok {
		op.regard(o, live, o.Digest)
		op.done(Result{Object: o, Outcome: Unchanged, ResourceVersion: live.GetResourceVersion()})
		return task{}, false, nil
	}
	op.regard(o, live, "")
	t = task{Object: o, known: true, was: live.GetResourceVersion(), field: field}
	t.ReportOnly = o.ReportOnly && !covers(live.Object, o.Value)
	t.manager, t.changed = whose(live, c.path)
	return t, true, nil
}

// regard tells the watch what an object is like.
func (op *operation) regard(o Object, l *unstructured.Unstructured, digest string) {
	if op.watch != nil {
		op.watch.regard(&o, (*whole)(l), digest)
	}
}

// resolve makes a comparison in doubt again, with the schema.
func (op *operation) resolve(ctx context.Context, c *comparison, o Object, live *unstructured.Unstructured) (field string, ok bool, err error) {
	if c.schema, err = op.schema(ctx, Kind{o.Group, o.Version, o.Kind, o.Plural}); err != nil {
		return "", false, err
	}
	field, ok = c.holds(o.Value, live.Object)
	return field, ok, nil
}

// send applies one object.
func (op *operation) send(ctx context.Context, b batch, t task) error {
	if t.ReportOnly {
		op.done(Result{Object: t.Object, Outcome: Drifted, Field: t.field, Manager: t.manager, Changed: t.changed, ResourceVersion: t.was})
		return nil
	}
	body, err := json.Marshal(t.Value)
	if err != nil {
		op.done(Result{Object: t.Object, Outcome: Failed, Err: err, Permanent: true})
		return nil
	}
	r := Result{Object: t.Object, Outcome: Configured, Field: t.field, Manager: t.manager, Changed: t.changed, ResourceVersion: t.was}
	if t.was == "" {
		r.Outcome = Created
	}
	// What comes of it is looked at, and if need be sent once more: where the
	// last field of a map or the last element of a list goes, Kubernetes 1.37
	// first takes away the map around it too. What does not compare equal
	// even then is the server's, or a webhook's, own idea of a value.
	for try := 1; ; try++ {
		live, err := op.patch(ctx, b, t.Name, body)
		if err != nil {
			stop, refusal := op.conn.judge(ctx, err, op.conn.writeLimit)
			if stop != nil {
				return stop
			}
			op.fail(t.Object, b.explain(refusal))
			return nil
		}
		same := live.GetResourceVersion() == r.ResourceVersion
		if same && try == 1 {
			r.Outcome, r.Field, r.Manager, r.Changed = Unchanged, "", "", time.Time{}
		}
		r.ResourceVersion = live.GetResourceVersion()
		var c comparison
		_, ok := c.holds(t.Value, live.Object)
		if c.doubt {
			if _, ok, err = op.resolve(ctx, &c, t.Object, live); err != nil {
				return err
			}
		}
		if ok || same || try == 2 {
			op.settle(t.Object, live, ok)
			op.regard(t.Object, live, t.Digest)
			op.done(r)
			return nil
		}
	}
}

func (op *operation) page(ctx context.Context, b batch, opts metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	ctx, cancel := context.WithTimeout(ctx, op.conn.readLimit)
	defer cancel()
	return op.resource(b).List(ctx, opts)
}

// patch applies one object. With dryRun set to [metav1.DryRunAll] the API server
// forgets it again.
func (op *operation) patch(ctx context.Context, b batch, name string, body []byte, dryRun ...string) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, op.conn.writeLimit)
	defer cancel()
	force := true
	return op.resource(b).Patch(ctx, name, types.ApplyPatchType, body, metav1.PatchOptions{
		FieldManager:    Manager,
		Force:           &force,
		FieldValidation: metav1.FieldValidationStrict,
		DryRun:          dryRun,
	})
}

func (op *operation) get(ctx context.Context, b batch, name string) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, op.conn.readLimit)
	defer cancel()
	return op.resource(b).Get(ctx, name, metav1.GetOptions{})
}

// settle remembers an object that was just applied and does not compare equal
// all the same. To send it again would be of no use until the file or the live
// object changes.
func (op *operation) settle(o Object, live *unstructured.Unstructured, equal bool) {
	op.cluster.mu.Lock()
	defer op.cluster.mu.Unlock()
	if equal {
		delete(op.cluster.settled, o.Key())
	} else {
		op.cluster.settled[o.Key()] = digest(o, live)
	}
}

func (op *operation) isSettled(o Object, live *unstructured.Unstructured) bool {
	op.cluster.mu.Lock()
	was, ok := op.cluster.settled[o.Key()]
	op.cluster.mu.Unlock()
	return ok && was == digest(o, live)
}

// digest is of what a comparison looks at: the object, and the live one
// without what others report in it.
func digest(o Object, live *unstructured.Unstructured) (sum [sha256.Size]byte) {
	rest := maps.Clone(live.Object)
	delete(rest, "status")
	delete(rest, "metadata")
	entry := managedEntry(live.Object)
	h := sha256.New()
	// The encoder sorts maps by key, and both are JSON already: no errors.
	json.NewEncoder(h).Encode([]any{o.Value, rest, live.GetLabels(), live.GetAnnotations(), live.GetFinalizers(), entry["apiVersion"], entry["fieldsV1"]})
	h.Sum(sum[:0])
	return sum
}

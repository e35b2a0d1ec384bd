// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// maxConflicts is how often a deletion is tried again because somebody wrote
// to the object in between.
const maxConflicts = 5

// Prune deletes objs, in the reverse of the order of [Sort], and what depends
// on them in Kubernetes' sense in the background. Their Value is not looked
// at. Whether an object may go is the caller's decision; Prune only sees to it
// that it is one that was applied by us: others, which have no entry of our
// field manager in metadata.managedFields, are left and reported as [Skipped].
//
// An object that waits for finalizers is reported as [Deleting], and can be
// pruned again to learn whether it is gone. So can one that fails because an
// admission webhook refuses, such as while others that refer to it are going.
// While an object of one kind is not gone, those of the kinds that it may refer
// to, which come later in the order, are left, and reported as [Deleting] too if
// they are there and ours.
//
// report and the error returned are as with [Cluster.Apply].
func (c *Cluster) Prune(ctx context.Context, objs []Object, report func(Result)) error {
	conn, err := c.connection()
	if err != nil {
		return err
	}
	op := &operation{cluster: c, conn: conn, report: report}
	order, of := batches(objs)
	slices.Reverse(order)
	left, at := "", 0 // an object that is not gone, and the rank of its kind
	op.report = func(r Result) {
		if left == "" && (r.Outcome == Deleting || r.Outcome == Failed && !r.Permanent) {
			left, at = r.Kind+"/"+r.Name, rank(&r.Object)
		}
		report(r)
	}
	for _, b := range order {
		objs := op.sendable(of[b])
		first := ""
		if len(objs) > 0 && rank(&objs[0]) < at {
			first = left
		}
		err := each(ctx, conn, objs, func(ctx context.Context, o Object) error { return op.prune(ctx, b, o, first) })
		if err != nil {
			return err
		}
	}
	return nil
}

// prune deletes one object, unless another one has to go first.
func (op *operation) prune(ctx context.Context, b batch, o Object, first string) error {
	for try := 1; ; try++ {
		limit := op.conn.readLimit
		live, err := op.get(ctx, b, o.Name)
		if err == nil {
			if entry := managedEntry(live.Object); entry == nil {
				op.done(Result{Object: o, Outcome: Skipped, Err: fmt.Errorf("it was not applied by %s but by %s", Manager, managers(live))})
				return nil
			}
			if first != "" && live.GetDeletionTimestamp() == nil {
				op.done(Result{Object: o, Outcome: Deleting, Err: fmt.Errorf("it waits until %s is gone", first)})
				return nil
			}
			if live.GetDeletionTimestamp() == nil {
				limit = op.conn.writeLimit
				err = op.delete(ctx, b, live)
			}
		}
		switch {
		case err == nil:
			r := Result{Object: o, Outcome: Pruned}
			// The precondition says that these were all.
			if f := live.GetFinalizers(); len(f) > 0 || live.GetDeletionTimestamp() != nil {
				r.Outcome, r.Err = Deleting, fmt.Errorf("it waits for finalizers (%s)", strings.Join(f, ", "))
			}
			op.done(r)
			return nil
		case apierrors.IsNotFound(err):
			op.done(Result{Object: o, Outcome: Gone})
			return nil
		case apierrors.IsConflict(err) && try < maxConflicts:
			continue
		}
		stop, refusal := op.conn.judge(ctx, err, limit)
		if stop == nil {
			op.fail(o, refusal)
		}
		return stop
	}
}

// delete deletes live as it was seen, and not what may have taken its place.
func (op *operation) delete(ctx context.Context, b batch, live *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, op.conn.writeLimit)
	defer cancel()
	uid, version, background := live.GetUID(), live.GetResourceVersion(), metav1.DeletePropagationBackground
	return op.resource(b).Delete(ctx, live.GetName(), metav1.DeleteOptions{
		Preconditions:     &metav1.Preconditions{UID: &uid, ResourceVersion: &version},
		PropagationPolicy: &background,
	})
}

// managers names an object's field managers.
func managers(live *unstructured.Unstructured) string {
	var names []string
	for _, e := range live.GetManagedFields() {
		if e.Subresource == "" && !slices.Contains(names, e.Manager) {
			names = append(names, e.Manager)
		}
	}
	if names == nil {
		return "somebody who left no name"
	}
	return strings.Join(names, ", ")
}

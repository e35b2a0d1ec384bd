// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A Difference is what [Cluster.Apply] or [Cluster.Prune] would do to an object
// in the cluster.
type Difference struct {
	Object
	// Outcome is Created, Configured or Pruned; Drifted where the object is only
	// to be reported (ReportOnly), and would be left; Failed where the API server
	// would refuse it as the cluster is now.
	Outcome Outcome
	// Live is the object in the cluster, and Want what it would become, with
	// all that the API server, its defaults and its webhooks make of it; nil
	// where there is or would be none. Both are without status and without what
	// the API server enters by itself. For Configured they are the same where
	// only fields would become ours that have our values already. For Failed,
	// Want is the object as it is to be applied.
	Live, Want map[string]any
	// Field is, for Configured, a field in which the live object differs.
	Field string
	// Err says why, for Failed.
	Err error
}

// Diff says what applying objs and pruning gone would change, and changes
// nothing. What differs is found as [Cluster.Apply] finds it; what would come
// of it is asked of the API server by a dry run, so that defaults and webhooks
// have their say. Objects that are as wanted are not reported, nor are those of
// gone that are not there, are not ours, or are going already. The others are,
// kind by kind in the order of [Sort], by name; then those of gone in the
// reverse order.
//
// A dry run looks at each object beside what is live, not beside the others in
// objs: one may be refused for the want of another that would come before it.
//
// report is called from one goroutine. The error is as with [Cluster.Apply].
func (c *Cluster) Diff(ctx context.Context, objs, gone []Object, report func(Difference)) error {
	conn, err := c.connection()
	if err != nil {
		return err
	}
	order, of := batches(objs)
	for _, b := range order {
		err := collect(report, func(add func(Difference)) error {
			op := &operation{cluster: c, conn: conn, report: func(r Result) {
				if r.Outcome != Unchanged {
					add(Difference{Object: r.Object, Outcome: r.Outcome, Want: authored(r.Value), Err: r.Err})
				}
			}}
			tasks, err := op.list(ctx, b, op.sendable(of[b]), math.MaxInt)
			if err != nil {
				return err
			}
			return each(ctx, conn, tasks, func(ctx context.Context, t task) error { return op.foresee(ctx, b, t, add) })
		})
		if err != nil {
			return err
		}
	}
	order, of = batches(gone)
	slices.Reverse(order)
	for _, b := range order {
		err := collect(report, func(add func(Difference)) error {
			op := &operation{cluster: c, conn: conn, report: func(r Result) {
				add(Difference{Object: r.Object, Outcome: r.Outcome, Err: r.Err})
			}}
			return each(ctx, conn, op.sendable(of[b]), func(ctx context.Context, o Object) error { return op.foreseeEnd(ctx, b, o, add) })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// collect gathers the differences of a batch, whose order is by chance, and
// reports them by name.
func collect(report func(Difference), do func(add func(Difference)) error) error {
	var mu sync.Mutex
	var all []Difference
	err := do(func(d Difference) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, d)
	})
	slices.SortFunc(all, func(a, b Difference) int { return cmp.Compare(a.Name, b.Name) })
	for _, d := range all {
		report(d)
	}
	return err
}

// foresee finds out what sending an object would make of the live one.
func (op *operation) foresee(ctx context.Context, b batch, t task, add func(Difference)) error {
	body, err := json.Marshal(t.Value)
	if err != nil {
		add(Difference{Object: t.Object, Outcome: Failed, Want: authored(t.Value), Err: err})
		return nil
	}
	for try := 1; ; try++ {
		d := Difference{Object: t.Object, Outcome: Configured, Field: t.field}
		live, err := op.get(ctx, b, t.Name)
		switch {
		case err == nil:
			d.Live = authored(live.Object)
		case apierrors.IsNotFound(err) && !isUnknownResource(err):
			d.Outcome, live = Created, &unstructured.Unstructured{}
		default:
			return op.refused(ctx, b, t, nil, err, add)
		}
		result, err := op.patch(ctx, b, t.Name, body, metav1.DryRunAll)
		if err != nil {
			return op.refused(ctx, b, t, d.Live, err, add)
		}
		if d.Live != nil && result.GetResourceVersion() != live.GetResourceVersion() && try < maxConflicts {
			continue // somebody wrote to it in between
		}
		d.Want = authored(result.Object)
		if !equal(d.Live, d.Want) {
			keepEmpty(d.Want, authored(t.Value))
		} else if equal(managedEntry(live.Object)["fieldsV1"], managedEntry(result.Object)["fieldsV1"]) {
			return nil // what is sent changes nothing
		}
		if t.ReportOnly {
			d.Outcome = Drifted
		}
		add(d)
		return nil
	}
}

// foreseeEnd finds out whether an object would be deleted.
func (op *operation) foreseeEnd(ctx context.Context, b batch, o Object, add func(Difference)) error {
	o.Value = nil
	live, err := op.get(ctx, b, o.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return op.refused(ctx, b, task{Object: o}, nil, err, add)
	}
	if managedEntry(live.Object) == nil || live.GetDeletionTimestamp() != nil {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, op.conn.writeLimit)
	defer cancel()
	err = op.resource(b).Delete(limited, o.Name, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil:
		add(Difference{Object: o, Outcome: Pruned, Live: authored(live.Object)})
	case !apierrors.IsNotFound(err):
		return op.refused(ctx, b, task{Object: o}, authored(live.Object), err, add)
	}
	return nil
}

// refused adds an object about which the API server would not answer, or
// returns what is wrong with all of the cluster.
func (op *operation) refused(ctx context.Context, b batch, t task, live map[string]any, err error, add func(Difference)) error {
	stop, refusal := op.conn.judge(ctx, err, op.conn.writeLimit)
	if stop == nil {
		add(Difference{Object: t.Object, Outcome: Failed, Live: live, Want: authored(t.Value), Field: t.field, Err: b.explain(refusal)})
	}
	return stop
}

// keepEmpty puts empty maps and lists of desired into want that are not in it:
// the first of the two patches that send makes for them takes them away.
func keepEmpty(want, desired map[string]any) {
	for k, v := range desired {
		w, present := want[k]
		switch d := v.(type) {
		case map[string]any:
			if m, ok := w.(map[string]any); ok {
				keepEmpty(m, d)
			} else if !present && len(d) == 0 && k != "labels" && k != "annotations" {
				want[k] = d
			}
		case []any:
			if !present && len(d) == 0 {
				want[k] = d
			}
		}
	}
}

// authored returns a copy of an object without its status and what the API
// server enters by itself; nil of nil.
func authored(object map[string]any) map[string]any {
	if object == nil {
		return nil
	}
	out := maps.Clone(object)
	delete(out, "status")
	if meta, ok := out["metadata"].(map[string]any); ok {
		meta = maps.Clone(meta)
		for k := range meta {
			if notOwnedMetadata[k] && k != "name" && k != "namespace" || strings.HasPrefix(k, "deletion") {
				delete(meta, k)
			}
		}
		out["metadata"] = meta
	}
	return out
}

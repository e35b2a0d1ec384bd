// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Refusal is what the API server says against an object that it was asked to
// take.
type Refusal struct {
	Object
	Err   error  // in its words, on one line
	Field string // the path of a field that it is about; "" where it names none

	// Webhook: an admission webhook refuses it, and may do so because of other
	// objects in the cluster. Else the object itself is wrong.
	Webhook bool
}

// Rehearse asks the API server by dry runs which of objs it would refuse, as
// the cluster is now. Only a verdict on the object is a refusal: that of the
// validation of its kind, of a ValidatingAdmissionPolicy or of an admission
// webhook. A missing right, a kind or namespace that is not there, a webhook
// that fails and the like are none.
//
// mute is why there was no verdict on some object, if so. The error is as with
// [Cluster.Apply]; what was refused until then is returned beside it.
func (c *Cluster) Rehearse(ctx context.Context, objs []Object) (refused []Refusal, mute, err error) {
	conn, err := c.connection()
	if err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	op := &operation{cluster: c, conn: conn, report: func(r Result) { mute = r.Err }}
	order, of := batches(objs)
	for _, b := range order {
		err := each(ctx, conn, op.sendable(of[b]), func(ctx context.Context, o Object) error {
			r, err := op.rehearse(ctx, b, o)
			if err != nil {
				stop, why := conn.judge(ctx, err, conn.writeLimit)
				if stop != nil {
					return stop
				}
				err = b.explain(why)
			}
			mu.Lock()
			defer mu.Unlock()
			if r != nil {
				refused = append(refused, *r)
			}
			mute = cmp.Or(err, mute)
			return nil
		})
		if err != nil {
			return refused, mute, err
		}
	}
	return refused, mute, nil
}

// rehearse asks about one object. Where the API server says neither yes nor no
// to it, there is an error.
func (op *operation) rehearse(ctx context.Context, b batch, o Object) (*Refusal, error) {
	body, err := json.Marshal(o.Value)
	if err != nil {
		return nil, nil // applying will say so
	}
	_, err = op.patch(ctx, b, o.Name, body, metav1.DryRunAll)
	is, webhook := isVerdict(err)
	if !is {
		return nil, err
	}
	// One that is being deleted is not what it will be changed from.
	if live, err := op.get(ctx, b, o.Name); err == nil && live.GetDeletionTimestamp() != nil {
		return nil, nil
	} else if err != nil && (!apierrors.IsNotFound(err) || isUnknownResource(err)) {
		return nil, err
	}
	return &Refusal{Object: o, Err: oneLine(err), Field: firstField(err), Webhook: webhook}, nil
}

// isVerdict reports whether err says that the object which was sent is refused
// for what it is, and whether an admission webhook says so.
func isVerdict(err error) (is, webhook bool) {
	answer, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return false, false
	}
	code, message := answer.ErrStatus.Code, answer.ErrStatus.Message
	if strings.HasPrefix(message, "admission webhook ") {
		// (Codes of its own mean that it could not tell.)
		judged := code == http.StatusBadRequest || code == http.StatusForbidden || code == http.StatusUnprocessableEntity
		return judged && strings.Contains(message, `" denied the request`), true
	}
	if _, rest, ok := strings.Cut(message, ": ValidatingAdmissionPolicy '"); ok {
		_, why, ok := strings.Cut(rest, "' denied request: ")
		// What is wrong with the policy is not wrong with the object.
		return ok && code < http.StatusInternalServerError && !strings.HasPrefix(why, "failed to configure "), false
	}
	return code == http.StatusUnprocessableEntity && answer.ErrStatus.Reason == metav1.StatusReasonInvalid, false
}

// firstField returns the first field that an answer names.
func firstField(err error) string {
	answer, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || answer.ErrStatus.Details == nil {
		return ""
	}
	for _, cause := range answer.ErrStatus.Details.Causes {
		if cause.Field != "" && cause.Field != "<nil>" {
			return cause.Field
		}
	}
	return ""
}

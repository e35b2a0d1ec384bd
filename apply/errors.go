// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// judge tells what a request's error is about. stop is about the cluster as a
// whole, and ends the operation; refusal is about this request alone.
func (conn *connection) judge(ctx context.Context, err error, limit time.Duration) (stop, refusal error) {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx), nil

	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("cluster %s does not accept the credentials in %s (expired or revoked?): %w", conn.server, conn.kubeconfig, oneLine(err)), nil

	case apierrors.IsTooManyRequests(err):
		return fmt.Errorf("cluster %s is overloaded: %w", conn.server, oneLine(err)), nil

	case isAnswer(err):
		return nil, oneLine(err)

	case errors.Is(err, context.DeadlineExceeded):
		// (It may have said so just as the time began to run.)
		if time.Since(time.Unix(0, conn.busy.Load())) < 2*limit {
			return fmt.Errorf("cluster %s is overloaded: it puts requests off for longer than %v", conn.server, limit), nil
		}
		// One request that gets no answer is not a cluster that gives none:
		// an admission webhook may hang.
		if limit == conn.writeLimit && conn.alive(ctx) {
			return nil, fmt.Errorf("no answer within %v, though the API server does answer other requests; an admission webhook may hang", limit)
		}
		// Should the connection be dead, the next operation is to have its own.
		conn.closeIdle()
		return fmt.Errorf("cluster %s gives no answer within %v", conn.server, limit), nil
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // the URL says nothing more
	}
	return fmt.Errorf("cluster %s: %w", conn.server, oneLine(err)), nil
}

// isAnswer reports whether err is an API server's answer, and not the lack
// of one.
func isAnswer(err error) bool {
	_, ok := errors.AsType[*apierrors.StatusError](err)
	return ok
}

// isUnknownResource reports whether err says that the API server does not
// serve the resource at all. (It says 404 to that without a Status object,
// and client-go notes that on the one that it makes up.)
func isUnknownResource(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// isPermanent reports whether the same object would be refused again however
// often it is sent. What admission webhooks refuse is not, as they judge it
// beside the other objects in the cluster.
func isPermanent(err error) bool {
	answer, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return false
	}
	message := answer.ErrStatus.Message
	switch answer.ErrStatus.Code {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return !strings.HasPrefix(message, "admission webhook ")
	case http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return true
	case http.StatusInternalServerError:
		// An unknown field, or a value of the wrong type: the schema that
		// server-side apply merges by does not fit, and that has no code of
		// its own.
		return strings.HasPrefix(message, "failed to create typed patch object")
	}
	return false
}

// oneLine puts an error's message on one line.
func oneLine(err error) error {
	if !strings.ContainsAny(err.Error(), "\r\n") {
		return err
	}
	return lined{strings.Join(strings.Fields(err.Error()), " "), err}
}

type lined struct {
	text string
	error
}

func (e lined) Error() string { return e.text }
func (e lined) Unwrap() error { return e.error }

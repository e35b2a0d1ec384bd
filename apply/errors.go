// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
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
		return fmt.Errorf("cluster %s does not accept the credentials in %s (expired or revoked?): %w", conn.server, strings.TrimPrefix(conn.origin, "kubeconfig "), oneLine(err)), nil

	case apierrors.IsTooManyRequests(err):
		return fmt.Errorf("cluster %s is overloaded: %w", conn.server, oneLine(err)), nil

	case isAnswer(err):
		if code := failing(err); code != 0 {
			return fmt.Errorf("cluster %s answers with HTTP %d %s", conn.server, code, http.StatusText(code)), nil
		}
		if (missingRight(err) != "" || isUnknownResource(err)) && !conn.ready(ctx) {
			return fmt.Errorf("cluster %s is not ready: it is starting, or unwell (kubectl get --raw '/readyz?verbose' says more)", conn.server), nil
		}
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
	return fmt.Errorf("cluster %s: %w", conn.server, plain(oneLine(err))), nil
}

// isAnswer reports whether err is an API server's answer, and not the lack
// of one.
func isAnswer(err error) bool {
	_, ok := errors.AsType[*apierrors.StatusError](err)
	return ok
}

// failing returns the HTTP status of an answer that is about the API server as
// a whole, or comes from a proxy before it; 0 for any other. What an API server
// has to say of an object, also that a webhook failed, is a Status object.
func failing(err error) int {
	answer, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return 0
	}
	switch code := int(answer.ErrStatus.Code); code {
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return code
	case http.StatusInternalServerError, http.StatusGatewayTimeout:
		if apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse) {
			return code
		}
	}
	return 0
}

// missingRight returns who may not do what, if err says that RBAC does not
// allow it; the empty string also for what a webhook or a policy forbids.
func missingRight(err error) string {
	if !apierrors.IsForbidden(err) {
		return ""
	}
	_, who, ok := strings.Cut(err.Error(), " is forbidden: User ")
	if !ok {
		return ""
	}
	// Whether an object is listed or got depends on how many there are to look
	// at; the trouble is the same one.
	return "User " + strings.Replace(who, "cannot list resource", "cannot get resource", 1)
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

// plain words an error of the network for an operator, and the same way each
// time.
func plain(err error) error {
	text := ""
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		text = fmt.Sprintf("cannot find the address of %s: the name server fails", e.Name)
		if e.IsNotFound {
			text = fmt.Sprintf("cannot find the address of %s: no such host", e.Name)
		}
	} else if e, ok := errors.AsType[*net.OpError](err); ok {
		why := e.Err.Error()
		if call, ok := errors.AsType[*os.SyscallError](e.Err); ok {
			why = call.Err.Error()
		}
		switch e.Op {
		case "dial":
			text = fmt.Sprintf("cannot connect to %s: %s", e.Addr, why)
		case "read", "write":
			text = "the connection broke off: " + why
		}
	} else if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		text = "it closed the connection in the middle of an answer"
	} else if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		text = "its certificate expired at " + e.Cert.NotAfter.UTC().Format("2006-01-02 15:04 MST")
		if time.Now().Before(e.Cert.NotBefore) {
			text = fmt.Sprintf("its certificate is not valid before %s: is the clock of this host right?", e.Cert.NotBefore.UTC().Format("2006-01-02 15:04 MST"))
		}
	} else if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		text = "nobody who is trusted vouches for its certificate: is certificate-authority in the kubeconfig right?"
	}
	if text == "" {
		return err
	}
	return lined{text, err}
}

// ports are the two ends of a connection as package net writes them in its
// errors, which servers (of their webhooks, say) pass on to us. The first one
// is another one each time.
var ports = regexp.MustCompile(`[0-9a-fA-F.:\[\]]+:[0-9]+->`)

// oneLine puts an error's message on one line, without what differs each time.
func oneLine(err error) error {
	text := ports.ReplaceAllString(strings.Join(strings.Fields(err.Error()), " "), "")
	if text == err.Error() {
		return err
	}
	return lined{text, err}
}

type lined struct {
	text string
	error
}

func (e lined) Error() string { return e.text }
func (e lined) Unwrap() error { return e.error }

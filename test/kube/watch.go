// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A Watch is a stream of the changes of a resource, as the API server sends
// them to its clients.
type Watch struct {
	path string
	body io.Closer
	json *json.Decoder
}

// An Event is one change
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
type Event struct {
	Type   string // ADDED, MODIFIED, DELETED; ERROR, with a Status as the object
	Object map[string]any
}

// Watch follows a resource, as named for [Server.Get], in a namespace, or in all
// of them when that is "". The first event is the first change after the call.
// The stream lasts until it is closed or the context ends, or the API server
// ends it, which it does after 30 minutes or more.
func (s *Server) Watch(ctx context.Context, resource, namespace string) (*Watch, error) {
	path := Path(resource, namespace)
	answer, err := s.Do(http.MethodGet, path+"?limit=1", "", nil)
	if err != nil {
		return nil, err
	}
	var list struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return nil, fmt.Errorf("GET %s: %w", path, err)
	}
	path += "?watch=true&resourceVersion=" + list.Metadata.ResourceVersion
	unlimited := http.Client{Transport: s.admin.Transport}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
		if err != nil {
			return nil, err
		}
		resp, err := unlimited.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusOK {
			return &Watch{path, resp.Body, json.NewDecoder(resp.Body)}, nil
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusTooManyRequests {
			return nil, fmt.Errorf("GET %s: %w", path, &StatusError{Code: resp.StatusCode})
		}
		// The cache that watches are served from is not filled yet.
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("GET %s: %w", path, ctx.Err())
		}
	}
}

// Next waits for the next event.
func (w *Watch) Next() (Event, error) {
	var e Event
	if err := w.json.Decode(&e); err != nil {
		return Event{}, fmt.Errorf("GET %s: %w", w.path, err)
	}
	return e, nil
}

// Close ends the stream: a Next that waits returns an error.
func (w *Watch) Close() { w.body.Close() }

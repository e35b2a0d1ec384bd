// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// client returns an HTTPS client with the certificate of the user: admin or
// hhwatchd.
func client(dir, user string) (*http.Client, error) {
	pki := filepath.Join(dir, "pki")
	ca, err := os.ReadFile(filepath.Join(pki, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, user+".crt"), filepath.Join(pki, user+".key"))
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
		},
	}, nil
}

// StatusError is the API server's answer to a request that it refused
// (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/).
type StatusError struct {
	Code    int    // of HTTP
	Reason  string // such as NotFound, Forbidden, Conflict
	Message string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.Code, cmp.Or(e.Reason, http.StatusText(e.Code)), e.Message)
}

// Do sends a request as the administrator and returns the body of the answer;
// the error is a *[StatusError] when the API server refused it. The path may
// have a query; contentType may be "" where there is no body.
func (s *Server) Do(method, path, contentType string, body []byte) ([]byte, error) {
	return s.do(s.admin, method, path, contentType, body)
}

// do makes a request, again where the server asks for that (429): one that has
// just started does so for a kind whose objects it has not read yet.
func (s *Server) do(c *http.Client, method, path, contentType string, body []byte) ([]byte, error) {
	for try := 1; ; try++ {
		answer, wait, err := s.try(c, method, path, contentType, body)
		if wait == 0 || try == 30 {
			return answer, err
		}
		time.Sleep(wait)
	}
}

// try makes a request once. It returns an error and how long to wait if the
// server puts it off.
func (s *Server) try(c *http.Client, method, path, contentType string, body []byte) (answer []byte, wait time.Duration, err error) {
	req, err := http.NewRequest(method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		return nil, 0, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode >= 300 {
		status := &StatusError{Code: resp.StatusCode, Message: string(answer)}
		json.Unmarshal(answer, status) // what is no Status object stays the message
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && resp.StatusCode == http.StatusTooManyRequests {
			wait = time.Duration(seconds) * time.Second
		}
		return nil, wait, fmt.Errorf("%s %s: %w", method, path, status)
	}
	return answer, 0, nil
}

// Get returns an object. The resource is its group, version and plural, such as
// "vpc.githedgehog.com/v1beta1/vpcs", or "v1/secrets" for the core group.
func (s *Server) Get(resource, namespace, name string) (map[string]any, error) {
	answer, err := s.Do(http.MethodGet, Path(resource, namespace)+"/"+name, "", nil)
	if err != nil {
		return nil, err
	}
	var object map[string]any
	return object, json.Unmarshal(answer, &object)
}

// List returns all objects of a resource, as named for [Server.Get], in a
// namespace, or in all of them when that is "".
func (s *Server) List(resource, namespace string) ([]map[string]any, error) {
	answer, err := s.Do(http.MethodGet, Path(resource, namespace), "", nil)
	if err != nil {
		return nil, err
	}
	var list struct{ Items []map[string]any }
	return list.Items, json.Unmarshal(answer, &list)
}

// Path returns the URL path of a resource, as named for [Server.Get], in a
// namespace ("" for all of them, and for what has none).
func Path(resource, namespace string) string {
	prefix := "/apis/"
	if strings.Count(resource, "/") == 1 {
		prefix = "/api/"
	}
	i := strings.LastIndex(resource, "/")
	if namespace == "" {
		return prefix + resource
	}
	return prefix + resource[:i] + "/namespaces/" + namespace + resource[i:]
}

// Metric returns the sum of the series of one of the API server's own metrics
// that have all of the labels; 0 when there is none, since most appear with
// their first event. Those of a server start at 0 again with each restart.
//
// Requests are counted by apiserver_request_total, with the labels verb (GET,
// LIST, WATCH, POST, PUT, PATCH, DELETE, and APPLY for a server-side apply, which
// is not counted under PATCH), group, version, resource, subresource, code and
// dry_run. One is counted when its answer has been sent, so perhaps a moment
// after the client has it.
func (s *Server) Metric(name string, labels map[string]string) (float64, error) {
	text, err := s.Do(http.MethodGet, "/metrics", "", nil)
	if err != nil {
		return 0, err
	}
	return sum(bytes.NewReader(text), name, labels)
}

// sum adds up the matching series of a text in Prometheus' exposition format
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
func sum(text io.Reader, name string, labels map[string]string) (float64, error) {
	total := 0.0
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 1<<20)
next:
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		have, rest, err := parseLabels(rest)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", lines.Text(), err)
		}
		for k, v := range labels {
			if have[k] != v {
				continue next
			}
		}
		value, _, _ := strings.Cut(strings.TrimSpace(rest), " ") // a time may follow
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", lines.Text(), err)
		}
		total += f
	}
	return total, lines.Err()
}

// parseLabels reads {name="value",...} if s starts with it, and returns what
// follows. Names that are there with an empty value are the same as none.
func parseLabels(s string) (labels map[string]string, rest string, err error) {
	labels = make(map[string]string)
	rest, ok := strings.CutPrefix(s, "{")
	for ok {
		if after, end := strings.CutPrefix(rest, "}"); end {
			return labels, after, nil
		}
		name, value, found := strings.Cut(rest, "=")
		quoted, err := strconv.QuotedPrefix(value)
		if !found || err != nil {
			return nil, "", fmt.Errorf("labels not understood at %q", rest)
		}
		unquoted, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, "", fmt.Errorf("labels not understood at %q", rest)
		}
		labels[name] = unquoted
		rest = strings.TrimPrefix(value[len(quoted):], ",")
	}
	return labels, s, nil
}

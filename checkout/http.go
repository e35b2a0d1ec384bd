// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	uploadPack  = "git-upload-pack"
	receivePack = "git-receive-pack"
)

// An httpRemote speaks git's smart protocol over HTTP (gitprotocol-http(5)).
// It keeps its connection between requests. Where the server knows version 2
// of the protocol, asking for a branch is one request whose size does not
// depend on the number of refs.
type httpRemote struct {
	given location
	auth  Auth
	proxy *url.URL // nil for that of the environment
	stall patience

	base   *url.URL // where the repository is, after redirects
	upload *advert  // what the server said about fetching; nil before it did
	client *http.Client
	caFile os.FileInfo // the CA file that the client was made with

	token appToken // of the GitHub App, if that is how we authenticate
}

func newHTTPRemote(loc location, o Options, stall patience) (*httpRemote, error) {
	h := &httpRemote{given: loc, auth: o.Auth, stall: stall, base: loc.url}
	if o.Proxy != "" {
		var err error
		if h.proxy, err = parseProxy(o.Proxy); err != nil {
			return nil, fmt.Errorf("the proxy: %w", err)
		}
	}
	return h, nil
}

func (h *httpRemote) close() {
	if h.client != nil {
		h.client.CloseIdleConnections()
	}
}

// connect makes the client, anew if the CA file has changed.
func (h *httpRemote) connect() error {
	var ca os.FileInfo
	if h.auth.CAFile != "" {
		var err error
		if ca, err = os.Stat(h.auth.CAFile); err != nil {
			return fmt.Errorf("reading the trusted certificates: %w", err)
		}
	}
	if h.client != nil && (ca == nil || os.SameFile(ca, h.caFile) && ca.ModTime().Equal(h.caFile.ModTime()) && ca.Size() == h.caFile.Size()) {
		return nil
	}
	var roots *x509.CertPool // nil means the system's
	if ca != nil {
		pem, err := os.ReadFile(h.auth.CAFile)
		if err != nil {
			return fmt.Errorf("reading the trusted certificates: %w", err)
		}
		if roots, err = x509.SystemCertPool(); err != nil {
			roots = x509.NewCertPool()
		}
		if !roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s holds no certificate in PEM", h.auth.CAFile)
		}
	}
	h.close()
	h.caFile = ca
	config := &tls.Config{RootCAs: roots}
	if h.auth.ClientCertFile != "" {
		config.GetClientCertificate = h.auth.clientCertificate
	}
	h.client = &http.Client{
		Transport: &http.Transport{
			Proxy:               h.proxyFor,
			DialContext:         dialer.DialContext,
			TLSClientConfig:     config,
			TLSHandshakeTimeout: dialLimit,
			MaxIdleConnsPerHost: 2,
			IdleConnTimeout:     15 * time.Minute,
			// Over HTTP/2 it is a matter of luck whether we hear why a server
			// does not accept our certificate (RFC 8446, 6.2).
			ForceAttemptHTTP2: h.auth.ClientCertFile == "",
			HTTP2:             &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
			// Packs are compressed, and what else there is is small.
			DisableCompression: true,
		},
		CheckRedirect: h.checkRedirect,
	}
	return nil
}

// checkRedirect follows redirects as git does by default
// (http.followRedirects=initial): only of the first request of a service,
// never from https to http. Credentials do not go to another host.
func (h *httpRemote) checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case via[0].Method != http.MethodGet:
		return http.ErrUseLastResponse
	case len(via) > 5:
		return errors.New("too many redirects")
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("redirected from https to %s", req.URL.Scheme)
	case !strings.HasSuffix(req.URL.Path, "/info/refs"):
		return errors.New("redirected to something that is not a git repository")
	}
	if req.URL.Host != h.given.url.Host {
		req.Header.Del("Authorization")
	}
	return nil
}

// ask sends a request for a service and hands the answer to read. A GET asks
// for the advertisement, a POST is a request of the service itself. Whatever
// again says may be sent twice.
func (h *httpRemote) ask(ctx context.Context, service string, body []byte, again bool, read func(*bufio.Reader) error) (err error) {
	if err := h.connect(); err != nil {
		return err
	}
	ctx, w := newWatch(ctx, h.stall)
	defer w.stop()
	defer func() { err = cause(ctx, err) }()

	method, u, accept := http.MethodGet, h.base.JoinPath("info/refs"), "application/x-"+service+"-advertisement"
	if body == nil {
		q := u.Query()
		q.Set("service", service)
		u.RawQuery = q.Encode()
	} else {
		method, u, accept = http.MethodPost, h.base.JoinPath(service), "application/x-"+service+"-result"
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	if !again {
		// It may be large, and the line slow. What may be sent twice is left as
		// it is: the client does so only with bodies that it knows.
		req.Body = io.NopCloser(touching{Reader: req.Body, w: w})
	}
	req.Header.Set("User-Agent", "git/2 ("+ourName+")")
	req.Header.Set("Accept", accept)
	if body != nil {
		req.Header.Set("Content-Type", "application/x-"+service+"-request")
	}
	if service == uploadPack && (body == nil || h.upload != nil && h.upload.v2) {
		req.Header.Set("Git-Protocol", "version=2")
	}
	if again {
		// Sent to nobody; it allows the client to repeat the request when the
		// connection that it kept turns out to be dead (http.Transport).
		req.Header["X-Idempotency-Key"] = nil
	}
	if err := h.authorize(ctx, req); err != nil {
		return err
	}
	reused := false
	trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = reused || c.Reused }}
	req = req.WithContext(httptrace.WithClientTrace(ctx, trace))
	res, err := h.client.Do(req)
	if err != nil && again && reused && ctx.Err() == nil {
		// The connection that was kept had gone. Over HTTP/1.1 the client sees
		// to that, over HTTP/2 only if it had noticed before.
		if req.GetBody != nil {
			req.Body, _ = req.GetBody() // never fails
		}
		res, err = h.client.Do(req)
	}
	if err != nil {
		// Some of what the client says can be told by its text only.
		switch err = bare(err); {
		case err.Error() == http.StatusText(http.StatusProxyAuthRequired): // to CONNECT
			return errProxyAuth
		case strings.HasSuffix(err.Error(), "server gave HTTP response to HTTPS client"):
			return errors.New("it does not speak TLS: is it http:// or another port?")
		}
		return h.auth.certificateRefused(err)
	}
	defer res.Body.Close()
	if err := h.check(req, res, accept); err != nil {
		return err
	}
	if body == nil && res.Request.URL.String() != u.String() {
		h.base = strippedOf(res.Request.URL, "/info/refs")
	}
	r := bufio.NewReaderSize(touching{Reader: res.Body, w: w}, 64<<10)
	if err := read(r); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	// The connection is kept only if the answer was read to its end.
	io.CopyN(io.Discard, r, 64<<10)
	return nil
}

// strippedOf returns u without the suffix of its path and without query.
func strippedOf(u *url.URL, suffix string) *url.URL {
	out := *u
	out.RawQuery = ""
	out.Path = strings.TrimSuffix(out.Path, suffix)
	out.RawPath = strings.TrimSuffix(out.RawPath, suffix)
	return &out
}

// check makes an error of an answer that is none.
func (h *httpRemote) check(req *http.Request, res *http.Response, accept string) error {
	code := fmt.Sprintf("HTTP %d", res.StatusCode)
	said := ""
	if typ, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); typ == "text/plain" {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4*maxSaid))
		if said = oneLine(withoutSecrets(string(text), req)); said != "" {
			said = ": " + said
		}
	}
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		h.token = appToken{} // it may have been revoked: the next request gets another one
		return fmt.Errorf("%w (%s): %s", ErrAuth, code, h.auth.unauthorized(h.given.url.Hostname()))
	case http.StatusProxyAuthRequired:
		return errProxyAuth
	case http.StatusForbidden:
		return &forbiddenError{code + said}
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("%w (%s): check the URL, and whether these credentials may see it", ErrNoRepository, code)
	default:
		return fmt.Errorf("it answers with %s %s%s", code, http.StatusText(res.StatusCode), said)
	}
	if typ, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); typ != accept {
		return fmt.Errorf("%w (it is of the type %q)", errProtocol, oneLine(typ))
	}
	return nil
}

// A forbiddenError is HTTP's 403: the credentials are good, but not for this.
type forbiddenError struct{ said string }

func (e *forbiddenError) Error() string {
	return "the remote does not allow this with these credentials (" + e.said + ")"
}

func (e *forbiddenError) Is(target error) bool { return target == ErrAuth }

// greet asks what the server can do; with version 0 the answer has its refs.
func (h *httpRemote) greet(ctx context.Context, prefixes ...string) error {
	h.upload = nil
	return h.ask(ctx, uploadPack, nil, true, func(r *bufio.Reader) (err error) {
		h.upload, err = readAdvert(r, uploadPack, prefixes...)
		return err
	})
}

func (h *httpRemote) list(ctx context.Context, prefixes ...string) (listing, error) {
	if h.upload == nil || !h.upload.v2 {
		if err := h.greet(ctx, prefixes...); err != nil {
			return listing{}, err
		}
		if !h.upload.v2 {
			return h.upload.listing, nil
		}
	}
	var body bytes.Buffer
	if err := writeLsRefs(&body, h.upload, prefixes); err != nil {
		return listing{}, err
	}
	var l listing
	err := h.ask(ctx, uploadPack, body.Bytes(), true, func(r *bufio.Reader) (err error) {
		l, err = readLsRefs(r, prefixes)
		return err
	})
	if err != nil {
		// The server may be another one by now: be introduced again.
		h.upload, h.base = nil, h.given.url
	}
	return l, err
}

func (h *httpRemote) fetch(ctx context.Context, want oid, haves []oid, sink func(io.Reader) error) error {
	if h.upload == nil {
		if err := h.greet(ctx); err != nil {
			return err
		}
	}
	var body bytes.Buffer
	if err := writeFetch(&body, h.upload, want, haves); err != nil {
		return err
	}
	return h.ask(ctx, uploadPack, body.Bytes(), true, func(r *bufio.Reader) error {
		pack, err := readPack(r, h.upload.v2)
		if err != nil {
			return err
		}
		return sink(pack)
	})
}

func (h *httpRemote) push(ctx context.Context, ref string, decide func(old oid) (*update, error)) error {
	var a *advert
	err := h.ask(ctx, receivePack, nil, true, func(r *bufio.Reader) (err error) {
		a, err = readAdvert(r, receivePack, ref)
		return err
	})
	if err != nil {
		return err
	}
	old := a.refs[ref]
	u, err := decide(old)
	if err != nil || u == nil {
		return err
	}
	// The request is held in memory: it has the size of what was committed
	// since the last push.
	var body bytes.Buffer
	if err := writeUpdate(&body, a, ref, old, u.new); err != nil {
		return err
	}
	if err := u.pack(&body, true); err != nil {
		return err
	}
	return h.ask(ctx, receivePack, body.Bytes(), false, func(r *bufio.Reader) error {
		return readReport(r, a, ref, new(transcript))
	})
}

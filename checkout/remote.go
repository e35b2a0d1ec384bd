// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// Auth says how to authenticate to a remote. The files are read each time
// that a connection or a request needs them, so that a rotated secret is
// picked up. The content of none of them ever gets into an error.
type Auth struct {
	// Username is the user for HTTP (default "git") and for SSH, where the
	// URL names none (default "git").
	Username string
	// PasswordFile holds the password or token for HTTP basic authentication
	// (RFC 7617). Space around it is dropped.
	PasswordFile string
	// TokenFile holds a bearer token for HTTP (RFC 6750), in place of a
	// password.
	TokenFile string
	// SSHKeyFile holds a private key for SSH, without a passphrase. Without
	// it the agent at SSH_AUTH_SOCK is asked.
	SSHKeyFile string
	// KnownHostsFile holds the host keys that are accepted (sshd(8)); all
	// others are refused. The default are ~/.ssh/known_hosts and
	// /etc/ssh/ssh_known_hosts.
	KnownHostsFile string
	// CAFile holds certificates, in PEM, that are trusted for HTTPS besides
	// the system's.
	CAFile string
}

// A remote is a repository elsewhere. There are three kinds: over HTTP, over
// SSH, and in a directory of this machine. Its methods are called one at a
// time. They keep to the context and to time limits of their own.
type remote interface {
	// list returns the refs that begin with one of the prefixes, or more.
	list(ctx context.Context, prefixes ...string) (listing, error)

	// fetch asks for the commit want, which list just found, and what it
	// needs besides what can be reached from the haves, and hands the pack to
	// sink.
	fetch(ctx context.Context, want oid, haves []oid, sink func(pack io.Reader) error) error

	// push asks what the ref is at, lets decide say what is to be done about
	// it, and does it. Nothing is done if decide returns nil.
	push(ctx context.Context, ref string, decide func(old oid) (*update, error)) error

	// close ends the connections that are kept.
	close()
}

// A listing is what a remote has.
type listing struct {
	refs map[string]oid
	head string // the ref that HEAD points to, if it is known
}

// An update moves a ref of a remote.
type update struct {
	new  oid
	pack func(w io.Writer, thin bool) error // writes the pack that goes with it
}

// How long a remote may be silent in the middle of a request. git sends
// something every 5 s while it works or has a hook work (uploadpack.keepAlive,
// receive.keepAlive in git-config(1)); a proxy before it may hold that back.
const (
	stallLimit   = time.Minute
	hurriedLimit = 10 * time.Second // while other work waits
)

// patience is how long a remote may be silent.
type patience struct {
	limit   time.Duration
	hurried time.Duration // the limit while waiting, if that is set, says so
	waiting func() bool
}

// newRemote returns the remote at rawURL.
func newRemote(rawURL string, auth Auth, stall patience) (remote, error) {
	loc, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	switch loc.scheme {
	case "http", "https":
		return newHTTPRemote(loc, auth, stall), nil
	case "ssh":
		return newSSHRemote(loc, auth, stall), nil
	}
	return &localRemote{path: loc.path}, nil
}

// A location is a parsed URL of a repository, in one of the forms of
// git-clone(1).
type location struct {
	scheme   string   // http, https, ssh or file
	url      *url.URL // for http and https, without user and password
	user     string
	password string
	host     string // for ssh, with the port if there is one
	path     string // for ssh and file
}

// parseURL takes what git-clone(1) takes: URLs with http, https, ssh and file,
// the short form [user@]host:path, and paths. The error does not repeat a
// password.
func parseURL(raw string) (location, error) {
	if raw == "" {
		return location{}, errors.New("no URL is given")
	}
	if !strings.Contains(raw, "://") {
		host, path, ok := strings.Cut(raw, ":")
		if !ok || host == "" || strings.Contains(host, "/") {
			abs, err := filepath.Abs(raw)
			return location{scheme: "file", path: abs}, err
		}
		loc := location{scheme: "ssh", host: host, path: path}
		if user, host, ok := strings.Cut(host, "@"); ok {
			loc.user, loc.host = user, host
		}
		return loc, loc.check()
	}
	u, err := url.Parse(raw)
	if err != nil {
		// A url.Error repeats the URL, with what secrets are in it.
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			err = ue.Err
		}
		return location{}, fmt.Errorf("the URL of the remote: %w", err)
	}
	loc := location{scheme: strings.ToLower(u.Scheme), host: u.Host, path: u.Path, user: u.User.Username()}
	loc.password, _ = u.User.Password()
	switch loc.scheme {
	case "http", "https":
		u.User, u.Fragment = nil, ""
		u.Path = strings.TrimRight(u.Path, "/")
		u.RawPath = strings.TrimRight(u.RawPath, "/")
		loc.url = u
	case "git+ssh", "ssh+git":
		loc.scheme = "ssh"
	case "ssh":
	case "file":
		if loc.host != "" && loc.host != "localhost" {
			return location{}, fmt.Errorf("the URL of the remote: file://%s is on another machine", loc.host)
		}
		loc.host = ""
		return loc, nil
	default:
		return location{}, fmt.Errorf("the URL of the remote: scheme %q is not known; there are https, http, ssh and file", loc.scheme)
	}
	if loc.scheme == "ssh" && strings.HasPrefix(loc.path, "/~") {
		loc.path = loc.path[1:] // relative to somebody's home
	}
	return loc, loc.check()
}

func (loc location) check() error {
	if loc.host == "" || strings.HasPrefix(loc.host, "-") {
		return errors.New("the URL of the remote: no host in it")
	}
	if loc.scheme == "ssh" && loc.path == "" {
		return errors.New("the URL of the remote: no path in it")
	}
	return nil
}

// redact returns rawURL without password, to be shown and to be written to a
// config file.
func redact(rawURL string) string {
	loc, err := parseURL(rawURL)
	switch {
	case err != nil:
		return "the remote"
	case loc.url != nil:
		return loc.url.String()
	case loc.scheme == "ssh" && loc.password != "":
		return "ssh://" + loc.user + "@" + loc.host + "/" + strings.TrimPrefix(loc.path, "/")
	}
	return rawURL
}

// secret reads a file with a secret, without the space around it.
func secret(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading a credential: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// A stalledError says that the other side was silent for too long. It does not
// say for how long, so that it reads the same each time.
type stalledError struct{}

func (stalledError) Error() string { return "it takes requests and then says nothing" }
func (stalledError) Timeout() bool { return true }

// A watch cancels a context when nothing has happened for a while.
type watch struct {
	patience
	last  atomic.Int64 // when something happened, in Unix nanoseconds
	timer *time.Timer
	stop  func()
}

// newWatch returns a context that ends, besides when ctx does, when touch has
// not been called for as long as p allows.
func newWatch(ctx context.Context, p patience) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{patience: p}
	w.touch()
	ready := make(chan struct{}) // w.timer is set
	w.timer = time.AfterFunc(w.step(), func() {
		<-ready
		limit := w.limit
		if w.waiting != nil && w.waiting() {
			limit = w.hurried
		}
		if time.Since(time.Unix(0, w.last.Load())) >= limit {
			cancel(stalledError{})
		} else if ctx.Err() == nil {
			w.timer.Reset(w.step())
		}
	})
	close(ready)
	w.stop = func() {
		w.timer.Stop()
		cancel(context.Canceled)
	}
	return ctx, w
}

// step is when to look again.
func (w *watch) step() time.Duration {
	left := w.limit - time.Since(time.Unix(0, w.last.Load()))
	if w.waiting != nil {
		left = min(left, w.hurried/10)
	}
	return max(left, time.Millisecond)
}

func (w *watch) touch() { w.last.Store(time.Now().UnixNano()) }

// cause returns why ctx ended, if it did, else err: whoever ends a connection
// gets to see an error of the connection.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// touching is a stream whose traffic a watch sees.
type touching struct {
	io.Reader
	io.Writer
	w *watch
}

func (t touching) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.w.touch()
	return n, err
}

func (t touching) Write(p []byte) (int, error) {
	n, err := t.Writer.Write(p)
	t.w.touch()
	return n, err
}

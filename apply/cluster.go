// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// Manager is the field manager under which objects are applied.
const Manager = "hhwatchd"

const (
	// How long one request may take, with the waits that the server asks for
	// by Retry-After. An API server gives an admission webhook up to 10 s by
	// default before it answers in the webhook's stead, and that answer says
	// more than a timeout of ours would.
	readLimit  = 10 * time.Second
	writeLimit = 15 * time.Second
	// probeLimit is for finding out whether the server still answers at all.
	probeLimit = 2 * time.Second
)

func init() {
	// client-go logs to standard error by itself. What matters comes back as
	// an error.
	klog.SetLogger(logr.Discard())
}

// Config says which cluster to work on.
type Config struct {
	Kubeconfig string // path of the kubeconfig file
	InCluster  bool   // instead: as a pod reaches its own cluster, see rest.InClusterConfig
	Context    string // context in it; empty: its current context
	Namespace  string // the fabric's namespace, in which Check looks at rights
}

// origin names what the connection is made of, for errors.
func (cfg *Config) origin() string {
	if cfg.InCluster {
		return "the pod's service account"
	}
	return "kubeconfig " + cfg.Kubeconfig
}

// A Cluster is a Kubernetes cluster. Its methods may be called from several
// goroutines at once.
type Cluster struct {
	cfg Config

	mu      sync.Mutex
	conn    *connection
	settled map[Key][sha256.Size]byte // see settle
	watch   *Watch                    // nil while there is none
}

// Connect reads the kubeconfig and makes ready to talk to its cluster. It
// makes no request; an error is about the kubeconfig.
//
// The kubeconfig and the files that it names (certificates, keys, tokens) are
// looked at again before each operation, so that rotated credentials are
// taken up without a restart. Files that cannot be read then make the
// operation fail.
func Connect(cfg Config) (*Cluster, error) {
	c := &Cluster{cfg: cfg, settled: map[Key][sha256.Size]byte{}}
	if _, err := c.connection(); err != nil {
		return nil, err
	}
	return c, nil
}

// Server returns the API server's URL, as the kubeconfig was last read.
func (c *Cluster) Server() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return ""
	}
	return c.conn.server
}

// Close closes idle connections. The Cluster can still be used, and will
// connect again.
func (c *Cluster) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.closeIdle()
	}
}

// connection returns the connection for an operation: a new one when a file
// that the last one was made of has changed.
func (c *Cluster) connection() (*connection, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		if c.conn.current() {
			return c.conn, nil
		}
		c.conn.closeIdle()
		c.conn = nil
	}
	conn, err := open(c.cfg)
	if err != nil {
		return nil, err
	}
	c.conn = conn
	return conn, nil
}

// watched returns the Watch, nil if there is none.
func (c *Cluster) watched() *Watch {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watch
}

// A connection is the clients made from one reading of the kubeconfig.
type connection struct {
	server                string // the API server's URL
	origin                string // see Config.origin
	readLimit, writeLimit time.Duration
	sources               []source
	transport             http.RoundTripper
	raw                   *rest.RESTClient
	dynamic               *dynamic.DynamicClient
	metadata              metadata.Interface // for watches, on connections of its own
	gate                  *gate
	busy                  atomic.Int64 // when the server last answered 429, in Unix nanoseconds
}

// A source is a file that went into a connection, and the digest of what it
// held then. (Contents, not times: a kubeconfig is small, and can be replaced
// by one of the same size within the clock's grain.)
type source struct {
	path   string
	digest [sha256.Size]byte
}

func (conn *connection) read(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		conn.sources = append(conn.sources, source{path, sha256.Sum256(data)})
	}
	return data, err
}

func (conn *connection) current() bool {
	for _, s := range conn.sources {
		data, err := os.ReadFile(s.path)
		if err != nil || sha256.Sum256(data) != s.digest {
			return false
		}
	}
	return true
}

func open(cfg Config) (*connection, error) {
	conn := &connection{origin: cfg.origin(), readLimit: readLimit, writeLimit: writeLimit, gate: newGate()}
	config, err := conn.load(cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", conn.origin, err)
	}
	config.UserAgent = userAgent()
	config.QPS = -1 // fairness between clients is the API server's business
	config.WarningHandlerWithContext = rest.NoWarnings{}
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return &watching{rt, conn} })

	// Watches have a transport of their own: a connection that they share with
	// requests would never be idle, so that closeIdle could not do away with it
	// when it is dead. (client-go has one transport for configurations that are
	// alike. The dialer is like its own.)
	watches := rest.CopyConfig(config)
	watches.Dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	config = dynamic.ConfigFor(config)
	config.GroupVersion = &schema.GroupVersion{}

	url, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", conn.origin, err)
	}
	// Only what tells servers apart, and no user:password@.
	conn.server = url.Scheme + "://" + url.Host

	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", conn.origin, err)
	}
	conn.transport = client.Transport
	conn.raw, err = rest.UnversionedRESTClientForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", conn.origin, err)
	}
	conn.dynamic = dynamic.New(conn.raw)
	if conn.metadata, err = metadata.NewForConfig(watches); err != nil {
		return nil, fmt.Errorf("%s: %w", conn.origin, err)
	}
	return conn, nil
}

// load finds out how the cluster is reached, and reads the files that this names.
func (conn *connection) load(cfg Config) (*rest.Config, error) {
	var config *rest.Config
	var err error
	if cfg.InCluster {
		config, err = rest.InClusterConfig()
	} else {
		config, err = conn.loadKubeconfig(cfg)
	}
	if err != nil {
		return nil, err
	}
	// Read here and not by client-go, which would keep a goroutine for each.
	for _, f := range []struct {
		path *string
		data *[]byte
	}{
		{&config.CAFile, &config.CAData},
		{&config.CertFile, &config.CertData},
		{&config.KeyFile, &config.KeyData},
	} {
		if *f.path == "" {
			continue
		}
		data, err := conn.read(*f.path)
		if err != nil {
			return nil, err
		}
		if len(*f.data) == 0 { // what the kubeconfig itself holds goes first
			*f.data = data
		}
		*f.path = ""
	}
	if config.BearerTokenFile != "" {
		token, err := conn.read(config.BearerTokenFile)
		if err != nil {
			return nil, err
		}
		config.BearerToken = strings.TrimSpace(string(token))
		config.BearerTokenFile = ""
	}
	return config, nil
}

func (conn *connection) loadKubeconfig(cfg Config) (*rest.Config, error) {
	if _, err := conn.read(cfg.Kubeconfig); err != nil {
		if pe, ok := errors.AsType[*os.PathError](err); ok {
			err = pe.Err // the path is said already
		}
		return nil, err
	}
	// Should the file change between the two readings, current will say so.
	file, err := clientcmd.LoadFromFile(cfg.Kubeconfig)
	if err != nil {
		return nil, err
	}
	if err := clientcmd.ResolveLocalPaths(file); err != nil {
		return nil, err
	}
	name := cmp.Or(cfg.Context, file.CurrentContext)
	if name == "" {
		return nil, errors.New("it has no current-context, and the configuration names no context")
	}
	if file.Contexts[name] == nil {
		return nil, fmt.Errorf("it has no context %q", name)
	}
	return clientcmd.NewNonInteractiveClientConfig(*file, name, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
}

// userAgent is the name that the API server's audit log and metrics show.
func userAgent() string {
	if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") {
		return Manager + "/" + info.Main.Version
	}
	return Manager
}

// versionPath returns the URL path below which an API version lies.
func versionPath(group, version string) string {
	if group == "" {
		return "api/" + version
	}
	return "apis/" + group + "/" + version
}

func (conn *connection) closeIdle() { utilnet.CloseIdleConnectionsFor(conn.transport) }

// alive reports whether the API server answers at all, whatever it says.
func (conn *connection) alive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	_, err := conn.raw.Get().AbsPath("/version").MaxRetries(0).DoRaw(ctx)
	return err == nil || isAnswer(err)
}

// ready reports whether the API server says that it is ready. It answers
// requests before it is, without knowing yet of all roles (RBAC) and CRDs; what
// it refuses then means nothing. /readyz itself is open to all by the role
// system:public-info-viewer, unless the cluster is hardened. One who may not ask
// for it is therefore asked another question, which the role system:basic-user
// opens to all who are known by name: what he may do. If that is refused too,
// the API server knows of no role yet.
func (conn *connection) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	_, err := conn.raw.Get().AbsPath("/readyz").MaxRetries(0).DoRaw(ctx)
	if apierrors.IsForbidden(err) {
		_, err = conn.review(ctx, "get", Kind{Plural: "namespaces"}, "")
	}
	return err == nil
}

// watching notes when the API server puts requests off: client-go waits and
// tries again, and if that takes too long all it can say is that time is up. It
// also tells an API server from a web server, which client-go has no words for.
type watching struct {
	next http.RoundTripper
	conn *connection
}

func (w *watching) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusTooManyRequests {
		w.conn.busy.Store(time.Now().UnixNano())
		w.conn.gate.refused(retryAfter(resp.Header))
	}
	if typ, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); typ == "text/html" && resp.StatusCode == http.StatusOK {
		resp.Body.Close()
		return nil, errNotKubernetes
	}
	return resp, nil
}

var errNotKubernetes = errors.New("what it answers is a web page: is the server in the kubeconfig right, is a proxy or a login page in the way?")

// WrappedRoundTripper lets apimachinery find the transport underneath.
func (w *watching) WrappedRoundTripper() http.RoundTripper { return w.next }

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/hhwatchd/hhwatchd/ingest"
)

// defaultConfigFile is read when --config is not given.
const defaultConfigFile = "/etc/hhwatchd/hhwatchd.yaml"

// Config is the whole configuration, one YAML file. It is read strictly: a
// key that is not listed here is an error.
type Config struct {
	// StateDir is the directory that hhwatchd owns: the working clones in
	// repos/<repository>, the journal in journal, and raw/<fabric>, a link to
	// each fabric's raw directory. Default: /var/lib/hhwatchd.
	StateDir string `yaml:"stateDir"`

	// Settle says when a burst of file events in raw/ is over.
	Settle Settle `yaml:"settle"`

	// Rescan is how often everything is looked at without an event: raw
	// directories whose watch may have missed something, local edits in
	// managed/, and the cluster as a whole. Default: 5m; at least 1s.
	Rescan time.Duration `yaml:"rescan"`

	// Journal says how much of the journal is kept.
	Journal JournalConfig `yaml:"journal"`

	// Limits bound what is read of raw files.
	Limits LimitsConfig `yaml:"limits"`

	// HTTP is the listener for metrics, probes and webhooks.
	HTTP HTTPConfig `yaml:"http"`

	// Repositories are the git repositories to keep in step, each with the
	// fabrics that it describes. They do not wait for each other.
	Repositories []RepositoryConfig `yaml:"repositories"`
}

// Settle bounds the wait between a file event and the cycle that it wakes.
type Settle struct {
	// Quiet is how long raw/ must have been silent. Default: 500ms.
	Quiet time.Duration `yaml:"quiet"`
	// Max is the longest wait after the first event, however busy raw/ is.
	// Default: 5s; not below Quiet.
	Max time.Duration `yaml:"max"`
}

// JournalConfig bounds the journal. Every hour whole segments of it (of 16 MiB,
// or a quarter of MaxAge) that are past one of the bounds are removed.
type JournalConfig struct {
	// MaxAge is how long a record is kept at least, unless MaxSize is
	// reached. Default: 8760h, a year; at least 1h.
	MaxAge time.Duration `yaml:"maxAge"`
	// MaxSize is how large the journal may become on disk, give or take a
	// segment. Default: 1GiB; at least 64MiB.
	MaxSize Size `yaml:"maxSize"`
}

// largestFile is the most that limits.file may be.
const largestFile = 256 * mebibyte

// LimitsConfig bounds raw files, and with them the memory that they take.
type LimitsConfig struct {
	// File is how large a file may be (HH102). Default: 16MiB; at most 256MiB.
	File Size `yaml:"file"`
	// Documents is how many of them a file may have (HH121). Default: 50000.
	Documents int `yaml:"documents"`
	// Depth is how deep lists and mappings may be nested (HH107). Default:
	// 100; at most 1000.
	Depth int `yaml:"depth"`
	// Aliases is how large a document may be with its aliases expanded
	// (HH108). Default: 1536KiB, which is also the most.
	Aliases Size `yaml:"aliases"`
	// Cycle is how much of a fabric's files, in the order of their arrival,
	// one cycle takes; what is beyond it waits for the next, which follows at
	// once. A file is never cut for it. Default: 128MiB; at least File.
	Cycle Size `yaml:"cycle"`
}

func (l *LimitsConfig) ingest() ingest.Limits {
	return ingest.Limits{File: int64(l.File), Documents: l.Documents, Depth: l.Depth, Expanded: int(l.Aliases)}
}

// HTTPConfig is the HTTP listener. It has no TLS: for the world outside, a
// proxy in front of it has that.
type HTTPConfig struct {
	// Listen is host:port, the port 1024 at least, or 0 for any free one.
	// Without a host it is 127.0.0.1; all addresses are 0.0.0.0 or [::].
	// Default: no listener. A change takes a restart.
	Listen string `yaml:"listen"`
	// WebhookSecretFile holds the secret that a forge signs its calls with,
	// or its token; a final newline is ignored. It is read at each call.
	// Default: no webhook.
	WebhookSecretFile string `yaml:"webhookSecretFile"`
}

// RepositoryConfig is one git repository.
type RepositoryConfig struct {
	// Name is how the repository is called in output and on disk: letters,
	// digits, '-', '_' and '.'.
	Name string `yaml:"name"`
	// URL is the remote: https, http, ssh (both spellings), file, or a plain
	// path. It holds no credentials: those have files of their own in Auth.
	URL string `yaml:"url"`
	// Proxy is the URL of a proxy (http, https, socks5) for HTTP and HTTPS,
	// without credentials. Default: what HTTPS_PROXY, HTTP_PROXY and NO_PROXY
	// say in the environment.
	Proxy string `yaml:"proxy"`
	// Branch is the remote branch that is the truth. Default: main.
	Branch string `yaml:"branch"`
	// Sparse has only the fabrics' directories checked out in the clone, in
	// git's cone mode (git-sparse-checkout(1)). Default: the whole tree.
	Sparse bool `yaml:"sparse"`
	// Interval is how often the remote is asked whether the branch moved, with
	// a jitter of ten per cent. Default: 1m; at least 1s.
	Interval time.Duration `yaml:"interval"`
	// Auth holds the credentials, by file.
	Auth Auth `yaml:"auth"`
	// Author is the committer of hhwatchd's commits, and the author of those
	// that nobody else wrote. Default: hhwatchd <hhwatchd@localhost>.
	Author Author `yaml:"author"`
	// Signing says how hhwatchd's commits are signed.
	Signing Signing `yaml:"signing"`
	// Verify says who has to have signed the commits that are pulled.
	Verify Verify `yaml:"verify"`
	// Fabrics are the fabrics that this repository describes.
	Fabrics []FabricConfig `yaml:"fabrics"`
}

// Auth names the files that hold a repository's credentials. They are read
// at each connection, so a rotated one needs no reload. A file may be named
// $CREDENTIALS_DIRECTORY/NAME: that is the credential NAME that systemd passes
// to the service (systemd.exec(5), LoadCredential=).
type Auth struct {
	// Username is the user of HTTP basic authentication, or of SSH; for both
	// the default is git.
	Username string `yaml:"username"`
	// PasswordFile holds the password or token; a final newline is ignored.
	PasswordFile string `yaml:"passwordFile"`
	// TokenFile holds a token that is sent as such (Bearer), not as a password.
	TokenFile string `yaml:"tokenFile"`
	// NetrcFile holds users and passwords by host, also by that of a proxy.
	NetrcFile string `yaml:"netrcFile"`
	// GitHubApp authenticates as an app of GitHub.
	GitHubApp *GitHubApp `yaml:"githubApp"`
	// CAFile is a PEM bundle that is trusted besides the system's.
	CAFile string `yaml:"caFile"`
	// ClientCertFile is a certificate in PEM that is shown to the server, if
	// it asks for one.
	ClientCertFile string `yaml:"clientCertFile"`
	// ClientKeyFile is its key. Default: in the file of the certificate.
	ClientKeyFile string `yaml:"clientKeyFile"`
	// SSHKeyFile is a private key in OpenSSH's format, without a passphrase.
	// Default: those of the agent at SSH_AUTH_SOCK.
	SSHKeyFile string `yaml:"sshKeyFile"`
	// KnownHostsFile lists the host keys that are accepted, in OpenSSH's
	// format. Default: the user's and the system's known_hosts.
	KnownHostsFile string `yaml:"knownHostsFile"`
}

// GitHubApp is an app that is installed where the repository is.
type GitHubApp struct {
	// ID is the app's ID or its client ID.
	ID string `yaml:"id"`
	// Installation is the ID of the installation.
	Installation int64 `yaml:"installation"`
	// KeyFile is the app's private key, in PEM.
	KeyFile string `yaml:"keyFile"`
}

// Signing names the key that signs commits. It is named as credentials are.
type Signing struct {
	// KeyFile is a private key without a passphrase: one for SSH, or an
	// armoured one of OpenPGP. Default: commits are not signed.
	KeyFile string `yaml:"keyFile"`
}

// Verify names the keys that may sign what is pulled. A branch with a commit
// that none of them signed is not followed until that commit is gone from it or
// its key is allowed. Default: commits are not verified.
type Verify struct {
	// AllowedSignersFile lists SSH keys (ssh-keygen(1), ALLOWED SIGNERS).
	AllowedSignersFile string `yaml:"allowedSignersFile"`
	// KeyringFile holds OpenPGP public keys, armoured.
	KeyringFile string `yaml:"keyringFile"`
}

// Author is a git identity.
type Author struct {
	Name  string `yaml:"name"`
	Email string `yaml:"email"`
}

// FabricConfig is one fabric: a directory of a repository and, usually, the
// cluster that it is applied to.
type FabricConfig struct {
	// Name is how the fabric is called; unique among all repositories.
	Name string `yaml:"name"`
	// Path is the fabric's directory in the repository; raw/, managed/ and
	// unmanaged/ lie below it.
	Path string `yaml:"path"`
	// Cluster is the Kubernetes API that the fabric is applied to. Without
	// it the fabric is ingested, committed and pushed, but not applied.
	Cluster *ClusterConfig `yaml:"cluster"`
	// Prune lets hhwatchd delete objects that it applied itself once they
	// left managed/. Default: false.
	Prune bool `yaml:"prune"`
	// Drift says what becomes of an object that somebody else changes or
	// deletes in the cluster: it is put right ("repair"), or told of and left
	// as it is until its file changes ("report"). Default: repair.
	Drift string `yaml:"drift"`
	// CRDs is a directory of CustomResourceDefinitions (YAML or JSON files)
	// that objects are held against before they are committed, where there is
	// no cluster or it is not to be asked for them. Default: the cluster's.
	CRDs string `yaml:"crds"`
	// References says what becomes of a file with an object that does not fit
	// the others of the fabric: it is rejected ("error") for what the fabric's
	// own admission would refuse, and taken in with a warning for the rest; it
	// is only warned of ("warning"); or not looked at ("off"). Default: error.
	References ingest.References `yaml:"references"`
	// Admission says what becomes of a file with an object that the cluster
	// refuses when it is asked by a dry run, before anything is committed: it
	// is rejected ("error"), taken in with a warning ("warning"), or the
	// cluster is not asked ("off"). Default: error.
	Admission ingest.Admission `yaml:"admission"`
	// Kinds are kinds that the fabric may hold besides Hedgehog's own. What
	// the right to apply them takes is not in packaging/rbac.yaml.
	Kinds []KindConfig `yaml:"kinds"`
	// Partial lets the good documents of a file through although others are
	// rejected, which are then all that goes to unmanaged/. Default: false, a
	// file is taken in as a whole or not at all.
	Partial bool `yaml:"partial"`
}

// KindConfig is a kind of namespaced objects.
type KindConfig struct {
	// Group is its API group; empty for the core group.
	Group string `yaml:"group"`
	// Kind is as in the kind field of objects.
	Kind string `yaml:"kind"`
	// Plural is its name in URLs, which "kubectl api-resources" shows: the
	// directory below managed/. It has to be that of the kind's definition.
	Plural string `yaml:"plural"`
	// Version is the one that is served, where the kind's definition is not
	// known.
	Version string `yaml:"version"`
}

// kinds are those that the fabric may hold.
func (f *FabricConfig) kinds() []ingest.Kind {
	kinds := ingest.Hedgehog()
	for _, k := range f.Kinds {
		kinds = append(kinds, ingest.Kind(k))
	}
	return kinds
}

// ClusterConfig is how a fabric's Kubernetes API is reached.
type ClusterConfig struct {
	// Kubeconfig is the file to read; it is read again when it changes.
	Kubeconfig string `yaml:"kubeconfig"`
	// InCluster stands in the place of Kubeconfig where hhwatchd runs in a pod
	// of that cluster: it goes by the pod's service account.
	InCluster bool `yaml:"inCluster"`
	// Context is the context to use; empty means the file's current one.
	Context string `yaml:"context"`
	// Namespace is the fabric's own namespace. Default: default.
	Namespace string `yaml:"namespace"`
	// Apply says what is applied: what the remote branch has ("remote"), or
	// what is committed here, also while the remote cannot be pushed to
	// ("committed"). Default: remote.
	Apply string `yaml:"apply"`
}

// What is applied to a cluster.
const (
	applyRemote    = "remote"
	applyCommitted = "committed"
)

// namespace is the fabric's own namespace, cluster or not.
func (f *FabricConfig) namespace() string {
	if f.Cluster == nil {
		return "default"
	}
	return f.Cluster.Namespace
}

func (f *FabricConfig) raw() string       { return path.Join(f.Path, "raw") }
func (f *FabricConfig) managed() string   { return path.Join(f.Path, "managed") }
func (f *FabricConfig) unmanaged() string { return path.Join(f.Path, "unmanaged") }

func (c *Config) journalDir() string { return filepath.Join(c.StateDir, "journal") }
func (c *Config) schemasDir(fabric string) string {
	return filepath.Join(c.StateDir, "schemas", fabric)
}
func (c *Config) cloneDir(repository string) string {
	return filepath.Join(c.StateDir, "repos", repository)
}
func (c *Config) asideDir(repository string) string {
	return filepath.Join(c.StateDir, "aside", repository)
}

// fabric finds a fabric by its name.
func (c *Config) fabric(name string) (*RepositoryConfig, *FabricConfig) {
	for i := range c.Repositories {
		r := &c.Repositories[i]
		for j := range r.Fabrics {
			if r.Fabrics[j].Name == name {
				return r, &r.Fabrics[j]
			}
		}
	}
	return nil, nil
}

// A configError is one or more things that are wrong with a config file, a
// line each, as file:line: what is wrong.
type configError []string

func (e configError) Error() string { return strings.Join(e, "\n") }

// loadConfig reads, completes and checks the config file.
func loadConfig(file string) (*Config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, configError{fmt.Sprintf("reading the config: %v", err)}
	}
	return parseConfig(file, data)
}

// parseConfig is loadConfig on bytes; file is for messages only.
func parseConfig(file string, data []byte) (*Config, error) {
	c := &Config{}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, yamlError(file, err)
	}
	var more yaml.Node
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, configError{fmt.Sprintf("%s:%d: a second YAML document; the config is one document", file, max(more.Line, 1))}
	}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, yamlError(file, err)
	}
	c.complete()
	c.StateDir = filepath.Clean(c.StateDir)
	v := validator{file: file, root: &root}
	v.config(c)
	if len(v.errs) > 0 {
		return nil, v.errs
	}
	return c, nil
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
var yamlDuration = regexp.MustCompile("^cannot unmarshal !!\\S+ `(.*)` into time.Duration$")
var yamlUnknown = regexp.MustCompile(`^field (\S+) not found in type main\.(\S+)$`)

// yamlError puts the decoder's messages into the form file:line: message.
func yamlError(file string, err error) error {
	var out configError
	lines := []string{err.Error()}
	var te *yaml.TypeError
	if errors.As(err, &te) {
		lines = te.Errors
	}
	for _, l := range lines {
		m := yamlLine.FindStringSubmatch(l)
		if m == nil {
			out = append(out, file+": "+strings.TrimPrefix(l, "yaml: "))
			continue
		}
		msg := m[2]
		if u := yamlDuration.FindStringSubmatch(msg); u != nil {
			msg = fmt.Sprintf("%q is not a duration; write 5s or 1m", u[1])
		}
		if u := yamlUnknown.FindStringSubmatch(msg); u != nil {
			msg = fmt.Sprintf("unknown key %q", u[1])
		}
		out = append(out, fmt.Sprintf("%s:%s: %s", file, m[1], msg))
	}
	return out
}

// complete fills in the defaults.
func (c *Config) complete() {
	setDefault(&c.StateDir, "/var/lib/hhwatchd")
	setDefault(&c.Settle.Quiet, 500*time.Millisecond)
	setDefault(&c.Settle.Max, max(5*time.Second, c.Settle.Quiet))
	setDefault(&c.Rescan, 5*time.Minute)
	setDefault(&c.Journal.MaxAge, 365*24*time.Hour)
	setDefault(&c.Journal.MaxSize, gibibyte)
	setDefault(&c.Limits.File, Size(ingest.DefaultLimits.File))
	setDefault(&c.Limits.Documents, ingest.DefaultLimits.Documents)
	setDefault(&c.Limits.Depth, ingest.DefaultLimits.Depth)
	setDefault(&c.Limits.Aliases, Size(ingest.DefaultLimits.Expanded))
	setDefault(&c.Limits.Cycle, max(128*mebibyte, c.Limits.File))
	if strings.HasPrefix(c.HTTP.Listen, ":") {
		c.HTTP.Listen = "127.0.0.1" + c.HTTP.Listen
	}
	for i := range c.Repositories {
		r := &c.Repositories[i]
		setDefault(&r.Branch, "main")
		setDefault(&r.Interval, time.Minute)
		setDefault(&r.Author.Name, "hhwatchd")
		setDefault(&r.Author.Email, "hhwatchd@localhost")
		for j := range r.Fabrics {
			f := &r.Fabrics[j]
			f.Path = strings.TrimSuffix(f.Path, "/")
			setDefault(&f.Drift, driftRepair)
			if f.Cluster != nil {
				setDefault(&f.Cluster.Namespace, "default")
				setDefault(&f.Cluster.Apply, applyRemote)
			}
		}
	}
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// credentialsDirectory begins the name of a file that systemd passes to the
// service.
const credentialsDirectory = "$CREDENTIALS_DIRECTORY/"

// credentialFile returns where a file lies that a config names. Outside of the
// service that is where the running service has it, which root can read.
func credentialFile(name string) string {
	rest, ok := strings.CutPrefix(name, credentialsDirectory)
	if !ok || rest == "" || strings.Contains(rest, "/") {
		return name
	}
	return filepath.Join(cmp.Or(os.Getenv("CREDENTIALS_DIRECTORY"), "/run/credentials/hhwatchd.service"), rest)
}

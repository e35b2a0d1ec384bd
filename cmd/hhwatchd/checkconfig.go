// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
)

// validator collects what is wrong, with the line of the key at fault.
type validator struct {
	file string
	root *yaml.Node
	errs configError
}

// fail reports msg at the deepest part of the path (keys and indices) that
// the file has.
func (v *validator) fail(path []any, format string, args ...any) {
	line := 1
	n := v.root
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		n = n.Content[0]
	}
walk:
	for _, p := range path {
		switch p := p.(type) {
		case string:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Kind == yaml.MappingNode && n.Content[i].Value == p {
					line = n.Content[i].Line
					n = n.Content[i+1]
					continue walk
				}
			}
			break walk
		case int:
			if n.Kind != yaml.SequenceNode || p >= len(n.Content) {
				break walk
			}
			n = n.Content[p]
			line = n.Line
		}
	}
	v.errs = append(v.errs, fmt.Sprintf("%s:%d: %s: %s", v.file, line, keyPath(path), fmt.Sprintf(format, args...)))
}

func keyPath(path []any) string {
	var b strings.Builder
	for _, p := range path {
		switch p := p.(type) {
		case string:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(p)
		case int:
			fmt.Fprintf(&b, "[%d]", p)
		}
	}
	return b.String()
}

var nameSyntax = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func (v *validator) config(c *Config) {
	if !filepath.IsAbs(c.StateDir) {
		v.fail([]any{"stateDir"}, "%q is not an absolute path", c.StateDir)
	}
	if c.Settle.Quiet < 0 {
		v.fail([]any{"settle", "quiet"}, "%v is negative", c.Settle.Quiet)
	}
	if c.Settle.Max < c.Settle.Quiet {
		v.fail([]any{"settle", "max"}, "%v is below settle.quiet (%v)", c.Settle.Max, c.Settle.Quiet)
	}
	if c.Rescan < time.Second {
		v.fail([]any{"rescan"}, "%v is below one second", c.Rescan)
	}
	if c.Journal.MaxAge < time.Hour {
		v.fail([]any{"journal", "maxAge"}, "%v is below one hour", c.Journal.MaxAge)
	}
	if c.Journal.MaxSize < 64*mebibyte {
		v.fail([]any{"journal", "maxSize"}, "%v is below 64 MiB", c.Journal.MaxSize)
	}
	v.limits(&c.Limits)
	v.http(&c.HTTP)
	if len(c.Repositories) == 0 {
		v.fail([]any{"repositories"}, "none is configured; name at least one")
	}
	repositories := map[string]bool{}
	fabrics := map[string]bool{}
	for i := range c.Repositories {
		at := []any{"repositories", i}
		r := &c.Repositories[i]
		v.name(append(at, "name"), r.Name, repositories, "repository")
		v.repository(at, r)
		for j := range r.Fabrics {
			v.name(append(slices.Clone(at), "fabrics", j, "name"), r.Fabrics[j].Name, fabrics, "fabric")
			v.fabric(append(slices.Clone(at), "fabrics", j), r, j)
		}
	}
}

func (v *validator) limits(l *LimitsConfig) {
	if l.File > largestFile {
		v.fail([]any{"limits", "file"}, "%v is above %v", l.File, largestFile)
	}
	if l.Documents < 1 {
		v.fail([]any{"limits", "documents"}, "%d is not a number of documents", l.Documents)
	}
	if l.Depth < 1 || l.Depth > ingest.MaxDepth {
		v.fail([]any{"limits", "depth"}, "%d is not between 1 and %d", l.Depth, ingest.MaxDepth)
	}
	if l.Aliases > ingest.MaxDocument {
		v.fail([]any{"limits", "aliases"}, "%v is above %v, the most that an API server takes", l.Aliases, Size(ingest.MaxDocument))
	}
	if l.Cycle < l.File {
		v.fail([]any{"limits", "cycle"}, "%v is below limits.file (%v)", l.Cycle, l.File)
	}
}

func (v *validator) http(h *HTTPConfig) {
	if h.Listen != "" {
		_, port, err := net.SplitHostPort(h.Listen)
		n, perr := strconv.ParseUint(port, 10, 16)
		switch {
		case err != nil || perr != nil:
			v.fail([]any{"http", "listen"}, "%q is not host:port; write 127.0.0.1:9470", h.Listen)
		case n > 0 && n < 1024:
			v.fail([]any{"http", "listen"}, "port %d takes rights that hhwatchd does without; use 1024 or above", n)
		}
	}
	switch f := h.WebhookSecretFile; {
	case f != "" && h.Listen == "":
		v.fail([]any{"http", "webhookSecretFile"}, "there is no listener for the webhook; set http.listen")
	case f != "" && !filepath.IsAbs(f):
		v.fail([]any{"http", "webhookSecretFile"}, "%q is not an absolute path", f)
	}
}

// name checks a repository's or fabric's name and that seen does not hold it.
func (v *validator) name(at []any, name string, seen map[string]bool, what string) {
	switch {
	case name == "":
		v.fail(at, "missing; every %s has a name", what)
	case !nameSyntax.MatchString(name) || strings.Contains(name, ".."):
		v.fail(at, "%q: use letters, digits, '-', '_' and '.', starting with a letter or digit", name)
	case seen[name]:
		v.fail(at, "%q is the name of another %s too", name, what)
	}
	seen[name] = true
}

func (v *validator) repository(at []any, r *RepositoryConfig) {
	key := func(k ...any) []any { return append(slices.Clone(at), k...) }
	if err := checkout.CheckURL(r.URL); err != nil {
		v.fail(key("url"), "%v", err)
	}
	if r.Proxy != "" {
		if err := checkout.CheckProxy(r.Proxy); err != nil {
			v.fail(key("proxy"), "%v", err)
		}
	}
	if strings.HasPrefix(r.Branch, "-") || strings.HasPrefix(r.Branch, "refs/") || strings.Contains(r.Branch, "..") || strings.ContainsAny(r.Branch, " ~^:?*[\\") {
		v.fail(key("branch"), "%q is not a branch name", r.Branch)
	}
	if r.Interval < time.Second {
		v.fail(key("interval"), "%v is below one second", r.Interval)
	}
	v.auth(key("auth"), &r.Auth)
	if strings.ContainsAny(r.Author.Name, "<>\n") {
		v.fail(key("author", "name"), "%q: '<', '>' and line breaks cannot be in a git author", r.Author.Name)
	}
	if strings.ContainsAny(r.Author.Email, "<>\n ") {
		v.fail(key("author", "email"), "%q is not an e-mail address", r.Author.Email)
	}
	for _, f := range []struct{ in, key, name string }{
		{"signing", "keyFile", r.Signing.KeyFile},
		{"verify", "allowedSignersFile", r.Verify.AllowedSignersFile},
		{"verify", "keyringFile", r.Verify.KeyringFile},
	} {
		if f.name != "" && !filepath.IsAbs(credentialFile(f.name)) {
			v.fail(key(f.in, f.key), "%q is not an absolute path", f.name)
		}
	}
	if len(r.Fabrics) == 0 {
		v.fail(key("fabrics"), "none is configured; a repository describes at least one")
	}
}

func (v *validator) auth(at []any, a *Auth) {
	key := func(k ...any) []any { return append(slices.Clone(at), k...) }
	file := func(name string, at ...any) {
		if name != "" && !filepath.IsAbs(credentialFile(name)) {
			v.fail(key(at...), "%q is not an absolute path", name)
		}
	}
	file(a.PasswordFile, "passwordFile")
	file(a.TokenFile, "tokenFile")
	file(a.NetrcFile, "netrcFile")
	file(a.CAFile, "caFile")
	file(a.ClientCertFile, "clientCertFile")
	file(a.ClientKeyFile, "clientKeyFile")
	file(a.SSHKeyFile, "sshKeyFile")
	file(a.KnownHostsFile, "knownHostsFile")
	if a.PasswordFile != "" && a.TokenFile != "" {
		v.fail(key("tokenFile"), "there is passwordFile too; one of them counts, remove the other")
	}
	if a.ClientKeyFile != "" && a.ClientCertFile == "" {
		v.fail(key("clientKeyFile"), "there is no clientCertFile that it is the key of")
	}
	app := a.GitHubApp
	if app == nil {
		return
	}
	file(app.KeyFile, "githubApp", "keyFile")
	switch {
	case a.PasswordFile != "" || a.TokenFile != "":
		v.fail(key("githubApp"), "there is passwordFile or tokenFile too; one of them counts, remove the other")
	case app.ID == "" || app.KeyFile == "" || app.Installation <= 0:
		v.fail(key("githubApp"), "it takes id, installation and keyFile")
	}
}

func (v *validator) fabric(at []any, r *RepositoryConfig, j int) {
	key := func(k ...any) []any { return append(slices.Clone(at), k...) }
	f := &r.Fabrics[j]
	switch {
	case f.Path == "":
		v.fail(key("path"), "missing; give the fabric's directory in the repository")
	case path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "." || strings.HasPrefix(f.Path, "../") || f.Path == ".." || hasDotGit(f.Path):
		v.fail(key("path"), "%q is not a clean path below the repository's root", f.Path)
	}
	for i := range j {
		other := r.Fabrics[i].Path
		if f.Path == other || strings.HasPrefix(f.Path, other+"/") || strings.HasPrefix(other, f.Path+"/") {
			v.fail(key("path"), "%q overlaps %q of fabric %s", f.Path, other, r.Fabrics[i].Name)
		}
	}
	if f.CRDs != "" && !filepath.IsAbs(f.CRDs) {
		v.fail(key("crds"), "%q is not an absolute path", f.CRDs)
	}
	if f.Drift != driftRepair && f.Drift != driftReport {
		v.fail(key("drift"), "%q is not one of repair and report", f.Drift)
	}
	switch f.References {
	case "", ingest.RefuseReferences, ingest.WarnOfReferences, ingest.IgnoreReferences:
	default:
		v.fail(key("references"), "%q is not one of error, warning and off", f.References)
	}
	switch f.Admission {
	case "", ingest.RefuseAdmission, ingest.WarnOfAdmission, ingest.IgnoreAdmission:
	default:
		v.fail(key("admission"), "%q is not one of error, warning and off", f.Admission)
	}
	for i, k := range f.Kinds {
		at := key("kinds", i)
		if k.Kind == "" || k.Plural == "" || k.Version == "" {
			v.fail(at, "a kind has a kind, a plural and a version, as kubectl api-resources shows them")
		} else if err := (ingest.Policy{Namespace: "default", Kinds: (&FabricConfig{Kinds: f.Kinds[:i+1]}).kinds()}).Check(); err != nil {
			v.fail(at, "%v", err)
		}
	}
	if f.Cluster == nil {
		return
	}
	if err := (ingest.Policy{Namespace: f.Cluster.Namespace}).Check(); err != nil {
		v.fail(key("cluster", "namespace"), "%v", err)
	}
	if a := f.Cluster.Apply; a != applyRemote && a != applyCommitted {
		v.fail(key("cluster", "apply"), "%q is not one of remote and committed", a)
	}
	switch k := f.Cluster.Kubeconfig; {
	case f.Cluster.InCluster && k != "":
		v.fail(key("cluster", "inCluster"), "there is kubeconfig too; one of them counts, remove the other")
	case f.Cluster.InCluster && f.Cluster.Context != "":
		v.fail(key("cluster", "context"), "a context is one of a kubeconfig; remove it, or inCluster")
	case f.Cluster.InCluster:
	case k == "":
		v.fail(key("cluster", "kubeconfig"), "missing; name the kubeconfig file")
	case !filepath.IsAbs(k):
		v.fail(key("cluster", "kubeconfig"), "%q is not an absolute path", k)
	}
}

func hasDotGit(p string) bool {
	return slices.ContainsFunc(strings.Split(p, "/"), func(s string) bool { return strings.EqualFold(s, ".git") })
}

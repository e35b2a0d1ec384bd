// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/hhwatchd/hhwatchd/checkout"
)

// The example that is installed must be good, and must show every key: an
// operator copies it.
func TestExampleConfig(t *testing.T) {
	file := filepath.Join("..", "..", "packaging", "hhwatchd.yaml")
	c, err := loadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		StateDir: "/var/lib/hhwatchd",
		Settle:   Settle{Quiet: 500 * time.Millisecond, Max: 5 * time.Second},
		Rescan:   5 * time.Minute,
		Journal:  JournalConfig{MaxAge: 365 * 24 * time.Hour, MaxSize: gibibyte},
		Limits:   LimitsConfig{File: 16 * mebibyte, Documents: 50000, Depth: 100, Aliases: 1536 << 10, Cycle: 128 * mebibyte},
		Repositories: []RepositoryConfig{{
			Name: "site-a", URL: "https://git.example.net/net/fabrics.git", Branch: "main", Interval: time.Minute,
			Auth:   Auth{Username: "hhwatchd", PasswordFile: "/etc/hhwatchd/git-token"},
			Author: Author{"hhwatchd", "hhwatchd@mgmt-1.example.net"},
			Fabrics: []FabricConfig{{
				Name: "fabric-1", Path: "gitops/hedgehog/fabric-1", Prune: true, Drift: driftRepair,
				Cluster: &ClusterConfig{Kubeconfig: "/etc/hhwatchd/fabric-1.kubeconfig", Namespace: "default", Apply: "remote"},
			}},
		}},
	}
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("got  %+v\nwant %+v", *c, want)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keysOf(reflect.TypeFor[Config]()) {
		if !strings.Contains(string(text), key+":") {
			t.Errorf("the example does not show %s", key)
		}
	}
}

// keysOf lists the YAML keys of a config struct and of those below it.
func keysOf(t reflect.Type) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var keys []string
	for f := range t.Fields() {
		keys = append(keys, f.Tag.Get("yaml"))
		keys = append(keys, keysOf(f.Type)...)
	}
	return keys
}

const minimal = `
stateDir: /s
repositories:
  - name: r
    url: /git/r.git
    fabrics:
      - name: f
        path: fabrics/f
`

func TestDefaults(t *testing.T) {
	c, err := parseConfig("c.yaml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	r := c.Repositories[0]
	if c.HTTP != (HTTPConfig{}) {
		t.Errorf("an HTTP listener that nobody asked for: %+v", c.HTTP)
	}
	if r.Branch != "main" || r.Interval != time.Minute || r.Author.Name != "hhwatchd" || c.Rescan != 5*time.Minute ||
		c.Journal != (JournalConfig{8760 * time.Hour, 1 << 30}) ||
		c.Settle != (Settle{500 * time.Millisecond, 5 * time.Second}) || r.Fabrics[0].namespace() != "default" || r.Fabrics[0].Prune {
		t.Errorf("defaults: %+v", *c)
	}
}

// Without a host, it is this host alone that can connect.
func TestLoopback(t *testing.T) {
	for listen, want := range map[string]string{
		":9470": "127.0.0.1:9470", "0.0.0.0:9470": "0.0.0.0:9470", "[::]:9470": "[::]:9470", "mgmt-1:9470": "mgmt-1:9470",
	} {
		c, err := parseConfig("c.yaml", []byte(minimal+"http: {listen: '"+listen+"'}\n"))
		if err != nil || c.HTTP.Listen != want {
			t.Errorf("%s: %v, %v", listen, c, err)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for _, tt := range []struct {
		name, from, to string // a change to minimal
		want           []string
	}{
		{"unknown key", "stateDir: /s", "stateDir: /s\nsettel: {quiet: 1s}", []string{`c.yaml:3: unknown key "settel"`}},
		{"unknown key below", "    url:", "    ulr: x\n    url:", []string{`c.yaml:5: unknown key "ulr"`}},
		{"mistyped", "    url:", "    interval: often\n    url:", []string{`c.yaml:5: "often" is not a duration; write 5s or 1m`}},
		{"two at once", "stateDir: /s", "stateDir: s\nrescan: 1ms", []string{
			`c.yaml:2: stateDir: "s" is not an absolute path`, "c.yaml:3: rescan: 1ms is below one second"}},
		{"no port", "stateDir: /s", "stateDir: /s\nhttp: {listen: localhost}", []string{`c.yaml:3: http.listen: "localhost" is not host:port; write 127.0.0.1:9470`}},
		{"port with a name", "stateDir: /s", "stateDir: /s\nhttp: {listen: '127.0.0.1:http'}", []string{`c.yaml:3: http.listen: "127.0.0.1:http" is not host:port`}},
		{"port of root", "stateDir: /s", "stateDir: /s\nhttp: {listen: '0.0.0.0:443'}", []string{"c.yaml:3: http.listen: port 443 takes rights that hhwatchd does without"}},
		{"webhook without a listener", "stateDir: /s", "stateDir: /s\nhttp: {webhookSecretFile: /k}", []string{"c.yaml:3: http.webhookSecretFile: there is no listener for the webhook; set http.listen"}},
		{"relative secret file", "stateDir: /s", "stateDir: /s\nhttp: {listen: ':9470', webhookSecretFile: k}", []string{`c.yaml:3: http.webhookSecretFile: "k" is not an absolute path`}},
		{"not YAML", "stateDir: /s", "stateDir: [", []string{"c.yaml:"}},
		{"two documents", "stateDir: /s", "stateDir: /s\n---\na: b", []string{"c.yaml:3: a second YAML document; the config is one document"}},
		{"no name", "name: r", "branch: x", []string{"c.yaml:4: repositories[0].name: missing; every repository has a name"}},
		{"bad name", "name: r", "name: ../r", []string{`c.yaml:4: repositories[0].name: "../r": use letters, digits`}},
		{"credentials in the URL", "url: /git/r.git", "url: https://u:secret@h/r", []string{
			"c.yaml:5: repositories[0].url: holds credentials: put the password into a file, name that in auth.passwordFile"}},
		{"password in an SSH URL", "url: /git/r.git", "url: ssh://u:secret@h/r", []string{
			"c.yaml:5: repositories[0].url: holds a password; for SSH there are keys: see auth.sshKeyFile"}},
		{"token in the URL", "url: /git/r.git", "url: https://secret@h/r", []string{"c.yaml:5: repositories[0].url: holds credentials: "}},
		{"no URL", "    url: /git/r.git\n", "", []string{"c.yaml:4: repositories[0].url: missing"}},
		{"credentials in the proxy's URL", "    url:", "    proxy: http://u:secret@h:1\n    url:", []string{
			"c.yaml:5: repositories[0].proxy: holds credentials; put them into a file as .netrc has them"}},
		{"fast interval", "    url:", "    interval: 10ms\n    url:", []string{"c.yaml:5: repositories[0].interval: 10ms is below one second"}},
		{"branch as ref", "    url:", "    branch: refs/heads/main\n    url:", []string{`c.yaml:5: repositories[0].branch: "refs/heads/main" is not a branch name`}},
		{"relative password file", "    url:", "    auth: {passwordFile: token}\n    url:", []string{
			`c.yaml:5: repositories[0].auth.passwordFile: "token" is not an absolute path`}},
		{"path below the credentials", "    url:", "    auth: {tokenFile: $CREDENTIALS_DIRECTORY/../x}\n    url:", []string{
			`c.yaml:5: repositories[0].auth.tokenFile: "$CREDENTIALS_DIRECTORY/../x" is not an absolute path`}},
		{"two credentials", "    url:", "    auth: {tokenFile: /t, passwordFile: /p}\n    url:", []string{
			"c.yaml:5: repositories[0].auth.tokenFile: there is passwordFile too"}},
		{"half a client certificate", "    url:", "    auth: {clientKeyFile: /k}\n    url:", []string{
			"c.yaml:5: repositories[0].auth.clientKeyFile: there is no clientCertFile"}},
		{"half a GitHub App", "    url:", "    auth: {githubApp: {id: 1, keyFile: k}}\n    url:", []string{
			`c.yaml:5: repositories[0].auth.githubApp.keyFile: "k" is not an absolute path`,
			"c.yaml:5: repositories[0].auth.githubApp: it takes id, installation and keyFile"}},
		{"path escapes", "path: fabrics/f", "path: ../f", []string{`c.yaml:8: repositories[0].fabrics[0].path: "../f" is not a clean path below the repository's root`}},
		{"path in .git", "path: fabrics/f", "path: .GIT/f", []string{`c.yaml:8: repositories[0].fabrics[0].path: ".GIT/f" is not`}},
		{"bad namespace", "path: fabrics/f", "path: fabrics/f\n        cluster: {kubeconfig: /k, namespace: Bad NS}", []string{
			`c.yaml:9: repositories[0].fabrics[0].cluster.namespace: namespace "Bad NS": not a namespace name`}},
		{"keys with relative paths", "    url:", "    signing: {keyFile: key}\n    verify: {allowedSignersFile: allowed, keyringFile: ring}\n    url:", []string{
			`c.yaml:5: repositories[0].signing.keyFile: "key" is not an absolute path`,
			`c.yaml:6: repositories[0].verify.allowedSignersFile: "allowed" is not an absolute path`,
			`c.yaml:6: repositories[0].verify.keyringFile: "ring" is not an absolute path`}},
		{"same fabric twice", "path: fabrics/f", "path: fabrics/f\n      - name: f\n        path: fabrics/g", []string{
			`c.yaml:9: repositories[0].fabrics[1].name: "f" is the name of another fabric too`}},
		{"overlapping paths", "path: fabrics/f", "path: fabrics/f\n      - name: g\n        path: fabrics/f/g", []string{
			`c.yaml:10: repositories[0].fabrics[1].path: "fabrics/f/g" overlaps "fabrics/f" of fabric f`}},
		{"no kubeconfig", "path: fabrics/f", "path: fabrics/f\n        cluster: {namespace: x}", []string{
			"c.yaml:9: repositories[0].fabrics[0].cluster.kubeconfig: missing"}},
		{"two ways in", "path: fabrics/f", "path: fabrics/f\n        cluster: {kubeconfig: /k, inCluster: true}", []string{
			"c.yaml:9: repositories[0].fabrics[0].cluster.inCluster: there is kubeconfig too"}},
		{"context without a kubeconfig", "path: fabrics/f", "path: fabrics/f\n        cluster: {context: c, inCluster: true}", []string{
			"c.yaml:9: repositories[0].fabrics[0].cluster.context: a context is one of a kubeconfig"}},
		{"journal", "stateDir: /s", "stateDir: /s\njournal:\n  maxAge: 1m\n  maxSize: 1MiB", []string{
			"c.yaml:4: journal.maxAge: 1m0s is below one hour", "c.yaml:5: journal.maxSize: 1 MiB is below 64 MiB"}},
		{"what becomes of what", "path: fabrics/f", "path: fabrics/f\n        references: ignore\n        admission: warn", []string{
			`c.yaml:9: repositories[0].fabrics[0].references: "ignore" is not one of error, warning and off`,
			`c.yaml:10: repositories[0].fabrics[0].admission: "warn" is not one of error, warning and off`}},
		{"kinds", "path: fabrics/f", "path: fabrics/f\n        kinds:\n        - {group: example.org, kind: Widget, plural: widgets}\n        - {kind: Widget, plural: switches, version: v1}", []string{
			"c.yaml:10: repositories[0].fabrics[0].kinds[0]: a kind has a kind, a plural and a version",
			"c.yaml:11: repositories[0].fabrics[0].kinds[1]: kinds Switch.wiring.githedgehog.com and Widget. share the plural"}},
		{"limits", "stateDir: /s", "stateDir: /s\nlimits:\n  file: 1GiB\n  documents: -1\n  depth: 5000\n  aliases: 2MiB\n  cycle: 1MiB", []string{
			"c.yaml:4: limits.file: 1 GiB is above 256 MiB", "c.yaml:5: limits.documents: -1 is not a number of documents",
			"c.yaml:6: limits.depth: 5000 is not between 1 and 1000", "c.yaml:7: limits.aliases: 2 MiB is above 1.5 MiB",
			"c.yaml:8: limits.cycle: 1 MiB is below limits.file (1 GiB)"}},
		{"size without a unit", "stateDir: /s", "stateDir: /s\njournal: {maxSize: 1000000000}", []string{
			`c.yaml:3: "1000000000" is not a size; write 512MiB or 1GiB`}},
		{"size beyond all", "stateDir: /s", "stateDir: /s\njournal: {maxSize: 99999999TiB}", []string{`c.yaml:3: "99999999TiB" is not a size`}},
		{"size that is none", "stateDir: /s", "stateDir: /s\njournal: {maxSize: [1GiB]}", []string{`c.yaml:3: "" is not a size`}},
		{"settle", "stateDir: /s", "stateDir: /s\nsettle: {quiet: 2s, max: 1s}", []string{"c.yaml:3: settle.max: 1s is below settle.quiet (2s)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(minimal, tt.from, tt.to, 1)
			if text == minimal {
				t.Fatal("the test changes nothing")
			}
			_, err := parseConfig("c.yaml", []byte(text))
			if err == nil {
				t.Fatal("accepted")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("got %d lines, want %d:\n%v", len(lines), len(tt.want), err)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("got  %s\nwant %s", lines[i], want)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

// Credentials may be files that systemd passes to the service.
func TestCredentialFiles(t *testing.T) {
	const keys = "    auth: {caFile: /ca, githubApp: {id: 12, installation: 34, keyFile: $CREDENTIALS_DIRECTORY/app}}\n"
	c, err := parseConfig("c.yaml", []byte(strings.Replace(minimal, "    fabrics:", keys+"    fabrics:", 1)))
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{"/run/x": "/run/x/app", "": "/run/credentials/hhwatchd.service/app"} {
		t.Setenv("CREDENTIALS_DIRECTORY", dir)
		got := c.Repositories[0].Auth.checkout()
		if !reflect.DeepEqual(got, checkout.Auth{CAFile: "/ca", GitHubApp: &checkout.GitHubApp{ID: "12", Installation: 34, KeyFile: want}}) {
			t.Errorf("with %q: %+v, %+v", dir, got, got.GitHubApp)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte("repositories: [{fabrics: [{cluster: {}}]}]"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig("c.yaml", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v, error %v", c, err)
		}
		if err == nil {
			if _, err := yaml.Marshal(c); err != nil {
				t.Fatal(err)
			}
		}
	})
}

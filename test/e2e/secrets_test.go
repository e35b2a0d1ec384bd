// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
)

// TestSecretsStayWhereTheyAre gives the daemon each kind of credential, good and
// bad ones, for remotes that are well and that are not, and looks for them in
// all that it says and writes: its log, its state with the journal, the clones
// and every object in them, its command line, and what the commands print.
func TestSecretsStayWhereTheyAre(t *testing.T) {
	dir := t.TempDir()
	w := &world{t: t, repo: "password", state: filepath.Join(dir, "state"), config: filepath.Join(dir, "hhwatchd.yaml")}
	w.git = gitserver.Start(t, gitserver.Options{Username: "hhwatchd", Password: "g00d-s3cret"})
	w.bare = w.git.Create("fabrics")
	address := strings.TrimPrefix(w.git.URL, "http://")

	secrets := []string{"g00d-s3cret"}
	keep := func(name, content string) string {
		file := filepath.Join(dir, "credentials", name)
		write(t, file, content)
		return file
	}
	secret := func() string {
		secrets = append(secrets, rand.Text())
		return secrets[len(secrets)-1]
	}
	block := func(b *pem.Block) string {
		text := string(pem.EncodeToMemory(b))
		secrets = append(secrets, strings.Split(text, "\n")[1])
		return text
	}
	appKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, sshKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sshBlock, err := ssh.MarshalPrivateKey(sshKey, "")
	if err != nil {
		t.Fatal(err)
	}
	app := keep("app", block(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(appKey)}))
	known := keep("known_hosts", "")

	sites := []struct{ name, url, more string }{
		{"password", "", fmt.Sprintf("auth: {username: hhwatchd, passwordFile: %q}", keep("password", "g00d-s3cret\n"))},
		{"netrc", "", fmt.Sprintf("auth: {netrcFile: %q}", keep("netrc", "machine 127.0.0.1 login hhwatchd password g00d-s3cret"))},
		{"wrong", "", fmt.Sprintf("auth: {username: hhwatchd, passwordFile: %q}", keep("wrong", secret()))},
		{"torn", "", fmt.Sprintf("auth: {username: hhwatchd, passwordFile: %q}", keep("torn", secret()+"\n"+secret()))},
		{"bad-netrc", "", fmt.Sprintf("auth: {netrcFile: %q}", keep("bad-netrc", "machine 127.0.0.1 passwd "+secret()))},
		{"bearer", "", fmt.Sprintf("auth: {tokenFile: %q}", keep("token", secret()))},
		{"app", "", fmt.Sprintf("auth: {githubApp: {id: x, installation: 1, keyFile: %q}}", app)},
		{"no-app", "", fmt.Sprintf("auth: {githubApp: {id: x, installation: 1, keyFile: %q}}", keep("no-app", secret()))},
		{"no-certificate", strings.Replace(w.git.RepoURL("fabrics"), "http:", "https:", 1),
			fmt.Sprintf("auth: {clientCertFile: %q, tokenFile: %q}", keep("cert", secret()), keep("token2", secret()))},
		{"proxy", "", fmt.Sprintf("proxy: %s\n    auth: {netrcFile: %q}", w.git.URL, keep("proxy", "machine 127.0.0.1 login x password "+secret()))},
		{"ssh", "ssh://git@" + address + "/fabrics.git", fmt.Sprintf("auth: {sshKeyFile: %q, knownHostsFile: %q}", keep("ssh", block(sshBlock)), known)},
		{"no-ssh", "git@[" + address + "]:fabrics.git", fmt.Sprintf("auth: {sshKeyFile: %q, knownHostsFile: %q}", keep("no-ssh", secret()), known)},
	}
	var b strings.Builder
	fmt.Fprintf(&b, "stateDir: %s\nsettle: {quiet: 50ms, max: 1s}\nrescan: 1h\nrepositories:\n", w.state)
	for _, s := range sites {
		if s.url == "" {
			s.url = w.git.RepoURL("fabrics")
		}
		fmt.Fprintf(&b, "  - name: %s\n    url: '%s'\n    interval: 1s\n    %s\n    fabrics: [{name: %s, path: gitops/hedgehog/%s}]\n", s.name, s.url, s.more, s.name, s.name)
	}
	write(t, w.config, b.String())
	// The environment has a proxy with a password, for others than loopback.
	proxySecret := secret()
	t.Setenv("HTTPS_PROXY", "http://user:"+proxySecret+"@127.0.0.1:9")
	t.Setenv("HTTP_PROXY", "http://user:"+proxySecret+"@127.0.0.1:9")
	for _, s := range secrets {
		secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte("hhwatchd:"+s)))
	}

	w.launch(exec.Command(binary, "--config", w.config, "run"))
	w.eventually("the raw directory", func() error { _, err := os.Stat(w.raw("password")); return err })
	w.drop("password", "a.yaml", vpc("vpc-1", 1001))
	w.pushed("password", "vpcs/vpc-1.yaml")
	// One that is well is refused and let in again; all others are told of.
	write(t, filepath.Join(dir, "credentials", "password"), "0ld")
	told := make(map[string]string)
	w.eventually("what is wrong with each", func() error {
		out, _ := w.hh("status", "-o", "json")
		for _, s := range sites {
			w.repo = s.name
			if told[s.name] = w.site().Down; (told[s.name] == "") != (s.name == "netrc") {
				return fmt.Errorf("%s: %q in\n%s", s.name, told[s.name], out)
			}
		}
		return nil
	})
	w.repo = "password"
	write(t, filepath.Join(dir, "credentials", "password"), "g00d-s3cret")
	w.eventually("the password to work again", func() error {
		if down := w.site().Down; down != "" {
			return fmt.Errorf("%s", down)
		}
		return nil
	})

	look := func(where, text string) {
		t.Helper()
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%s holds the secret %q", where, s)
			}
		}
	}
	look("its command line", readFile(t, fmt.Sprintf("/proc/%d/cmdline", w.daemon.cmd.Process.Pid)))
	for _, args := range [][]string{{"status"}, {"status", "-o", "json"}, {"history"}, {"history", "-o", "json"}, {"validate"}, {"check-config"}, {"sync"}} {
		out, _ := w.hh(args...)
		look("hhwatchd "+strings.Join(args, " "), out)
	}
	w.stop()
	out := w.daemon.output()
	look("its log", out)
	for name, text := range told {
		if text != "" && !strings.Contains(out, name) {
			t.Errorf("the log does not tell of %s: this shows nothing", name)
		}
	}
	files, objects := 0, 0
	err = filepath.WalkDir(w.state, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			files++
			look(path, readFile(t, path))
		}
		if d.IsDir() && d.Name() == ".git" {
			objects++
			content, err := exec.Command("git", "-C", path, "cat-file", "--batch-all-objects", "--batch").Output()
			if err != nil {
				return err
			}
			look("an object in "+path, string(content))
		}
		return nil
	})
	if err != nil || files < 20 || objects < 2 {
		t.Errorf("looked at %d files and the objects of %d clones, %v", files, objects, err)
	}
	for name, text := range told {
		t.Logf("%s: %s", name, text)
	}
}

func readFile(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

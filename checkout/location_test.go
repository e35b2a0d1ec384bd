// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseURL(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ url, scheme, user, host, path string }{
		{"https://h.example/a/b.git", "https", "", "h.example", "/a/b.git"},
		{"https://h.example:8443/a%20b/", "https", "", "h.example:8443", "/a b/"},
		{"HTTP://h.example/~u/b", "http", "", "h.example", "/~u/b"},
		{"https://[2001:db8::1]:8443/b", "https", "", "[2001:db8::1]:8443", "/b"},
		{"https://[2001:db8::1]/b", "https", "", "[2001:db8::1]", "/b"},
		{"ssh://h.example/a/b", "ssh", "", "h.example:22", "/a/b"},
		{"ssh://git@h.example:2222/a/b", "ssh", "git", "h.example:2222", "/a/b"},
		{"ssh://git@h.example:/a/b", "ssh", "git", "h.example:22", "/a/b"},
		{"ssh://git@h.example/~u/b", "ssh", "git", "h.example:22", "~u/b"},
		{"ssh://git@h.example/~/b", "ssh", "git", "h.example:22", "~/b"},
		{"ssh://git@h.example/a%20b%3Fc", "ssh", "git", "h.example:22", "/a b?c"},
		{"ssh://git@[2001:db8::1]:2222/b", "ssh", "git", "[2001:db8::1]:2222", "/b"},
		{"ssh://[2001:db8::1]/b", "ssh", "", "[2001:db8::1]:22", "/b"},
		{"git+ssh://git@h.example/b", "ssh", "git", "h.example:22", "/b"},
		{"git@h.example:a/b.git", "ssh", "git", "h.example:22", "a/b.git"},
		{"h.example:/a/b.git", "ssh", "", "h.example:22", "/a/b.git"},
		{"git@h.example:~u/b.git", "ssh", "git", "h.example:22", "~u/b.git"},
		{"h.example:a@b", "ssh", "", "h.example:22", "a@b"},
		{"h.example:a b'c", "ssh", "", "h.example:22", "a b'c"},
		{"git@[2001:db8::1]:a/b", "ssh", "git", "[2001:db8::1]:22", "a/b"},
		{"[2001:db8::1]:/a/b", "ssh", "", "[2001:db8::1]:22", "/a/b"},
		{"git@[h.example:2222]:a/b", "ssh", "git", "h.example:2222", "a/b"},
		{"file:///srv/a b.git", "file", "", "", "/srv/a b.git"},
		{"file://localhost/srv/a.git", "file", "", "", "/srv/a.git"},
		{"/srv/a.git", "file", "", "", "/srv/a.git"},
		{"/srv/a:b@c.git", "file", "", "", "/srv/a:b@c.git"},
		{"a/b:c", "file", "", "", filepath.Join(here, "a/b:c")},
		{"../a", "file", "", "", filepath.Join(filepath.Dir(here), "a")},
	} {
		l, err := parseURL(tc.url)
		host := l.host
		if l.scheme == "ssh" {
			host = l.addr()
		}
		if err != nil || l.scheme != tc.scheme || l.user != tc.user || host != tc.host || l.path != tc.path {
			t.Errorf("%s: %+v (%s), %v", tc.url, l, host, err)
		}
	}
	for bad, says := range map[string]string{
		"":                                       "missing",
		"ftp://h/x":                              `scheme "ftp" is not known`,
		"https:///x":                             "no host",
		"https://:8443/x":                        "no host",
		"ssh://h":                                "no path",
		"ssh://h/":                               "no path",
		"h:":                                     "no path",
		"file://elsewhere/x":                     "on another machine",
		"ssh://-oProxyCommand=x/y":               "no host",
		"a[b:c":                                  `"a[b", is not one`,
		"-oProxyCommand=x:y":                     "no host",
		"https://h:port/x":                       "invalid port",
		"~/repo.git":                             "write it out",
		"https://u:hunter2@h/x":                  "auth.passwordFile",
		"https://hunter2@h/x":                    "auth.passwordFile",
		"http://u:hunter2@[::1/x":                "auth.passwordFile",
		"https://u:hunter2/x@h/x":                "auth.passwordFile",
		"https://u:hunter2%zz@h/x":               "auth.passwordFile",
		"ssh://u:hunter2@h/x":                    "auth.sshKeyFile",
		"file://u:hunter2@/x":                    "auth.passwordFile",
		"ftp://u:hunter2@h/x":                    "auth.passwordFile",
		"u:hunter2@h:x":                          "auth.sshKeyFile",
		"https://h/x?private_token=hunter2":      "auth.tokenFile",
		"https://h/x#hunter2":                    "auth.tokenFile",
		"ssh://h/a?b":                            "%3F",
		"https://x-access-token:hunter2@h/x?y=z": "auth.passwordFile",
		"https://oauth2:hunter2@h:8443/a/b/c.git": "auth.passwordFile",
	} {
		l, err := parseURL(bad)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %+v, %v; want an error with %q", bad, l, err, says)
		}
	}
}

func TestParseProxy(t *testing.T) {
	for url, says := range map[string]string{
		"http://proxy.example.net:3128": "", "https://[2001:db8::1]:443/": "", "socks5://proxy": "",
		"http://u:hunter2@proxy": "auth.netrcFile", "http://hunter2@proxy:x": "auth.netrcFile",
		"proxy:3128": "write http://", "": "write http://", "http://proxy/path": "write http://", "ftp://proxy": "ftp",
	} {
		err := CheckProxy(url)
		if (err == nil) != (says == "") || err != nil && (!strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q: %v, want an error with %q", url, err, says)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

const (
	secret  = "It's a Secret to Everybody"
	signing = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
)

func sum(key, text string) []byte {
	mac := hmac.New(sha256.New, []byte(key))
	io.WriteString(mac, text)
	return mac.Sum(nil)
}

func hexSum(key, text string) string { return hex.EncodeToString(sum(key, text)) }

// standard is a signature of Standard Webhooks with the key in signing.
func standard(id, at, body string) string {
	return "v1," + base64.StdEncoding.EncodeToString(sum("0123456789abcdef0123456789abcdef", id+"."+at+"."+body))
}

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func payload(t testing.TB, forge string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", forge+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestVerify(t *testing.T) {
	github, gitlab, gitea := payload(t, "github"), payload(t, "gitlab"), payload(t, "gitea")
	id, at := "f5e5f430-f57b-4e6e-9fac-d9128cd7232f", "1795416942"
	for _, tt := range []struct {
		name   string
		secret string
		header http.Header
		body   string
		want   error
	}{
		// "Testing the webhook payload validation" in GitHub's documentation.
		{"GitHub's example", secret, headers("X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"), "Hello, World!", nil},
		{"GitHub", secret, headers("X-Hub-Signature-256", "sha256="+hexSum(secret, github)), github, nil},
		{"Gitea", secret, headers("X-Gitea-Signature", hexSum(secret, gitea)), gitea, nil},
		{"Forgejo", secret, headers("X-Forgejo-Signature", hexSum(secret, gitea)), gitea, nil},
		{"Forgejo with all of its headers", secret, headers("X-Forgejo-Signature", hexSum(secret, gitea),
			"X-Gitea-Signature", hexSum(secret, gitea), "X-Hub-Signature-256", "sha256="+hexSum(secret, gitea)), gitea, nil},
		{"GitLab, a token", secret, headers("X-Gitlab-Token", secret), gitlab, nil},
		{"GitLab, a signing token", signing, headers("Webhook-Id", id, "Webhook-Timestamp", at, "Webhook-Signature", standard(id, at, gitlab)), gitlab, nil},
		{"GitLab, one of two signatures", signing, headers("Webhook-Id", id, "Webhook-Timestamp", at,
			"Webhook-Signature", standard(id, at, "else")+" "+standard(id, at, gitlab)), gitlab, nil},
		{"GitLab, a token that we know and a signing token that we do not", secret,
			headers("X-Gitlab-Token", secret, "Webhook-Signature", standard(id, at, gitlab)), gitlab, nil},
		{"an empty body", secret, headers("X-Hub-Signature-256", "sha256="+hexSum(secret, "")), "", nil},

		{"nothing", secret, headers(), github, ErrUnsigned},
		{"empty headers", secret, headers("X-Hub-Signature-256", "", "X-Gitlab-Token", ""), github, ErrUnsigned},
		{"SHA-1 alone", secret, headers("X-Hub-Signature", "sha1=0123456789012345678901234567890123456789"), github, ErrUnsigned},
		{"another secret", secret, headers("X-Hub-Signature-256", "sha256="+hexSum("other", github)), github, ErrWrong},
		{"another body", secret, headers("X-Hub-Signature-256", "sha256="+hexSum(secret, github)), github + " ", ErrWrong},
		{"no hexadecimal", secret, headers("X-Hub-Signature-256", "sha256=zz"), github, ErrWrong},
		{"half a signature", secret, headers("X-Gitea-Signature", hexSum(secret, gitea)[:32]), gitea, ErrWrong},
		{"the beginning of the token", secret, headers("X-Gitlab-Token", secret[:5]), gitlab, ErrWrong},
		{"a signing token as a token", signing, headers("Webhook-Id", id, "Webhook-Timestamp", at, "Webhook-Signature", signing), gitlab, ErrWrong},
		{"another time", signing, headers("Webhook-Id", id, "Webhook-Timestamp", at+"1", "Webhook-Signature", standard(id, at, gitlab)), gitlab, ErrWrong},
		{"another version", signing, headers("Webhook-Id", id, "Webhook-Timestamp", at, "Webhook-Signature", "v2"+standard(id, at, gitlab)[2:]), gitlab, ErrWrong},
		{"signed where no signing token is known", secret, headers("Webhook-Id", id, "Webhook-Timestamp", at, "Webhook-Signature", standard(id, at, gitlab)), gitlab, ErrWrong},
		{"a signing token that is none", "whsec_", headers("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(sum("", ".."+gitlab))), gitlab, ErrWrong},
		{"no secret, signed with none", "", headers("X-Hub-Signature-256", "sha256="+hexSum("", github)), github, ErrWrong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := strings.NewReader(tt.body)
			if err := Verify(tt.header, body, tt.secret); !errors.Is(err, tt.want) {
				t.Errorf("Verify: %v, want %v", err, tt.want)
			}
			if left := body.Len(); (left == 0) == (tt.want == ErrUnsigned) {
				t.Errorf("%d bytes of the body are left", left)
			}
		})
	}
	broken := errors.New("broken")
	err := Verify(headers("X-Gitlab-Token", secret), iotest.ErrReader(broken), secret)
	if !errors.Is(err, broken) {
		t.Errorf("a body that breaks off: %v", err)
	}
}

func TestFinder(t *testing.T) {
	const other = "https://git.example.net/net/other.git"
	for _, tt := range []struct {
		forge, url string
		want       bool
	}{
		{"github", "https://github.com/Octo-Net/fabrics.git", true},
		{"github", "https://github.com/octo-net/fabrics", true},
		{"github", "git@github.com:octo-net/fabrics.git", true},
		{"github", "ssh://git@github.com/octo-net/fabrics.git", true},
		{"github", "https://github.com/octo-net/fabric-1.git", false},
		{"gitlab", "https://gitlab.example.net/net/site/fabrics.git", true},
		{"gitlab", "ssh://git@gitlab.example.net:2222/net/site/fabrics.git", true},
		{"gitlab", "git@gitlab.example.net:net/site/fabrics.git", true},
		{"gitlab", "https://gitlab.example.com/net/site/fabrics.git", false},
		{"gitea", "http://git.example.net:3000/net/fabrics.git", true},
		{"gitea", "ssh://git@git.example.net:2222/net/fabrics.git", true},
		{"gitea", "git@git.example.net:net/fabrics.git", true},
		{"gitea", "/srv/git/net/fabrics.git", false},
		{"gitea", "file:///srv/git/net/fabrics.git", false},
		{"gitea", "https://git.example.net/", false},
		{"gitea", "", false},
	} {
		f := NewFinder(other, tt.url)
		if _, err := io.Copy(f, iotest.OneByteReader(strings.NewReader(payload(t, tt.forge)))); err != nil {
			t.Fatal(err)
		}
		if got := f.Found(); got[0] || got[1] != tt.want {
			t.Errorf("in %s's call: %s found: %v, another one: %v", tt.forge, tt.url, got[1], got[0])
		}
	}
}

// FuzzFinder: how a body is cut into writes makes no difference.
func FuzzFinder(f *testing.F) {
	for _, forge := range []string{"github", "gitlab", "gitea"} {
		f.Add("ssh://git@git.example.net:2222/net/fabrics.git", payload(f, forge), 7)
	}
	f.Add("a:b", "a:a:b", 2)
	f.Add("A:B", "\xffa:b", 1)
	f.Fuzz(func(t *testing.T, url, body string, size int) {
		size = max(1, size%100)
		whole, cut := NewFinder(url), NewFinder(url)
		io.WriteString(whole, body)
		for at := 0; at < len(body); at += size {
			io.WriteString(cut, body[at:min(len(body), at+size)])
		}
		host, path := split(strings.ToLower(url))
		text := lower(body)
		want := host != "" && path != "" && strings.Contains(text, host) &&
			(strings.Contains(text, "/"+path) || strings.Contains(text, ":"+path))
		if whole.Found()[0] != want || cut.Found()[0] != want {
			t.Errorf("%q found in one piece: %v, in pieces of %d: %v; want %v", url, whole.Found()[0], size, cut.Found()[0], want)
		}
	})
}

// lower is bytes.ToLower for ASCII alone.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

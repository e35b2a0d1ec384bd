// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// A GitHubApp is an app that is installed where the repository is. It proves
// who it is with a JSON Web Token (RFC 7519) that it signs with its key, and
// gets a token for the installation, which lives for an hour:
// https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
type GitHubApp struct {
	// ID is the app's ID or its client ID.
	ID string
	// Installation is the ID of the installation.
	Installation int64
	// KeyFile holds the app's private RSA key, in PEM.
	KeyFile string
}

// An appToken is the token of an installation.
type appToken struct {
	text    string
	expires time.Time
}

// A token is not used any more when it has less than tokenRest left, so that it
// lives to the end of the request that it is for.
const tokenRest = 5 * time.Minute

// installationToken returns a token for git, which is asked for if there is
// none that is still good.
func (h *httpRemote) installationToken(ctx context.Context) (string, error) {
	if h.token.text != "" && time.Until(h.token.expires) > tokenRest {
		return h.token.text, nil
	}
	token, err := h.askInstallationToken(ctx)
	if err != nil {
		return "", fmt.Errorf("getting a token for the GitHub App: %w", err)
	}
	h.token = token
	return token.text, nil
}

// apiOf returns the URL of GitHub's REST API for a repository:
// https://docs.github.com/en/rest/using-the-rest-api
func apiOf(repo *url.URL) *url.URL {
	if host := repo.Hostname(); host == "github.com" || strings.HasSuffix(host, ".ghe.com") {
		return &url.URL{Scheme: "https", Host: "api." + host}
	}
	return &url.URL{Scheme: repo.Scheme, Host: repo.Host, Path: "/api/v3"} // GitHub Enterprise Server
}

func (h *httpRemote) askInstallationToken(ctx context.Context) (appToken, error) {
	app := h.auth.GitHubApp
	jwt, err := app.sign(time.Now())
	if err != nil {
		return appToken{}, err
	}
	u := apiOf(h.given.url).JoinPath("app", "installations", fmt.Sprint(app.Installation), "access_tokens")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return appToken{}, err
	}
	req.Header.Set("Authorization", "Bearer "+jwt)
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	req.Header.Set("User-Agent", ourName)
	// A redirect is not followed: the JWT is for this host.
	client := &http.Client{Transport: h.client.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return appToken{}, bare(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return appToken{}, err
	}
	if res.StatusCode != http.StatusCreated {
		return appToken{}, app.refusal(res.StatusCode, []byte(withoutSecrets(string(body), req)))
	}
	var answer struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires_at"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Token == "" || answer.Expires.IsZero() {
		// The text of the error may repeat the token.
		return appToken{}, fmt.Errorf("what %s answers is not a token", u.Host)
	}
	return appToken{answer.Token, answer.Expires}, nil
}

// refusal words an answer that is not a token.
func (a *GitHubApp) refusal(status int, body []byte) error {
	var answer struct {
		Message string `json:"message"`
	}
	json.Unmarshal(body, &answer) // what is no JSON has no message
	said := fmt.Sprintf("HTTP %d", status)
	if answer.Message != "" {
		said += ": " + oneLine(answer.Message)
	}
	switch status {
	case http.StatusUnauthorized:
		return fmt.Errorf("%w (%s): check auth.githubApp.id and auth.githubApp.keyFile, and the clock of this host", ErrAuth, said)
	case http.StatusForbidden, http.StatusNotFound:
		return fmt.Errorf("%w (%s): check auth.githubApp.installation, and whether it is suspended", ErrAuth, said)
	}
	return fmt.Errorf("it answers with %s", said)
}

// sign makes the token that proves who the app is. GitHub takes it for ten
// minutes at most, and advises to let it begin a minute ago, as clocks differ.
func (a *GitHubApp) sign(now time.Time) (string, error) {
	key, err := a.key()
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	claims, err := json.Marshal(map[string]any{
		"iat": now.Add(-time.Minute).Unix(),
		"exp": now.Add(8 * time.Minute).Unix(),
		"iss": a.ID,
	})
	if err != nil {
		return "", err
	}
	text := encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("signing with the key in %s: %w", a.KeyFile, err)
	}
	return text + "." + encode(signature), nil
}

// key reads the private key, in one of the two forms that there are.
func (a *GitHubApp) key() (*rsa.PrivateKey, error) {
	data, err := os.ReadFile(a.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading a credential: %w", err)
	}
	if block, _ := pem.Decode(data); block != nil {
		if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if key, ok := key.(*rsa.PrivateKey); ok {
				return key, nil
			}
		}
	}
	return nil, fmt.Errorf("%s holds no private RSA key in PEM", a.KeyFile)
}

// bare takes the URL off an error of an HTTP client; whoever wraps it says what
// was asked.
func bare(err error) error {
	if e := (*url.Error)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

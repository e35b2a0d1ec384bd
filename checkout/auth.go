// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
)

// Auth says how to authenticate to a remote. The files are read each time
// that a connection or a request needs them, so that a rotated secret is
// picked up. The content of none of them ever gets into an error.
//
// For HTTP there is one of GitHubApp, TokenFile, PasswordFile and NetrcFile;
// where there are several, the first of these counts. They are sent to the
// host of the URL only, wherever it redirects to.
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
	// NetrcFile holds users and passwords by host, for HTTP basic
	// authentication and for proxies, in the format of ftp's and curl's
	// .netrc. With Username, it is the entry of that user.
	NetrcFile string
	// GitHubApp, if it is not nil, authenticates as an app of GitHub.
	GitHubApp *GitHubApp
	// CAFile holds certificates, in PEM, that are trusted for HTTPS besides
	// the system's.
	CAFile string
	// ClientCertFile and ClientKeyFile hold a certificate and its key, in PEM,
	// with which TLS authenticates us. They are read at each connection. The
	// key may lie in the file of the certificate.
	ClientCertFile, ClientKeyFile string
	// SSHKeyFile holds a private key for SSH, without a passphrase. Without
	// it the agent at SSH_AUTH_SOCK is asked.
	SSHKeyFile string
	// KnownHostsFile holds the host keys that are accepted (sshd(8)); all
	// others are refused. The default are ~/.ssh/known_hosts and
	// /etc/ssh/ssh_known_hosts.
	KnownHostsFile string
}

// secret reads a file with a secret, without the space around it.
func secret(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading a credential: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		return "", fmt.Errorf("%s is empty: it has to hold a credential", file)
	}
	// It would be refused as the value of a header, in a text that repeats it.
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("%s holds more than one line: it has to hold a credential and nothing else", file)
	}
	return text, nil
}

// authorize puts the credentials into a request to the host of the URL.
func (h *httpRemote) authorize(ctx context.Context, req *http.Request) error {
	if req.URL.Host != h.given.url.Host {
		return nil
	}
	auth := &h.auth
	switch {
	case auth.GitHubApp != nil:
		token, err := h.installationToken(ctx)
		if err != nil {
			return err
		}
		req.SetBasicAuth("x-access-token", token)
	case auth.TokenFile != "":
		token, err := secret(auth.TokenFile)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	case auth.PasswordFile != "":
		password, err := secret(auth.PasswordFile)
		if err != nil {
			return err
		}
		req.SetBasicAuth(cmp.Or(auth.Username, "git"), password)
	case auth.NetrcFile != "":
		e, err := lookNetrc(auth.NetrcFile, req.URL.Hostname(), auth.Username)
		if err != nil {
			return err
		}
		if e != nil {
			req.SetBasicAuth(cmp.Or(e.login, auth.Username, "git"), e.password)
		}
	}
	return nil
}

// withoutSecrets takes the credentials of a request out of what a server says of
// it: some repeat what they do not like.
func withoutSecrets(text string, req *http.Request) string {
	scheme, value, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if value == "" {
		return text
	}
	text = strings.ReplaceAll(text, value, "("+scheme+" credentials)")
	if _, password, ok := req.BasicAuth(); ok && password != "" {
		text = strings.ReplaceAll(text, password, "(the password)")
	}
	return text
}

// unauthorized says what to look at when the credentials were refused.
func (a *Auth) unauthorized(host string) string {
	switch {
	case a.GitHubApp != nil:
		return "check whether the installation of auth.githubApp has this repository"
	case a.TokenFile != "":
		return "check auth.tokenFile"
	case a.PasswordFile != "":
		return "check auth.username and auth.passwordFile"
	case a.NetrcFile != "":
		return fmt.Sprintf("check the entry of %s in auth.netrcFile", host)
	}
	return "it asks for some, set auth.username and auth.passwordFile"
}

// certificateRefused words what a server says by TLS of our certificate.
func (a *Auth) certificateRefused(err error) error {
	op := (*net.OpError)(nil)
	if !errors.As(err, &op) || op.Op != "remote error" || !strings.Contains(op.Err.Error(), "certificate") {
		return err
	}
	if a.ClientCertFile == "" {
		return fmt.Errorf("%w: it asks for a client certificate (%w): set auth.clientCertFile", ErrAuth, op.Err)
	}
	return fmt.Errorf("%w: it does not accept our certificate (%w): check auth.clientCertFile", ErrAuth, op.Err)
}

// clientCertificate returns our certificate, for a server that asks for one.
func (a *Auth) clientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(a.ClientCertFile, cmp.Or(a.ClientKeyFile, a.ClientCertFile))
	if err != nil {
		return nil, fmt.Errorf("reading auth.clientCertFile and auth.clientKeyFile: %w", err)
	}
	return &cert, nil
}

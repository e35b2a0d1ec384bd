// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
)

// A location is a parsed URL of a repository, in one of the forms of
// git-clone(1).
type location struct {
	scheme string   // http, https, ssh or file
	url    *url.URL // for http and https
	user   string   // for ssh
	host   string   // for ssh, with the port if there is one
	path   string   // for ssh and file
}

// CheckURL reports why a repository's URL cannot be used. There are http,
// https, ssh and file URLs, [user@]host:path, and paths, as in git-clone(1).
// None of them may hold a password, nor those for HTTP a user, who may be a
// token; the error does not repeat them.
func CheckURL(raw string) error {
	_, err := parseURL(raw)
	return err
}

// What does not belong into a URL, as URLs get into configs, process lists and
// logs.
var (
	errCredentials = errors.New("holds credentials: put the password into a file, name that in auth.passwordFile, and the user in auth.username")
	errPassword    = errors.New("holds a password; for SSH there are keys: see auth.sshKeyFile")
)

func parseURL(raw string) (location, error) {
	if raw == "" {
		return location{}, errors.New("missing; give the remote's URL or path")
	}
	if !strings.Contains(raw, "://") {
		return parseShort(raw)
	}
	u, err := url.Parse(raw)
	if err != nil {
		if strings.Contains(raw, "@") {
			// A password with characters that a URL cannot have is the usual
			// reason, and in the text of the error.
			return location{}, errors.New("not a URL; if it holds a password: that belongs into a file that auth.passwordFile names")
		}
		return location{}, fmt.Errorf("not a URL: %w", bare(err))
	}
	loc := location{scheme: strings.ToLower(u.Scheme), host: u.Host, path: u.Path, user: u.User.Username()}
	if loc.scheme == "git+ssh" || loc.scheme == "ssh+git" {
		loc.scheme = "ssh"
	}
	switch _, password := u.User.Password(); {
	case password && loc.scheme == "ssh":
		return location{}, errPassword
	case u.User != nil && loc.scheme != "ssh":
		return location{}, errCredentials
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return location{}, errors.New("holds a query or a fragment; a token belongs into a file that auth.tokenFile names, and in a path ? is %3F and # is %23")
	}
	switch loc.scheme {
	case "http", "https":
		u.Path = strings.TrimRight(u.Path, "/")
		u.RawPath = strings.TrimRight(u.RawPath, "/")
		loc.url = u
	case "ssh":
		if strings.HasPrefix(loc.path, "/~") {
			loc.path = loc.path[1:] // relative to somebody's home
		}
	case "file":
		if loc.host != "" && loc.host != "localhost" {
			return location{}, fmt.Errorf("file://%s is on another machine; a path begins with file:///", loc.host)
		}
		loc.host = ""
		return loc, nil
	default:
		return location{}, fmt.Errorf("scheme %q is not known; there are https, http, ssh and file", loc.scheme)
	}
	return loc, loc.check()
}

// parseShort takes what has no scheme: [user@]host:path, where the host may be
// [address] or [host:port], or a path, which is what has no colon before its
// first slash.
func parseShort(raw string) (location, error) {
	if strings.HasPrefix(raw, "~") {
		return location{}, errors.New("a path that begins with ~ is somebody's home to a shell only; write it out")
	}
	user, rest, ok := strings.Cut(raw, "@")
	if !ok || strings.ContainsAny(user, ":/[") {
		user, rest = "", raw
	}
	host, path, ok := strings.Cut(rest, ":")
	if inner, after, found := strings.Cut(rest, "]:"); found && strings.HasPrefix(inner, "[") {
		host, path, ok = inner[1:], after, true
		if strings.Count(host, ":") != 1 { // an address, not host:port
			host = "[" + host + "]"
		}
	}
	if !ok || host == "" || strings.Contains(host, "/") {
		abs, err := filepath.Abs(raw)
		return location{scheme: "file", path: abs}, err
	}
	// What git takes for a path on the host "user" is user:password@host:path.
	if user == "" && strings.Contains(path, "@") && strings.Contains(path[strings.Index(path, "@"):], ":") {
		return location{}, errPassword
	}
	loc := location{scheme: "ssh", user: user, host: host, path: path}
	return loc, loc.check()
}

func (loc location) check() error {
	if loc.host == "" || strings.HasPrefix(loc.host, "-") || strings.HasPrefix(loc.host, ":") {
		return errors.New("there is no host in it")
	}
	if _, _, err := net.SplitHostPort(loc.addr()); err != nil || strings.ContainsAny(loc.host, " \t\n") {
		return fmt.Errorf("the host in it, %q, is not one", loc.host)
	}
	if loc.scheme == "ssh" && strings.TrimPrefix(loc.path, "/") == "" {
		return errors.New("there is no path in it")
	}
	return nil
}

// addr is the address of an SSH server, with its port, 22 if it has none.
func (loc location) addr() string {
	if _, port, err := net.SplitHostPort(loc.host); err == nil && port != "" {
		return loc.host
	}
	host := strings.TrimSuffix(loc.host, ":")
	return net.JoinHostPort(strings.Trim(host, "[]"), "22")
}

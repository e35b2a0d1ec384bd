// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// CheckProxy reports why the URL of a proxy cannot be used. There are http,
// https and socks5 proxies. It may not hold a user or password: those are
// looked up in [Auth.NetrcFile], by the proxy's host.
func CheckProxy(raw string) error {
	_, err := parseProxy(raw)
	return err
}

func parseProxy(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case strings.Contains(raw, "@"):
		return nil, errors.New("holds credentials; put them into a file as .netrc has them, and name that in auth.netrcFile")
	case err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("not the URL of a proxy; write http://proxy.example.net:3128")
	}
	switch u.Scheme {
	case "http", "https", "socks5":
		return u, nil
	}
	return nil, fmt.Errorf("scheme %q is not known; there are http, https and socks5", u.Scheme)
}

var errProxyAuth = fmt.Errorf("%w: it is the proxy that asks for some (HTTP 407), set auth.netrcFile to a file with an entry for its host", ErrAuth)

// proxyFor returns the proxy for a request, with its credentials; nil if there
// is none.
func (h *httpRemote) proxyFor(req *http.Request) (*url.URL, error) {
	proxy := h.proxy
	if proxy == nil {
		var err error
		if proxy, err = http.ProxyFromEnvironment(req); err != nil {
			// Its text repeats the URL, with what secrets are in it.
			return nil, errors.New("HTTPS_PROXY or HTTP_PROXY in the environment is not the URL of a proxy")
		}
	}
	if proxy == nil || proxy.User != nil || h.auth.NetrcFile == "" {
		return proxy, nil
	}
	e, err := lookNetrc(h.auth.NetrcFile, proxy.Hostname(), "")
	if err != nil || e == nil || e.machine == "" {
		return proxy, err
	}
	with := *proxy
	with.User = url.UserPassword(e.login, e.password)
	return &with, nil
}

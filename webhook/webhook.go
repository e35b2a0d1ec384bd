// SPDX-License-Identifier: Apache-2.0

// Package webhook tells whether an HTTP request is a call from a forge that
// knows a secret, and which of some git repositories the call is about.
//
// A forge calls when somebody has pushed. What the call says is only a hint:
// the receiver looks at the remote itself. So a call does not have to be
// understood, it only has to be genuine, and [Verify] knows the ways in which
// forges show that, each with the secret that was typed into their settings:
//
//   - GitHub: X-Hub-Signature-256 is "sha256=" and the HMAC-SHA256 of the
//     body, in hexadecimal ("Validating webhook deliveries" in its
//     documentation).
//   - Gitea and Forgejo: X-Gitea-Signature and X-Forgejo-Signature are the
//     same without the prefix. Both send GitHub's header, too.
//   - GitLab: X-Gitlab-Token is the secret itself. With a signing token, of
//     the form "whsec_" and a key in base64, webhook-signature is "v1," and
//     the HMAC-SHA256 of "webhook-id.webhook-timestamp.body", in base64; that
//     is the scheme of Standard Webhooks, in which several signatures may
//     stand in the header, with spaces between.
//
// A call that somebody recorded can be sent again, which costs the receiver a
// look at the remote. Only the last of these schemes could tell, by its
// timestamp; as the others could not, and clocks of management hosts go wrong,
// it is not looked at.
//
// Bodies can be long: GitHub sends up to 25 MB. Both [Verify] and [Finder]
// take them as a stream and keep none of it, because who sends it is not known
// before its end.
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
)

// What [Verify] says of calls that are not genuine.
var (
	ErrUnsigned = errors.New("the call has neither a signature nor a token")
	ErrWrong    = errors.New("the call's signature or token does not fit the secret")
)

// signingPrefix begins a signing token of Standard Webhooks.
const signingPrefix = "whsec_"

// Verify reads body, that of a call with the headers h, and returns nil where
// one of its signatures, or its token, shows that the caller knows the secret.
// Else the error is [ErrUnsigned], for which body is not read, or [ErrWrong],
// or what reading the body gave. No secret must not be taken for a secret:
// with an empty one every call is wrong.
func Verify(h http.Header, body io.Reader, secret string) error {
	var proofs []func() bool // whether a proof holds, once the body is read
	var macs []io.Writer

	plain := hmac.New(sha256.New, []byte(secret))
	for _, header := range []string{"X-Hub-Signature-256", "X-Gitea-Signature", "X-Forgejo-Signature"} {
		if signature := h.Get(header); signature != "" {
			proofs = append(proofs, func() bool {
				// Only GitHub's has the prefix.
				got, err := hex.DecodeString(strings.TrimPrefix(signature, "sha256="))
				return err == nil && hmac.Equal(got, plain.Sum(nil))
			})
		}
	}
	if len(proofs) > 0 {
		macs = append(macs, plain)
	}
	if signatures := h.Get("Webhook-Signature"); signatures != "" {
		standard := standardMAC(h, secret)
		if standard != nil {
			macs = append(macs, standard)
		}
		proofs = append(proofs, func() bool { return standard != nil && anySignature(signatures, standard.Sum(nil)) })
	}
	if token := h.Get("X-Gitlab-Token"); token != "" {
		proofs = append(proofs, func() bool { return same(token, secret) })
	}
	if len(proofs) == 0 {
		return ErrUnsigned
	}

	if _, err := io.Copy(io.MultiWriter(macs...), body); err != nil {
		return fmt.Errorf("reading the call: %w", err)
	}
	for _, holds := range proofs {
		if secret != "" && holds() {
			return nil
		}
	}
	return ErrWrong
}

// standardMAC is the MAC of Standard Webhooks up to the body, nil where secret
// is no signing token.
func standardMAC(h http.Header, secret string) hash.Hash {
	encoded, ok := strings.CutPrefix(secret, signingPrefix)
	if !ok {
		return nil
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) == 0 {
		return nil
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", h.Get("Webhook-Id"), h.Get("Webhook-Timestamp"))
	return mac
}

// anySignature reports whether one of the signatures, with spaces between, is
// sum.
func anySignature(signatures string, sum []byte) bool {
	for signature := range strings.FieldsSeq(signatures) {
		encoded, ok := strings.CutPrefix(signature, "v1,")
		if got, err := base64.StdEncoding.DecodeString(encoded); ok && err == nil && hmac.Equal(got, sum) {
			return true
		}
	}
	return false
}

// same compares in a time that tells nothing of either, not even the length.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return hmac.Equal(x[:], y[:])
}

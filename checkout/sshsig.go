// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// The format of signatures by SSH keys: a PEM block of this type, which holds
// the magic, the version and an sshSignature (PROTOCOL.sshsig of OpenSSH).
// git's signatures have the namespace "git" (ssh-keygen(1), -Y sign).
const (
	sshSigType      = "SSH SIGNATURE"
	sshSigMagic     = "SSHSIG"
	sshSigVersion   = 1
	sshSigNamespace = "git"
)

type sshSignature struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  string
	HashAlg   string
	Signature []byte
}

// sshSigned returns what is signed in place of a message.
func sshSigned(hashAlg string, message []byte) ([]byte, error) {
	var sum []byte
	switch hashAlg {
	case "sha256":
		h := sha256.Sum256(message)
		sum = h[:]
	case "sha512":
		h := sha512.Sum512(message)
		sum = h[:]
	default:
		return nil, fmt.Errorf("an SSH signature with the hash %q", hashAlg)
	}
	return append([]byte(sshSigMagic), ssh.Marshal(struct {
		Namespace, Reserved, HashAlg string
		Hash                         []byte
	}{sshSigNamespace, "", hashAlg, sum})...), nil
}

// signSSH signs a message with a key, as ssh-keygen -Y sign -n git does.
func signSSH(key ssh.Signer, message []byte) (string, error) {
	data, err := sshSigned("sha512", message)
	if err != nil {
		return "", err
	}
	var sig *ssh.Signature
	if rsa, ok := key.(ssh.AlgorithmSigner); ok && key.PublicKey().Type() == ssh.KeyAlgoRSA {
		// A plain RSA signature would be one of SHA-1, which is not allowed.
		sig, err = rsa.SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA512)
	} else {
		sig, err = key.Sign(rand.Reader, data)
	}
	if err != nil {
		return "", err
	}
	blob := append([]byte(sshSigMagic), ssh.Marshal(sshSignature{
		Version: sshSigVersion, PublicKey: key.PublicKey().Marshal(),
		Namespace: sshSigNamespace, HashAlg: "sha512", Signature: ssh.Marshal(sig),
	})...)
	return string(pem.EncodeToMemory(&pem.Block{Type: sshSigType, Bytes: blob})), nil
}

// verifySSH checks that an armoured signature is one of the message, and
// returns the key that made it. Whose key that is, is another question.
func verifySSH(armor string, message []byte) (ssh.PublicKey, error) {
	block, rest := pem.Decode([]byte(armor))
	if block == nil || block.Type != sshSigType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("a malformed SSH signature")
	}
	blob, ok := bytes.CutPrefix(block.Bytes, []byte(sshSigMagic))
	var s sshSignature
	if !ok || ssh.Unmarshal(blob, &s) != nil || s.Version != sshSigVersion {
		return nil, errors.New("a malformed SSH signature")
	}
	if s.Namespace != sshSigNamespace {
		return nil, fmt.Errorf("an SSH signature for %q, not for git", s.Namespace)
	}
	key, err := ssh.ParsePublicKey(s.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("the key of an SSH signature: %w", err)
	}
	var sig ssh.Signature
	if err := ssh.Unmarshal(s.Signature, &sig); err != nil {
		return nil, errors.New("a malformed SSH signature")
	}
	if sig.Format == ssh.KeyAlgoRSA {
		return nil, errors.New("an SSH signature by SHA-1")
	}
	data, err := sshSigned(s.HashAlg, message)
	if err != nil {
		return nil, err
	}
	if err := key.Verify(data, &sig); err != nil {
		return nil, fmt.Errorf("a wrong SSH signature: %w", err)
	}
	return key, nil
}

// An allowedSigner is a line of an allowed signers file (ssh-keygen(1),
// "ALLOWED SIGNERS"): a key, and when it may sign for git.
type allowedSigner struct {
	principals    string
	key           []byte
	after, before time.Time // zero for always
}

// parseAllowedSigners reads an allowed signers file. Keys that are not for git
// are left out; certificates are not known here, and refused.
func parseAllowedSigners(data []byte) ([]allowedSigner, error) {
	var out []allowedSigner
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fail := func(why string) ([]allowedSigner, error) { return nil, fmt.Errorf("line %d: %s", n, why) }
		principals, rest, ok := cutPrincipals(line)
		if !ok {
			return fail("not \"principals [options] keytype key\"")
		}
		key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
		if err != nil {
			return fail("no key that can be read")
		}
		s := allowedSigner{principals: principals, key: key.Marshal()}
		forGit := true
		for _, o := range options {
			name, value, _ := strings.Cut(o, "=")
			value = strings.Trim(value, `"`)
			switch strings.ToLower(name) {
			case "namespaces":
				forGit = slices.ContainsFunc(strings.Split(value, ","), func(p string) bool { return p == sshSigNamespace || p == "*" })
			case "valid-after":
				s.after, err = parseSSHTime(value)
			case "valid-before":
				s.before, err = parseSSHTime(value)
			case "cert-authority":
				return fail("certificate authorities are not supported: list the keys themselves")
			default:
				return fail(fmt.Sprintf("the option %q is not known", name))
			}
			if err != nil {
				return fail(fmt.Sprintf("%s: %q is not a time (YYYYMMDD[HHMM[SS]][Z])", name, value))
			}
		}
		if forGit {
			out = append(out, s)
		}
	}
	return out, nil
}

// cutPrincipals cuts the first field off a line, which may be in quotes.
func cutPrincipals(line string) (principals, rest string, ok bool) {
	if quoted, found := strings.CutPrefix(line, `"`); found {
		principals, rest, ok = strings.Cut(quoted, `"`)
	} else if i := strings.IndexAny(line, " \t"); i > 0 {
		principals, rest, ok = line[:i], line[i:], true
	}
	return principals, strings.TrimSpace(rest), ok && principals != ""
}

func parseSSHTime(s string) (time.Time, error) {
	in := time.Local
	if utc, ok := strings.CutSuffix(s, "Z"); ok {
		s, in = utc, time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(s) == len(layout) {
			return time.ParseInLocation(layout, s, in)
		}
	}
	return time.Time{}, errors.New("not a time")
}

// allows reports whether the signer may have signed with key at the time when.
func (s *allowedSigner) allows(key ssh.PublicKey, when time.Time) bool {
	return bytes.Equal(s.key, key.Marshal()) &&
		(s.after.IsZero() || !when.Before(s.after)) && (s.before.IsZero() || when.Before(s.before))
}

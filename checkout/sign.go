// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	pgparmor "github.com/ProtonMail/go-crypto/openpgp/armor"
	pgp "github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/crypto/ssh"
)

// A Verify says who may sign the commits that are pulled. Both kinds of keys
// can be given.
type Verify struct {
	// AllowedSignersFile lists SSH keys (ssh-keygen(1), "ALLOWED SIGNERS").
	// Which principal a key is of does not matter, as it does not to git.
	AllowedSignersFile string
	// KeyringFile holds OpenPGP public keys, armoured.
	KeyringFile string
}

func (v Verify) on() bool { return v.AllowedSignersFile != "" || v.KeyringFile != "" }

// An unverifiedError says that the remote's branch has a commit that is not
// signed by an allowed key. Nothing of what is new there is taken over.
type unverifiedError struct {
	Commit Hash
	Who    string // the author, as the commit says
	Reason string
}

func (e *unverifiedError) Error() string {
	return fmt.Sprintf("commit %.12s by %s is not accepted: %s; nothing new is taken from the branch until the commit is gone from it or its key is allowed", e.Commit, e.Who, e.Reason)
}

// sign returns the signature of a commit, in its armour, by the key in the file
// keyFile: a private key for SSH, or an armoured one of OpenPGP, neither with a
// passphrase. The file is read each time.
func sign(keyFile string, commit []byte) (string, error) {
	data, err := os.ReadFile(keyFile)
	if err != nil {
		return "", fmt.Errorf("reading the signing key: %w", err)
	}
	if bytes.Contains(data, []byte("-----BEGIN PGP ")) {
		return signOpenPGP(keyFile, data, commit)
	}
	key, err := ssh.ParsePrivateKey(data)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		return "", fmt.Errorf("the signing key %s has a passphrase: nobody can type it in", keyFile)
	}
	if err != nil {
		return "", fmt.Errorf("the signing key %s is neither a private key for SSH nor an armoured one of OpenPGP", keyFile)
	}
	return signSSH(key, commit)
}

func signOpenPGP(keyFile string, key, commit []byte) (string, error) {
	ring, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(key))
	if err != nil {
		return "", fmt.Errorf("the signing key %s: %w", keyFile, err)
	}
	for _, e := range ring {
		k, ok := e.SigningKey(time.Now())
		if !ok || k.PrivateKey == nil {
			continue
		}
		if k.PrivateKey.Encrypted {
			return "", fmt.Errorf("the signing key %s has a passphrase: nobody can type it in", keyFile)
		}
		var out strings.Builder
		if err := openpgp.ArmoredDetachSign(&out, e, bytes.NewReader(commit), nil); err != nil {
			return "", fmt.Errorf("signing with %s: %w", keyFile, err)
		}
		return out.String(), nil
	}
	return "", fmt.Errorf("%s holds no private key that can sign today", keyFile)
}

// signed puts a signature into a commit, as the last line of its header. The
// lines after the first are continued by a space.
func signed(commit []byte, armor string) []byte {
	header, message, _ := bytes.Cut(commit, []byte("\n\n"))
	armor = strings.ReplaceAll(strings.TrimRight(armor, "\n"), "\n", "\n ")
	return fmt.Appendf(nil, "%s\ngpgsig %s\n\n%s", header, armor, message)
}

// unsigned takes the signature out of a commit: what is left is what was
// signed. armor is empty if there is none.
func unsigned(commit []byte) (payload []byte, armor string) {
	var out bytes.Buffer
	var sig strings.Builder
	header, inSig := true, false
	for line := range bytes.Lines(commit) {
		switch {
		case header && inSig && line[0] == ' ':
			sig.Write(line[1:])
			continue
		case header && bytes.HasPrefix(line, []byte("gpgsig ")) && sig.Len() == 0:
			sig.Write(line[len("gpgsig "):])
			inSig = true
			continue
		case line[0] == '\n':
			header = false
		}
		inSig = false
		out.Write(line)
	}
	return out.Bytes(), sig.String()
}

// verifyNew checks that every commit that the branch at tip would bring is
// signed by an allowed key: those that neither the remote-tracking branch, at
// old, nor the local branch has, however they came to be on it. What the clone
// has already was checked then, or was made here. Where it has nothing, there is
// no telling how the history came about, and the tip has to do: who signed it
// vouches for what it stands on, whose hashes it holds.
func (c *Clone) verifyNew(old, tip oid) error {
	if !c.opts.Verify.on() || tip == old || tip == (oid{}) {
		return nil
	}
	allowed, err := c.opts.Verify.read()
	if err != nil {
		return err
	}
	head, err := c.repo.ref(branchRef(c.opts.Branch))
	if err != nil {
		return err
	}
	if old == (oid{}) && head == (oid{}) {
		return c.repo.verifyCommit(tip, allowed)
	}
	commits, err := c.repo.between(old, tip)
	if err != nil {
		return err
	}
	ours := make(map[oid]bool)
	if head != old {
		unknown, err := c.repo.between(head, tip)
		if err != nil {
			return err
		}
		for _, commit := range commits {
			ours[commit.Hash] = true
		}
		for _, commit := range unknown {
			delete(ours, commit.Hash)
		}
	}
	for _, commit := range commits {
		if !ours[commit.Hash] {
			if err := c.repo.verifyCommit(commit.Hash, allowed); err != nil {
				return err
			}
		}
	}
	return nil
}

// allowed is who may sign.
type allowed struct {
	signers []allowedSigner
	keyring openpgp.EntityList
}

func (v Verify) read() (*allowed, error) {
	var a allowed
	if v.AllowedSignersFile != "" {
		data, err := os.ReadFile(v.AllowedSignersFile)
		if err != nil {
			return nil, fmt.Errorf("reading the allowed signers: %w", err)
		}
		if a.signers, err = parseAllowedSigners(data); err != nil {
			return nil, fmt.Errorf("the allowed signers in %s: %w", v.AllowedSignersFile, err)
		}
	}
	if v.KeyringFile != "" {
		data, err := os.ReadFile(v.KeyringFile)
		if err != nil {
			return nil, fmt.Errorf("reading the keyring: %w", err)
		}
		if a.keyring, err = openpgp.ReadArmoredKeyRing(bytes.NewReader(data)); err != nil {
			return nil, fmt.Errorf("the keyring %s: %w", v.KeyringFile, err)
		}
	}
	return &a, nil
}

// verifyCommit checks the signature of a commit. The error is an
// *unverifiedError if it is not one of an allowed key.
func (s *store) verifyCommit(id oid, allowed *allowed) error {
	data, err := s.typed(id, plumbing.CommitObject)
	if err != nil {
		return err
	}
	commit, err := s.commit(id)
	if err != nil {
		return err
	}
	if why := allowed.refuses(data, commit.Committer.When); why != "" {
		return &unverifiedError{hashOf(id), cmp.Or(cleanName(commit.Author.Name), "nobody"), why}
	}
	return nil
}

// refuses returns why the commit, made at the time when by its own word, is not
// signed by an allowed key; "" if it is.
func (a *allowed) refuses(commit []byte, when time.Time) string {
	payload, armor := unsigned(commit)
	switch {
	case armor == "":
		return "it is not signed"
	case strings.HasPrefix(armor, "-----BEGIN "+sshSigType):
		key, err := verifySSH(armor, payload)
		if err != nil {
			return err.Error()
		}
		for _, s := range a.signers {
			if s.allows(key, when) {
				return ""
			}
		}
		return fmt.Sprintf("its SSH key %s is not allowed", ssh.FingerprintSHA256(key))
	case strings.HasPrefix(armor, "-----BEGIN PGP "):
		if len(a.keyring) == 0 {
			return "it has an OpenPGP signature, and no such keys are allowed"
		}
		// As of then: a key may sign until it expires.
		at := &pgp.Config{Time: func() time.Time { return signedAt(armor, when) }}
		if _, err := openpgp.CheckArmoredDetachedSignature(a.keyring, bytes.NewReader(payload), strings.NewReader(armor), at); err != nil {
			return fmt.Sprintf("its OpenPGP signature is not by an allowed key (%v)", err)
		}
		return ""
	}
	return "its signature is of a kind that is not known"
}

// signedAt is when an OpenPGP signature of a commit that was made at the time
// when was made. git notes the time before it signs, and a person may have
// had to type in a passphrase first.
func signedAt(armor string, when time.Time) time.Time {
	block, err := pgparmor.Decode(strings.NewReader(armor))
	if err != nil {
		return when
	}
	p, err := pgp.Read(block.Body)
	if sig, ok := p.(*pgp.Signature); err == nil && ok && sig.CreationTime.After(when) {
		return sig.CreationTime
	}
	return when
}

// The ref verifiedRef has what the remote-tracking branch was at when it was
// last verified: a person's git fetch moves that one, too.
func (c *Clone) verifiedRef() string { return "refs/hhwatchd/verified/" + c.opts.Branch }

// vouch notes that the remote's branch at the commit id is verified.
func (c *Clone) vouch(id oid) error {
	if !c.opts.Verify.on() {
		return nil
	}
	old, err := c.repo.ref(c.verifiedRef())
	if err != nil || old == id {
		return err
	}
	return c.repo.setRef(context.Background(), c.verifiedRef(), old, id)
}

// vouched returns what of the remote-tracking branch, which is at the commit id,
// is verified, and has it be there. When verification is turned on, all that
// the clone has is taken to be.
func (c *Clone) vouched(id oid) (oid, error) {
	verified, err := c.repo.ref(c.verifiedRef())
	if err != nil || id == verified {
		return id, err
	}
	if verified != (oid{}) {
		err := c.verifyNew(verified, id)
		if unverified := (*unverifiedError)(nil); errors.As(err, &unverified) {
			return verified, c.repo.setRef(context.Background(), upstreamRef(c.opts.Branch), id, verified)
		}
		if err != nil {
			return oid{}, err
		}
	}
	return id, c.vouch(id)
}

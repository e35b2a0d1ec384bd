// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// Errors that callers tell apart, with errors.Is. The errors returned are
// wrapped and say in one line what was being done, what went wrong and, where
// it is known, what to do. They never hold a secret.
var (
	// ErrNotFound: the object is not in the clone.
	ErrNotFound = errors.New("not in the clone")

	// ErrNoChange: the commit would have had the tree of its parent.
	ErrNoChange = errors.New("nothing to commit")

	// ErrClash: a change cannot be made in the tree, where a file is in the
	// place of a directory or a directory in that of a file.
	ErrClash = errors.New("clash in the tree")

	// ErrMoved: the local branch is not where [Clone.Head] last said that it
	// was; somebody else moved it. Look again and start over.
	ErrMoved = errors.New("the branch was moved by somebody else")

	// ErrRaced: the remote branch is not where the last [Clone.Fetch] or
	// [Clone.Push] left it; somebody else pushed first. Fetch and start over.
	ErrRaced = errors.New("somebody else pushed first")

	// ErrAuth: the remote did not take the credentials, or does not allow
	// with them what was asked for.
	ErrAuth = errors.New("the remote refused the credentials")

	// ErrNoRepository: the remote has no repository under that URL, or does
	// not show it with these credentials.
	ErrNoRepository = errors.New("no repository there")

	// ErrInUse: another process has the clone open.
	ErrInUse = errors.New("the clone is in use by another process")
)

// A refusedError says that the server took a push in and refused it: by a
// hook, because the branch is protected, or because it could not store it.
// The same push will be refused again until somebody changes something.
type refusedError struct {
	// Reason is what the server said, in one line.
	Reason string
}

func (e *refusedError) Error() string { return "the remote refused the push: " + e.Reason }

// An UnsafePathError says that a tree holds a path that must not or cannot be
// written to a work tree, as it would lie in the .git directory or outside of
// the work tree. Nothing of that tree is checked out.
type UnsafePathError struct {
	Path, Why string
}

func (e *UnsafePathError) Error() string {
	return fmt.Sprintf("the tree holds the path %q (%s): not checked out", e.Path, e.Why)
}

// A BrokenError says that the git directory of the clone is damaged: something
// that it must have is missing, or is not what git or this package wrote there.
// Trying again does not help; [SetAside] and then [Open] do. Troubles of the
// machine (a failing disk, too many open files, no permission) are other
// errors: they pass, or are a person's to mend.
type BrokenError struct {
	Dir  string // the git directory
	What string // is damaged, in one line
}

func (e *BrokenError) Error() string { return "the git directory " + e.Dir + " is broken: " + e.What }

// A LockedError says that git's lock on a file of the clone was not ours and
// did not go while it was waited for. A git command that is running holds it,
// or one left it that was interrupted: only a person can tell.
type LockedError struct {
	File  string    // the lock
	Since time.Time // when it was made
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("%s has been there since %s: a git command is at work in the clone, or was interrupted; if none is running, remove that file",
		e.File, e.Since.UTC().Format("2006-01-02 15:04 MST"))
}

// ofTheMachine reports whether err comes from the machine rather than from
// what a file holds, or from a file that is not there.
func ofTheMachine(err error) bool {
	if errors.Is(err, fs.ErrClosed) {
		return true
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.ENOENT, unix.ENOTDIR, unix.EISDIR, unix.ELOOP:
		return false
	}
	return true
}

// maxSaid bounds how much of what a server says is repeated.
const maxSaid = 1 << 10

// oneLine makes text of a server fit for a log: its lines in one, without
// control characters (which may come from a terminal's colours), cut off when
// too long.
func oneLine(text string) string {
	var parts []string
	for line := range strings.Lines(strings.ReplaceAll(text, "\r", "\n")) {
		line = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) || r == unicode.ReplacementChar {
				return -1
			}
			return r
		}, line)
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	out := strings.Join(parts, "; ")
	if len(out) > maxSaid {
		out = strings.ToValidUTF8(out[:maxSaid], "") + "…"
	}
	return out
}

// plain words an error of the network for an operator: without the names of
// system calls and Go packages, and without what differs each time (source
// ports, the present time), so that the same fault reads the same. It wraps
// err.
func plain(err error) error {
	text, of := "", err
	if e := (*tls.CertificateVerificationError)(nil); errors.As(err, &e) {
		text, of = plainCertificate(e.Err), e
	} else if e := (*net.DNSError)(nil); errors.As(err, &e) {
		text, of = plainName(e), e
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			of = op
		}
	} else if e := (*net.OpError)(nil); errors.As(err, &e) {
		text, of = plainConnection(e), e
	} else if err == io.EOF {
		text = "it closed the connection without an answer"
	} else if errors.Is(err, io.ErrUnexpectedEOF) {
		text, of = "its answer broke off", io.ErrUnexpectedEOF
	} else if errors.Is(err, context.DeadlineExceeded) {
		text, of = "no answer in time", context.DeadlineExceeded
	}
	if text == "" {
		return err
	}
	return plainError{strings.Replace(err.Error(), of.Error(), text, 1), err}
}

type plainError struct {
	text string
	err  error
}

func (e plainError) Error() string { return e.text }
func (e plainError) Unwrap() error { return e.err }

func plainName(e *net.DNSError) string {
	why := "the name server fails"
	switch {
	case e.IsNotFound:
		why = "no such host"
	case e.IsTimeout:
		why = "the name server does not answer"
	}
	return fmt.Sprintf("cannot find the address of %s: %s", e.Name, why)
}

// plainConnection is for what happens to connections; the empty string for
// errors that are about something else.
func plainConnection(e *net.OpError) string {
	why := e.Err.Error()
	if call := (*os.SyscallError)(nil); errors.As(e.Err, &call) {
		why = call.Err.Error()
	}
	if e.Timeout() {
		why = "no answer"
	}
	switch e.Op {
	case "dial":
		return fmt.Sprintf("cannot connect to %s: %s", e.Addr, why)
	case "read", "write":
		return "the connection broke off: " + why
	}
	return ""
}

func plainCertificate(err error) string {
	if e := (x509.UnknownAuthorityError{}); errors.As(err, &e) {
		return "nobody who is trusted vouches for its certificate: set auth.caFile to that of its authority"
	}
	if e := (x509.CertificateInvalidError{}); errors.As(err, &e) && e.Reason == x509.Expired {
		const day = "2006-01-02 15:04 MST"
		if time.Now().Before(e.Cert.NotBefore) {
			return fmt.Sprintf("its certificate is not valid before %s: is the clock of this host right?", e.Cert.NotBefore.UTC().Format(day))
		}
		return fmt.Sprintf("its certificate expired at %s", e.Cert.NotAfter.UTC().Format(day))
	}
	return "its certificate is not accepted: " + strings.TrimPrefix(err.Error(), "x509: ")
}

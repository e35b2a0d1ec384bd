// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestPlain words errors of the network; sync_test.go has those of real ones.
func TestPlain(t *testing.T) {
	addr := func(port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: port} }
	op := func(op string, err error) error {
		return &net.OpError{Op: op, Net: "tcp", Source: addr(51234), Addr: addr(443), Err: err}
	}
	verify := func(err error) error { return &tls.CertificateVerificationError{Err: err} }
	certificate := &x509.Certificate{NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1e9, 0)}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{op("dial", os.NewSyscallError("connect", syscall.ECONNREFUSED)), "cannot connect to 192.0.2.1:443: connection refused"},
		{op("dial", os.ErrDeadlineExceeded), "cannot connect to 192.0.2.1:443: no answer"},
		{fmt.Errorf("connecting over SSH: %w", op("read", os.NewSyscallError("read", syscall.ECONNRESET))), "connecting over SSH: the connection broke off: connection reset by peer"},
		{op("dial", &net.DNSError{Err: "no such host", Name: "git.example.net", Server: "192.0.2.53:53", IsNotFound: true}), "cannot find the address of git.example.net: no such host"},
		{op("dial", &net.DNSError{Err: "read udp 192.0.2.1:40404->192.0.2.53:53: i/o timeout", Name: "git.example.net", IsTimeout: true}), "cannot find the address of git.example.net: the name server does not answer"},
		{op("dial", &net.DNSError{Err: "server misbehaving", Name: "git.example.net"}), "cannot find the address of git.example.net: the name server fails"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, "remote error: tls: bad certificate"},
		{io.EOF, "it closed the connection without an answer"},
		{fmt.Errorf("reading a pack: %w", io.ErrUnexpectedEOF), "reading a pack: its answer broke off"},
		{context.DeadlineExceeded, "no answer in time"},
		{verify(x509.UnknownAuthorityError{}), "nobody who is trusted vouches for its certificate: set auth.caFile to that of its authority"},
		{verify(x509.CertificateInvalidError{Cert: certificate, Reason: x509.Expired}), "its certificate expired at 2001-09-09 01:46 UTC"},
		{verify(x509.CertificateInvalidError{Cert: &x509.Certificate{NotBefore: time.Unix(1e10, 0)}, Reason: x509.Expired}), "its certificate is not valid before 2286-11-20 17:46 UTC: is the clock of this host right?"},
		{verify(x509.CertificateInvalidError{Cert: certificate, Reason: x509.NotAuthorizedToSign}), "its certificate is not accepted: certificate is not authorized to sign other certificates"},
		{errors.New("anything else"), "anything else"},
	} {
		got := plain(tt.err)
		if got.Error() != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
		if !errors.Is(got, tt.err) {
			t.Errorf("%v does not wrap %v", got, tt.err)
		}
	}
}

// TestPatience has a remote fall silent while other work waits, and while not.
func TestPatience(t *testing.T) {
	for _, tt := range []struct {
		name  string
		waits func(since time.Duration) bool // nil: nobody asks
		busy  time.Duration                  // for how long the remote says something every second
		want  time.Duration
	}{
		{"nothing waits", func(time.Duration) bool { return false }, 0, time.Minute},
		{"nobody asks", nil, 0, time.Minute},
		{"something waits", func(time.Duration) bool { return true }, 0, 10 * time.Second},
		{"something comes later", func(since time.Duration) bool { return since > 30*time.Second }, 0, 31 * time.Second},
		{"the remote works", func(time.Duration) bool { return true }, time.Hour / 2, time.Hour/2 + 10*time.Second},
		{"the remote works for ever", func(time.Duration) bool { return true }, 2 * time.Hour, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				alive := 0
				p := patience{limit: stallLimit, hurried: hurriedLimit, alive: func() { alive++ }}
				if tt.waits != nil {
					p.waiting = func() bool { return tt.waits(time.Since(start)) }
				}
				ctx, w := newWatch(t.Context(), p)
				defer w.stop()
				for time.Since(start) < tt.busy && ctx.Err() == nil {
					time.Sleep(time.Second / 4)
					w.touch()
				}
				<-ctx.Done()
				if busy := min(tt.busy, talkLimit); alive < int(busy/time.Second)-1 || alive > int(busy/time.Second)+1 {
					t.Errorf("a sign of life %d times in %v", alive, busy)
				}
				if took := time.Since(start); took < tt.want || took > tt.want+time.Second {
					t.Errorf("given up after %v, want %v", took, tt.want)
				}
				var timeout interface{ Timeout() bool }
				if err := context.Cause(ctx); !errors.As(err, &timeout) || !timeout.Timeout() {
					t.Errorf("the cause is %v", err)
				}
			})
		})
	}
}

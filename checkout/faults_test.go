// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
)

// A weir stands between a client and a server, and lets through only so many
// bytes of what the server says, on all connections together.
type weir struct {
	addr string

	mu    sync.Mutex
	limit int  // of bytes; negative for none
	cut   bool // break off there, instead of falling silent
	n     int  // that were let through since set
	conns map[net.Conn]bool
}

func startWeir(t testing.TB, server string) *weir {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &weir{addr: l.Addr().String(), limit: -1, conns: make(map[net.Conn]bool)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { w.serve(conn, server) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.set(-1, true)
		serving.Wait()
	})
	return w
}

// set breaks all connections, and begins to count anew.
func (w *weir) set(limit int, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit, w.cut, w.n = limit, cut, 0
	for c := range w.conns {
		c.Close()
	}
}

// passed is how many bytes were let through since set.
func (w *weir) passed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

func (w *weir) serve(conn net.Conn, server string) {
	there, err := net.Dial("tcp", server)
	if err != nil {
		conn.Close()
		return
	}
	w.mu.Lock()
	w.conns[conn], w.conns[there] = true, true
	w.mu.Unlock()
	var up sync.WaitGroup
	defer func() {
		conn.Close()
		there.Close()
		up.Wait()
		w.mu.Lock()
		delete(w.conns, conn)
		delete(w.conns, there)
		w.mu.Unlock()
	}()
	up.Go(func() {
		io.Copy(there, conn)
		there.Close()
		conn.Close()
	})
	buf := make([]byte, 4<<10)
	for {
		got, err := there.Read(buf)
		w.mu.Lock()
		cut, full := w.cut, false
		if w.limit >= 0 {
			got, full = min(got, w.limit-w.n), got >= w.limit-w.n
		}
		w.n += got
		w.mu.Unlock()
		if got > 0 {
			conn.Write(buf[:got]) // where nobody reads, the next read ends it
		}
		if full && !cut {
			up.Wait() // until the client gives up
		}
		if full || err != nil {
			return
		}
	}
}

// randomText is what does not compress.
func randomText() string {
	var b strings.Builder
	for range 100 {
		b.WriteString(rand.Text() + "\n")
	}
	return b.String()
}

// TestFaults breaks off what the server says, and has it fall silent, after any
// number of bytes, in each operation and over each transport: in the handshakes,
// the advertisement, the pack, the report. The operation fails, within its
// limit and in one line; what it leaves is sound, and the next one goes well.
func TestFaults(t *testing.T) {
	t.Parallel()
	const impatience = 300 * time.Millisecond
	transports := map[string]func(t *testing.T) (*world, *weir){
		"http": func(t *testing.T) (*world, *weir) {
			w, srv := newHTTPWorld(t, gitserver.Options{Username: "robot", Password: "s3cret"})
			w.opts.Auth = Auth{Username: "robot", PasswordFile: writeFile(t, "s3cret")}
			weir := startWeir(t, strings.TrimPrefix(srv.URL, "http://"))
			w.opts.URL = "http://" + weir.addr + "/fabrics.git"
			return w, weir
		},
		"https": func(t *testing.T) (*world, *weir) {
			w, srv := newHTTPWorld(t, gitserver.Options{TLS: true})
			w.opts.Auth.CAFile = srv.CAFile
			weir := startWeir(t, strings.TrimPrefix(srv.URL, "https://"))
			w.opts.URL = "https://" + weir.addr + "/fabrics.git"
			return w, weir
		},
		"ssh": func(t *testing.T) (*world, *weir) {
			w, s := newSSHWorld(t)
			weir := startWeir(t, s.addr)
			s.addr = weir.addr
			rewrite(t, s.knownHosts, s.known(s.hostKey)+"\n")
			w.opts.URL = "ssh://" + s.user + "@" + weir.addr + w.bare
			return w, weir
		},
	}
	operations := map[string]struct {
		prepare func(w *world, c *Clone)
		do      func(w *world, c *Clone) error
	}{
		"poll": {
			func(*world, *Clone) {},
			func(w *world, c *Clone) error { _, err := c.RemoteHead(w.ctx()); return err },
		},
		"fetch": {
			func(w *world, c *Clone) {
				w.personPushes(map[string]string{"theirs": randomText()})
			},
			func(w *world, c *Clone) error { _, err := c.Fetch(w.ctx()); return err },
		},
		"push": {
			func(w *world, c *Clone) {
				w.advance(c, w.fetch(c))
				w.commit(c, put("ours", randomText()))
			},
			func(w *world, c *Clone) error { return c.Push(w.ctx()) },
		},
		"clone": {
			func(*world, *Clone) {},
			func(w *world, c *Clone) error {
				o := w.opts
				o.Dir = filepath.Join(w.TempDir(), "clone")
				fresh := &Clone{opts: o, remote: c.remote}
				defer func() {
					if fresh.repo != nil {
						fresh.repo.close()
					}
				}()
				return fresh.create(w.ctx(), filepath.Join(o.Dir, ".git"))
			},
		},
	}
	points := 6
	if testing.Short() {
		points = 3
	}
	for transport, start := range transports {
		for operation, op := range operations {
			for _, cut := range []bool{true, false} {
				name := transport + "/" + operation + "/silent"
				if cut {
					name = transport + "/" + operation + "/cut"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					w, weir := start(t)
					w.personPushes(map[string]string{"a": "1"})
					c := w.clone()
					patient := c.remote
					defer func() { c.remote = patient }()
					// do is op.do with a remote that is new to the server, and
					// a limit of what the server says.
					do := func(n int) error {
						weir.set(n, cut)
						limit := stallLimit
						if n >= 0 && !cut {
							limit = impatience
						}
						r, err := newRemote(w.opts, patience{limit: limit})
						if err != nil {
							t.Fatal(err)
						}
						defer r.close()
						c.remote = r
						return op.do(w, c)
					}
					op.prepare(w, c)
					if err := do(-1); err != nil {
						t.Fatal(err)
					}
					total := weir.passed()
					if total < 100 {
						t.Fatalf("the server says %d bytes: the test shows nothing", total)
					}
					for i := range points {
						// Near the beginning each byte is another stage.
						n := total * i * i / points / points
						weir.set(-1, cut)
						c.remote = patient
						op.prepare(w, c)
						err := do(n)
						var timeout interface{ Timeout() bool }
						switch {
						case err == nil:
							t.Errorf("after %d of %d bytes: no error", n, total)
						case !cut && (!errors.As(err, &timeout) || !timeout.Timeout()):
							t.Errorf("after %d of %d bytes: %v, want a timeout", n, total, err)
						case strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "\n"):
							t.Errorf("a secret, or more than a line: %v", err)
						}
						if err := do(-1); err != nil {
							t.Fatalf("after a fault at %d of %d bytes: %v", n, total, err)
						}
					}
					c.remote = patient
					w.advance(c, w.fetch(c))
					w.clean()
					if left, err := filepath.Glob(filepath.Join(w.dir, ".git/objects/tmp_*")); left != nil || err != nil {
						t.Errorf("left behind: %v, %v", left, err)
					}
				})
			}
		}
	}
}

// TestSlowUpload pushes to a server that takes its time to read: that is not
// silence.
func TestSlowUpload(t *testing.T) {
	t.Parallel()
	// Far more than what is on the way takes to be read, far less than all.
	const limit = 5 * time.Second
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for buf := make([]byte, 64<<10); ; time.Sleep(20 * time.Millisecond) {
			if _, err := io.ReadFull(r.Body, buf); err != nil {
				break
			}
		}
		rw.Header().Set("Content-Type", "application/x-git-receive-pack-result")
	}))
	srv.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			c.(*net.TCPConn).SetReadBuffer(64 << 10)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	var alive atomic.Int64
	r, err := newRemote(Options{URL: srv.URL + "/x"}, patience{limit: limit, alive: func() { alive.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	start := time.Now()
	err = r.(*httpRemote).ask(t.Context(), receivePack, make([]byte, 24<<20), false, func(*bufio.Reader) error { return nil })
	if err != nil {
		t.Error(err)
	}
	if took := time.Since(start); alive.Load() < 2 {
		t.Errorf("%d signs of life in %v", alive.Load(), took)
	}
}

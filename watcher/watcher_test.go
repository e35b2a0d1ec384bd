// SPDX-License-Identifier: Apache-2.0

package watcher

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// running starts a Watcher for dirs that settles and checks quickly, and
// never rescans. It ends with the test.
func running(t *testing.T, dirs ...string) *Watcher {
	t.Helper()
	w := New(dirs, Settle{Quiet: 10 * time.Millisecond, Max: 100 * time.Millisecond}, time.Hour, slog.New(slog.DiscardHandler))
	w.every = 20 * time.Millisecond
	run(t, w)
	return w
}

func run(t *testing.T, w *Watcher) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// woken waits for a wake-up. It is the caller's word that one is due.
func woken(t *testing.T, w *Watcher, why string) {
	t.Helper()
	select {
	case <-w.C():
	case <-time.After(30 * time.Second):
		t.Fatalf("not woken: %s", why)
	}
}

// quiet takes what wake-ups are left of former steps, so that they do not
// stand in for those of the next one.
func quiet(t *testing.T, w *Watcher) {
	t.Helper()
	for {
		select {
		case <-w.C():
		case <-time.After(75 * time.Millisecond):
			return
		}
	}
}

// wakesUntil takes wake-ups until what List finds below dir is want: what a
// cycle does that looks whenever it is woken, and only then.
func wakesUntil(t *testing.T, w *Watcher, dir string, want ...string) {
	t.Helper()
	for {
		woken(t, w, "waiting for "+strings.Join(want, " "))
		found, _, err := List(dir, anyInput)
		have := map[string]bool{}
		for _, f := range found {
			have[f.Path] = true
		}
		all := err == nil
		for _, p := range want {
			all = all && have[p]
		}
		if all {
			return
		}
	}
}

func TestWakes(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   string // in the raw directory, by a shell
		want string // what is there then
	}{
		{"created", "echo x >x.yaml", "x.yaml"},
		{"moved in", "echo x >../x; mv ../x x.yaml", "x.yaml"},
		{"moved in from another file system", "echo x >/dev/shm/x.$$; mv /dev/shm/x.$$ x.yaml", "x.yaml"},
		{"linked", "echo x >../x; ln ../x x.yaml", "x.yaml"},
		{"copied with its times", "echo x >../x; touch -d 2001-01-01 ../x; cp -p ../x x.yaml", "x.yaml"},
		{"renamed from a hidden name", "echo x >.x.tmp; mv .x.tmp x.yaml", "x.yaml"},
		{"edited as vi does", "echo x >.x.swp; echo x >4913; rm 4913; echo x >x.yaml; mv x.yaml x.yaml~; echo y >x.yaml; rm x.yaml~ .x.swp", "x.yaml"},
		{"touched, then filled", "touch x.yaml; sleep 0.05; echo x >x.yaml", "x.yaml"},
		{"tree copied", "mkdir -p ../t/a/b/c; echo x >../t/a/b/c/x.yaml; echo y >../t/y.yaml; cp -r ../t .", "t/a/b/c/x.yaml t/y.yaml"},
		{"tree moved in", "mkdir -p ../t/a/b/c; echo x >../t/a/b/c/x.yaml; mv ../t .", "t/a/b/c/x.yaml"},
		{"deep, at once", "mkdir -p a/b/c/d/e && echo x >a/b/c/d/e/x.yaml", "a/b/c/d/e/x.yaml"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "raw")
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			w := running(t, dir)
			woken(t, w, "watching has begun")
			shell(t, dir).do(tc.do)
			wakesUntil(t, w, dir, strings.Fields(tc.want)...)
		})
	}
}

// TestWatchesNewDirectories: what came with a directory or was made in it is
// watched from then on, under its present name.
func TestWatchesNewDirectories(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "raw")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	w := running(t, dir)
	woken(t, w, "watching has begun")
	sh := shell(t, dir)
	for i, step := range []struct{ do, in string }{
		{"mkdir -p a/b/c", "a/b/c"},
		{"mkdir ../t ../t/u; mv ../t .", "t/u"},
		{"mv a z", "z/b/c"},
		{"mv z/b z/y; mkdir -p z/b/c", "z/b/c"},
		{"true", "z/y/c"},
		{"mv z ..; mkdir -p z/b/c", "z/b/c"},
		{"rm -r z; mkdir -p z/b/c", "z/b/c"},
		{"mv t u; rm -r u; mkdir -p t/u", "t/u"},
	} {
		sh.do(step.do)
		quiet(t, w)
		name := filepath.Join(step.in, "x"+strconv.Itoa(i)+".yaml")
		write(t, dir, name, "x")
		wakesUntil(t, w, dir, name)
	}
}

// TestRawReplaced: whatever is done to a raw directory or above it, what lies
// there in the end is found, and so is what comes afterwards.
func TestRawReplaced(t *testing.T) {
	for _, tc := range []struct{ name, do string }{
		{"deleted and made again", "rm -r repo/raw; mkdir repo/raw"},
		{"replaced", "mkdir new; mv repo/raw old; mv new repo/raw"},
		{"parent replaced", "mkdir -p new/raw; mv repo old; mv new repo"},
		{"a file for a while", "rm -r repo/raw; touch repo/raw; sleep 0.1; rm repo/raw; mkdir repo/raw"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := t.TempDir()
			dir := filepath.Join(base, "repo/raw")
			write(t, dir, "sub/x.yaml", "x")
			w := running(t, dir)
			woken(t, w, "watching has begun")
			shell(t, base).do(tc.do)
			write(t, dir, "sub/y.yaml", "y")
			wakesUntil(t, w, dir, "sub/y.yaml")
			quiet(t, w)
			write(t, dir, "sub/z.yaml", "z")
			wakesUntil(t, w, dir, "sub/z.yaml")
		})
	}
	t.Run("made late", func(t *testing.T) {
		base := t.TempDir()
		dirs := []string{filepath.Join(base, "a/raw"), filepath.Join(base, "b/raw")}
		w := running(t, dirs...)
		for _, dir := range dirs {
			write(t, dir, "x.yaml", "x")
			wakesUntil(t, w, dir, "x.yaml")
		}
	})
}

// TestUnreadable: no event tells that a raw directory became readable.
func TestUnreadable(t *testing.T) {
	dir, child := inChild(t, nil)
	if !child {
		return
	}
	asNobody(t)
	raw := filepath.Join(dir, "raw")
	write(t, raw, "x.yaml", "x")
	write(t, raw, "sub/x.yaml", "x")
	for _, closed := range []string{filepath.Join(raw, "sub"), raw} {
		if err := os.Chmod(closed, 0); err != nil {
			t.Fatal(err)
		}
	}
	w := running(t, raw)
	woken(t, w, "watching has begun")
	if err := os.Chmod(raw, 0o755); err != nil {
		t.Fatal(err)
	}
	wakesUntil(t, w, raw, "x.yaml")
	quiet(t, w)
	if err := os.Chmod(filepath.Join(raw, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	wakesUntil(t, w, raw, "sub/x.yaml")
	quiet(t, w)
	write(t, raw, "sub/y.yaml", "y")
	wakesUntil(t, w, raw, "sub/y.yaml")
}

func TestRescan(t *testing.T) {
	w := New([]string{t.TempDir()}, Settle{time.Hour, time.Hour}, 20*time.Millisecond, slog.New(slog.DiscardHandler))
	run(t, w)
	for range 5 {
		woken(t, w, "a rescan is due")
	}
}

func TestWakeAfter(t *testing.T) {
	w := running(t, t.TempDir())
	woken(t, w, "watching has begun")
	for range 3 {
		w.Wake(time.Hour)
		w.Wake(10 * time.Millisecond)
		w.Wake(time.Hour)
		woken(t, w, "asked for")
	}
}

// TestAwait: that a writer has closed a file is no event, and is noticed.
func TestAwait(t *testing.T) {
	dir := t.TempDir()
	leasable(t, dir)
	w := running(t, dir)
	woken(t, w, "watching has begun")
	sh := shell(t, dir)
	sh.do("exec 3>x.yaml 4>y.yaml; echo half >&3")
	for _, p := range []string{"x.yaml", "y.yaml"} {
		if _, err := Read(dir, p, 0, 100); !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		w.Await(dir, p)
	}
	w.Await(dir, "absent.yaml")
	quiet(t, w)
	for _, step := range []struct{ fd, name string }{{"3", "x.yaml"}, {"4", "y.yaml"}} {
		sh.do("exec " + step.fd + ">&-")
		woken(t, w, step.name+" was closed")
		mustRead(t, dir, step.name)
	}
	until(t, "nothing is awaited any more", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.awaited) == 0
	})
}

// TestOwnWorkIsNoNews: taking files out does not wake the one who did it.
func TestOwnWorkIsNoNews(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a/x.yaml", "x")
	f := mustRead(t, dir, "a/x.yaml")
	w := New([]string{dir}, Settle{}, time.Hour, slog.New(slog.DiscardHandler))
	if _, news := w.check(); !news || w.trouble != "" {
		t.Fatal(w.trouble)
	}
	defer w.closeInotify()
	spent, _, err := Retire([]*File{f})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Bury(spent); err != nil {
		t.Fatal(err)
	}
	write(t, dir, ".end", "")
	for ev := range w.inotify.Events {
		if filepath.Base(ev.Name) == ".end" {
			break
		}
		if news, doubt := w.event(ev); news || doubt {
			t.Errorf("%v is news", ev)
		}
	}
}

// TestOverflow: when the kernel's queue was full, events of new directories
// are among the lost ones.
func TestOverflow(t *testing.T) {
	dir := t.TempDir()
	w := running(t, dir)
	woken(t, w, "watching has begun")
	limit, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Skip(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(limit)))
	if err != nil || n > 50_000 {
		t.Skipf("a queue of %s, %v", limit, err)
	}
	// Keep Run from receiving, in a place where it waits for this lock.
	w.mu.Lock()
	unlock := sync.OnceFunc(w.mu.Unlock)
	defer unlock()
	w.ask()
	until(t, "Run has taken the question", func() bool { return len(w.asked) == 0 })
	// Each rename is two events. Besides the queue, some thousand events fit
	// into fsnotify's buffer.
	write(t, dir, ".a", "")
	from, to := filepath.Join(dir, ".a"), filepath.Join(dir, ".b")
	for range n/2 + 5000 {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		from, to = to, from
	}
	if err := os.MkdirAll(filepath.Join(dir, "late/r"), 0o777); err != nil {
		t.Fatal(err)
	}
	unlock()
	quiet(t, w)
	write(t, dir, "late/r/x.yaml", "x")
	wakesUntil(t, w, dir, "late/r/x.yaml")
}

// TestBroken: an inotify instance that fails is replaced.
func TestBroken(t *testing.T) {
	dir := t.TempDir()
	w := running(t, dir)
	woken(t, w, "watching has begun")
	for range 3 {
		w.failed <- syscall.EIO
		woken(t, w, "watching has begun again")
		write(t, dir, "x.yaml", "x")
		wakesUntil(t, w, dir, "x.yaml")
		quiet(t, w)
	}
}

// TestLimits runs out of inotify's instances and watches, in a user namespace
// that has limits of its own.
func TestLimits(t *testing.T) {
	dir, child := inChild(t, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	})
	if !child {
		return
	}
	limit := func(name string, n int) {
		if err := os.WriteFile("/proc/sys/user/max_inotify_"+name, []byte(strconv.Itoa(n)), 0); err != nil {
			t.Skip(err)
		}
	}
	for _, d := range []string{"a/b/c", "d/e/f"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var log bytes.Buffer
	logged := func(what string) int {
		mu.Lock()
		defer mu.Unlock()
		return strings.Count(log.String(), what)
	}
	limit("instances", 0)
	limit("watches", 3)
	w := New([]string{dir}, Settle{Quiet: 10 * time.Millisecond, Max: 100 * time.Millisecond}, time.Hour,
		slog.New(slog.NewTextHandler(&lockedWriter{mu: &mu, w: &log}, nil)))
	w.every = 20 * time.Millisecond
	run(t, w)

	// No instance: looking regularly.
	for _, p := range []string{"x1.yaml", "d/e/f/x2.yaml"} {
		write(t, dir, p, "x")
		wakesUntil(t, w, dir, p)
	}
	if n := logged("max_user_instances"); n != 1 {
		t.Errorf("logged %d times that there is no instance", n)
	}
	// An instance, and too few watches: just the same.
	limit("instances", 10)
	until(t, "the reason has changed", func() bool { return logged("max_user_watches") > 0 })
	for _, p := range []string{"x3.yaml", "d/e/f/x4.yaml"} {
		write(t, dir, p, "x")
		wakesUntil(t, w, dir, p)
	}
	// Enough of both.
	limit("watches", 100)
	until(t, "it works again", func() bool { return logged("watched again") == 1 })
	quiet(t, w)
	write(t, dir, "d/e/f/x5.yaml", "x")
	wakesUntil(t, w, dir, "d/e/f/x5.yaml")
	// And out of watches while it runs.
	limit("watches", 7)
	if err := os.MkdirAll(filepath.Join(dir, "g/h/i"), 0o777); err != nil {
		t.Fatal(err)
	}
	until(t, "it is said again", func() bool { return logged("max_user_watches") == 2 })
	write(t, dir, "g/h/i/x6.yaml", "x")
	wakesUntil(t, w, dir, "g/h/i/x6.yaml")
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%s", log.Bytes())
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func TestEvent(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "sub/x", "x")
	w := New([]string{dir}, Settle{}, time.Hour, slog.New(slog.DiscardHandler))
	w.check()
	defer w.closeInotify()
	for _, tc := range []struct {
		name string
		op   fsnotify.Op
		news bool
	}{
		{"x.yaml", fsnotify.Create, true},
		{"x.yaml", fsnotify.Write, true},
		{"x.yaml", fsnotify.Chmod, true},
		{"x.yaml", fsnotify.Remove, false},
		{"x.yaml", fsnotify.Rename, false},
		{"x.yaml", fsnotify.Remove | fsnotify.Create, true},
		{"sub", fsnotify.Create, true},
		{"sub/x", fsnotify.Create, true},
		{".x.yaml.swp", fsnotify.Create | fsnotify.Write, false},
		{"sub/.x", fsnotify.Create, false},
		{"", fsnotify.Chmod, true},
		{"x.yaml", 0, false},
	} {
		news, doubt := w.event(fsnotify.Event{Name: filepath.Join(dir, tc.name), Op: tc.op})
		if news != tc.news || doubt {
			t.Errorf("%v %q: news %v, doubt %v, want %v", tc.op, tc.name, news, doubt, tc.news)
		}
	}
	if news, doubt := w.event(fsnotify.Event{}); news || doubt {
		t.Error("an empty event is news")
	}
	if news, doubt := w.event(fsnotify.Event{Name: dir, Op: fsnotify.Rename}); news || !doubt {
		t.Errorf("the directory was renamed: news %v, doubt %v", news, doubt)
	}
}

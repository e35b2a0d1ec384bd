// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/journal"
)

// A service is the running daemon: one goroutine a repository, a control
// socket, and the signals of systemd.
type service struct {
	load    func() (*Config, error) // reads the config again
	log     *slog.Logger
	book    *book
	started time.Time
	reloads chan chan<- reloaded // hhwatchd reload
	http    string               // address of the HTTP listener; empty without one

	mu    sync.Mutex
	cfg   *Config
	repos []*running

	secretTrouble string // why the webhook's secret cannot be used, as it was logged
}

// running is a repository with the goroutine that runs it.
type running struct {
	*repository
	stop   context.CancelFunc
	looked chan struct{} // closed after the first cycle
	ended  chan struct{} // closed when the goroutine has ended
}

// serve runs the daemon until ctx is done or SIGTERM or SIGINT comes.
func serve(ctx context.Context, load func() (*Config, error), log *slog.Logger, journald bool, announce func(*Config)) error {
	cfg, err := load()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	defer signal.Stop(hup)

	unlock, err := lockState(cfg.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	j, err := journal.Open(cfg.journalDir())
	if err != nil {
		return fmt.Errorf("opening the journal: %w", err)
	}
	defer j.Close()

	for i := range j.Damage() {
		log.Error("the journal is damaged; hhwatchd goes on in a new segment", "err", &j.Damage()[i])
	}
	log.Info("hhwatchd "+version(), "stateDir", cfg.StateDir, "repositories", len(cfg.Repositories))
	s := &service{
		load: load, log: log, book: &book{j: j, log: log, journald: journald}, started: time.Now(), cfg: cfg,
		reloads: make(chan chan<- reloaded),
	}
	var owned sync.WaitGroup
	defer owned.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := listenControl(ctx, cfg.StateDir)
	if err != nil {
		return err
	}
	owned.Go(func() { s.control(ctx, l) })
	if cfg.HTTP.Listen != "" {
		l, err := listenHTTP(ctx, cfg.HTTP.Listen)
		if err != nil {
			return err
		}
		s.http, s.book.metrics = l.Addr().String(), newMetrics(s)
		owned.Go(func() { s.serveHTTP(ctx, l) })
		log.Info("listening for HTTP", "address", s.http)
	}
	owned.Go(func() { s.book.expire(ctx, func() JournalConfig { return s.config().Journal }) })
	defer s.stopAll()
	s.start(ctx, cfg)
	if announce != nil {
		announce(cfg)
	}

	owned.Go(func() {
		s.awaitFirstLook(ctx)
		notify(daemon.SdNotifyReady + "\n" + s.statusLine())
	})
	if interval, err := daemon.SdWatchdogEnabled(false); err != nil {
		log.Error("the watchdog is not used", "err", err)
	} else if interval > 0 {
		owned.Go(func() { s.watchdog(ctx, interval) })
	}
	status := time.NewTicker(10 * time.Second)
	defer status.Stop()
	var worked, freed int64
	for {
		select {
		case <-ctx.Done():
			notify(daemon.SdNotifyStopping)
			log.Info("stopping")
			return nil
		case <-hup:
			s.reload(ctx)
		case done := <-s.reloads:
			done <- s.reload(ctx)
		case <-status.C:
			notify(s.statusLine())
			// The daemon works in bursts. When one is over, what it needed is
			// given back to the system, where the runtime would keep it.
			before := worked
			if worked = s.book.appends.Load(); worked == before && worked != freed {
				debug.FreeOSMemory()
				freed = worked
			}
		}
	}
}

// lockState makes the state directory and takes it for this process.
func lockState(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("looking at the state directory: %w", err)
	} else if uid := info.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() {
		// What root leaves there the service's user could not write to.
		return nil, fmt.Errorf("%s belongs to another user: run it as that one: runuser -u %s -- hhwatchd …", dir, userName(uid))
	}
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(name)
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another hhwatchd (pid %s)", dir, strings.TrimSpace(string(pid)))
		}
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	// The lock is the flock, not the content, which only helps a person.
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	return func() { f.Close() }, nil
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "#" + id
}

func writePID(f *os.File) error {
	_, err := fmt.Fprintln(f, os.Getpid())
	return err
}

// start starts what cfg has and is not running yet, or not like that, and
// stops what cfg has no more.
func (s *service) start(ctx context.Context, cfg *Config) {
	s.mu.Lock()
	old := s.repos
	s.mu.Unlock()
	s.book.metrics.expect(cfg)
	var keep []*running
	for _, r := range old {
		if want := cfg.repository(r.cfg.Name); want != nil && reflect.DeepEqual(*want, *r.cfg) && r.settle == cfg.Settle && r.rescan == cfg.Rescan {
			keep = append(keep, r)
			continue
		}
		r.stop()
		<-r.ended
	}
	repos := make([]*running, 0, len(cfg.Repositories))
	for i := range cfg.Repositories {
		rc := &cfg.Repositories[i]
		var run *running
		for _, k := range keep {
			if k.cfg.Name == rc.Name {
				run = k
			}
		}
		if run == nil {
			run = s.startRepository(ctx, cfg, rc)
		}
		repos = append(repos, run)
	}
	s.mu.Lock()
	s.cfg, s.repos = cfg, repos
	s.mu.Unlock()
}

func (s *service) startRepository(ctx context.Context, cfg *Config, rc *RepositoryConfig) *running {
	ctx, stop := context.WithCancel(ctx)
	r := &running{
		repository: newRepository(cfg, rc, s.book, s.log),
		stop:       stop, looked: make(chan struct{}), ended: make(chan struct{}),
	}
	go func() {
		defer close(r.ended)
		r.run(ctx, func() { close(r.looked) })
	}()
	return r
}

func (s *service) stopAll() {
	for _, r := range s.running() {
		r.stop()
	}
	for _, r := range s.running() {
		<-r.ended
	}
}

func (s *service) running() []*running {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repos
}

// ask hands a trigger to the repository's goroutine and waits for its report
// and for the clusters that it applied to.
func (r *running) ask(ctx context.Context, t trigger) (*report, error) {
	done := make(chan *report, 1)
	t.done = done
	select {
	case r.requests <- t:
	case <-r.ended:
		return nil, fmt.Errorf("repository %s is stopping", r.cfg.Name)
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for repository %s: %w", r.cfg.Name, ctx.Err())
	}
	select {
	case rep := <-done:
		return rep, rep.awaitApply(ctx)
	case <-r.ended:
		return nil, fmt.Errorf("repository %s is stopping", r.cfg.Name)
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for repository %s: %w", r.cfg.Name, ctx.Err())
	}
}

// statusLine is the one sentence that `systemctl status` shows.
func (s *service) statusLine() string {
	var parts []string
	for _, r := range s.running() {
		st := r.currentStatus()
		if st.Down != "" {
			parts = append(parts, fmt.Sprintf("%s: %s (for %s)", st.Name, st.Down, age(st.DownSince)))
		}
		for _, f := range st.Fabrics {
			switch {
			case f.Down != "":
				parts = append(parts, fmt.Sprintf("%s: %s (for %s)", f.Name, f.Down, age(f.DownSince)))
			case st.Error != "":
				parts = append(parts, f.Name+": stopped: "+st.Error)
			case len(f.Failed) > 0:
				parts = append(parts, fmt.Sprintf("%s: not applied: %s", f.Name, f.Failed[0]))
			case f.Held != "":
				parts = append(parts, f.Name+": "+f.Held)
			case st.Cycles == 0 || f.Cluster != "" && f.Commit == "":
				parts = append(parts, f.Name+": not brought in sync yet")
			case st.Unpushed > 0:
				parts = append(parts, fmt.Sprintf("%s: %s to push", f.Name, plural(st.Unpushed, "commit")))
			default:
				parts = append(parts, fmt.Sprintf("%s in sync at %s", f.Name, short(st.Head)))
			}
		}
	}
	return "STATUS=" + strings.ReplaceAll(strings.Join(parts, "; "), "\n", " ")
}

func age(t time.Time) string { return time.Since(t).Round(time.Second).String() }

// short abbreviates a commit for people.
func short(commit string) string {
	if len(commit) > 7 {
		return commit[:7]
	}
	return commit
}

// notify tells systemd; without one it does nothing. A failure has nobody to
// go to.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

func (c *Config) repository(name string) *RepositoryConfig {
	for i := range c.Repositories {
		if c.Repositories[i].Name == name {
			return &c.Repositories[i]
		}
	}
	return nil
}

// once runs one cycle of each repository that t concerns, without a daemon.
func once(ctx context.Context, cfg *Config, log *slog.Logger, repository string, t trigger) ([]*report, error) {
	unlock, err := lockState(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	j, err := journal.Open(cfg.journalDir())
	if err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	defer j.Close()
	b := &book{j: j, log: log}
	var reports []*report
	for i := range cfg.Repositories {
		rc := &cfg.Repositories[i]
		if !concerns(rc, repository, t.fabric) {
			continue
		}
		r := newRepository(cfg, rc, b, log)
		rep, err := r.once(ctx, t)
		reports = append(reports, rep)
		if err != nil {
			return reports, err
		}
	}
	return reports, nil
}

// once runs a single cycle in the caller's goroutine.
func (r *repository) once(ctx context.Context, t trigger) (*report, error) {
	clusters, stop := context.WithCancel(ctx)
	defer r.close()
	var owned sync.WaitGroup
	defer owned.Wait()
	defer stop()
	for _, f := range r.fabrics {
		if f.cluster != nil {
			owned.Go(func() { f.cluster.run(clusters) })
		}
	}
	rep := r.cycle(ctx, t)
	rep.only(t.fabric)
	return rep, rep.awaitApply(ctx)
}

// concerns reports whether a request for a repository, a fabric, or (both
// empty) everything is about rc.
func concerns(rc *RepositoryConfig, repository, fabric string) bool {
	if repository != "" && rc.Name != repository {
		return false
	}
	if fabric == "" {
		return true
	}
	for _, f := range rc.Fabrics {
		if f.Name == fabric {
			return true
		}
	}
	return false
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hhwatchd/hhwatchd/apply"
	"github.com/hhwatchd/hhwatchd/journal"
)

// The control socket speaks HTTP with JSON over a Unix socket:
//
//	GET  /v1/status       a statusDoc
//	GET  /v1/inventory    []inventoryItem; ?fabric=
//	GET  /v1/diff         []fabricDiff; ?fabric= ?object=; 404 where there is no such object
//	POST /v1/sync         a syncRequest; answered with a stream of syncEvents, a line each
//	POST /v1/reload       rereads the config and pulls; answered with a reloaded
//
// Who may connect is decided by the socket's permissions.

const controlSocket = "control.sock"

// runtimeDirs lists the runtime directories of this process: the one that
// systemd gave (systemd.exec(5), RUNTIME_DIRECTORY), and that of the user
// (XDG_RUNTIME_DIR).
func runtimeDirs() []string {
	var dirs []string
	if d := os.Getenv("RUNTIME_DIRECTORY"); d != "" {
		dirs = append(dirs, filepath.SplitList(d)[0])
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		dirs = append(dirs, filepath.Join(d, "hhwatchd"))
	}
	return dirs
}

// listenControl opens the control socket in the runtime directory, or in the
// state directory where there is none or another daemon has it. The caller
// holds the lock of the state directory, so that a socket left there is stale.
func listenControl(ctx context.Context, stateDir string) (net.Listener, error) {
	var failed error
	for _, dir := range append(runtimeDirs(), stateDir) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		name := filepath.Join(dir, controlSocket)
		if c, err := dialControl(ctx, name); err == nil {
			c.Close()
			failed = errors.Join(failed, fmt.Errorf("%s belongs to another daemon", name))
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = errors.Join(failed, err)
			continue
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "unix", name)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if err := os.Chmod(name, 0o660); err != nil {
			l.Close()
			failed = errors.Join(failed, err)
			continue
		}
		return l, nil
	}
	return nil, fmt.Errorf("opening the control socket: %w", failed)
}

func dialControl(ctx context.Context, name string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return (&net.Dialer{}).DialContext(ctx, "unix", name)
}

// statusDoc is what `hhwatchd status -o json` prints.
type statusDoc struct {
	Version      string             `json:"version"`
	PID          int                `json:"pid"`
	Started      time.Time          `json:"started"`
	StateDir     string             `json:"stateDir"`
	HTTP         string             `json:"http,omitempty"` // where /metrics and the like are
	Repositories []repositoryStatus `json:"repositories"`
}

// syncRequest asks for a cycle. Empty names mean all.
type syncRequest struct {
	Repository string `json:"repository,omitempty"`
	Fabric     string `json:"fabric,omitempty"`
	NoPull     bool   `json:"noPull,omitempty"`
	DryRun     bool   `json:"dryRun,omitempty"`
	Prune      bool   `json:"prune,omitempty"`
	Layout     bool   `json:"layout,omitempty"`
	Import     bool   `json:"import,omitempty"`
	Overwrite  bool   `json:"overwrite,omitempty"`
}

func (q syncRequest) trigger() trigger {
	t := trigger{why: "sync", ask: !q.NoPull, noPull: q.NoPull, full: true, dryRun: q.DryRun, prune: q.Prune, fabric: q.Fabric, layout: q.Layout, imports: q.Import, overwrite: q.Overwrite}
	switch {
	case q.Layout:
		t.why = "init"
	case q.Import:
		t.why = "import"
	case q.NoPull:
		t.why = "ingest"
	}
	return t
}

// A syncEvent is one line of the answer: how far the work is, a report, or
// what went wrong.
type syncEvent struct {
	Phase  string  `json:"phase,omitempty"`
	Done   int     `json:"done,omitempty"`
	Total  int     `json:"total,omitempty"`
	Report *report `json:"report,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// control answers on l until ctx is done.
func (s *service) control(ctx context.Context, l net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.status()) })
	mux.HandleFunc("GET /v1/inventory", func(w http.ResponseWriter, q *http.Request) {
		writeJSON(w, inventoryOf(s.config(), s.book.inventory(), q.URL.Query().Get("fabric")))
	})
	mux.HandleFunc("GET /v1/diff", s.handleDiff)
	mux.HandleFunc("POST /v1/sync", s.handleSync)
	mux.HandleFunc("POST /v1/reload", s.handleReload)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		srv.Close()
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("the control socket failed", "err", err)
	}
	<-stopped
}

func (s *service) handleDiff(w http.ResponseWriter, q *http.Request) {
	query := q.URL.Query()
	diffs, err := diffFabrics(q.Context(), s.config(), s.book.inventory(), s.resting, query.Get("fabric"), query.Get("object"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	writeJSON(w, diffs)
}

// resting returns the objects of a fabric that are left as others have them,
// because these do not give in, and until when.
func (s *service) resting(fabric string) map[apply.Key]time.Time {
	s.mu.Lock()
	repos := slices.Clone(s.repos)
	s.mu.Unlock()
	for _, r := range repos {
		if f := r.fabricNamed(fabric); f != nil && f.cluster != nil {
			f.cluster.mu.Lock()
			defer f.cluster.mu.Unlock()
			return f.cluster.resting
		}
	}
	return nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone
}

func (s *service) config() *Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg
}

func (s *service) status() statusDoc {
	doc := statusDoc{Version: version(), PID: os.Getpid(), Started: s.started, StateDir: s.config().StateDir, HTTP: s.http}
	for _, r := range s.running() {
		doc.Repositories = append(doc.Repositories, r.currentStatus())
	}
	return doc
}

func (s *service) handleSync(w http.ResponseWriter, q *http.Request) {
	var req syncRequest
	if err := json.NewDecoder(io.LimitReader(q.Body, 1<<16)).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// Only this goroutine writes the answer. The cycle never waits for it: who
	// reads too slowly misses some of the progress.
	progress := make(chan syncEvent, 16)
	results := make(chan syncEvent)
	t := req.trigger()
	t.progress = func(phase string, done, total int) {
		select {
		case progress <- syncEvent{Phase: phase, Done: done, Total: total}:
		default:
		}
	}
	var wg sync.WaitGroup
	asked := false
	for _, r := range s.running() {
		if !concerns(r.cfg, req.Repository, req.Fabric) {
			continue
		}
		asked = true
		wg.Go(func() {
			rep, err := r.ask(q.Context(), t)
			if rep != nil {
				results <- syncEvent{Report: rep}
			}
			if err != nil {
				results <- syncEvent{Error: err.Error()}
			}
		})
	}
	if !asked {
		wg.Go(func() {
			results <- syncEvent{Error: "the daemon does not know it; has the config been reloaded?"}
		})
	}
	go func() {
		wg.Wait()
		close(results)
	}()
	send := func(e syncEvent) {
		_ = json.NewEncoder(w).Encode(e) // a client that left needs no answer
		_ = http.NewResponseController(w).Flush()
	}
	for {
		select {
		case e := <-progress:
			send(e)
		case e, ok := <-results:
			if !ok {
				return
			}
			send(e)
		}
	}
}

// A client talks to the daemon.
type client struct {
	http   *http.Client
	status statusDoc
}

// errNoDaemon says that no daemon answers for the state directory.
var errNoDaemon = errors.New("no hhwatchd is running for this state directory")

// connect finds the daemon that has stateDir.
func connect(ctx context.Context, stateDir string) (*client, error) {
	var denied error
	// A person's runtime directory is not the service's.
	for _, dir := range append(runtimeDirs(), "/run/hhwatchd", stateDir) {
		name := filepath.Join(dir, controlSocket)
		c := &client{http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialControl(ctx, name) },
		}}}
		err := c.get(ctx, "/v1/status", &c.status)
		if err == nil && c.status.StateDir == stateDir {
			return c, nil
		}
		if errors.Is(err, os.ErrPermission) {
			denied = fmt.Errorf("%s may not be used by this user: %w", name, os.ErrPermission)
		}
	}
	if denied != nil {
		return nil, denied
	}
	return nil, fmt.Errorf("%w: %s", errNoDaemon, stateDir)
}

func (c *client) get(ctx context.Context, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://hhwatchd"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		why, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		if err != nil {
			return fmt.Errorf("the daemon's answer broke off: %w", err)
		}
		return &exitError{exitNone, errors.New(strings.TrimSpace(string(why)))}
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the daemon answered %s", resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(v)
}

// sync asks for a cycle and returns the reports.
func (c *client) sync(ctx context.Context, q syncRequest, progress progressFunc) ([]*report, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://hhwatchd/v1/sync", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the daemon: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the daemon answered %s", resp.Status)
	}
	reports := []*report{}
	var failed error
	d := json.NewDecoder(resp.Body)
	for {
		var e syncEvent
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return reports, failed
		} else if err != nil {
			return reports, errors.Join(failed, fmt.Errorf("the daemon's answer broke off: %w", err))
		}
		switch {
		case e.Error != "":
			failed = errors.Join(failed, errors.New(e.Error))
		case e.Report != nil:
			reports = append(reports, e.Report)
		case progress != nil:
			progress(e.Phase, e.Done, e.Total)
		}
	}
}

// inventoryItem is a row of `hhwatchd get`.
type inventoryItem struct {
	Fabric    string        `json:"fabric"`
	Group     string        `json:"group"`
	Kind      string        `json:"kind"`
	Namespace string        `json:"namespace"`
	Name      string        `json:"name"`
	State     journal.State `json:"state"`
	Managed   string        `json:"managed,omitempty"` // its file
	RawFile   string        `json:"rawFile,omitempty"` // that it came from
	RawBlob   string        `json:"rawBlob,omitempty"`
	Document  int           `json:"document,omitempty"` // in that file, from 1
	Line      int           `json:"line,omitempty"`
	Commit    string        `json:"commit,omitempty"`
	Since     time.Time     `json:"since,omitzero"`
	Applied   *appliedItem  `json:"applied,omitempty"`
	Error     string        `json:"error,omitempty"` // of the last attempt to apply or prune it
}

type appliedItem struct {
	Commit          string    `json:"commit"`
	ResourceVersion string    `json:"resourceVersion"`
	Time            time.Time `json:"time"`
}

func newInventoryItem(fabric string, e journal.Entry) inventoryItem {
	it := inventoryItem{
		Fabric: fabric, Group: e.Group, Kind: e.Kind, Namespace: e.Namespace, Name: e.Name, State: e.State(),
		Managed: e.Desired.Path, RawFile: e.Desired.RawPath, RawBlob: e.Desired.RawBlob,
		Document: e.Desired.Document, Line: e.Desired.Line, Commit: e.Desired.Commit, Since: e.Desired.Since, Error: e.Error,
	}
	if e.Applied.Blob != "" {
		it.Applied = &appliedItem{e.Applied.Commit, e.Applied.ResourceVersion, e.Applied.Time}
	}
	return it
}

// stateManaged is how far an object comes where there is no cluster.
const stateManaged journal.State = "managed"

func inventoryOf(cfg *Config, inv *journal.Inventory, fabric string) []inventoryItem {
	items := []inventoryItem{}
	for _, rc := range cfg.Repositories {
		for _, f := range rc.Fabrics {
			if fabric != "" && f.Name != fabric {
				continue
			}
			for _, it := range inv.Objects(f.Name) {
				item := newInventoryItem(f.Name, it)
				if f.Cluster == nil {
					item.State = stateManaged
				}
				items = append(items, item)
			}
		}
	}
	return items
}

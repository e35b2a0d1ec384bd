// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/net/netutil"

	"github.com/hhwatchd/hhwatchd/webhook"
)

// The HTTP listener is for programs: a Prometheus that scrapes, a probe, and
// a forge that calls when somebody has pushed.
//
//	GET  /metrics   Prometheus' text format
//	GET  /healthz   200 while all work goes on, 503 and a line when some hangs
//	GET  /readyz    200 after the first look at each repository, before it 503 and a line
//	POST /webhook   a forge's call: 202, and a pull follows
//
// Only the last asks who is there. The others tell what status tells, without
// the texts of errors, to whoever can connect: by default this host.

const (
	// httpConns bounds the connections: whoever opens more must not take the
	// file descriptors that the cycle needs.
	httpConns = 64
	// callMax bounds the body of a call, in bytes. GitHub sends none that is
	// longer ("Webhook events and payloads" in its documentation).
	callMax = 25 << 20
	// httpStopWait bounds the wait for requests in hand when the daemon stops.
	httpStopWait = 2 * time.Second
)

// hungAfter is how long work may make no step before /healthz says that it
// hangs: half of what systemd's watchdog allows, as that has it; without one,
// half of the WatchdogSec of the unit that is shipped.
func hungAfter() time.Duration {
	if interval, err := daemon.SdWatchdogEnabled(false); err == nil && interval > 0 {
		return interval / 2
	}
	return 2 * time.Minute
}

// listenHTTP opens the listener for address, as the config has it.
func listenHTTP(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("opening http.listen: %w", err)
	}
	return l, nil
}

// serveHTTP answers on l until ctx is done.
func (s *service) serveHTTP(ctx context.Context, l net.Listener) {
	srv := &http.Server{
		Handler:           s.httpHandler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       time.Minute, // a call of 25 MiB over a slow line
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // clients that misbehave
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpStopWait)
		defer cancel()
		if srv.Shutdown(wait) != nil {
			srv.Close()
		}
	}()
	if err := srv.Serve(netutil.LimitListener(l, httpConns)); !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("the HTTP listener failed; restart hhwatchd to have it back", "err", err)
	}
	<-stopped
}

func (s *service) httpHandler() http.Handler {
	limit := hungAfter()
	health := func(check func() string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if wrong := check(); wrong != "" {
				http.Error(w, wrong, http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.book.metrics.handler(s.log))
	mux.HandleFunc("GET /healthz", health(func() string { return s.hangs(limit) }))
	mux.HandleFunc("GET /readyz", health(s.awaited))
	mux.HandleFunc("/webhook", s.handleWebhook)
	return mux
}

// awaited says which repository was not looked at yet, "" where all were.
func (s *service) awaited() string {
	for _, r := range s.running() {
		select {
		case <-r.looked:
		default:
			return fmt.Sprintf("repository %s has not been looked at yet", r.cfg.Name)
		}
	}
	return ""
}

// handleWebhook takes a forge's call. The secret is read at each, so that a
// rotated one needs no reload.
func (s *service) handleWebhook(w http.ResponseWriter, q *http.Request) {
	file := s.config().HTTP.WebhookSecretFile
	if file == "" {
		http.NotFound(w, q)
		return
	}
	if q.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "a forge's webhook is a POST", http.StatusMethodNotAllowed)
		return
	}
	secret, err := s.webhookSecret(file)
	if err != nil {
		s.answerCall(w, "failed", http.StatusInternalServerError, "the webhook's secret cannot be used; the log says why")
		return
	}
	repos := s.running()
	urls := make([]string, len(repos))
	for i, r := range repos {
		urls[i] = r.cfg.URL
	}
	named := webhook.NewFinder(urls...)
	body := http.MaxBytesReader(w, q.Body, callMax)
	if q.ContentLength > callMax {
		err = &http.MaxBytesError{Limit: callMax}
	} else {
		err = webhook.Verify(q.Header, io.TeeReader(body, named), secret)
	}
	var long *http.MaxBytesError
	switch {
	case errors.Is(err, webhook.ErrUnsigned):
		s.answerCall(w, "unsigned", http.StatusUnauthorized, err.Error())
	case errors.Is(err, webhook.ErrWrong):
		s.answerCall(w, "refused", http.StatusForbidden, err.Error())
	case errors.As(err, &long):
		s.answerCall(w, "too_long", http.StatusRequestEntityTooLarge, fmt.Sprintf("a call is at most %d bytes long", callMax))
	case err != nil:
		s.answerCall(w, "broken_off", http.StatusBadRequest, "the call broke off")
	default:
		s.called(repos, named.Found())
		s.answerCall(w, "accepted", http.StatusAccepted, "pulling")
	}
}

// called wakes the repositories that a call names; all of them if it names
// none that we know, for their URLs here may not be those that the forge has.
func (s *service) called(repos []*running, named []bool) {
	all := true
	for _, n := range named {
		all = all && !n
	}
	for i, r := range repos {
		if named[i] || all {
			r.call()
		}
	}
}

func (s *service) answerCall(w http.ResponseWriter, outcome string, code int, text string) {
	s.book.metrics.called(outcome)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintln(w, text)
}

// webhookSecret reads the secret; a final newline is ignored. That it cannot
// be used is logged once, however many call: they are not known to be forges.
func (s *service) webhookSecret(file string) (string, error) {
	data, err := os.ReadFile(file)
	secret := string(bytes.TrimRight(data, "\r\n"))
	if err == nil && secret == "" {
		err = fmt.Errorf("%s is empty", file)
	}
	told := ""
	if err != nil {
		told = err.Error()
	}
	s.mu.Lock()
	isNew := told != s.secretTrouble
	s.secretTrouble = told
	s.mu.Unlock()
	if isNew && err != nil {
		s.log.Error("calls of the webhook are refused: its secret cannot be used", "err", err)
	}
	return secret, err
}

// A call of the webhook makes a pull at once. Those that follow are gathered:
// the next pull comes after callRest at the earliest, and while they keep
// coming the rest doubles each time, up to callRestMax.
const (
	callRest    = time.Second
	callRestMax = 8 * time.Second
)

// call notes a call of the webhook. Any goroutine may use it; it never waits.
func (r *repository) call() {
	select {
	case r.calls <- struct{}{}:
	default: // one is noted already, and the pull for it has not begun
	}
}

// heedCalls turns calls into triggers until ctx is done. Calls that come while
// a cycle runs lead to one more after it: what they are about may have come
// too late for this one.
func (r *repository) heedCalls(ctx context.Context) {
	rest := callRest
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.calls:
		}
		select {
		case <-ctx.Done():
			return
		case r.requests <- trigger{why: "webhook", ask: true}:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest):
		}
		if len(r.calls) > 0 {
			rest = min(2*rest, callRestMax)
		} else {
			rest = callRest
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// reloadWait bounds how long a reload waits for the cycles that it forced.
const reloadWait = 60 * time.Second

// reloaded is how a reload went.
type reloaded struct {
	// Refused says why the new config is not in force, a line for each thing
	// that is wrong with it. The daemon goes on with the old one.
	Refused []string `json:"refused,omitempty"`
	// GoingOn names the repositories whose cycle outlasted reloadWait.
	GoingOn []string `json:"goingOn,omitempty"`
	// Failed says what went wrong in a cycle, a line each. It is no failure of
	// the reload: a remote that is away is asked again by itself.
	Failed []string `json:"failed,omitempty"`
}

// reload rereads the config and forces a pull of every repository. With a
// config that is wrong, the old one stays in force. It returns when the
// cycles have ended, or reloadWait is over.
func (s *service) reload(ctx context.Context) reloaded {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	// Type=notify-reload's contract, which Type=notify accepts too: sd_notify(3).
	notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, ts.Nano()/1000))
	var out reloaded
	cfg, err := s.load()
	s.mu.Lock()
	old := s.cfg
	s.mu.Unlock()
	var wrong configError
	switch {
	case errors.As(err, &wrong):
		out.Refused = wrong
	case err != nil:
		out.Refused = []string{err.Error()}
	case cfg.StateDir != old.StateDir:
		out.Refused = []string{fmt.Sprintf("stateDir cannot change from %s to %s while hhwatchd is running; restart it for that", old.StateDir, cfg.StateDir)}
	case cfg.HTTP.Listen != old.HTTP.Listen:
		out.Refused = []string{fmt.Sprintf("http.listen cannot change from %q to %q while hhwatchd is running; restart it for that", old.HTTP.Listen, cfg.HTTP.Listen)}
	default:
		s.start(ctx, cfg)
		s.log.Info("config reread; pulling now")
	}
	for _, line := range out.Refused {
		s.log.Error("the config cannot be used; going on with the old one", "err", line)
	}
	bound, cancel := context.WithTimeout(ctx, reloadWait)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, r := range s.running() {
		wg.Go(func() {
			rep, err := r.ask(bound, trigger{why: "reload", ask: true, full: true})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case ctx.Err() != nil:
			case err != nil:
				s.log.Warn("the pull that the reload forced goes on", "repository", r.cfg.Name)
				out.GoingOn = append(out.GoingOn, r.cfg.Name)
			default:
				out.Failed = append(out.Failed, rep.failures()...)
			}
		})
	}
	wg.Wait()
	slices.Sort(out.GoingOn)
	slices.Sort(out.Failed)
	notify(daemon.SdNotifyReady + "\n" + s.statusLine())
	return out
}

// failures lists what kept a cycle from doing all of its work, a line each.
func (r *report) failures() []string {
	var out []string
	add := func(who, what string) {
		if what != "" {
			out = append(out, who+": "+strings.ReplaceAll(what, "\n", " "))
		}
	}
	add(r.Repository, r.Error)
	add(r.Repository, r.Pull.Error)
	add(r.Repository, r.Push.Error)
	for _, f := range r.Fabrics {
		add(f.Name, f.Error)
		add(f.Name, f.Apply.Error)
		add(f.Name, f.Apply.Held)
		for _, failed := range f.Apply.Failed {
			add(f.Name, failed)
		}
	}
	return out
}

func (s *service) handleReload(w http.ResponseWriter, q *http.Request) {
	done := make(chan reloaded, 1)
	select {
	case s.reloads <- done:
	case <-q.Context().Done():
		return
	}
	select {
	case r := <-done:
		writeJSON(w, r)
	case <-q.Context().Done():
	}
}

// reload asks the daemon to reload.
func (c *client) reload(ctx context.Context) (reloaded, error) {
	var out reloaded
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://hhwatchd/v1/reload", nil)
	if err != nil {
		return out, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return out, fmt.Errorf("asking the daemon: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return out, fmt.Errorf("the daemon answered %s", resp.Status)
	}
	return out, json.NewDecoder(resp.Body).Decode(&out)
}

func reloadCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Let the daemon reread its config and pull now; wait for it",
		Long: `Let the daemon reread its config and force a pull of every repository, and
return when the cycles of that have ended, or after ` + reloadWait.String() + ` say which go on. With a
config that is wrong it fails, and the daemon goes on with the old one.
This is what systemctl reload hhwatchd runs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			c, err := connect(cmd.Context(), cfg.StateDir)
			if err != nil {
				return err
			}
			r, err := c.reload(cmd.Context())
			if err != nil {
				return err
			}
			for _, line := range r.Failed {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			for _, name := range r.GoingOn {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: the pull goes on; hhwatchd status shows how far it is\n", name)
			}
			if len(r.Refused) > 0 {
				return configError(r.Refused)
			}
			return nil
		},
	}
}

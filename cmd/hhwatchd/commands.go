// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/journal"
)

func checkConfigCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check-config",
		Short: "Say what is wrong with the config",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.load()
			if err != nil {
				return err
			}
			if o.standalone() {
				return configError{"there is no " + o.config + "; without one, hhwatchd run uses an embedded default"}
			}
			n := 0
			for _, r := range c.Repositories {
				n += len(r.Fabrics)
			}
			noun := "repositories"
			if len(c.Repositories) == 1 {
				noun = "repository"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: good: %d %s, %s\n", o.config, len(c.Repositories), noun, plural(n, "fabric"))
			return nil
		},
	}
}

// request runs q in the daemon, or here with once, and prints the reports.
func (o *options) request(cmd *cobra.Command, q syncRequest, runOnce bool) error {
	cfg, err := o.load()
	if err != nil {
		return err
	}
	if q.Fabric != "" {
		if _, f := cfg.fabric(q.Fabric); f == nil {
			return &exitError{exitUsage, fmt.Errorf("no fabric %s is configured", q.Fabric)}
		}
	}
	if q.Repository != "" && cfg.repository(q.Repository) == nil {
		return &exitError{exitUsage, fmt.Errorf("no repository %s is configured", q.Repository)}
	}
	var progress progressFunc
	done := func() {}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		progress, done = bars(os.Stderr)
	}
	reports := []*report{}
	c, err := connect(cmd.Context(), cfg.StateDir)
	switch {
	case err == nil && runOnce:
		err = &exitError{exitUsage, fmt.Errorf("a daemon is running (pid %d); leave out --once to ask it", c.status.PID)}
	case err == nil:
		reports, err = c.sync(cmd.Context(), q, progress)
	case errors.Is(err, errNoDaemon) && runOnce:
		if o.standalone() {
			if err := makeStandaloneRemote(); err != nil {
				return err
			}
		}
		// The report says what there is to say.
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
		t := q.trigger()
		t.progress = progress
		reports, err = once(cmd.Context(), cfg, log, q.Repository, t)
	case errors.Is(err, errNoDaemon):
		err = fmt.Errorf("%w; start it, or add --once to do it here", err)
	}
	done()
	if o.output == "json" {
		if err := printJSON(cmd.OutOrStdout(), reports); err != nil {
			return err
		}
	} else {
		for _, r := range reports {
			printReport(cmd.OutOrStdout(), r)
		}
	}
	if err != nil {
		return err
	}
	for _, r := range reports {
		if r.failed() {
			return &exitError{code: exitFailed}
		}
	}
	return nil
}

func syncCommand(o *options) *cobra.Command {
	var q syncRequest
	var runOnce bool
	cmd := &cobra.Command{
		Use:   "sync [--repo NAME | --fabric NAME] [--dry-run] [--prune] [--once]",
		Short: "Run a full cycle now: pull, ingest, commit, push, apply",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Repository != "" && q.Fabric != "" {
				return &exitError{exitUsage, errors.New("give --repo or --fabric, not both")}
			}
			return o.request(cmd, q, runOnce)
		},
	}
	cmd.Flags().StringVar(&q.Repository, "repo", "", "only the repository `NAME`")
	cmd.Flags().StringVar(&q.Fabric, "fabric", "", "the repository of the fabric `NAME`; tell only of that fabric")
	cmd.Flags().BoolVar(&q.DryRun, "dry-run", false, "show the plan; fetch and write nothing")
	cmd.Flags().BoolVar(&q.Prune, "prune", false, "let a prune go on that is held")
	cmd.Flags().BoolVar(&runOnce, "once", false, "run the cycle here, where no daemon runs")
	o.outputFlag(cmd)
	return cmd
}

func ingestCommand(o *options) *cobra.Command {
	q := syncRequest{NoPull: true}
	var runOnce bool
	cmd := &cobra.Command{
		Use:   "ingest [--fabric NAME] [--dry-run] [--once]",
		Short: "Process what lies in raw/ now, without a pull",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return o.request(cmd, q, runOnce) },
	}
	cmd.Flags().StringVar(&q.Fabric, "fabric", "", "the repository of the fabric `NAME`; tell only of that fabric")
	cmd.Flags().BoolVar(&q.DryRun, "dry-run", false, "show the plan and write nothing")
	cmd.Flags().BoolVar(&runOnce, "once", false, "run it here, where no daemon runs")
	o.outputFlag(cmd)
	return cmd
}

func initCommand(o *options) *cobra.Command {
	q := syncRequest{Layout: true}
	cmd := &cobra.Command{
		Use:   "init [--fabric NAME]",
		Short: "Lay out raw/, managed/ and unmanaged/ for a fabric in its repository",
		Long: `Lay out raw/, managed/ and unmanaged/ for a fabric in its repository, as a
commit, and push it. YAML that lies loose in the fabric's directory moves into
raw/, and from there is ingested like any other. With a daemon running it is
the daemon that does it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			if q.Fabric, err = oneFabric(cfg, q.Fabric, func(*FabricConfig) bool { return true }); err != nil {
				return err
			}
			_, err = connect(cmd.Context(), cfg.StateDir)
			return o.request(cmd, q, errors.Is(err, errNoDaemon))
		},
	}
	cmd.Flags().StringVar(&q.Fabric, "fabric", "", "the fabric `NAME`; the only one is the default")
	o.outputFlag(cmd)
	return cmd
}

func statusCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the daemon, its remotes and its fabrics are",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			c, err := connect(cmd.Context(), cfg.StateDir)
			if err != nil {
				return err
			}
			if o.output == "json" {
				if err := printJSON(cmd.OutOrStdout(), c.status); err != nil {
					return err
				}
			} else {
				printStatus(cmd.OutOrStdout(), c.status, time.Now())
			}
			if !c.status.well() {
				return &exitError{code: exitFailed}
			}
			return nil
		},
	}
	o.outputFlag(cmd)
	return cmd
}

func getCommand(o *options) *cobra.Command {
	var fabric string
	cmd := &cobra.Command{
		Use:   "get [KIND [NAME]] [--fabric NAME]",
		Short: "Show what each fabric should hold, where it came from, and whether it is applied",
		Args:  cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			if _, f := cfg.fabric(fabric); fabric != "" && f == nil {
				return &exitError{exitUsage, fmt.Errorf("no fabric %s is configured", fabric)}
			}
			kind, err := cfg.kindNamed(args)
			if err != nil {
				return err
			}
			var items []inventoryItem
			if c, cerr := connect(cmd.Context(), cfg.StateDir); cerr == nil {
				if err := c.get(cmd.Context(), "/v1/inventory?fabric="+url.QueryEscape(fabric), &items); err != nil {
					return err
				}
			} else {
				inv, err := journal.ReadInventory(cfg.journalDir())
				if inv == nil {
					return noJournal(cfg, err)
				}
				items = inventoryOf(cfg, inv, fabric)
			}
			items = slices.DeleteFunc(items, func(it inventoryItem) bool {
				return kind != "" && it.Kind != kind || len(args) == 2 && it.Name != args[1]
			})
			if len(items) > 0 || len(args) < 2 {
				if o.output == "json" {
					return printJSON(cmd.OutOrStdout(), items)
				}
				printItems(cmd.OutOrStdout(), items)
			} else {
				return &exitError{exitNone, fmt.Errorf("no %s %s", args[0], args[1])}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&fabric, "fabric", "", "only the fabric `NAME`")
	o.outputFlag(cmd)
	return cmd
}

// kindNamed is the kind that the arguments name: Switch, switch or switches.
func (c *Config) kindNamed(args []string) (string, error) {
	if len(args) == 0 {
		return "", nil
	}
	for _, r := range c.Repositories {
		for _, f := range r.Fabrics {
			for _, k := range f.kinds() {
				if strings.EqualFold(args[0], k.Kind) || strings.EqualFold(args[0], k.Plural) {
					return k.Kind, nil
				}
			}
		}
	}
	return "", &exitError{exitUsage, fmt.Errorf("%s is not a kind that a fabric holds", args[0])}
}

// noJournal says so where there is none yet.
func noJournal(cfg *Config, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &exitError{exitNone, fmt.Errorf("no hhwatchd has run with %s yet", cfg.StateDir)}
	}
	return err
}

func explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain CODE",
		Short: "Explain why a file was rejected, by the code in its reason (HH203)",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, ok := ingest.Explain(strings.ToUpper(args[0]))
			if !ok {
				return &exitError{exitNone, fmt.Errorf("there is no code %s", args[0])}
			}
			fmt.Fprint(cmd.OutOrStdout(), text)
			return nil
		},
	}
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func table(w io.Writer, header ...string) *tabwriter.Writer {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, strings.Join(header, "\t"))
	return t
}

func (it *inventoryItem) key() journal.Key {
	return journal.Key{Group: it.Group, Kind: it.Kind, Namespace: it.Namespace, Name: it.Name}
}

func printItems(w io.Writer, items []inventoryItem) {
	t := table(w, "FABRIC", "OBJECT", "STATE", "COMMIT", "FROM", "DOC", "SINCE")
	for _, it := range items {
		from, doc := it.RawFile, fmt.Sprint(it.Document)
		if from != "" {
			from = filepath.Base(from)
		} else {
			from, doc = "-", "-"
		}
		state := string(it.State)
		if it.Error != "" {
			state += ": " + it.Error
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", it.Fabric, it.key(), state, short(it.Commit), from, doc,
			it.Since.Local().Format("2006-01-02 15:04:05"))
	}
	t.Flush()
}

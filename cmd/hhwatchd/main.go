// SPDX-License-Identifier: Apache-2.0

// Hhwatchd keeps the fabrics that a git repository describes in step with
// their Kubernetes APIs: YAML that is pushed into raw/ or dropped there is
// validated, filed as one object a file under managed/, committed, pushed and
// applied. See the README for what it promises.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Exit codes, the same for every command.
const (
	exitOK     = 0
	exitFailed = 1  // the command ran, and something failed or was rejected
	exitUsage  = 2  // the command line is wrong
	exitNone   = 3  // no daemon is running, or what was asked for does not exist
	exitConfig = 78 // the config is wrong (EX_CONFIG of sysexits.h)
)

// An exitError carries the exit code of a command. Without an error the
// command has said all that there is to say.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() { os.Exit(run(context.Background(), os.Args[1:])) }

func run(ctx context.Context, args []string) int {
	ran := false
	cmd := newCommand(&ran)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if !ran {
		// cobra's own word on the command line.
		err = &exitError{exitUsage, err}
	}
	var exit *exitError
	if errors.As(err, &exit) && exit.err == nil {
		return exit.code
	}
	var conf configError
	if errors.As(err, &conf) {
		for _, line := range conf {
			fmt.Fprintln(os.Stderr, line)
		}
		return exitConfig
	}
	fmt.Fprintln(os.Stderr, "hhwatchd:", err)
	switch {
	case exit != nil:
		return exit.code
	case errors.Is(err, errNoDaemon):
		return exitNone
	}
	return exitFailed
}

// options are the flags that every command has.
type options struct {
	config string
	given  bool // --config was given
	output string
}

// newCommand makes the command tree; ran is set when a command line is good
// and its command about to run.
func newCommand(ran *bool) *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "hhwatchd",
		Short: "Keep Hedgehog fabrics in step with the git repository that describes them",
		Long: `hhwatchd keeps Hedgehog fabrics in step with the git repository that describes
them. YAML that is pushed into a fabric's raw/ directory, or dropped there on
this host, is validated, filed as one object a file under managed/, committed,
pushed, and applied to the fabric's Kubernetes API.

Exit codes: 0 all is well; 1 something failed, was rejected or waits for a
person; 2 the command line is wrong; 3 no daemon is running, or there is no such
object; 78 the config is wrong.`,
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			*ran = true
			o.given = cmd.Flags().Changed("config")
			if o.output != "" && o.output != "json" {
				return &exitError{exitUsage, fmt.Errorf("-o %s: the only other form is json", o.output)}
			}
			return nil
		},
	}
	root.PersistentFlags().StringVar(&o.config, "config", defaultConfigFile, "the config `FILE`")
	root.AddCommand(
		runCommand(&o), reloadCommand(&o), checkConfigCommand(&o), initCommand(&o),
		syncCommand(&o), ingestCommand(&o), importCommand(&o), statusCommand(&o), historyCommand(&o),
		getCommand(&o), diffCommand(&o), validateCommand(&o), explainCommand(), journalCommand(&o),
	)
	for _, c := range root.Commands() {
		c.DisableFlagsInUseLine = true
		for _, sub := range c.Commands() {
			sub.DisableFlagsInUseLine = true
		}
	}
	return root
}

// outputFlag gives a command -o json.
func (o *options) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "`json` instead of a table")
}

// load reads the config. Where none is given and none is installed, it is
// the embedded default: a fabric to try things with.
func (o *options) load() (*Config, error) {
	if o.standalone() {
		return standalone()
	}
	file, err := filepath.Abs(o.config)
	if err != nil {
		return nil, err
	}
	return loadConfig(file)
}

func (o *options) standalone() bool { return !o.given && !fileExists(o.config) }

func runCommand(o *options) *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:   "run [--verbose]",
		Short: "Run the daemon",
		Long: `Run the daemon until SIGTERM. SIGHUP rereads the config and forces a pull.

With no config at all it runs an embedded default: a bare repository as the
remote, one fabric, no cluster, all in a state directory of its own.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			debug.SetGCPercent(50) // small rather than fast: it is idle most of the time
			log, journald := newLog(verbose)
			var announce func(*Config)
			if o.standalone() {
				if err := makeStandaloneRemote(); err != nil {
					return err
				}
				announce = func(c *Config) { announceStandalone(cmd.ErrOrStderr(), c) }
			}
			return serve(cmd.Context(), o.load, log, journald, announce)
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log debugging details")
	return cmd
}

// newLog makes the log on stderr: coloured on a terminal, plain elsewhere.
// It also says whether stderr leads to journald (systemd.exec(5),
// JOURNAL_STREAM), in which case the journal's records go there natively,
// with their fields.
func newLog(verbose bool) (log *slog.Logger, journald bool) {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		return slog.New(tint.NewTextHandler(os.Stderr, &tint.Options{Level: level, TimeFormat: "15:04:05.000"})), false
	}
	journald, err := journal.StderrIsJournalStream()
	journald = journald && err == nil && journal.Enabled()
	h := &slog.HandlerOptions{Level: level}
	if journald {
		// journald has the time.
		h.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(os.Stderr, h)), journald
}

// buildVersion is set by the package build (-ldflags -X).
var buildVersion string

// version is the version of this build.
func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"gopkg.in/yaml.v3"

	"github.com/hhwatchd/hhwatchd/apply"
	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/journal"
)

// A fabricDiff is what a sync would change in a fabric's cluster.
type fabricDiff struct {
	Fabric  string       `json:"fabric"`
	Commit  string       `json:"commit"` // that is held against the cluster
	Objects []objectDiff `json:"objects"`
	Unread  []string     `json:"unread,omitempty"` // managed files that cannot be read, and why
	Held    string       `json:"held,omitempty"`   // why a prune waits for a person
	Error   string       `json:"error,omitempty"`  // why it cannot be told, or not all
}

// An objectDiff is what a sync would do to one object.
type objectDiff struct {
	Object  string `json:"object"` // Kind/name
	Path    string `json:"path,omitempty"`
	Outcome string `json:"outcome"`         // created, configured, drifted, pruned, failed
	Diff    string `json:"diff,omitempty"`  // unified, of YAML
	Owned   bool   `json:"owned,omitempty"` // all that changes is that fields become hhwatchd's
	Left    string `json:"left,omitempty"`  // why it would be left, although it is not as it was applied
	Error   string `json:"error,omitempty"` // why it would fail
}

func diffCommand(o *options) *cobra.Command {
	var fabric string
	cmd := &cobra.Command{
		Use:   "diff [OBJECT] [--fabric NAME]",
		Short: "Show what a sync would change in the clusters",
		Long: `Show what a sync would change in the clusters: managed/ on the remote branch, as
it was last pulled, against what is live, as a unified diff of YAML. OBJECT is
Kind/name or a name.

What would come of an object is asked of the API server by a dry run, so that
what defaults and admission webhooks add is no difference. What a prune would
delete is shown, too. Nothing is changed.

Exit codes: 0 there is no difference; 1 there is some; 2 it cannot be told, or
the command line is wrong; 3 nothing was cloned yet, or there is no such object.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			if _, f := cfg.fabric(fabric); fabric != "" && f == nil {
				return &exitError{exitUsage, fmt.Errorf("no fabric %s is configured", fabric)}
			} else if fabric != "" && f.Cluster == nil {
				return &exitError{exitUsage, fmt.Errorf("the fabric %s has no cluster", fabric)}
			}
			if !slices.ContainsFunc(cfg.Repositories, func(r RepositoryConfig) bool {
				return slices.ContainsFunc(r.Fabrics, func(f FabricConfig) bool { return f.Cluster != nil })
			}) {
				return &exitError{exitUsage, errors.New("no fabric has a cluster")}
			}
			object := strings.Join(args, "")
			diffs, err := askDiff(cmd.Context(), cfg, fabric, object)
			if err != nil {
				return err
			}
			if o.output == "json" {
				err = printJSON(cmd.OutOrStdout(), diffs)
			} else {
				err = printDiff(cmd.OutOrStdout(), diffs, coloured())
			}
			if err != nil {
				return err
			}
			return diffExit(diffs)
		},
	}
	cmd.Flags().StringVar(&fabric, "fabric", "", "only the fabric `NAME`")
	o.outputFlag(cmd)
	return cmd
}

// diffExit is the exit code of diff, as diff(1) has it.
func diffExit(diffs []fabricDiff) error {
	code := exitOK
	for _, d := range diffs {
		if d.Error != "" {
			return &exitError{exitUsage, fmt.Errorf("%s: %s", d.Fabric, d.Error)}
		}
		if len(d.Objects) > 0 || len(d.Unread) > 0 || d.Held != "" {
			code = exitFailed
		}
	}
	if code == exitOK {
		return nil
	}
	return &exitError{code: code}
}

// askDiff asks the daemon, which has the rights and credentials; or looks
// itself where none is running.
func askDiff(ctx context.Context, cfg *Config, fabric, object string) ([]fabricDiff, error) {
	c, err := connect(ctx, cfg.StateDir)
	if err == nil {
		var diffs []fabricDiff
		err := c.get(ctx, "/v1/diff?"+url.Values{"fabric": {fabric}, "object": {object}}.Encode(), &diffs)
		return diffs, trouble(err)
	}
	if !errors.Is(err, errNoDaemon) {
		return nil, trouble(err)
	}
	inv, err := journal.ReadInventory(cfg.journalDir())
	if inv == nil {
		return nil, noJournal(cfg, err)
	}
	nothing := func(string) map[apply.Key]time.Time { return nil } // without a daemon nobody fights
	return diffFabrics(ctx, cfg, inv, nothing, fabric, object)
}

// trouble has diff's exit code for what cannot be told.
func trouble(err error) error {
	if exit := (*exitError)(nil); err == nil || errors.As(err, &exit) {
		return err
	}
	return &exitError{exitUsage, err}
}

// diffFabrics compares the fabrics that have a cluster, or one of them, or one
// object of theirs. resting tells for a fabric which objects are left as they
// are, and until when.
func diffFabrics(ctx context.Context, cfg *Config, inv *journal.Inventory, resting func(fabric string) map[apply.Key]time.Time, fabric, object string) ([]fabricDiff, error) {
	diffs := []fabricDiff{}
	known := object == ""
	for i := range cfg.Repositories {
		rc := &cfg.Repositories[i]
		for j := range rc.Fabrics {
			f := &rc.Fabrics[j]
			if f.Cluster == nil || fabric != "" && f.Name != fabric {
				continue
			}
			d := fabricDiff{Fabric: f.Name, Objects: []objectDiff{}}
			found, err := d.look(ctx, cfg, rc, f, inv, resting(f.Name), object)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, &exitError{exitNone, fmt.Errorf("there is no clone of %s yet", rc.Name)}
			} else if err != nil {
				d.Error = err.Error()
			}
			known = known || found || err != nil
			diffs = append(diffs, d)
		}
	}
	if !known {
		return nil, &exitError{exitNone, fmt.Errorf("no fabric has or had an object %s", object)}
	}
	return diffs, nil
}

// look compares one fabric. found says that it has the object that is asked
// for, or is to be rid of it.
func (d *fabricDiff) look(ctx context.Context, cfg *Config, rc *RepositoryConfig, f *FabricConfig, inv *journal.Inventory, resting map[apply.Key]time.Time, object string) (found bool, err error) {
	clone, err := checkout.OpenReader(cfg.cloneDir(rc.Name), rc.Branch)
	if err != nil {
		return false, err
	}
	defer clone.Close()
	tip := clone.Upstream
	if f.Cluster.Apply == applyCommitted {
		tip = clone.Head
	}
	at, err := tip()
	if err != nil {
		return false, err
	}
	if at == "" {
		return false, errors.New("the branch has no commit yet")
	}
	d.Commit = string(at)
	files, err := managedFiles(clone, at, f)
	if err != nil {
		return false, err
	}
	policy := newSchemas(cfg, f).current()
	objs, has, unread, err := readManaged(clone, files, f, policy)
	if err != nil {
		return false, err
	}
	for _, p := range slices.Sorted(maps.Keys(unread)) {
		d.Unread = append(d.Unread, p+": "+unread[p])
	}
	var gone []apply.Object
	if f.Prune {
		gone, d.Held, err = toPrune(inv, f, policy, has, len(unread), false,
			func(commit checkout.Hash) (bool, error) { return clone.IsAncestor(commit, at) })
		if err != nil {
			return false, err
		}
	}
	if object != "" {
		d.Unread, d.Held = nil, ""
		objs, gone = named(objs, object), named(gone, object)
	}
	leave(objs, f, inv, resting, time.Now())
	why := func(k apply.Key) string {
		if f.Drift == driftReport {
			return "it is left so (drift: report)"
		}
		return "it was changed each time that it was put right; it is left so until " + resting[k].Local().Format(time.TimeOnly)
	}
	api, err := f.Cluster.connect()
	if err != nil {
		return false, err
	}
	defer api.Close()
	err = api.Diff(ctx, objs, gone, func(o apply.Difference) { d.Objects = append(d.Objects, newObjectDiff(f, o, why(o.Key()))) })
	return len(objs)+len(gone) > 0, err
}

// named are the objects that a person means by s.
func named(objs []apply.Object, s string) []apply.Object {
	var out []apply.Object
	for _, o := range objs {
		if journal.Key(o.Key()).Match(s) {
			out = append(out, o)
		}
	}
	return out
}

func newObjectDiff(f *FabricConfig, o apply.Difference, left string) objectDiff {
	key := journal.Key(o.Key())
	d := objectDiff{Object: key.String(), Outcome: string(o.Outcome)}
	if o.Outcome == apply.Drifted {
		d.Left = left
	}
	was, now := "live/"+d.Object, "/dev/null"
	if o.Path != "" {
		d.Path = f.Path + "/" + o.Path
		now = d.Path
	}
	if o.Live == nil {
		was = "/dev/null"
	}
	if o.Err != nil {
		d.Error = o.Err.Error()
	}
	d.Diff = string(diff.Diff(was, document(o.Live), now, document(o.Want)))
	d.Owned = d.Diff == "" && d.Error == ""
	return d
}

// document is an object as YAML; nothing for none.
func document(object map[string]any) []byte {
	if object == nil {
		return nil
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	// What comes from JSON can be written as YAML, and a buffer takes it.
	_ = e.Encode(object)
	_ = e.Close()
	return b.Bytes()
}

// coloured reports whether standard output takes colours, and nobody minds
// (https://no-color.org).
func coloured() bool {
	return term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// printDiff prints a diff that patch(1) would read; what is no difference of
// text stands between in lines of its own.
func printDiff(w io.Writer, diffs []fabricDiff, colour bool) error {
	paint := func(code, line string) string {
		if colour {
			return "\x1b[" + code + "m" + line + "\x1b[m"
		}
		return line
	}
	var b strings.Builder
	for _, d := range diffs {
		say := func(format string, args ...any) {
			fmt.Fprintln(&b, paint("1", d.Fabric+": "+fmt.Sprintf(format, args...)))
		}
		for _, o := range d.Objects {
			switch {
			case o.Error != "":
				say("%s would be refused: %s", o.Object, o.Error)
			case o.Outcome == string(apply.Drifted):
				say("%s is not as it was applied; %s", o.Object, o.Left)
			case o.Owned:
				say("%s has the values that it should; hhwatchd would take over fields of others", o.Object)
			default:
				say("%s would be %s", o.Object, o.Outcome)
			}
			for line := range strings.Lines(o.Diff) {
				line = strings.TrimSuffix(line, "\n")
				code := ""
				switch {
				case strings.HasPrefix(line, "diff "), strings.HasPrefix(line, "---"), strings.HasPrefix(line, "+++"):
					code = "1"
				case strings.HasPrefix(line, "@@"):
					code = "36"
				case strings.HasPrefix(line, "-"):
					code = "31"
				case strings.HasPrefix(line, "+"):
					code = "32"
				}
				if code != "" {
					line = paint(code, line)
				}
				fmt.Fprintln(&b, line)
			}
		}
		for _, u := range d.Unread {
			say("cannot be read: %s", u)
		}
		if d.Held != "" {
			say("prune HELD: %s", d.Held)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

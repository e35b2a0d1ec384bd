// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/journal"
)

// A finding is one thing that validate looked at.
type finding struct {
	Subject string `json:"subject"`
	OK      bool   `json:"ok"`
	Detail  string `json:"detail"`
}

// validateTimeout bounds the questions to one remote or one cluster.
const validateTimeout = 30 * time.Second

func validateCommand(o *options) *cobra.Command {
	var fabric, namespace, crds string
	cmd := &cobra.Command{
		Use:   "validate [FILE|DIRECTORY]... [--fabric NAME] [--crds DIRECTORY] [--namespace NAMESPACE]",
		Short: "Check remotes, credentials, fabric directories and clusters; or the given files",
		Long: `Without arguments, check what the config names: that each remote can be
reached with its credentials, has the branch and takes pushes; that the fabric
directories are in order; that each cluster can be reached and grants the
rights that are needed.

With files and directories, give the verdict that ingestion would give, with
no daemon, no config and no network: for a pre-commit hook, or CI. With --crds
objects are held against the schemas in that directory; with --fabric, against
those of the fabric in the config, as they were last seen, and against each
other and what the fabric holds, as of the last pull.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				cfg, f, err := o.fabricFor(fabric, namespace, crds)
				if err != nil {
					return err
				}
				return o.validateFiles(cmd.OutOrStdout(), cfg, f, args)
			}
			cfg, err := o.load()
			if err != nil {
				return err
			}
			if _, f := cfg.fabric(fabric); fabric != "" && f == nil {
				return &exitError{exitUsage, fmt.Errorf("no fabric %s is configured", fabric)}
			}
			return o.validateConfig(cmd.Context(), cmd.OutOrStdout(), cfg, fabric)
		},
	}
	cmd.Flags().StringVar(&fabric, "fabric", "", "only the fabric `NAME` and its repository")
	cmd.Flags().StringVar(&namespace, "namespace", "default", "the fabric's own `NAMESPACE`, when files are given")
	cmd.Flags().StringVar(&crds, "crds", "", "hold the given files against the CustomResourceDefinitions in `DIRECTORY`")
	o.outputFlag(cmd)
	return cmd
}

// fabricFor returns what given files are held against: what the config says of
// the fabric, or without one what the flags say.
func (o *options) fabricFor(fabric, namespace, crds string) (*Config, *FabricConfig, error) {
	cfg, f := &Config{}, &FabricConfig{Cluster: &ClusterConfig{Namespace: namespace}} // it is not asked
	if fabric != "" {
		var err error
		if cfg, err = o.load(); err != nil {
			return nil, nil, err
		}
		if _, f = cfg.fabric(fabric); f == nil {
			return nil, nil, &exitError{exitUsage, fmt.Errorf("no fabric %s is configured", fabric)}
		}
	}
	if crds != "" {
		f.CRDs = crds
	}
	return cfg, f, nil
}

// validateFiles gives the verdict on each file: one after the other, so that it
// takes the memory of one, unless f is a fabric of the config. Then they are
// held against each other and what the fabric holds, in its place.
func (o *options) validateFiles(w io.Writer, cfg *Config, f *FabricConfig, args []string) error {
	type verdict struct {
		File     string            `json:"file"`
		OK       bool              `json:"ok"`
		Objects  []string          `json:"objects,omitempty"`
		Problems []journal.Problem `json:"problems,omitempty"`
		Warnings []journal.Problem `json:"warnings,omitempty"`
	}
	names, err := inputsIn(args)
	if err != nil {
		return err
	}
	// Here the schemas have to be in order: nobody reads the status of a hook.
	schemas := newSchemas(cfg, f)
	if _, trouble := schemas.state(); trouble != "" {
		return errors.New(trouble)
	}
	policy := schemas.current()
	var verdicts []verdict
	bad := false
	lines := bufio.NewWriter(w)
	show := func(v *ingest.Step) {
		bad = bad || len(v.Problems) > 0
		if o.output == "json" {
			out := verdict{File: v.File, OK: len(v.Problems) == 0, Problems: problems(v.Problems), Warnings: problems(v.Warnings)}
			for _, obj := range v.Objects {
				out.Objects = append(out.Objects, obj.ID.String())
			}
			verdicts = append(verdicts, out)
			return
		}
		if len(v.Problems) == 0 {
			fmt.Fprintf(lines, "%s: good: %s\n", v.File, plural(len(v.Objects), "object"))
		}
		for _, p := range v.Problems {
			fmt.Fprintln(lines, p)
		}
		for _, p := range v.Warnings {
			fmt.Fprintln(lines, "warning: "+p.String())
		}
	}
	plan := func(names []string) error {
		files := make([]ingest.File, len(names))
		for i, name := range names {
			if files[i], err = readInput(name, cmp.Or(int64(cfg.Limits.File), ingest.DefaultLimits.File)); err != nil {
				return err
			}
		}
		plan, err := planBeside(cfg, f, policy, files)
		for i := range plan.Files {
			show(&plan.Files[i])
		}
		return err
	}
	if rc, _ := cfg.fabric(f.Name); rc != nil {
		err = plan(names)
	} else {
		for i := 0; i < len(names) && err == nil; i++ {
			err = plan(names[i : i+1])
		}
	}
	if err := errors.Join(lines.Flush(), err); err != nil {
		return err
	}
	if o.output == "json" {
		if err := printJSON(w, verdicts); err != nil {
			return err
		}
	}
	if bad {
		return &exitError{code: exitFailed}
	}
	return nil
}

// inputsIn lists the files that are given, and in directories those that would
// be input.
func inputsIn(args []string) (names []string, err error) {
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			names = append(names, arg)
			continue
		}
		err = filepath.WalkDir(arg, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(arg, name)
			if d.Type().IsRegular() && ingest.IsInput(filepath.ToSlash(rel)) {
				names = append(names, name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}

// readInput reads a file, unless it has more than most bytes.
func readInput(name string, most int64) (ingest.File, error) {
	f := ingest.File{Path: filepath.ToSlash(name)}
	file, err := os.Open(name)
	if err != nil {
		return f, err
	}
	defer file.Close()
	f.Data, err = io.ReadAll(io.LimitReader(file, most+1))
	if int64(len(f.Data)) > most {
		f.Data, f.Size = nil, most+1
		if info, err := file.Stat(); err == nil { // a pipe has no size
			f.Size = max(f.Size, info.Size())
		}
	}
	return f, err
}

func (o *options) validateConfig(ctx context.Context, w io.Writer, cfg *Config, fabric string) error {
	var findings []finding
	add := func(subject string, err error, good string) {
		f := finding{subject, err == nil, good}
		if err != nil {
			f.Detail = err.Error()
		}
		findings = append(findings, f)
	}
	for i := range cfg.Repositories {
		rc := &cfg.Repositories[i]
		if !concerns(rc, "", fabric) {
			continue
		}
		validateRemote(ctx, rc, add)
		for j := range rc.Fabrics {
			fc := &rc.Fabrics[j]
			if fabric != "" && fc.Name != fabric {
				continue
			}
			validateDirectory(cfg, rc, fc, add)
			validateSchemas(cfg, fc, add)
			validateCluster(ctx, fc, add)
		}
	}
	failed := false
	for _, f := range findings {
		failed = failed || !f.OK
	}
	if o.output == "json" {
		if err := printJSON(w, findings); err != nil {
			return err
		}
	} else {
		t := table(w, "WHAT", "RESULT", "DETAIL")
		for _, f := range findings {
			mark := "ok"
			if !f.OK {
				mark = "FAILED"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", f.Subject, mark, f.Detail)
		}
		t.Flush()
	}
	if failed {
		return &exitError{code: exitFailed}
	}
	return nil
}

func validateRemote(ctx context.Context, rc *RepositoryConfig, add func(string, error, string)) {
	ctx, cancel := context.WithTimeout(ctx, validateTimeout)
	defer cancel()
	p, err := checkout.Probe(ctx, checkout.Options{URL: rc.URL, Proxy: rc.Proxy, Branch: rc.Branch, Auth: rc.Auth.checkout()})
	add("remote "+rc.Name, err, "answers at "+rc.URL)
	if err != nil {
		return
	}
	if p.Head == "" && !p.Empty {
		add("branch "+rc.Branch, fmt.Errorf("is not there"), "")
	} else {
		add("branch "+rc.Branch, nil, "at "+orNone(short(string(p.Head))))
	}
	add("push to "+rc.Name, p.Push, "is allowed")
}

// validateDirectory looks at the fabric's directory in the working clone, if
// there is one yet.
func validateDirectory(cfg *Config, rc *RepositoryConfig, fc *FabricConfig, add func(string, error, string)) {
	subject := "directory of " + fc.Name
	root := filepath.Join(cfg.cloneDir(rc.Name), filepath.FromSlash(fc.Path))
	var missing []string
	for _, dir := range []string{"raw", "managed", "unmanaged"} {
		info, err := os.Stat(filepath.Join(root, dir))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, dir+"/")
		case err != nil:
			add(subject, err, "")
			return
		case !info.IsDir():
			add(subject, fmt.Errorf("%s is not a directory", filepath.Join(root, dir)), "")
			return
		}
	}
	switch {
	case len(missing) == 3:
		add(subject, nil, "not cloned here or not laid out yet; hhwatchd init lays it out")
	case len(missing) > 0:
		add(subject, nil, strings.Join(missing, ", ")+" missing; made when needed")
	default:
		add(subject, nil, root)
	}
}

// validateSchemas looks at the directory of schemas that the config names.
func validateSchemas(cfg *Config, fc *FabricConfig, add func(string, error, string)) {
	if fc.CRDs == "" {
		return
	}
	kinds, trouble := newSchemas(cfg, fc).state()
	var err error
	if trouble != "" {
		err = errors.New(trouble)
	}
	add("schemas of "+fc.Name, err, plural(kinds, "kind")+" in "+fc.CRDs)
}

func validateCluster(ctx context.Context, fc *FabricConfig, add func(string, error, string)) {
	subject := "cluster of " + fc.Name
	if fc.Cluster == nil {
		add(subject, nil, "none is configured; nothing is applied")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, validateTimeout)
	defer cancel()
	api, err := fc.Cluster.connect()
	if err != nil {
		add(subject, err, "")
		return
	}
	defer api.Close()
	kinds := kindsOf(fc.kinds())
	health, err := api.Check(ctx, kinds, fc.Prune)
	if err != nil {
		add(subject, err, "")
		return
	}
	add(subject, nil, fmt.Sprintf("Kubernetes %s at %s", health.Version, health.Server))
	problems := health.Problems()
	if len(problems) == 0 {
		add("kinds and rights in "+fc.Name, nil, "all "+fmt.Sprint(len(kinds))+" kinds are known, and all rights granted")
	}
	for _, p := range problems {
		add("kinds and rights in "+fc.Name, errors.New(p), "")
	}
	if fc.CRDs == "" {
		found, err := api.Definitions(ctx, kinds)
		add("schemas of "+fc.Name, err, plural(len(found), "kind")+" in the cluster")
	}
}

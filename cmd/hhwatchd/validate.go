// SPDX-License-Identifier: Apache-2.0

package main

import (
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

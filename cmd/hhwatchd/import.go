// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hhwatchd/hhwatchd/apply"
	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/internal/durable"
	"github.com/hhwatchd/hhwatchd/journal"
)

// An importReport says what lives in a cluster and what was made of it.
type importReport struct {
	Fabric   string   `json:"fabric"`
	File     string   `json:"file,omitempty"`     // below raw/, that was dropped; none with a dry run
	Objects  []string `json:"objects"`            // that are in it, or would be
	Managed  int      `json:"managed"`            // that managed/ has already, just so
	Differ   []string `json:"differ,omitempty"`   // that managed/ has, but not as they live
	Left     []string `json:"left,omitempty"`     // that are nobody's to write, and why
	Replaced bool     `json:"replaced,omitempty"` // those that differ are in Objects, too
}

func importCommand(o *options) *cobra.Command {
	q := syncRequest{Import: true}
	cmd := &cobra.Command{
		Use:   "import [--fabric NAME] [--overwrite] [--dry-run]",
		Short: "Bring what lives in a fabric's cluster into managed/, to adopt a running fabric",
		Long: `Bring what lives in a fabric's cluster into managed/, to adopt a running fabric:
the objects of the kinds that the fabric may hold, without their status, what
the API server enters, and defaults; not those that another object owns. They
are dropped into raw/ as one file, which takes the way of every file. With a
daemon running it is the daemon that does it.

Objects that managed/ has already stay there as they are. The first sync after
an import changes no value in the cluster: it only enters hhwatchd as the
manager of the fields.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			if q.Fabric, err = oneFabric(cfg, q.Fabric, func(f *FabricConfig) bool { return f.Cluster != nil }); err != nil {
				return err
			}
			if _, f := cfg.fabric(q.Fabric); f != nil && f.Cluster == nil {
				return &exitError{exitUsage, fmt.Errorf("the fabric %s has no cluster", q.Fabric)}
			}
			_, err = connect(cmd.Context(), cfg.StateDir)
			return o.request(cmd, q, errors.Is(err, errNoDaemon))
		},
	}
	cmd.Flags().StringVar(&q.Fabric, "fabric", "", "the fabric `NAME`; the only one is the default")
	cmd.Flags().BoolVar(&q.Overwrite, "overwrite", false, "let what lives take the place of managed files that differ")
	cmd.Flags().BoolVar(&q.DryRun, "dry-run", false, "show what would be imported; write nothing")
	o.outputFlag(cmd)
	return cmd
}

// oneFabric is the fabric that a command is about: the one that is named, or
// the only one that will do.
func oneFabric(cfg *Config, name string, will func(*FabricConfig) bool) (string, error) {
	if name != "" {
		return name, nil
	}
	var names []string
	for _, r := range cfg.Repositories {
		for i := range r.Fabrics {
			if will(&r.Fabrics[i]) {
				names = append(names, r.Fabrics[i].Name)
			}
		}
	}
	switch len(names) {
	case 0:
		return "", &exitError{exitUsage, errors.New("no fabric has a cluster")}
	case 1:
		return names[0], nil
	}
	return "", &exitError{exitUsage, fmt.Errorf("say which fabric with --fabric: %s", strings.Join(names, ", "))}
}

// bringIn drops what lives in a fabric's cluster, and is not in managed/ at
// tip, into raw/ as one file. What comes of it is up to the rest of the cycle.
// Crash here: the file is there, whole, or it is not.
func (r *repository) bringIn(ctx context.Context, t trigger, f *fabric, tip checkout.Hash, rep *report) error {
	t.progress.report("list "+f.cfg.Name, 0, 0)
	imported := &importReport{Fabric: f.cfg.Name, Objects: []string{}, Replaced: t.overwrite}
	live, err := r.liveIn(ctx, f, imported)
	if err != nil {
		return err
	}
	policy := f.policy()
	var file bytes.Buffer
	for _, o := range live {
		name := journal.Key(o.Key()).String()
		p := "managed/" + o.Plural + "/" + o.Name + ".yaml"
		blob, has, err := r.clone.Lookup(tip, path.Join(f.cfg.Path, p))
		if err != nil {
			return err
		}
		if has {
			data, err := r.clone.Blob(blob)
			if err != nil {
				return err
			}
			managed, problems := policy.ReadManaged(p, data)
			if len(problems) == 0 && says(managed.Value, o.Value) {
				imported.Managed++
				continue
			}
			imported.Differ = append(imported.Differ, name)
			if !t.overwrite {
				continue
			}
		}
		imported.Objects = append(imported.Objects, name)
		fmt.Fprintf(&file, "---\n%s", document(o.Value))
	}
	rep.Import = imported
	if t.dryRun || file.Len() == 0 {
		return nil
	}
	imported.File = "import-" + rep.Cycle + ".yaml"
	dropped := filepath.Join(r.onDisk(f.cfg.raw()), imported.File)
	if err := durable.WriteFile(dropped, file.Bytes(), 0o664); err != nil {
		return fmt.Errorf("dropping %s: %w", dropped, err)
	}
	return nil
}

// liveIn lists what lives in a fabric's cluster.
func (r *repository) liveIn(ctx context.Context, f *fabric, imported *importReport) ([]apply.Object, error) {
	api, err := f.cfg.Cluster.connect()
	if err != nil {
		return nil, err
	}
	defer api.Close()
	policy := f.policy()
	var kinds []apply.Kind
	for _, k := range policy.Kinds {
		served, _ := policy.Kind(k.Group, k.Kind)
		kinds = append(kinds, apply.Kind{Group: k.Group, Version: served.Version, Kind: k.Kind, Plural: k.Plural})
	}
	live, left, err := api.Live(ctx, kinds)
	if err != nil {
		return nil, err
	}
	why := map[string]string{}
	for k, reason := range left {
		why[journal.Key(k).String()] = reason
	}
	for _, name := range slices.Sorted(maps.Keys(why)) {
		imported.Left = append(imported.Left, name+": "+why[name])
	}
	return live, nil
}

// says reports whether a managed object says what the live one does, in
// whatever words. The namespace is the fabric's own in both.
func says(managed, live map[string]any) bool {
	meta, _ := managed["metadata"].(map[string]any)
	meta = maps.Clone(meta)
	delete(meta, "namespace")
	managed = maps.Clone(managed)
	managed["metadata"] = meta
	a, errA := json.Marshal(managed)
	b, errB := json.Marshal(live)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

func (i *importReport) print(line func(string, string, ...any)) {
	verb := "imported"
	if i.File == "" {
		verb = "to import"
	}
	line("import", "%s: %s %s, %d managed already", i.Fabric, plural(len(i.Objects), "object"), verb, i.Managed)
	if i.File == "" {
		for _, o := range i.Objects {
			line("", "%s", o)
		}
	}
	for _, o := range i.Differ {
		if i.Replaced {
			line("", "%s takes the place of a managed file that differs", o)
		} else {
			line("", "%s is managed already, and differs: hhwatchd diff shows how; --overwrite takes what lives", o)
		}
	}
	for _, o := range i.Left {
		line("", "LEFT ALONE %s", o)
	}
}

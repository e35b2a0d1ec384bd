// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
)

// known is what is remembered of a fabric's managed files from one cycle to the
// next, so that a file is held against them without reading them all. It is
// made when the first file comes, and follows the commits from then on.
type known struct {
	fabric *ingest.Fabric // nil: nothing yet
	at     checkout.Hash  // the commit
	over   []string       // paths that are not as they are in that commit
}

// knownAt returns what is known of a fabric whose managed files are those at
// tip, and in their place those in overlay, by their path below the fabric's
// directory.
func (r *repository) knownAt(f *fabric, tip checkout.Hash, overlay map[string][]byte) (*ingest.Fabric, error) {
	if f.cfg.References == ingest.IgnoreReferences {
		return nil, nil
	}
	k := &f.known
	if k.fabric == nil {
		*k = known{fabric: ingest.NewFabric(f.policy())}
	}
	if err := r.follow(f, k, tip); err != nil {
		// What it was made of may be gone, and it may be half of each.
		*k = known{fabric: ingest.NewFabric(f.policy())}
		if err := r.follow(f, k, tip); err != nil {
			*k = known{}
			return nil, fmt.Errorf("looking at what fabric %s holds: %w", f.cfg.Name, err)
		}
	}
	for p, data := range overlay {
		k.over = append(k.over, p)
		if data == nil {
			k.fabric.Remove(p)
			continue
		}
		if err := k.fabric.Put(p, func() ([]byte, error) { return data, nil }); err != nil {
			return nil, err
		}
	}
	return k.fabric, nil
}

// follow brings what is known from its commit to tip.
func (r *repository) follow(f *fabric, k *known, tip checkout.Hash) error {
	diff, err := r.clone.Diff(k.at, tip, f.cfg.managed())
	if err != nil {
		return err
	}
	put := func(p string, blob checkout.Hash) error {
		return k.fabric.Put(p, func() ([]byte, error) { return r.clone.Blob(blob) })
	}
	for _, d := range diff {
		p := below(d.Path, f.cfg.Path)
		if d.New == "" || !d.NewMode.IsRegular() {
			k.fabric.Remove(p)
		} else if err := put(p, d.New); err != nil {
			return err
		}
	}
	for _, p := range k.over {
		blob, ok, err := r.clone.Lookup(tip, path.Join(f.cfg.Path, p))
		if err != nil {
			return err
		}
		if !ok {
			k.fabric.Remove(p)
		} else if err := put(p, blob); err != nil {
			return err
		}
	}
	k.at, k.over = tip, nil
	return nil
}

// planBeside plans files beside what a fabric of the config holds, as its clone
// has it.
func planBeside(cfg *Config, rc *RepositoryConfig, f *FabricConfig, policy ingest.Policy, files []ingest.File) (ingest.Plan, error) {
	blobs := map[string]checkout.Hash{}
	var clone *checkout.Reader
	managed := func(p string) ([]byte, bool, error) {
		blob, ok := blobs[p]
		if !ok {
			return nil, false, nil
		}
		data, err := clone.Blob(blob)
		return data, true, err
	}
	fabric := ingest.NewFabric(policy)
	clone, err := checkout.OpenReader(cfg.cloneDir(rc.Name), rc.Branch)
	if errors.Is(err, fs.ErrNotExist) {
		return policy.Plan(files, managed, fabric)
	}
	if err != nil {
		return ingest.Plan{}, err
	}
	defer clone.Close()
	for commit, err := range clone.Commits() {
		if err != nil {
			return ingest.Plan{}, err
		}
		entries, err := clone.Files(commit.Hash, f.managed())
		if err != nil {
			return ingest.Plan{}, err
		}
		for _, e := range entries {
			p := below(e.Path, f.Path)
			blobs[p] = e.Blob
			if err := fabric.Put(p, func() ([]byte, error) { return clone.Blob(e.Blob) }); err != nil {
				return ingest.Plan{}, err
			}
		}
		break // the latest
	}
	return policy.Plan(files, managed, fabric)
}

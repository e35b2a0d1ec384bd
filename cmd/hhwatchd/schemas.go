// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hhwatchd/hhwatchd/apply"
	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// schemas are what a fabric's objects are held against before they are
// committed: the CustomResourceDefinitions in a directory of the config, or
// else those of the fabric's cluster. The cluster's are cached in the state
// directory, so that they are at hand while it is not, and followed at each
// full look.
type schemas struct {
	policy ingest.Policy // without schemas
	dir    string        // where they are read; "": there are none
	cached bool          // dir is the cache of the cluster's

	first   sync.Once // reads what is at hand
	mu      sync.Mutex
	now     *ingest.Schemas
	digest  [sha256.Size]byte // of what now was compiled from
	bad     string            // what is wrong with those
	asked   bool              // the cluster, at least once
	trouble string            // why there are none, or not all
}

// firstAsk bounds how long the first files of a fabric wait for a cluster
// whose schemas were never seen. Later nothing waits for it.
const firstAsk = 10 * time.Second

// newSchemas says where the schemas of a fabric are. What is at hand is read
// when it is asked for first.
func newSchemas(c *Config, f *FabricConfig) *schemas {
	s := &schemas{policy: ingest.Policy{Namespace: f.namespace(), Kinds: f.kinds(), References: f.References, Admission: f.Admission, Partial: f.Partial}}
	if c.Limits != (LimitsConfig{}) {
		s.policy.Limits = c.Limits.ingest()
	}
	switch {
	case f.CRDs != "":
		s.dir = f.CRDs
	case f.Cluster != nil && f.Name != "":
		s.dir, s.cached = c.schemasDir(f.Name), true
	}
	return s
}

// current is the policy with the schemas as they are now.
func (s *schemas) current() ingest.Policy {
	s.first.Do(s.load)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.policy
	p.Schemas = s.now
	return p
}

// state says how many kinds are known, and what is wrong.
func (s *schemas) state() (kinds int, trouble string) {
	s.first.Do(s.load)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.Kinds(), s.trouble
}

// load reads the directory, and compiles what is in it if it has changed.
// Where it cannot be read, what is known stays.
func (s *schemas) load() {
	if s.dir == "" {
		return
	}
	files, err := readDefinitions(s.dir)
	if s.cached && errors.Is(err, fs.ErrNotExist) {
		return // the cluster was never seen
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.trouble = fmt.Sprintf("reading the schemas in %s: %v", s.dir, err)
		return
	}
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%s %d\n", f.Path, len(f.Data))
		h.Write(f.Data)
	}
	digest := [sha256.Size]byte(h.Sum(nil))
	if s.now == nil || digest != s.digest {
		s.now, err = s.policy.Compile(files)
		s.digest, s.bad = digest, ""
		if err != nil {
			s.bad = "schemas in " + s.dir + ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
		} else if s.now.Kinds() == 0 && !s.cached {
			s.bad = s.dir + " holds no definition of a kind that the fabric may hold"
		}
	}
	s.trouble = s.bad
}

// follow asks the cluster for its definitions and takes over what changed.
func (s *schemas) follow(ctx context.Context, api *apply.Cluster) {
	if !s.cached {
		return
	}
	found, err := api.Definitions(ctx, kindsOf(s.policy.Kinds))
	if ctx.Err() != nil {
		return
	}
	if saved := s.save(found, err == nil); err == nil {
		err = saved
	}
	s.load()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = true
	switch n := s.now.Kinds(); {
	case err == nil:
	case n == 0:
		s.trouble = fmt.Sprintf("objects are not held against schemas: %v", err)
	case errors.Is(err, apply.ErrForbidden):
		s.trouble = fmt.Sprintf("objects of %s are held against schemas as they were last seen: %v", plural(n, "kind"), err)
	}
	// Else the cluster is away, which applying says, and the cache serves.
}

// followFirst asks a cluster whose schemas were never seen, once.
func (s *schemas) followFirst(ctx context.Context, f *FabricConfig) {
	s.first.Do(s.load)
	s.mu.Lock()
	known := !s.cached || s.now != nil || s.asked
	s.mu.Unlock()
	if known {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, firstAsk)
	defer cancel()
	api, err := f.Cluster.connect()
	if err != nil {
		return // applying will say so
	}
	defer api.Close()
	s.follow(ctx, api)
	s.mu.Lock()
	s.asked = true // or it does not answer, and nothing waits for it again
	s.mu.Unlock()
}

func (c *ClusterConfig) connect() (*apply.Cluster, error) {
	return apply.Connect(apply.Config{Kubeconfig: c.Kubeconfig, InCluster: c.InCluster, Context: c.Context, Namespace: c.Namespace})
}

func kindsOf(allowed []ingest.Kind) []apply.Kind {
	var kinds []apply.Kind
	for _, k := range allowed {
		kinds = append(kinds, apply.Kind{Group: k.Group, Version: k.Version, Kind: k.Kind, Plural: k.Plural})
	}
	return kinds
}

// save makes the cache hold what was found, and nothing else where that is all
// there is. A crash in between leaves some of the old and some of the new; the
// next look mends that.
func (s *schemas) save(found map[string][]byte, all bool) error {
	if len(found) == 0 && !all {
		return nil
	}
	if err := durable.MkdirAll(s.dir, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", s.dir, err)
	}
	had, err := readDefinitions(s.dir)
	if err != nil {
		return err
	}
	old := map[string][]byte{}
	for _, f := range had {
		old[f.Path] = f.Data
	}
	for name, data := range found {
		name += ".json"
		if was, ok := old[name]; !ok || !bytes.Equal(was, data) {
			if err := durable.WriteFile(filepath.Join(s.dir, name), data, 0o644); err != nil {
				return fmt.Errorf("caching the schemas: %w", err)
			}
		}
		delete(old, name)
	}
	for name := range old {
		if !all {
			break
		}
		if err := durable.Remove(filepath.Join(s.dir, name)); err != nil {
			return fmt.Errorf("caching the schemas: %w", err)
		}
	}
	return nil
}

// readDefinitions reads the YAML and JSON files of a directory, in the order
// of their names.
func readDefinitions(dir string) ([]ingest.File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []ingest.File
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".yaml", ".yml", ".json":
		default:
			continue
		}
		if e.IsDir() || !ingest.IsInput(e.Name()) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, ingest.File{Path: e.Name(), Data: data})
	}
	return files, nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hhwatchd/hhwatchd/test/fabric"
	"github.com/hhwatchd/hhwatchd/test/stage"
)

// A site is where a repository of one size is measured.
type site struct {
	files   int             // in the repository, at first
	dropped map[object]bool // since then
	stage   *stage.Stage
	one     *load // so that no object is new twice

	clone   string // of the repository by-hand, where a person works
	kubectl string
	env     []string // of kubectl
}

// byHand is the namespace, and the repository, of what goes the way by hand.
const byHand = "by-hand"

// openSite starts the servers.
func openSite(ctx context.Context, hhwatchd, kubectl string, files int) (*site, error) {
	st, err := stage.Open(ctx, stage.Options{Hhwatchd: hhwatchd, Interval: interval})
	if err != nil {
		return nil, err
	}
	return &site{
		files:   files,
		dropped: map[object]bool{},
		stage:   st,
		one:     oneObject(files),
		clone:   filepath.Join(st.Dir, "clone"),
		kubectl: kubectl,
		env:     []string{"KUBECACHEDIR=" + filepath.Join(st.Dir, "kubectl"), "KUBECONFIG=" + st.API.AdminKubeconfig},
	}, nil
}

// populate fills two repositories with so many objects: the daemon's, and the
// one that is worked with by hand. It starts the daemon on the first and returns
// when that has applied all of them.
func (s *site) populate(ctx context.Context) error {
	history := importStream(tenants(s.files))
	for _, bare := range []string{s.stage.Bare, s.stage.Git.Create(byHand)} {
		cmd := exec.CommandContext(ctx, "git", "-C", bare, "fast-import", "--quiet")
		cmd.Stdin = bytes.NewReader(history)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git fast-import: %w\n%s", err, out)
		}
	}
	if _, err := s.stage.Run(ctx, "", nil, "git", "clone", "--quiet", s.stage.Git.RepoURL(byHand), s.clone); err != nil {
		return err
	}
	namespace := `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"` + byHand + `"}}`
	if _, err := s.stage.API.Do(http.MethodPost, "/api/v1/namespaces", "application/json", []byte(namespace)); err != nil {
		return err
	}
	if err := s.stage.StartDaemon(ctx); err != nil {
		return err
	}
	defer stage.Show(fmt.Sprintf("waiting for the first %d objects to be applied", s.files))()
	return s.settled(ctx)
}

// tenants are the objects that a repository holds at first: a quarter of them
// VPCs, a quarter peerings of those, and the others attachments. There is
// nothing among them that a load has.
func tenants(files int) []fabric.Object {
	vpcs := files / 4
	spec := fabric.Spec{Leaves: 5, Servers: 100, VPCs: vpcs, Peerings: vpcs - 1, Attachments: files - vpcs - (vpcs - 1)}
	return slices.DeleteFunc(spec.Objects(), func(o fabric.Object) bool { return !strings.HasPrefix(o.Kind, "VPC") })
}

// importStream is a history of one commit with the managed files of the objects
// (git-fast-import(1)).
func importStream(objects []fabric.Object) []byte {
	var b bytes.Buffer
	b.WriteString("commit refs/heads/main\ncommitter Dana Dropper <dana@example.net> 1700000000 +0000\ndata 8\nA fabric\n")
	for _, o := range objects {
		fmt.Fprintf(&b, "M 100644 inline %s/managed/%ss/%s.yaml\ndata %d\n%s\n",
			stage.FabricPath, strings.ToLower(o.Kind), o.Name, len(o.YAML), o.YAML)
	}
	return b.Bytes()
}

// settled waits until the daemon has nothing left to do.
func (s *site) settled(ctx context.Context) error {
	objects := s.files + len(s.dropped)
	return s.stage.Await(ctx, fmt.Sprintf("all of the %d objects to be applied", objects), func(ctx context.Context) error {
		return s.stage.Settled(ctx, objects)
	})
}

// measure measures all loads, so many runs of each.
func (s *site) measure(ctx context.Context, runs int) (siteResult, error) {
	r := siteResult{Files: s.files}
	if err := s.populate(ctx); err != nil {
		return r, err
	}
	o, err := observe(ctx, s.stage)
	if err != nil {
		return r, err
	}
	defer o.close()
	if r.Memory.Start, err = residentMemory(s.stage.PID); err != nil {
		return r, err
	}
	for _, l := range []*load{s.one, manyObjects()} {
		lr := loadResult{Title: l.title}
		for i := 0; i <= runs; {
			done := stage.Show(fmt.Sprintf("%d files in the repository, %s: run %d of %d", s.files, l.title, i, runs))
			t, err := s.run(ctx, o, l)
			done()
			if err != nil {
				return r, fmt.Errorf("%s: %w", l.title, err)
			}
			if t.committed < stage.Quiet {
				continue // a poll was due and took the file in: that waits for no quiet
			}
			if i > 0 { // the first run is for the caches of all that take part
				lr.add(t)
			}
			i++
		}
		r.Loads = append(r.Loads, lr)
	}
	r.Memory.Loaded, err = residentMemory(s.stage.PID)
	return r, err
}

// run measures each way once.
func (s *site) run(ctx context.Context, o *observer, l *load) (t times, err error) {
	f, err := l.next()
	if err != nil {
		return t, err
	}
	if t.arrival, err = o.drop(ctx, s.stage.Raw, f); err != nil {
		return t, err
	}
	for _, obj := range f.objects {
		s.dropped[obj] = true
	}
	if err := s.settled(ctx); err != nil {
		return t, err
	}

	if f, err = l.next(); err != nil {
		return t, err
	}
	path := filepath.Join(s.clone, filepath.FromSlash(stage.FabricPath), "managed", f.name)
	if err := os.WriteFile(path, f.text, 0o644); err != nil {
		return t, err
	}
	began := time.Now()
	for _, args := range [][]string{{"add", path}, {"commit", "--quiet", "--message", "By hand"}, {"push", "--quiet"}} {
		if _, err := s.stage.Run(ctx, s.clone, nil, "git", args...); err != nil {
			return t, err
		}
	}
	t.git = time.Since(began)
	if t.kubectl, err = s.apply(ctx, path); err != nil {
		return t, err
	}

	// Once more, since what is there already is no change.
	if f, err = l.next(); err != nil {
		return t, err
	}
	path = filepath.Join(s.stage.Dir, f.name)
	if err := os.WriteFile(path, f.text, 0o644); err != nil {
		return t, err
	}
	t.unvalidated, err = s.apply(ctx, path, "--validate=false")
	return t, err
}

// apply runs kubectl and returns how long it took.
func (s *site) apply(ctx context.Context, path string, flags ...string) (time.Duration, error) {
	args := append([]string{"apply", "--server-side", "--namespace", byHand, "--filename", path}, flags...)
	began := time.Now()
	out, err := s.stage.Run(ctx, "", s.env, s.kubectl, args...)
	if err == nil && !strings.Contains(out, "serverside-applied") {
		err = fmt.Errorf("kubectl apply has applied nothing: %s", out)
	}
	return time.Since(began), err
}

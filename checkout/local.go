// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// A localRemote is a repository in a directory of this machine, bare or with
// a work tree. It is read and written directly: no git command is needed, or
// run.
//
// What comes before a ref of it is moved, a hook of git would be asked. As
// nobody runs it, a push to a repository with such a hook is refused: it has
// to be reached over SSH or HTTP. Hooks that are told afterwards are not run.
type localRemote struct {
	path string
}

func (l *localRemote) close() {}

// open opens the repository; the caller closes it.
func (l *localRemote) open() (*repository, error) {
	dir := l.path
	if _, err := os.Stat(filepath.Join(dir, ".git", "HEAD")); err == nil {
		dir = filepath.Join(dir, ".git")
	}
	repo, err := openRepository(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrNoRepository
		}
		return nil, err
	}
	return repo, nil
}

func (l *localRemote) list(ctx context.Context, prefixes ...string) (listing, error) {
	repo, err := l.open()
	if err != nil {
		return listing{}, err
	}
	defer repo.close()
	out := listing{}
	if out.head, err = repo.symbolic(); err != nil {
		return listing{}, err
	}
	out.refs, err = repo.refs(prefixes)
	return out, err
}

func (l *localRemote) fetch(ctx context.Context, want oid, haves []oid, sink func(io.Reader) error) error {
	repo, err := l.open()
	if err != nil {
		return err
	}
	defer repo.close()
	var have oid
	for _, h := range haves {
		if repo.has(h) {
			have = h
			break
		}
	}
	objects, err := repo.newObjects(have, want)
	if err != nil {
		return err
	}
	return transfer(ctx, repo.store, objects, sink)
}

// transfer hands a pack with the objects of s to sink.
func transfer(ctx context.Context, s *store, objects []packObject, sink func(io.Reader) error) error {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(s.writePack(w, objects, false))
	}()
	defer context.AfterFunc(ctx, func() { r.CloseWithError(ctx.Err()) })()
	err := sink(r)
	r.CloseWithError(err) // so that the goroutine ends
	<-done
	return err
}

func (l *localRemote) push(ctx context.Context, ref string, decide func(old oid) (*update, error)) error {
	repo, err := l.open()
	if err != nil {
		return err
	}
	defer repo.close()
	if err := l.writable(repo); err != nil {
		return err
	}
	old, err := repo.ref(ref)
	if err != nil {
		return err
	}
	u, err := decide(old)
	if err != nil || u == nil {
		return err
	}
	if head, err := repo.symbolic(); err == nil && head == ref && filepath.Base(repo.dir) == ".git" {
		return &refusedError{fmt.Sprintf("%s is checked out in %s, which is not a bare repository", ref, l.path)}
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(u.pack(w, false))
	}()
	stop := context.AfterFunc(ctx, func() { r.CloseWithError(ctx.Err()) })
	err = repo.receive(ctx, r, nil)
	stop()
	r.CloseWithError(errors.New("no longer read"))
	<-done
	if err == nil {
		err = repo.sync()
	}
	if err != nil {
		return err
	}
	if err := repo.setRef(ctx, ref, old, u.new); errors.Is(err, errStale) {
		return ErrRaced
	} else if err != nil {
		return err
	}
	return nil
}

// writable reports why the repository cannot be pushed to.
func (l *localRemote) writable(repo *repository) error {
	for _, dir := range []string{repo.dir, filepath.Join(repo.dir, "objects"), filepath.Join(repo.dir, "refs")} {
		if err := unix.Access(dir, unix.W_OK); err != nil {
			return fmt.Errorf("%w: %s is not writable for this user", ErrAuth, dir)
		}
	}
	hooks := filepath.Join(repo.dir, "hooks")
	if cfg, err := readConfig(filepath.Join(repo.dir, "config")); err == nil {
		if p := cfg.Section("core").Option("hooksPath"); filepath.IsAbs(p) {
			hooks = p
		} else if p != "" {
			hooks = filepath.Join(repo.dir, p)
		}
	}
	judges := []string{"pre-receive", "update", "reference-transaction", "proc-receive"}
	if i := slices.IndexFunc(judges, func(name string) bool {
		return unix.Access(filepath.Join(hooks, name), unix.X_OK) == nil
	}); i >= 0 {
		return &refusedError{fmt.Sprintf("the repository has the hook %s, which only git can run: use a URL with ssh or https", filepath.Join(hooks, judges[i]))}
	}
	return nil
}

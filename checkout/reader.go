// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"fmt"
	"iter"
	"path/filepath"
)

// A Reader reads what a clone has. It changes nothing and takes no lock, so it
// works beside the process that has the clone open.
type Reader struct{ clone *Clone }

// OpenReader opens the clone in dir, which follows branch, for reading. Where
// there is no clone, the error wraps [io/fs.ErrNotExist].
func OpenReader(dir, branch string) (*Reader, error) {
	repo, err := openRepository(filepath.Join(dir, ".git"))
	if err != nil {
		return nil, fmt.Errorf("reading the clone %s: %w", dir, err)
	}
	return &Reader{&Clone{opts: Options{Dir: dir, Branch: branch}, repo: repo}}, nil
}

// Close gives up the files of the clone.
func (r *Reader) Close() error { return r.clone.repo.close() }

// Head is [Clone.Head].
func (r *Reader) Head() (Hash, error) { return r.clone.Head() }

// Upstream is [Clone.Upstream].
func (r *Reader) Upstream() (Hash, error) { return r.clone.Upstream() }

// Commit is [Clone.Commit].
func (r *Reader) Commit(h Hash) (Commit, error) { return r.clone.Commit(h) }

// IsAncestor is [Clone.IsAncestor].
func (r *Reader) IsAncestor(ancestor, of Hash) (bool, error) { return r.clone.IsAncestor(ancestor, of) }

// Files is [Clone.Files].
func (r *Reader) Files(h Hash, dir string) ([]Entry, error) { return r.clone.Files(h, dir) }

// TreeHash is [Clone.TreeHash].
func (r *Reader) TreeHash(h Hash, dir string) (Hash, error) { return r.clone.TreeHash(h, dir) }

// Blob is [Clone.Blob].
func (r *Reader) Blob(h Hash) ([]byte, error) { return r.clone.Blob(h) }

// Commits yields each commit that can be reached from the branch, here or as
// the remote had it when it was last asked, the latest first. An error is the
// last thing that it yields. Commits are read as they are yielded.
func (r *Reader) Commits() iter.Seq2[Commit, error] {
	return func(yield func(Commit, error) bool) {
		w := newWalk(r.clone.repo.store)
		for _, ref := range []string{branchRef(r.clone.opts.Branch), upstreamRef(r.clone.opts.Branch)} {
			id, err := r.clone.repo.ref(ref)
			if err == nil && id != (oid{}) {
				err = w.mark(id, left)
			}
			if err != nil {
				yield(Commit{}, fmt.Errorf("listing the commits of %s: %w", ref, err))
				return
			}
		}
		for w.queue.Len() > 0 {
			c, err := w.next()
			if err != nil {
				yield(Commit{}, fmt.Errorf("listing the commits of %s: %w", r.clone.opts.Branch, err))
				return
			}
			if !yield(exported(c), nil) {
				return
			}
		}
	}
}

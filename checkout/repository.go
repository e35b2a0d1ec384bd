// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	format "github.com/go-git/go-git/v5/plumbing/format/config"
	"golang.org/x/sys/unix"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// A repository is a git directory: a clone's .git, or a bare repository. It
// has the objects and the refs.
type repository struct {
	dir string
	ino uint64 // of dir
	*store
}

// openRepository opens the git directory dir.
func openRepository(dir string) (*repository, error) {
	var st unix.Stat_t
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); err != nil {
		return nil, fmt.Errorf("not a git repository: %w", err)
	}
	if err := unix.Stat(dir, &st); err != nil {
		return nil, named("stat", dir, err)
	}
	s, err := openStore(filepath.Join(dir, "objects"))
	if err != nil {
		return nil, fmt.Errorf("not a git repository: %w", err)
	}
	return &repository{dir, st.Ino, s}, nil
}

// initRepository makes an empty git directory with the default branch.
func initRepository(dir, branch string, bare bool) error {
	for _, d := range []string{"objects/info", "objects/pack", "refs/heads", "refs/tags", "info"} {
		if err := durable.MkdirAll(filepath.Join(dir, d), 0o777); err != nil {
			return err
		}
	}
	cfg := format.New()
	core := cfg.Section("core")
	core.SetOption("repositoryformatversion", "0")
	core.SetOption("filemode", "true")
	core.SetOption("bare", fmt.Sprint(bare))
	if err := writeConfig(filepath.Join(dir, "config"), cfg); err != nil {
		return err
	}
	// HEAD makes the directory a repository, so it comes last.
	return durable.WriteFile(filepath.Join(dir, "HEAD"), []byte("ref: "+branchRef(branch)+"\n"), 0o644)
}

// InitBare makes a bare repository in the directory path, durably, with branch
// as its default branch. It can be pushed to and fetched from by its path.
// It is no error if there is one already; that is not changed.
func InitBare(path, branch string) error {
	if _, err := os.Stat(filepath.Join(path, "HEAD")); err == nil {
		return nil
	}
	if err := validBranch(branch); err != nil {
		return err
	}
	if err := initRepository(path, branch, true); err != nil {
		return fmt.Errorf("making a bare repository in %s: %w", path, err)
	}
	return nil
}

func writeConfig(path string, cfg *format.Config) error {
	var buf bytes.Buffer
	if err := format.NewEncoder(&buf).Encode(cfg); err != nil {
		return err
	}
	return durable.WriteFile(path, buf.Bytes(), 0o644)
}

func readConfig(path string) (*format.Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	cfg := format.New()
	if err := format.NewDecoder(bytes.NewReader(data)).Decode(cfg); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return cfg, nil
}

func branchRef(branch string) string   { return "refs/heads/" + branch }
func upstreamRef(branch string) string { return "refs/remotes/origin/" + branch }

// validBranch checks the name of a branch (git-check-ref-format(1)).
func validBranch(branch string) error {
	if err := plumbing.ReferenceName(branchRef(branch)).Validate(); err != nil {
		return fmt.Errorf("branch %q: not a valid name", branch)
	}
	return nil
}

// ref returns what the ref name points to; the zero oid if there is none.
func (r *repository) ref(name string) (oid, error) {
	for range 5 {
		data, err := os.ReadFile(filepath.Join(r.dir, name))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTDIR) {
			return r.packedRef(name)
		}
		if err != nil {
			return oid{}, err
		}
		text := strings.TrimSpace(string(data))
		if target, ok := strings.CutPrefix(text, "ref:"); ok {
			name = strings.TrimSpace(target)
			continue
		}
		id, ok := parseOID(text)
		if !ok {
			return oid{}, r.broken("%s holds %q, not a commit", name, cut(text, 60))
		}
		return id, nil
	}
	return oid{}, fmt.Errorf("%s: too many symbolic refs", filepath.Join(r.dir, name))
}

// packedRef looks name up in packed-refs (git-pack-refs(1)): lines of a hash,
// a space and a name; comments begin with #, and with ^ what the tag in the
// line before points to.
func (r *repository) packedRef(name string) (oid, error) {
	refs, err := r.packedRefs()
	return refs[name], err
}

func (r *repository) packedRefs() (map[string]oid, error) {
	data, err := readOptional(filepath.Join(r.dir, "packed-refs"))
	if err != nil {
		return nil, err
	}
	refs, err := parsePackedRefs(string(data))
	if err != nil {
		return nil, r.broken("packed-refs: %v", err)
	}
	return refs, nil
}

// parsePackedRefs reads packed-refs. git takes nothing from one that ends in
// the middle of a line, or holds anything else.
func parsePackedRefs(text string) (map[string]oid, error) {
	refs := make(map[string]oid)
	for line := range strings.Lines(text) {
		line, whole := strings.CutSuffix(line, "\n")
		if !whole {
			return nil, fmt.Errorf("it is cut off at %q", cut(line, 60))
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		hash, name, named := strings.Cut(line, " ")
		peeled := strings.HasPrefix(line, "^")
		id, ok := parseOID(strings.TrimPrefix(hash, "^"))
		if !ok || named == peeled || named && name == "" {
			return nil, fmt.Errorf("it holds %q, which is no ref", cut(line, 60))
		}
		if !peeled {
			refs[name] = id
		}
	}
	return refs, nil
}

func (r *repository) broken(format string, args ...any) error {
	return &BrokenError{r.dir, fmt.Sprintf(format, args...)}
}

// errStale says that a ref was not what it was expected to be.
var errStale = errors.New("the ref is not what it was")

// setRef moves the ref name from old to new under its lock, durably; the zero
// oid stands for no ref. It returns errStale if the ref is not old.
//
// What new needs must be durable before, or a power loss leaves a ref to
// objects that are not there.
func (r *repository) setRef(ctx context.Context, name string, old, new oid) (err error) {
	path := filepath.Join(r.dir, name)
	// A git directory that somebody removed must not come back in parts.
	if _, err := os.Stat(filepath.Join(r.dir, "HEAD")); errors.Is(err, fs.ErrNotExist) {
		return r.broken("HEAD is gone")
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	unlock, err := lock(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	now, err := r.ref(name)
	if err != nil {
		return err
	}
	switch {
	case now != old:
		return fmt.Errorf("%s is at %s instead of %s: %w", name, now, old, errStale)
	case now == new:
		return nil
	case new != oid{}:
		return durable.WriteFile(path, []byte(new.String()+"\n"), 0o644)
	}
	if err := r.unpackRef(ctx, name); err != nil {
		return err
	}
	if err := durable.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// unpackRef takes the ref name out of packed-refs, where an older value of it
// may lie under the loose file.
func (r *repository) unpackRef(ctx context.Context, name string) (err error) {
	if id, err := r.packedRef(name); err != nil || id == (oid{}) {
		return err
	}
	path := filepath.Join(r.dir, "packed-refs")
	unlock, err := lock(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var out strings.Builder
	dropping := false
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "^") {
			_, n, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			dropping = n == name
		}
		if !dropping {
			out.WriteString(line)
		}
	}
	return durable.WriteFile(path, []byte(out.String()), 0o644)
}

// symbolic returns the ref that HEAD points to, "" if it holds a commit
// itself.
func (r *repository) symbolic() (string, error) {
	data, err := os.ReadFile(filepath.Join(r.dir, "HEAD"))
	if err != nil {
		return "", err
	}
	target, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "ref:")
	if !ok {
		return "", nil
	}
	return strings.TrimSpace(target), nil
}

func parseOID(s string) (oid, bool) {
	var id oid
	if len(s) != 2*len(id) {
		return oid{}, false
	}
	_, err := hex.Decode(id[:], []byte(s))
	return id, err == nil
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// refs returns the refs whose names begin with one of the prefixes. HEAD is
// one of them.
func (r *repository) refs(prefixes []string) (map[string]oid, error) {
	out := make(map[string]oid)
	wanted := func(name string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
	}
	packed, err := r.packedRefs()
	if err != nil {
		return nil, err
	}
	for name, id := range packed {
		if wanted(name) {
			out[name] = id
		}
	}
	names := []string{"HEAD"}
	err = fs.WalkDir(os.DirFS(r.dir), "refs", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasPrefix(d.Name(), ".") && !strings.HasSuffix(path, ".lock") {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !wanted(name) {
			continue
		}
		id, err := r.ref(name)
		if err != nil {
			return nil, err
		}
		if id != (oid{}) {
			out[name] = id
		}
	}
	return out, nil
}

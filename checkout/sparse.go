// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// A sparse checkout (git-sparse-checkout(1)) has three parts: the config turns
// it on, .git/info/sparse-checkout says which paths are to be in the work tree,
// and in the index the entries of all others are marked (skip-worktree). What
// the person says who runs git sparse-checkout in the clone holds: the former two
// are only written when Options.Sparse changes, which the file "sparse" in
// stateDir tells, and what is new in the tree gets its mark by what they say
// then.
func (c *Clone) sparsePath() string  { return filepath.Join(c.repo.dir, "info", "sparse-checkout") }
func (c *Clone) sparseState() string { return filepath.Join(c.repo.dir, stateDir, "sparse") }

// sparsify brings the clone's sparse checkout in line with Options.Sparse, if
// that is not what it was.
func (c *Clone) sparsify(ctx context.Context) error {
	was, err := readOptional(c.sparseState())
	if err != nil {
		return err
	}
	want := strings.Join(c.opts.Sparse, "\n")
	if string(was) == want {
		return nil
	}
	if want != "" {
		if err := os.MkdirAll(filepath.Dir(c.sparsePath()), 0o777); err != nil {
			return err
		}
		if err := durable.WriteFile(c.sparsePath(), []byte(conePatterns(c.opts.Sparse)), 0o644); err != nil {
			return err
		}
	}
	if err := c.configureSparse(ctx, want != ""); err != nil {
		return err
	}
	// An index that is built anew gets the right marks; files outside of the
	// cone stay where there are any. Crash here, or before: the next Open does
	// it all again.
	unlock, err := lock(ctx, c.indexPath())
	if err != nil {
		return err
	}
	err = os.Remove(c.indexPath())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err = errors.Join(err, unlock()); err != nil {
		return err
	}
	return durable.WriteFile(c.sparseState(), []byte(want), 0o644)
}

// configureSparse turns the sparse checkout on or off in the config, and where
// git has made one in that of the work tree, which wins.
func (c *Clone) configureSparse(ctx context.Context, on bool) error {
	for _, name := range []string{"config", "config.worktree"} {
		path := filepath.Join(c.repo.dir, name)
		cfg, err := readConfig(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		core := cfg.Section("core")
		if on {
			core.SetOption("sparseCheckout", "true")
			core.SetOption("sparseCheckoutCone", "true")
		} else {
			core.SetOption("sparseCheckout", "false")
		}
		unlock, err := lock(ctx, path)
		if err != nil {
			return err
		}
		if err := errors.Join(writeConfig(path, cfg), unlock()); err != nil {
			return err
		}
	}
	return nil
}

// A cone is what is checked out in git's cone mode: directories with all that
// they hold, and directories of which only the files that lie directly in them
// are. The nil cone has everything.
type cone struct {
	whole, files map[string]bool // "" is the root
}

// has reports whether the file at path is to be checked out.
func (c *cone) has(path string) bool {
	if c == nil {
		return true
	}
	dir, _ := split(path)
	if c.files[dir] {
		return true
	}
	for {
		if c.whole[dir] {
			return true
		}
		if dir == "" {
			return false
		}
		dir, _ = split(dir)
	}
}

// conePatterns returns the patterns for the directories, as git writes them:
// the files of the root, those of each directory on the way, and all below the
// directories.
func conePatterns(dirs []string) string {
	covered := func(dir string) bool {
		return slices.ContainsFunc(dirs, func(d string) bool { return below(dir, d) })
	}
	var whole, parents []string
	for _, dir := range dirs {
		if covered(dir) {
			continue // by a directory above
		}
		whole = append(whole, dir)
		for parent, _ := split(dir); parent != ""; parent, _ = split(parent) {
			parents = append(parents, parent)
		}
	}
	slices.Sort(whole)
	slices.Sort(parents)
	escape := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)
	var out strings.Builder
	out.WriteString("/*\n!/*/\n")
	for _, dir := range slices.Compact(parents) {
		dir = escape.Replace(dir)
		out.WriteString("/" + dir + "/\n!/" + dir + "/*/\n")
	}
	for _, dir := range slices.Compact(whole) {
		out.WriteString("/" + escape.Replace(dir) + "/\n")
	}
	return out.String()
}

// parseCone reads patterns in cone mode. Others give nil: whatever is checked
// out then, git finds nothing wrong with it.
func parseCone(text string) *cone {
	c := &cone{whole: make(map[string]bool), files: make(map[string]bool)}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "" || line[0] == '#':
		case line == "/*":
			c.whole[""] = true
		case line == "!/*/":
			delete(c.whole, "")
			c.files[""] = true
		case strings.HasPrefix(line, "!/") && strings.HasSuffix(line, "/*/"):
			dir := unescape(line[2 : len(line)-3])
			delete(c.whole, dir)
			c.files[dir] = true
		case len(line) > 2 && line[0] == '/' && line[len(line)-1] == '/':
			c.whole[unescape(line[1:len(line)-1])] = true
		default:
			return nil
		}
	}
	return c
}

// unescape takes out the backslashes of a pattern.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// readCone returns the cone of the clone as the config has it now.
func (c *Clone) readCone() (*cone, error) {
	text, err := os.ReadFile(c.sparsePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	on, coned := false, true
	for _, name := range []string{"config", "config.worktree"} {
		cfg, err := readConfig(filepath.Join(c.repo.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		core := cfg.Section("core")
		if core.HasOption("sparseCheckout") {
			on = strings.EqualFold(core.Option("sparseCheckout"), "true")
		}
		if core.HasOption("sparseCheckoutCone") {
			coned = strings.EqualFold(core.Option("sparseCheckoutCone"), "true")
		}
	}
	if !on || !coned {
		return nil, nil
	}
	return parseCone(string(text)), nil
}

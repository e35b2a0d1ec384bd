// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// What is written without being flushed is whole as long as the machine runs,
// whatever becomes of this process. So a clone notes in which boot it was last
// found in order. In the first cycle of another boot, after a power loss for
// all that is known, it is looked at with less trust:
//
//   - Loose objects that cannot be read go. Nothing refers to them, as a
//     branch moves only once its objects are on disk, or they are broken
//     for good; but to git they would be an error for ever.
//   - Of the work tree, names may have been lost and the index not, or the
//     other way round. A file that is missing is restored, and one that is as
//     an earlier commit had it is replaced or removed: neither is taken for an
//     edit of a person's. (Files are flushed before they get their names, so
//     there are none that are torn.)
func (c *Clone) bootPath() string { return filepath.Join(c.repo.dir, stateDir, "boot") }

// noteBoot finds out whether the machine was restarted since the clone was
// last in order, and removes torn objects if it was.
func (c *Clone) noteBoot() error {
	was, err := readOptional(c.bootPath())
	if err != nil {
		return err
	}
	if c.rebooted = strings.TrimSpace(string(was)) != bootID() || bootID() == ""; c.rebooted {
		return c.repo.removeTorn()
	}
	return nil
}

// inOrder notes that nothing in the clone is left of an earlier boot that was
// not flushed.
func (c *Clone) inOrder() error {
	if err := os.MkdirAll(filepath.Dir(c.bootPath()), 0o777); err != nil {
		return err
	}
	c.rebooted = false
	return durable.WriteFile(c.bootPath(), []byte(bootID()+"\n"), 0o644)
}

// far is how many commits earlier looks back. Each flush at a commit point keeps
// all names from before it, so that a power loss takes the files back by one
// advance of the branch at most, which mostly is a commit or two.
const far = 256

// earlier reports whether the branch's commit, or one not far behind it, has
// the blob id at path.
func (c *Clone) earlier(path string, id oid) bool {
	at, err := c.repo.ref(branchRef(c.opts.Branch))
	for range far {
		if err != nil || at == (oid{}) {
			return false
		}
		commit, err := c.repo.commit(at)
		if err != nil {
			return false
		}
		if e, err := c.repo.lookup(commit.TreeHash, path); err != nil {
			return false
		} else if e.mode != 0 && e.id == id {
			return true
		}
		if len(commit.ParentHashes) == 0 {
			return false
		}
		at = commit.ParentHashes[0]
	}
	return false
}

// undone reports whether a power loss may have made the file at path what it
// is: missing, or as it was before.
func (j *job) undone(path string) bool {
	if j.c.isInput(path) {
		return false
	}
	_, exists, err := j.c.work.lstat(path)
	if err != nil || !exists {
		return err == nil
	}
	id, err := j.c.work.hash(path)
	return err == nil && j.c.earlier(path, id)
}

// removeTorn removes the loose objects that a power loss has emptied or cut
// off. Those that cannot be read for another reason stay.
func (s *store) removeTorn() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fans, err := os.ReadDir(s.dirs[0])
	if err != nil {
		return err
	}
	for _, fan := range fans {
		if len(fan.Name()) != 2 || !fan.IsDir() {
			continue
		}
		dir := filepath.Join(s.dirs[0], fan.Name())
		objects, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range objects {
			id, ok := parseOID(fan.Name() + e.Name())
			if !ok {
				continue
			}
			name := filepath.Join(dir, e.Name())
			o, err := s.readLoose(name)
			if err == nil {
				err = verify(id, o)
			}
			if pathError := (*fs.PathError)(nil); err == nil || errors.As(err, &pathError) {
				continue
			}
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

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
//     other way round. A file that is missing is restored, and one that holds
//     what git knows is replaced or removed: neither is an edit of a person's.
//     (Files are flushed before they get their names, so there are none that
//     are torn.)
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

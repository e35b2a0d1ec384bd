// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bringing the index and the work tree to a commit is a move. The files change
// one by one and the index at the end, so that a crash leaves some files as the
// one commit has them, some as the other, and an index that knows nothing of
// it. Going on to the same commit finds each file as it wants it, or as the
// index has it. But the branch may go elsewhere: when a push loses a race, the
// commit that was on the way is planned anew, and is in nobody's history any
// more. What it left in the work tree is no edit of a person's.
//
// So the file "worktree" in stateDir says where index and work tree are: in its
// first line the commit that they were brought to last, all zeros for none, in
// the others those of the moves that began since and did not end. Each move is
// noted before its first file changes, and the one that ends clears the list.
func (r *repository) worktreePath() string { return filepath.Join(r.dir, stateDir, "worktree") }

// maxMoves bounds the list. So many moves in a row end early only where a path
// cannot be written at all, and the files at the others are at the newest.
const maxMoves = 64

// readWorktree returns the commit that index and work tree were brought to
// last, and those of unfinished moves. What is not there or torn is left out.
func (r *repository) readWorktree() (at oid, moves []oid) {
	data, err := os.ReadFile(r.worktreePath())
	if err != nil {
		return oid{}, nil
	}
	for i, line := range strings.Split(string(data), "\n") {
		id, ok := parseOID(strings.TrimSpace(line))
		switch {
		case i == 0:
			at = id
		case ok:
			moves = append(moves, id)
		}
	}
	return at, moves
}

// writeWorktree is not flushed. A power loss can take it back, or cut it off;
// then files are compared by their content.
func (r *repository) writeWorktree(at oid, moves ...oid) error {
	text := at.String() + "\n"
	for _, m := range moves[max(0, len(moves)-maxMoves):] {
		text += m.String() + "\n"
	}
	name := r.worktreePath()
	if err := os.WriteFile(name+".tmp", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

// depart notes that a move to the commit to is about to change files.
func (j *job) depart(to oid) error {
	at, moves := j.c.repo.readWorktree()
	if len(j.changes) == 0 || at == to && len(moves) == 0 || slices.Contains(moves, to) {
		return nil
	}
	return j.c.repo.writeWorktree(at, append(moves, to)...)
}

// unfinished finds out which trees unfinished moves were to, other than tree,
// and adds changes for the paths at which these have something else than tree
// and the index.
func (j *job) unfinished(tree oid) {
	_, moves := j.c.repo.readWorktree()
	if len(moves) == 0 {
		return
	}
	known := make(map[string]bool)
	for _, ch := range j.changes {
		known[ch.path] = true
	}
	for _, m := range moves {
		commit, err := j.c.repo.commit(m)
		if err != nil || commit.TreeHash == tree || slices.Contains(j.passed, commit.TreeHash) {
			continue // nothing refers to it; git gc may have removed it
		}
		j.passed = append(j.passed, commit.TreeHash)
		j.c.repo.diff(commit.TreeHash, tree, "", func(path string, old, new treeEntry) (bool, error) {
			if new.mode == modeDir {
				new = treeEntry{}
			}
			if old.mode != modeDir && old.mode != 0 || new.mode != 0 {
				if !known[path] && !j.c.isInput(path) {
					known[path] = true
					lo, tracked := j.ix.find(path)
					hi := lo
					if tracked {
						hi++
					}
					j.changes = append(j.changes, change{path: path, lo: lo, hi: hi, mode: new.mode, id: new.id, left: true})
				}
			}
			return true, nil
		})
	}
}

// onTheWay reports whether an unfinished move was to a tree that has the file
// or link with the blob id at path; nothing there, if id is zero.
func (j *job) onTheWay(path string, id oid) bool {
	if j.c.isInput(path) {
		return false // what lies there may have been dropped
	}
	for _, tree := range j.passed {
		e, err := j.c.repo.lookup(tree, path)
		if e.mode == modeDir {
			e = treeEntry{}
		}
		if err == nil && e.id == id {
			return true
		}
	}
	return false
}

// passing reports whether an unfinished move, or a power loss, may have left
// the file at path as it is: with the blob id, missing if that is zero.
func (j *job) passing(path string, id oid) bool {
	return j.onTheWay(path, id) || j.c.rebooted && (id == oid{} || j.c.earlier(path, id))
}

// leftBehind reports whether the file at ch.path, for which the commit has
// nothing that the index has not, is what an unfinished move left there.
func (j *job) leftBehind(ch change) bool {
	st, exists, err := j.c.work.lstat(ch.path)
	if err != nil || exists && fileMode(st) == modeDir {
		return false
	}
	var id oid
	if exists {
		if id, err = j.c.work.hash(ch.path); err != nil {
			return false
		}
	}
	return (id != ch.id || exists && fileMode(st) != ch.mode) && j.onTheWay(ch.path, id)
}

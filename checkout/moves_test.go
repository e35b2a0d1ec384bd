// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// A dying is a context that ends when it was looked at so many times. A move
// looks at it before each path that it brings, so that a crash between any two
// paths can be had.
type dying struct {
	context.Context
	left int
}

func (d *dying) Err() error {
	if d.left--; d.left < 0 {
		return context.Canceled
	}
	return nil
}

// The moves of these tests: base is where the clone is, ours the commit that is
// on its way when somebody else pushes first, theirs the one that takes its
// place. Each has what the others have not: files that are changed, added,
// deleted, and files in the place of directories and the other way round.
var (
	moveBase = map[string]string{
		"m/same": "0", "m/both": "0", "m/ours": "0", "m/theirs": "0", "m/gone": "0", "m/goneboth": "0",
		"m/file": "0", "m/dir/x": "0", "o/ours": "0", "o/both": "0", "fabric/raw/r": "0",
	}
	moveOurs = []Change{
		put("m/both", "ours"), put("m/ours", "ours"), del("m/gone"), del("m/goneboth"), put("m/new", "ours"), put("m/newboth", "ours"),
		del("m/file"), put("m/file/x", "ours"), del("m/dir/x"), put("m/dir", "ours"), put("o/ours", "ours"), put("o/both", "ours"), put("o/new", "ours"),
	}
	moveTheirs = []Change{
		put("m/both", "theirs"), put("m/theirs", "theirs"), del("m/goneboth"), put("m/newboth", "theirs"), put("m/dir/y", "theirs"), put("o/both", "theirs"),
	}
	moveEnd = map[string]string{
		"m/same": "0", "m/both": "theirs", "m/ours": "0", "m/theirs": "theirs", "m/gone": "0", "m/goneboth": "", "m/new": "",
		"m/newboth": "theirs", "m/file": "0", "m/dir/x": "0", "m/dir/y": "theirs", "o/ours": "0", "o/both": "theirs", "o/new": "",
	}
)

// TestUnfinishedMove crashes on the way to a commit, at each path of it and
// around the end, and then goes to another one, which may be crashed, too: what
// the first has left is nobody's edit, in Restore as in Advance. What a person
// edits meanwhile is one.
func TestUnfinishedMove(t *testing.T) {
	t.Parallel()
	for _, edited := range []bool{false, true} {
		for n := 0; ; n++ {
			done := false
			t.Run(fmt.Sprintf("edited=%v,%d", edited, n), func(t *testing.T) {
				done = unfinishedMove(t, n, edited)
			})
			if done {
				break
			}
		}
	}
}

func unfinishedMove(t *testing.T, n int, edited bool) (done bool) {
	r := rand.New(rand.NewPCG(uint64(n), 3))
	w := newWorld(t)
	w.personPushes(moveBase)
	c := w.clone()
	base := w.head(c)
	write := func(changes []Change) Hash {
		h, err := c.WriteCommit(base, changes, us, us, "x")
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	ours, theirs := write(moveOurs), write(moveTheirs)
	before := readAll(t, c.repo.worktreePath())
	restart := func() {
		c.Close()
		c = w.open()
		w.head(c)
	}
	asides, err := c.Advance(&dying{w.ctx(), n}, ours)
	if len(asides) > 0 {
		t.Fatalf("set aside: %v", asides)
	}
	if done = err == nil; done {
		// The last crash point: the index is there, and nothing says so.
		if err := c.repo.writeWorktree(Hash(before[:40]).id(), ours.id()); err != nil {
			t.Fatal(err)
		}
	} else if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if w.head(c) != ours {
		return done // it did not begin
	}
	restart()
	if edited {
		save(t, w.dir, map[string]string{"m/both": "mine", "m/stray": "mine", "o/both": "mine", "o/stray": "mine"})
	}
	var got []Aside
	restore := func(ctx context.Context) error {
		asides, err := c.Restore(ctx, []string{"m"})
		got = append(got, asides...)
		return err
	}
	// A full look may come in between, and be crashed; so may the next move.
	if r.IntN(2) == 0 {
		if err := restore(&dying{w.ctx(), r.IntN(20)}); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		restart()
	}
	for _, ctx := range []context.Context{&dying{w.ctx(), r.IntN(30)}, w.ctx()} {
		asides, err := c.Advance(ctx, theirs)
		got = append(got, asides...)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		restart()
	}
	if err := restore(w.ctx()); err != nil {
		t.Fatal(err)
	}
	w.has(moveEnd)
	if _, moves := c.repo.readWorktree(); len(moves) > 0 {
		t.Errorf("unfinished moves: %v", moves)
	}
	if !edited {
		if len(got) > 0 || len(tree(t, w.opts.AsideDir)) > 0 {
			t.Errorf("set aside: %v", got)
		}
		w.clean()
		return done
	}
	w.has(map[string]string{"o/stray": "mine", "m/stray": ""})
	for _, name := range []string{"m/both", "m/stray", "o/both"} {
		if data, err := os.ReadFile(filepath.Join(w.opts.AsideDir, name)); err != nil || string(data) != "mine" {
			t.Errorf("%s, which was edited, was kept as %q, %v", name, data, err)
		}
	}
	if len(got) != 3 {
		t.Errorf("set aside: %v", got)
	}
	return done
}

// TestUnfinishedClone: the first checkout of all was interrupted, and the
// remote moved on.
func TestUnfinishedClone(t *testing.T) {
	t.Parallel()
	for n := range 16 {
		w := newWorld(t)
		w.personPushes(moveBase)
		c := w.open()
		if _, err := c.Advance(&dying{w.ctx(), n}, w.head(c)); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		c.Close()
		w.personPushes(map[string]string{"m/both": "1", "m/gone": "", "m/file": "", "m/file/x": "1"})
		c = w.open()
		w.head(c)
		w.advance(c, w.fetch(c))
		w.has(map[string]string{"m/both": "1", "m/gone": "", "m/file/x": "1"})
		w.clean()
	}
}

// TestManyMoves: the list of moves that cannot end is bounded, and what it
// holds that is not there any more is passed by.
func TestManyMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"a": "0"})
	c := w.clone()
	save(t, w.dir, map[string]string{"in/way": "mine"})
	w.noAside()
	for i := range maxMoves + 6 {
		h, err := c.WriteCommit(w.head(c), []Change{put("a", fmt.Sprint(i)), put("in", fmt.Sprint(i))}, us, us, "x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Advance(w.ctx(), h); err == nil {
			t.Fatal("a file was put into the place of an edit that could not be set aside")
		}
	}
	if _, moves := c.repo.readWorktree(); len(moves) != maxMoves {
		t.Errorf("%d unfinished moves", len(moves))
	}
	at, _ := c.repo.readWorktree()
	if err := c.repo.writeWorktree(at, BlobHash([]byte("nowhere")).id()); err != nil {
		t.Fatal(err)
	}
	save(t, w.dir, map[string]string{"in": ""})
	w.advance(c, w.head(c))
	w.clean()
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"os"
	"testing"
)

// TestTakeOver changes the branch while a commit waits to be pushed: it is at
// the new branch from then on, whenever a crash comes, and at no other. What
// the new branch had here already is kept.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	for name, there := range map[string]func(t *testing.T, w *world, c *Clone, mine Hash){
		"not there": func(t *testing.T, w *world, c *Clone, mine Hash) {},
		"there": func(t *testing.T, w *world, c *Clone, mine Hash) {
			git(t, w.dir, "branch", "other", string(mine)+"^")
		},
		"with a commit of a person": func(t *testing.T, w *world, c *Clone, mine Hash) {
			git(t, w.dir, "branch", "other", git(t, w.dir, "commit-tree", "-m", "x", "-p", string(mine)+"^", string(mine)+"^{tree}"))
		},
		"after a crash in between": func(t *testing.T, w *world, c *Clone, mine Hash) {
			git(t, w.dir, "branch", "other", string(mine))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tip := w.personPushes(map[string]string{"a": "1"})
			git(t, w.bare, "branch", "other", "main")
			c := w.clone()
			if err := c.SaveRef("base", tip); err != nil {
				t.Fatal(err)
			}
			mine := w.commit(c, put("mine", "1"))
			there(t, w, c, mine)
			before, _ := c.repo.ref("refs/heads/other")
			c.Close()
			// The remote is away for now.
			if err := os.Rename(w.bare, w.bare+".x"); err != nil {
				t.Fatal(err)
			}
			w.opts.Branch = "other"
			for range 2 {
				c = w.open()
				if got := w.head(c); got != mine {
					t.Errorf("the new branch is at %s, want %s", got, mine)
				}
				if got, err := c.repo.ref("refs/heads/main"); hashOf(got) != tip || err != nil {
					t.Errorf("the old branch is at %s, want %s, %v", got, tip, err)
				}
				if _, err := c.Fetch(w.ctx()); err == nil {
					t.Error("fetched")
				}
				if err := c.Check(true); err != nil {
					t.Error(err)
				}
				c.Close()
			}
			if err := os.Rename(w.bare+".x", w.bare); err != nil {
				t.Fatal(err)
			}
			c = w.open()
			w.fetch(c)
			w.advance(c, w.head(c))
			w.push(c)
			w.has(map[string]string{"a": "1", "mine": "1"})
			w.clean()
			asides, err := c.Refs("aside/")
			if want := name == "with a commit of a person"; err != nil || (len(asides) == 1 && asides[0] == "aside/"+before.String()) != want || !want && len(asides) > 0 {
				t.Errorf("kept aside: %v, %v", asides, err)
			}
			if err := errors.Join(c.Check(true), c.Close()); err != nil {
				t.Error(err)
			}
			// And back: nothing waits any more.
			w.opts.Branch = "main"
			c = w.open()
			if got := w.head(c); got != tip {
				t.Errorf("back on the old branch: at %s, want %s", got, tip)
			}
			w.advance(c, tip)
			w.has(map[string]string{"mine": ""})
			w.clean()
		})
	}
}

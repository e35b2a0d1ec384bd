// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestRestart: after a restart of the machine, what a power loss can have done
// to the clone is repaired and not taken for a person's edits; those are set
// aside as ever. In the same boot each difference is an edit.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, restarted := range []bool{true, false} {
		w := newWorld(t)
		w.personPushes(map[string]string{"m/a": "1", "m/b": "1", "m/c": "1", "m/d": "1", "m/e": "1", "o/a": "1", "o/b": "1", "o/c": "1"})
		c := w.clone()
		w.commit(c, put("m/a", "2"), put("m/b", "2"), del("m/c"))
		if _, err := c.Restore(w.ctx(), []string{"m"}); err != nil {
			t.Fatal(err)
		}
		c.Close()
		const object = ".git/objects/12/34567890123456789012345678901234567890"
		save(t, w.dir, map[string]string{
			"m/a": "1", "m/b": "", "m/c": "1", "m/d": "mine", "m/e": "staged", // "" removes
			"o/a": "", "o/b": "mine", "o/c": "staged",
			object: "torn",
		})
		git(t, w.dir, "add", "m/e", "o/c")
		if restarted {
			save(t, w.dir, map[string]string{".git/hhwatchd/boot": "an earlier one\n"})
		}
		c = w.open()
		got, err := c.Restore(w.ctx(), []string{"m"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = os.Stat(filepath.Join(w.dir, object))
		if gone := errors.Is(err, fs.ErrNotExist); gone != restarted {
			t.Errorf("restarted %v: the torn object is gone: %v", restarted, gone)
		}
		save(t, w.dir, map[string]string{object: ""})
		if want := map[bool]int{true: 2, false: 5}[restarted]; len(got) != want {
			t.Errorf("restarted %v: set aside %v, want %d", restarted, got, want)
		}
		w.has(map[string]string{
			"m/a": "2", "m/b": "2", "m/c": "", "m/d": "1", "m/e": "1",
			"o/a": map[bool]string{true: "1"}[restarted], "o/b": "mine", "o/c": "staged",
		})
		git(t, w.dir, "reset", "-q", "--hard")
		w.clean()

		// The restart is over: from here on an edit is an edit.
		save(t, w.dir, map[string]string{"m/a": "1", "m/b": ""})
		if got, err := c.Restore(w.ctx(), []string{"m"}); err != nil || len(got) != 2 {
			t.Errorf("later: set aside %v, %v", got, err)
		}
	}
}

// TestPrepared: files are flushed before they get their names, and what a
// crash leaves of them is nobody's.
func TestPrepared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.personPushes(map[string]string{"m/a": "1"})
	c := w.clone()
	c.Close()
	save(t, w.dir, map[string]string{".git/hhwatchd/stage/" + newFile + "1-1.tmp": "half a f"})
	c = w.open()
	same(t, "left", tree(t, c.work.stage), nil)
	same(t, "kept", tree(t, c.work.aside), nil)
	if err := c.work.prepare("m/a", ModeFile, []byte("2")); err != nil {
		t.Fatal(err)
	}
	w.has(map[string]string{"m/a": "1"})
	c.work.discard()
	same(t, "left", tree(t, c.work.stage), nil)
}

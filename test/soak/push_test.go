// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A pusher works in a clone of its own with git. Its way to the repository is
// another one than the hosts', so that their outages are not its own.
type pusher struct {
	*world
	name   string
	fabric string
	rng    *rand.Rand
	dir    string
	files  int
	raw    []*delivery // of which it may push another version
}

func (w *world) newPusher(seed uint64, name, fabric string) *pusher {
	p := &pusher{world: w, name: name, fabric: fabric, rng: source(seed, name), dir: filepath.Join(w.dir, name)}
	w.inGit(w.dir, "clone", "-q", w.bare, p.dir)
	for _, c := range [][2]string{{"user.name", name}, {"user.email", name + "@example.net"}, {"gc.auto", "0"}, {"maintenance.auto", "false"}} {
		w.inGit(p.dir, "config", c[0], c[1])
	}
	return p
}

// An edit is one commit: files by path in the repository, "" for those that
// go, and what the model is told when it is on the remote.
type edit struct {
	files  map[string]string
	says   map[object]string
	brings []*delivery
	action string
}

// run pushes until the context is done.
func (p *pusher) run(ctx context.Context) {
	for ctx.Err() == nil {
		var edits []edit
		for range 1 + p.rng.IntN(3) {
			edits = append(edits, p.edit())
		}
		if err := p.push(edits); err != nil {
			p.t.Errorf("%s: %v", p.name, err)
			return
		}
		for _, e := range edits {
			for _, d := range e.brings {
				p.deliver("push: "+e.action, d)
			}
			if len(e.brings) == 0 {
				p.note("push: "+e.action, ": %s by %s", few(slices.Collect(maps.Keys(e.files))), p.name)
			}
			p.says(p.name, e.says)
		}
		p.stir()
		pause(ctx, time.Duration(p.rng.IntN(2500))*time.Millisecond)
	}
}

func (p *pusher) edit() edit {
	e := edit{files: map[string]string{}, says: map[object]string{}}
	switch n := p.rng.IntN(100); {
	case n < 40:
		e.action = "raw files"
		objects := pick(p.rng, p.name, p.fabric, 1+p.rng.IntN(5))
		for len(objects) > 0 {
			n := 1 + p.rng.IntN(len(objects))
			p.files++
			form := [...]string{"%s-%d.yaml", "%s %d pushed.yaml", "sub/ü %s-%d.yaml"}
			p.bring(&e, fmt.Sprintf(form[p.rng.IntN(len(form))], p.name, p.files), objects[:n])
			objects = objects[n:]
		}
	case n < 55 && len(p.raw) > 0:
		e.action = "raw file again"
		d := p.raw[p.rng.IntN(len(p.raw))]
		// In a fixed order, for the sake of the words.
		objects := slices.SortedFunc(maps.Keys(d.objects), func(a, b object) int { return strings.Compare(a.name, b.name) })
		p.bring(&e, d.path, objects)
	case n < 65:
		e.action = "bad file"
		p.files++
		d := &delivery{actor: p.name, fabric: p.fabric, path: fmt.Sprintf("bad %s-%d.yaml", p.name, p.files)}
		d.marker = "pushed-" + p.word(p.name)
		d.data = "kind: VPC\nmetadata: {name: " + d.marker + "}\n"
		e.files[fabricPath(p.fabric)+"/raw/"+d.path] = d.data
		e.brings = append(e.brings, d)
	case n < 80:
		e.action = "edit in managed/"
		for range 1 + p.rng.IntN(3) {
			o := p.direct()
			text := o.text(p.word(p.name))
			e.files[o.path()], e.says[o] = text, text
		}
	case n < 90:
		e.action = "deletion in managed/"
		for range 1 + p.rng.IntN(2) {
			o := p.direct()
			e.files[o.path()], e.says[o] = "", ""
		}
	default:
		e.action = "unrelated file"
		e.files[fmt.Sprintf("docs/%s-%d.md", p.name, p.rng.IntN(20))] = p.word(p.name) + "\n"
	}
	return e
}

// direct is an object that is written in managed/ itself, never by way of
// raw/: a file that waits in raw/ would be the later word.
func (p *pusher) direct() object {
	return object{p.fabric, "VPC", fmt.Sprintf("%s-direct-%d", p.name, p.rng.IntN(12))}
}

func (p *pusher) bring(e *edit, path string, objects []object) {
	texts := map[object]string{}
	for _, o := range objects {
		texts[o] = o.text(p.word(p.name))
	}
	d := &delivery{actor: p.name, fabric: p.fabric, path: path, data: join(texts), objects: texts}
	e.files[fabricPath(p.fabric)+"/raw/"+path] = d.data
	e.brings = append(e.brings, d)
	p.raw = append(p.raw, d)
	p.raw = p.raw[max(0, len(p.raw)-6):]
}

// push commits the edits and pushes them, however often others come first.
// Where git cannot put them on top of what others did, they are made anew
// there.
func (p *pusher) push(edits []edit) error {
	if p.rng.IntN(2) == 0 {
		if err := p.restart(); err != nil {
			return err
		}
	}
	if err := p.commit(edits); err != nil {
		return err
	}
	var err error
	for range 100 {
		if _, err = runGit(p.dir, nil, "push", "-q", "origin", "main"); err == nil {
			return nil
		}
		if _, err := runGit(p.dir, nil, "pull", "-q", "--rebase", "origin", "main"); err != nil {
			runGit(p.dir, nil, "rebase", "--abort") // there need not be one
			if err := p.restart(); err != nil {
				return err
			}
			if err := p.commit(edits); err != nil {
				return err
			}
		}
	}
	return err
}

// restart goes to what the remote has.
func (p *pusher) restart() error {
	_, err := runGit(p.dir, nil, "fetch", "-q", "origin", "main")
	if err == nil {
		_, err = runGit(p.dir, nil, "reset", "-q", "--hard", "FETCH_HEAD")
	}
	return err
}

func (p *pusher) commit(edits []edit) error {
	for _, e := range edits {
		for path, text := range e.files {
			file := filepath.Join(p.dir, path)
			if text == "" {
				if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
					return err
				}
				continue
			}
			p.write(file, text)
		}
		if _, err := runGit(p.dir, nil, "add", "--all"); err != nil {
			return err
		}
		if _, err := runGit(p.dir, nil, "commit", "-q", "--allow-empty", "-m", p.name+": "+e.action); err != nil {
			return err
		}
	}
	return nil
}

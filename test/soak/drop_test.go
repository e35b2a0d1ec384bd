// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A dropper puts files into one fabric's raw directory on one host, as people
// and programs do. It has objects of its own, and some that others write too.
type dropper struct {
	*world
	name   string
	host   *host
	fabric string
	rng    *rand.Rand
	files  int

	at   map[string]*delivery // by path, what it put there last
	past []*delivery          // accepted ones
	used []string             // paths
}

func (w *world) newDropper(seed uint64, name string, h *host, fabric string) *dropper {
	return &dropper{world: w, name: name, host: h, fabric: fabric, rng: source(seed, name), at: map[string]*delivery{}}
}

// source is an actor's own source of chance: what it does depends on the seed
// and not on what others do.
func source(seed uint64, actor string) *rand.Rand {
	var n uint64
	for _, c := range []byte(actor) {
		n = n*31 + uint64(c)
	}
	return rand.New(rand.NewPCG(seed, n))
}

// own and shared are the objects of the actors.
const (
	own    = 24
	shared = 5
)

// pick returns n different objects that an actor may write by way of raw/.
func pick(rng *rand.Rand, actor, fabric string, n int) []object {
	var objects []object
	for _, i := range rng.Perm(own + shared)[:n] {
		kind := [...]string{"VPC", "Server"}[i%2]
		name := fmt.Sprintf("%s-own-%d", actor, i)
		if i >= own {
			name = fmt.Sprintf("%s-shared-%d", fabric, i)
		}
		objects = append(objects, object{fabric, kind, name})
	}
	return objects
}

// run drops until the context is done.
func (d *dropper) run(ctx context.Context) {
	d.past = append(d.past, d.big(ctx))
	for ctx.Err() == nil {
		switch n := d.rng.IntN(100); {
		case n < 25:
			d.put("rename", d.file(1+d.rng.IntN(3)), d.rename)
		case n < 45:
			d.put("write", d.file(1+d.rng.IntN(3)), d.plain)
		case n < 52:
			d.put("slow write", d.file(2+d.rng.IntN(3)), func(file, data string) error { return d.slow(ctx, file, data) })
		case n < 70:
			d.overwrite()
		case n < 75:
			for range 20 {
				d.put("burst", d.file(1), d.plain)
			}
		case n < 87:
			d.put("bad file", d.bad(), d.plain)
		default:
			d.again()
		}
		pause(ctx, time.Duration(d.rng.IntN(1000))*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// path returns the path of a new file, or of one that has left raw/.
func (d *dropper) path() string {
	if len(d.used) > 0 && d.rng.IntN(4) == 0 {
		if p := d.used[d.rng.IntN(len(d.used))]; !exists(filepath.Join(d.host.raw(d.fabric), p)) {
			return p
		}
	}
	d.files++
	form := [...]string{"%s-%d.yaml", "%s %d with spaces.yaml", "größe ñ %s-%d.yml", "sub/%s-%d.yaml", "sub dir/日本/%s-%d.yaml", "%s-'%d'\".json"}
	p := fmt.Sprintf(form[d.rng.IntN(len(form))], d.name, d.files)
	d.used = append(d.used, p)
	return p
}

// file is a good file of n objects.
func (d *dropper) file(n int) *delivery {
	return d.saying(d.path(), pick(d.rng, d.name, d.fabric, n))
}

func (d *dropper) saying(path string, objects []object) *delivery {
	texts := map[object]string{}
	for _, o := range objects {
		texts[o] = o.text(d.word(d.name))
	}
	return &delivery{actor: d.name, host: d.host, fabric: d.fabric, path: path, data: join(texts), objects: texts}
}

// marker is in each file that is to be rejected, and nowhere else.
const marker = "not-for-git"

// bad is a file that is to be rejected.
func (d *dropper) bad() *delivery {
	secret := marker + "-" + d.word(d.name) + "-"
	good := d.saying("", pick(d.rng, d.name, d.fabric, 1)).data
	text := [...]string{
		"kind: VPC\nmetadata: [" + secret + "\n",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {password: " + secret + "}\n",
		good + "---\napiVersion: vpc.githedgehog.com/v1beta1\nkind: VPC\nspec: {mode: " + secret + "}\n",
		good + "spec: {mode: " + secret + "}\n", // the key twice
		good + "# " + secret + "\n",             // good, but for its name
	}
	path, n := d.path(), d.rng.IntN(len(text))
	if n == len(text)-1 {
		path += ".txt"
	}
	return &delivery{actor: d.name, host: d.host, fabric: d.fabric, path: path, data: text[n], marker: secret}
}

// put delivers a file in some way, and remembers what it may have replaced.
func (d *dropper) put(action string, f *delivery, how func(file, data string) error) {
	file := filepath.Join(d.host.raw(d.fabric), f.path)
	if before := d.at[f.path]; before != nil && exists(file) {
		d.doubt(before)
	}
	d.at[f.path] = d.deliver("drop: "+action, f)
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = how(file, f.data)
	}
	if err != nil {
		d.t.Errorf("%s: %v", d.name, err)
	}
	if !f.rejected() {
		d.past = append(d.past, f)
	}
	d.stir()
	// Files come in the order of their ctime, whose clock ticks every 4 ms
	// (before Linux 6.13), and what is said here later shall count as later.
	time.Sleep(12 * time.Millisecond)
}

func (d *dropper) plain(file, data string) error { return os.WriteFile(file, []byte(data), 0o644) }

// rename is what careful programs do.
func (d *dropper) rename(file, data string) error {
	tmp := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".tmp")
	if err := os.WriteFile(tmp, []byte(data), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

// slow writes in pieces that end anywhere, a whole document too.
func (d *dropper) slow(ctx context.Context, file, data string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	for data != "" && err == nil {
		n := min(len(data), 1+d.rng.IntN(200))
		if i := strings.Index(data, "---\n"); i > 0 && d.rng.IntN(2) == 0 {
			n = i
		}
		_, err = f.WriteString(data[:n])
		data = data[n:]
		pause(ctx, time.Duration(d.rng.IntN(150))*time.Millisecond)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// overwrite writes a file and then, at once or a little later, another
// version of it, which need not have left raw/ by then.
func (d *dropper) overwrite() {
	f := d.file(1 + d.rng.IntN(2))
	d.put("overwrite", f, d.plain)
	for range 1 + d.rng.IntN(3) {
		time.Sleep(time.Duration(d.rng.IntN(200)) * time.Millisecond)
		var objects []object
		for _, o := range pick(d.rng, d.name, d.fabric, own+shared) {
			if _, ok := f.objects[o]; ok {
				objects = append(objects, o)
			}
		}
		how := d.plain
		if d.rng.IntN(2) == 0 {
			how = d.rename
		}
		d.put("overwrite", d.saying(f.path, objects), how)
	}
}

// again delivers bytes that were delivered before.
func (d *dropper) again() {
	f := d.past[d.rng.IntN(len(d.past))]
	if len(f.objects) >= 100 {
		return
	}
	path := d.path()
	if d.rng.IntN(2) == 0 && !exists(filepath.Join(d.host.raw(d.fabric), f.path)) {
		path = f.path
	}
	d.put("again", &delivery{actor: d.name, host: d.host, fabric: d.fabric, path: path, data: f.data, objects: f.objects}, d.plain)
}

// big drops a file of many documents.
func (d *dropper) big(ctx context.Context) *delivery {
	pause(ctx, time.Duration(d.rng.IntN(5000))*time.Millisecond)
	texts := map[object]string{}
	word := d.word(d.name)
	for i := range bigFile() {
		o := object{d.fabric, "Server", fmt.Sprintf("%s-big-%03d", d.name, i)}
		texts[o] = o.text(word)
	}
	f := &delivery{actor: d.name, host: d.host, fabric: d.fabric, path: d.path(), data: join(texts), objects: texts}
	d.put("big file", f, d.rename)
	return f
}

// bigFile is how many documents a big file has: fewer where there is little
// time, most of which the API server would take.
func bigFile() int {
	if *kills > killsPerCheck {
		return 500
	}
	return 100
}

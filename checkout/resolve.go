// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// A resolver names the deltas of a scanned pack. It goes from each object that
// stands there whole to its deltas, to theirs, and so on. Several goroutines do
// so, each from another such object: what comes of one is theirs alone.
type resolver struct {
	*packIndexer
	ctx   context.Context
	roots []int32      // the whole objects that have deltas
	next  atomic.Int64 // the next of them
	limit int          // of the bases that a descent holds, in bytes
	large chan struct{}

	mu    sync.Mutex // for waiting, named and largest, and while progress is told
	named int
}

// resolve names all deltas.
func (x *packIndexer) resolve(ctx context.Context) error {
	x.joinByName()
	r := &resolver{packIndexer: x, large: make(chan struct{}, 1), named: x.total - x.deltas}
	for i := range x.entries {
		if !x.entries[i].typ.IsDelta() && x.entries[i].delta != noEntry {
			r.roots = append(r.roots, int32(i))
		}
	}
	workers := min(runtime.GOMAXPROCS(0), len(r.roots))
	r.limit = heldBases / max(workers, 1)
	g, gctx := errgroup.WithContext(ctx)
	r.ctx = gctx
	for range workers {
		g.Go(r.work)
	}
	if err := g.Wait(); ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil {
		return damaged(err)
	}
	if r.named < x.total {
		return damaged(x.unresolved(x.total - r.named))
	}
	if x.progress != nil && x.total > 0 {
		x.progress("index", x.total, x.total)
	}
	return nil
}

// joinByName finds the bases among the whole objects of deltas that wait for
// them by name.
func (x *packIndexer) joinByName() {
	for i := 0; i < len(x.entries) && len(x.waiting) > 0; i++ {
		if !x.entries[i].typ.IsDelta() {
			x.claim(int32(i))
		}
	}
}

// claim takes the deltas that wait for the name of the entry i. Of an object
// that is there twice, the first to come gets them.
func (x *packIndexer) claim(i int32) {
	e := &x.entries[i]
	first, ok := x.waiting[e.id]
	if !ok {
		return
	}
	delete(x.waiting, e.id)
	last := first
	for x.entries[last].base = i; x.entries[last].next != noEntry; x.entries[last].base = i {
		last = x.entries[last].next
	}
	x.entries[last].next, e.delta = e.delta, first
}

// unresolved says why n objects could not be named.
func (x *packIndexer) unresolved(n int) error {
	// The first one, so that the same pack gives the same error each time.
	var missing oid
	first := int32(len(x.entries))
	for id, i := range x.waiting {
		for ; i != noEntry; i = x.entries[i].next {
			if i < first {
				missing, first = id, i
			}
		}
	}
	return fmt.Errorf("%d of its %d objects are deltas without a base in it, which would be %s for the first", n, x.total, missing)
}

// count takes note that the entry i was named, and gives it its deltas.
func (r *resolver) count(i int32, size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.largest = max(r.largest, int64(size))
	if len(r.waiting) > 0 {
		r.claim(i)
	}
	if r.named++; r.progress != nil && r.named%256 == 0 {
		r.progress("index", r.named, r.total)
	}
}

// work resolves what comes of one whole object after the other.
func (r *resolver) work() error {
	d := &descent{resolver: r, inf: newInflater()}
	for {
		i := int(r.next.Add(1)) - 1
		if i >= len(r.roots) {
			return nil
		}
		if err := d.from(r.roots[i]); err != nil {
			return err
		}
	}
}

// A descent resolves what comes of one object, depth first, without recursion.
type descent struct {
	*resolver
	inf   *inflater
	open  []openBase
	held  int  // the memory of all data in open
	alone bool // no other descent may have large objects

	delta, spare []byte // memory to be used again
}

// An openBase is an object with deltas that are still to be resolved. It leaves
// when its last one is taken in hand, so that of a chain of deltas there is only
// ever one.
type openBase struct {
	entry int32
	next  int32  // the next of its deltas
	data  []byte // nil while it is not in memory
}

// from resolves what comes of the entry root.
func (d *descent) from(root int32) error {
	defer d.letGo()
	d.open, d.held = append(d.open[:0], openBase{entry: root, next: d.entries[root].delta}), 0
	for len(d.open) > 0 {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		top := len(d.open) - 1
		if err := d.read(top); err != nil {
			return err
		}
		base := d.open[top]
		i := base.next
		d.open[top].next = d.entries[i].next
		last := d.open[top].next == noEntry
		if last {
			d.open[top].data = nil
			d.open = d.open[:top]
			d.held -= cap(base.data)
		}
		if err := d.resolve(i, base); err != nil {
			return fmt.Errorf("at byte %d: %w", d.entries[i].at, err)
		}
		if last && d.spare == nil {
			d.spare = base.data
		}
	}
	return nil
}

// resolve names the delta i of base, and opens it if it has deltas itself.
func (d *descent) resolve(i int32, base openBase) error {
	parent, e := &d.entries[base.entry], &d.entries[i]
	if e.depth = parent.depth + 1; e.depth > maxDeltaDepth {
		return fmt.Errorf("a chain of more than %d deltas", maxDeltaDepth)
	}
	data, err := d.patched(i, base.data, d.spare)
	if err != nil {
		return err
	}
	d.spare = data
	e.typ = parent.typ
	if e.id, err = d.inf.nameOf(e.typ, data); err != nil {
		return err
	}
	d.count(i, len(data))
	if e.delta == noEntry {
		return nil
	}
	if cap(data) > 2*len(data) {
		data = bytes.Clone(data)
	} else {
		d.spare = nil
	}
	d.open = append(d.open, openBase{entry: i, next: e.delta, data: data})
	d.held += cap(data)
	d.trim(len(d.open) - 1)
	return nil
}

// patched returns the object that the delta i makes of base.
func (d *descent) patched(i int32, base, dst []byte) ([]byte, error) {
	e := &d.entries[i]
	delta := d.keptDelta(e)
	if delta == nil {
		var err error
		if delta, err = d.whole(i, d.delta); err != nil {
			return nil, err
		}
		d.delta = delta
	}
	if _, size, _, err := splitDelta(delta); err != nil {
		return nil, err
	} else if err := d.reserve(size); err != nil {
		return nil, err
	}
	return applyDelta(dst, base, delta)
}

// whole returns what is deflated in the entry i.
func (d *descent) whole(i int32, dst []byte) ([]byte, error) {
	if err := d.reserve(d.entries[i].size); err != nil {
		return nil, err
	}
	return d.inf.all(d.deflated(i), d.entries[i].size, dst)
}

// reserve is called before memory for size bytes is taken. Who waits here has
// nothing that others wait for.
func (d *descent) reserve(size int64) error {
	if size > maxDeltaObject {
		return fmt.Errorf("a delta, or the base of one, of %d bytes is too large", size)
	}
	if size <= largeObject || d.alone {
		return nil
	}
	select {
	case d.large <- struct{}{}:
		d.alone = true
		return nil
	case <-d.ctx.Done():
		return d.ctx.Err()
	}
}

// letGo lets go of large objects.
func (d *descent) letGo() {
	if cap(d.delta) > largeObject {
		d.delta = nil
	}
	if cap(d.spare) > largeObject {
		d.spare = nil
	}
	if d.alone {
		d.alone = false
		<-d.large
	}
}

// read sees to it that the data of d.open[k] is in memory. If it is not, nor are
// those before it: it is made anew from the whole object that it comes of, and
// so are they, as many as may be held.
func (d *descent) read(k int) error {
	if d.open[k].data != nil {
		return nil
	}
	var path []int32
	for i := d.open[k].entry; i != noEntry; i = d.entries[i].base {
		path = append(path, i)
	}
	var data []byte
	found := 0 // of d.open
	for n, i := range slices.Backward(path) {
		err := d.ctx.Err()
		if err == nil && n == len(path)-1 {
			data, err = d.whole(i, nil)
		} else if err == nil {
			data, err = d.patched(i, data, nil)
		}
		if err != nil {
			return fmt.Errorf("at byte %d: %w", d.entries[i].at, err)
		}
		if i == d.open[found].entry {
			d.open[found].data = data
			d.held += cap(data)
			d.trim(found)
			found++
		}
	}
	return nil
}

// trim drops what is before d.open[top] out of memory, from the first on, until
// no more is held than may be.
func (d *descent) trim(top int) {
	for i := range d.open[:top] {
		if d.held <= d.limit {
			return
		}
		d.held -= cap(d.open[i].data)
		d.open[i].data = nil
	}
}

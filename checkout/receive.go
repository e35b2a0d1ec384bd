// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/hhwatchd/hhwatchd/internal/durable"
)

// unpackLimit is the number of objects below which a received pack is
// unpacked into loose objects, as with git (transfer.unpackLimit), so that
// small fetches do not pile up as packs.
const unpackLimit = 100

// receive stores the objects of the pack that r holds: in that pack if it has
// at least unpackLimit objects or a large one, else as loose ones. Until it
// returns nil none of them can be relied on, and they are not durable before
// sync. progress may be nil; it is called by several goroutines, one at a time.
func (s *store) receive(ctx context.Context, r io.Reader, progress func(phase string, done, total int)) error {
	p, err := s.createPack()
	if err != nil {
		return err
	}
	defer p.discard()
	x := newPackIndexer(p.f, progress)
	sum, err := x.scan(ctx, r)
	if err != nil || x.total == 0 {
		return err
	}
	if err := x.resolve(ctx); err != nil {
		return err
	}
	index, err := x.index()
	if err != nil {
		return err
	}
	if err := p.writeIndex(index, sum); err != nil {
		return err
	}
	if x.total < unpackLimit && x.largest <= largeObject {
		return s.unpack(p.idxName())
	}
	return s.install(p, sum)
}

// A newPack is a pack in the making, under a temporary name that git gc
// cleans up. It is not in the directory of the packs, where git takes
// everything that ends in .idx for one, also what a crash left.
type newPack struct{ f *os.File }

func (s *store) createPack() (*newPack, error) {
	f, err := os.CreateTemp(s.dirs[0], "tmp_pack_*.pack")
	return &newPack{f}, err
}

func (p *newPack) idxName() string { return strings.TrimSuffix(p.f.Name(), ".pack") + ".idx" }

// discard removes what was not installed.
func (p *newPack) discard() {
	p.f.Close()
	os.Remove(p.f.Name())
	os.Remove(p.idxName())
}

// install gives a pack and its index their final names. The pack comes first,
// also on disk, as an index is what makes git look for it. Both are flushed
// before, so that no crash leaves half a file under a final name.
func (s *store) install(p *newPack, sum oid) error {
	final := filepath.Join(s.dirs[0], "pack", packName(sum))
	if err := errors.Join(p.f.Chmod(0o444), p.f.Sync(), syncFile(p.idxName())); err != nil {
		return err
	}
	if err := durable.MkdirAll(filepath.Dir(final), 0o777); err != nil {
		return err // git removes it when it is empty
	}
	if err := durable.Rename(p.f.Name(), final+".pack"); err != nil {
		return err
	}
	if err := os.Rename(p.idxName(), final+".idx"); err != nil {
		return err
	}
	s.mu.Lock()
	s.listed[0] = packDir{} // look again
	s.mu.Unlock()
	return durable.SyncDir(filepath.Dir(final))
}

// packName returns the name, without its ending, of the pack with the checksum.
func packName(sum oid) string { return "pack-" + sum.String() }

// unpack writes the objects of a small pack as loose ones. The commits come
// last, so that after a crash in between no commit lacks its tree.
func (s *store) unpack(idxName string) error {
	p, err := openPack(idxName, false)
	if err != nil {
		return err
	}
	defer p.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.cache.drop(p)
	var commits []oid
	for i := range p.n {
		id := oid(p.name(i))
		o, err := s.unpacked(p, i)
		if err != nil {
			return err
		}
		if o.typ == plumbing.CommitObject {
			commits = append(commits, id)
			continue
		}
		if err := s.writeLoose(id, o); err != nil {
			return err
		}
	}
	for _, id := range commits {
		at, _ := p.find(id)
		o, err := s.readPacked(p, at)
		if err != nil {
			return err
		}
		if err := s.writeLoose(id, o); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) unpacked(p *pack, i int) (object, error) {
	at, ok := p.offset(i)
	if !ok {
		return object{}, errors.New("the index of the received pack is damaged")
	}
	return s.readPacked(p, at)
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

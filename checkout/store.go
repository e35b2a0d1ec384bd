// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"bytes"
	"cmp"
	"container/list"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/klauspost/compress/zlib"
	"golang.org/x/sys/unix"
)

// An oid is the binary form of a Hash.
type oid = plumbing.Hash

// An object is a git object in memory. Its data is shared: nobody changes it.
type object struct {
	typ  plumbing.ObjectType
	data []byte
}

// cacheSize bounds the objects that a store keeps in memory. It is there for
// the trees and delta bases that one operation needs several times; what a
// file holds is in the page cache anyway.
const cacheSize = 6 << 20

// A first checkout reads every file once, in another order than a pack has
// them, so that more bases of deltas have to be at hand for a while.
const checkoutCacheSize = 48 << 20

// maxObject is the largest object that is read into memory. It guards against
// a header that lies; no fabric's file comes near.
const maxObject = 1 << 30

// A store is the object database of one repository (gitrepository-layout(5)):
// loose objects and packs, below objects/ and what objects/info/alternates
// names. Git commands may add, pack and prune objects at the same time.
//
// It differs from go-git's in that each object is checked against its hash
// when it is read, that a damaged loose object is replaced when it is written
// again, and that memory does not grow with the repository: the index of a
// pack is mapped, not loaded.
type store struct {
	dirs []string // the objects directory, then the alternates

	mu     sync.Mutex
	closed bool
	// lenient says to read what a damaged pack has, as what is read is checked.
	lenient bool
	packs   []*pack
	torn    []error   // why packs that are there could not be opened
	listed  []packDir // what packs was listed from, parallel to dirs
	cache   objectCache
	once    bool          // see readOnce
	r       *bufio.Reader // to be used again, as are the following
	zr      io.ReadCloser
	zw      *zlib.Writer
	fs      *os.File // opened to flush the file system, see sync

	treesMu sync.Mutex
	trees   []parsedTree // see parsed
}

// packDir is the state of a pack directory when it was listed.
type packDir struct {
	mtime unix.Timespec
	ino   uint64
	// young says that it was listed so soon after a change that another one
	// may have gone by without a new time.
	young bool
}

// openStore opens the object database in the directory objects.
func openStore(objects string) (*store, error) {
	s := readStore(objects)
	// The file is opened now and kept, because syncfs(2) reports the errors
	// of writing back that happened since its descriptor was opened.
	var err error
	if s.fs, err = os.Open(objects); err != nil {
		return nil, err
	}
	s.alternates()
	return s, nil
}

// readStore returns a store for the objects below dirs. It can be read.
func readStore(dirs ...string) *store {
	s := &store{dirs: dirs, r: bufio.NewReaderSize(nil, 4096), zw: newLooseWriter()}
	s.cache.limit = cacheSize
	s.listed = make([]packDir, len(s.dirs))
	return s
}

// alternates adds the directories that objects/info/alternates names.
func (s *store) alternates() {
	for i := 0; i < len(s.dirs) && i < 16; i++ {
		data, err := os.ReadFile(filepath.Join(s.dirs[i], "info", "alternates"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSuffix(line, "\n")
			if line == "" || line[0] == '#' {
				continue
			}
			if !filepath.IsAbs(line) {
				line = filepath.Join(s.dirs[i], line)
			}
			s.dirs = append(s.dirs, line)
		}
	}
	s.listed = make([]packDir, len(s.dirs))
}

// close lets go of the files. What reads later gets fs.ErrClosed.
func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, p := range s.packs {
		p.close()
	}
	s.packs, s.cache = nil, objectCache{}
	if s.fs == nil {
		return nil
	}
	return s.fs.Close()
}

// sync makes all objects that were written durable, with everything else on
// their file system.
func (s *store) sync() error {
	if err := unix.Syncfs(int(s.fs.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: s.dirs[0], Err: err}
	}
	return nil
}

// get returns the object id. The error is ErrNotFound if it is not there, and
// a *BrokenError if no sound copy of it can be read.
func (s *store) get(id oid) (object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read(id)
}

// typed returns the content of the object id of type typ.
func (s *store) typed(id oid, typ plumbing.ObjectType) ([]byte, error) {
	o, err := s.get(id)
	if err != nil {
		return nil, err
	}
	if o.typ != typ {
		return nil, fmt.Errorf("object %s is a %s, not a %s", id, o.typ, typ)
	}
	return o.data, nil
}

// emptyTree is the tree without entries. git knows it without storing it.
var emptyTree = plumbing.ComputeHash(plumbing.TreeObject, nil)

// read is get for who holds mu.
func (s *store) read(id oid) (object, error) {
	if o, ok := s.cache.get(cacheKey{id: id}); ok {
		return o, nil
	}
	return s.load(id)
}

// load is read from the files, not from memory.
func (s *store) load(id oid) (object, error) {
	if s.closed {
		return object{}, fmt.Errorf("object %s: the store: %w", id, fs.ErrClosed)
	}
	if id == emptyTree {
		return object{typ: plumbing.TreeObject}, nil
	}
	// A git command may move the object from a loose file into a pack, or
	// from one pack into another, while we look: then the directory of the
	// packs has changed, and a second look finds it.
	var bad error
	for range 2 {
		for _, p := range s.packs {
			at, ok := p.find(id)
			if !ok {
				continue
			}
			o, err := s.readPacked(p, at)
			if err == nil {
				err = verify(id, o)
			}
			if err == nil {
				s.keep(id, o)
				return o, nil
			}
			bad = cmp.Or(worse(bad), fmt.Errorf("object %s in %s: %w", id, p.f.Name(), err))
		}
		for _, dir := range s.dirs {
			o, err := s.readLoose(loosePath(dir, id))
			if err == nil {
				err = verify(id, o)
			}
			if err == nil {
				s.keep(id, o)
				return o, nil
			}
			if !errors.Is(err, fs.ErrNotExist) {
				bad = cmp.Or(worse(bad), fmt.Errorf("object %s: %w", id, err))
			}
		}
		if changed, err := s.list(); err != nil {
			return object{}, err
		} else if !changed {
			break
		}
	}
	switch {
	case bad != nil && ofTheMachine(bad):
		return object{}, bad
	case bad != nil:
		return object{}, &BrokenError{filepath.Dir(s.dirs[0]), bad.Error()}
	case len(s.torn) > 0:
		return object{}, &BrokenError{filepath.Dir(s.dirs[0]), s.torn[0].Error()}
	}
	return object{}, fmt.Errorf("object %s: %w", id, ErrNotFound)
}

// keep keeps an object that was read in memory.
func (s *store) keep(id oid, o object) {
	if !s.once {
		s.cache.put(cacheKey{id: id}, o)
	}
}

// worse returns err if it is of the machine: what another copy of the object
// holds does not tell then that there is no sound one.
func worse(err error) error {
	if err != nil && ofTheMachine(err) {
		return err
	}
	return nil
}

// has reports whether there is an object id, without reading it: it may turn
// out to be damaged.
func (s *store) has(id oid) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 2 {
		for _, p := range s.packs {
			if _, ok := p.find(id); ok {
				return true
			}
		}
		for _, dir := range s.dirs {
			if _, err := os.Lstat(loosePath(dir, id)); err == nil {
				return true
			}
		}
		if changed, err := s.list(); err != nil || !changed {
			break
		}
	}
	return false
}

// packed reports whether the object id is in a pack and can be read there. The
// caller holds mu.
func (s *store) packed(id oid) bool {
	for _, p := range s.packs {
		if at, ok := p.find(id); ok {
			if o, err := s.readPacked(p, at); err == nil && verify(id, o) == nil {
				return true
			}
		}
	}
	return false
}

// writeLoose stores an object as a loose one. One that is there and reads well
// stays: an earlier commit may need it, and it may be on disk already, where
// its successor would not be before the next sync. One that a power loss cut
// off is replaced.
func (s *store) writeLoose(id oid, o object) error {
	path := loosePath(s.dirs[0], id)
	if old, err := s.readLoose(path); err == nil && verify(id, old) == nil {
		return nil
	}
	// The prefix is the one that git gc cleans up after a crash.
	f, err := os.CreateTemp(filepath.Dir(path), "tmp_obj_*")
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(filepath.Dir(path), 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		f, err = os.CreateTemp(filepath.Dir(path), "tmp_obj_*")
	}
	if err != nil {
		return err
	}
	s.zw.Reset(f)
	fmt.Fprintf(s.zw, "%s %d\x00", o.typ, len(o.data))
	s.zw.Write(o.data)
	err = s.zw.Close() // says what went wrong before, too
	if err == nil {
		err = f.Chmod(0o444)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	s.cache.put(cacheKey{id: id}, o)
	return nil
}

// newLooseWriter returns a writer with git's default for loose objects
// (core.looseCompression in git-config(1)).
func newLooseWriter() *zlib.Writer {
	zw, err := zlib.NewWriterLevel(nil, zlib.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return zw
}

// readLoose reads the object in the file path.
func (s *store) readLoose(path string) (object, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return object{}, err
	}
	data, err := s.inflate(bytes.NewReader(raw), -1)
	if err != nil {
		return object{}, err
	}
	return parseLoose(data)
}

// parseLoose splits an inflated loose object into its header, which is type,
// size in bytes and NUL, and its content.
func parseLoose(data []byte) (object, error) {
	header, content, ok := bytes.Cut(data, []byte{0})
	if !ok {
		return object{}, errors.New("loose object without a header")
	}
	name, size, _ := strings.Cut(string(header), " ")
	typ, err := plumbing.ParseObjectType(name)
	if err != nil || typ.IsDelta() {
		return object{}, fmt.Errorf("loose object of type %q", name)
	}
	if n, err := strconv.Atoi(size); err != nil || n != len(content) {
		return object{}, fmt.Errorf("loose object of %d bytes claims to have %q", len(content), size)
	}
	return object{typ, content}, nil
}

// inflate reads one zlib stream of r to its end and checks that it holds size
// bytes, or any number if size is negative.
func (s *store) inflate(r io.Reader, size int64) ([]byte, error) {
	if size > maxObject {
		return nil, fmt.Errorf("an object of %d bytes is too large", size)
	}
	if err := s.resetInflater(r); err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if size >= 0 {
		// What a header claims decides only so much.
		buf.Grow(int(min(size, 1<<20)) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(s.zr, maxObject+1))
	switch {
	case err != nil:
		return nil, err
	case n > maxObject:
		return nil, errors.New("the object is too large")
	case size >= 0 && n != size:
		return nil, fmt.Errorf("%d bytes instead of %d", n, size)
	}
	return buf.Bytes(), nil
}

// resetInflater lets s.zr read the zlib stream of r.
func (s *store) resetInflater(r io.Reader) (err error) {
	if s.zr == nil {
		s.zr, err = zlib.NewReader(r)
	} else {
		err = s.zr.(zlib.Resetter).Reset(r, nil)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// readOnce prepares for reading many objects, each of them once, until done is
// called: only bases of deltas are kept, and more of them.
func (s *store) readOnce() (done func()) {
	set := func(once bool, limit int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.once, s.cache.limit = once, limit
		s.cache.shrink()
	}
	set(true, checkoutCacheSize)
	return func() { set(false, cacheSize) }
}

// verify checks an object that was read against its name.
func verify(id oid, o object) error {
	h := sha1.New()
	fmt.Fprintf(h, "%s %d\x00", o.typ, len(o.data))
	h.Write(o.data)
	if got := oid(h.Sum(nil)); got != id {
		return fmt.Errorf("damaged: its content has the hash %s", got)
	}
	return nil
}

func loosePath(objects string, id oid) string {
	name := id.String()
	return filepath.Join(objects, name[:2], name[2:])
}

// list brings the list of packs up to date, and reports whether a directory
// of packs may have changed.
func (s *store) list() (changed bool, err error) {
	for i, dir := range s.dirs {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, "pack"), &st) != nil {
			continue
		}
		now := packDir{st.Mtim, st.Ino, time.Since(time.Unix(st.Mtim.Unix())) < time.Second}
		if s.listed[i] != now || now.young {
			s.listed[i] = now
			changed = true
		}
	}
	if !changed {
		return false, nil
	}
	old := make(map[string]*pack, len(s.packs))
	for _, p := range s.packs {
		old[p.idxName] = p
	}
	var packs []*pack
	var torn []error
	var failed error
	for _, dir := range s.dirs {
		entries, err := os.ReadDir(filepath.Join(dir, "pack"))
		if err != nil && ofTheMachine(err) {
			clear(s.listed)
			return false, err
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), "pack-") || filepath.Ext(e.Name()) != ".idx" {
				continue
			}
			name := filepath.Join(dir, "pack", e.Name())
			p := old[name]
			if p == nil {
				if p, err = openPack(name, s.lenient); err != nil {
					if ofTheMachine(err) {
						// This process lacks something to open it with, say, and
						// nothing is known of what it holds.
						failed = err
					} else if _, gone := os.Stat(name); gone == nil {
						// It serves nothing. If git is just removing it, this
						// is gone with the next look.
						torn = append(torn, err)
					}
					continue
				}
			}
			delete(old, name)
			packs = append(packs, p)
		}
	}
	for _, p := range old {
		p.close()
		s.cache.drop(p)
	}
	s.packs, s.torn = packs, torn
	if failed != nil || torn != nil {
		clear(s.listed) // look again
	}
	return true, failed
}

// cacheKey names an object by its id, or, as the base of a delta, by its place
// in a pack.
type cacheKey struct {
	id   oid
	pack *pack
	at   int64
}

// objectCache keeps the objects that were used last, up to a limit in bytes.
type objectCache struct {
	byKey       map[cacheKey]*list.Element
	order       list.List // of *cached, the latest first
	size, limit int
}

type cached struct {
	key cacheKey
	object
}

func (c *objectCache) get(key cacheKey) (object, bool) {
	e, ok := c.byKey[key]
	if !ok {
		return object{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).object, true
}

func (c *objectCache) put(key cacheKey, o object) {
	if len(o.data) > c.limit/4 {
		return
	}
	if _, ok := c.byKey[key]; ok {
		return
	}
	if c.byKey == nil {
		c.byKey = make(map[cacheKey]*list.Element)
	}
	c.byKey[key] = c.order.PushFront(&cached{key, o})
	c.size += cachedSize(o)
	c.shrink()
}

func (c *objectCache) shrink() {
	for c.size > c.limit {
		c.remove(c.order.Back())
	}
}

// drop forgets what is named by its place in p.
func (c *objectCache) drop(p *pack) {
	for key, e := range c.byKey {
		if key.pack == p {
			c.remove(e)
		}
	}
}

func (c *objectCache) remove(e *list.Element) {
	k := c.order.Remove(e).(*cached)
	delete(c.byKey, k.key)
	c.size -= cachedSize(k.object)
}

// cachedSize is what an object costs in memory, roughly: small ones cost more
// than their data.
func cachedSize(o object) int { return len(o.data) + 256 }

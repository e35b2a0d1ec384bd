// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/go-git/go-git/v5/plumbing"
)

// BlobSize returns the size of a blob in bytes, as its header has it: its
// content is not read.
func (c *Clone) BlobSize(h Hash) (int64, error) { return c.repo.size(h.id()) }

func (s *store) size(id oid) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, fmt.Errorf("object %s: the store: %w", id, fs.ErrClosed)
	}
	for range 2 { // as in load
		for _, p := range s.packs {
			if at, ok := p.find(id); ok {
				if n, err := s.packedSize(p, at); err == nil {
					return n, nil
				}
			}
		}
		for _, dir := range s.dirs {
			if n, err := s.looseSize(loosePath(dir, id)); err == nil {
				return n, nil
			}
		}
		if changed, err := s.list(); err != nil {
			return 0, err
		} else if !changed {
			break
		}
	}
	// Reading it says what is wrong with it.
	o, err := s.read(id)
	return int64(len(o.data)), err
}

// packedSize returns the size of the object at the offset at of p.
func (s *store) packedSize(p *pack, at int64) (int64, error) {
	s.r.Reset(io.NewSectionReader(p.f, at, 1<<62))
	typ, size, err := readEntryHeader(s.r)
	switch {
	case err != nil || !typ.IsDelta():
		return size, err
	case typ == plumbing.REFDeltaObject:
		_, err = s.r.Discard(len(oid{}))
	default:
		_, err = readBaseOffset(s.r)
	}
	if err != nil {
		return 0, err
	}
	// A delta begins with the size of its base and that of what it makes.
	head, err := s.inflateHead(s.r)
	if err != nil {
		return 0, err
	}
	_, n := binary.Uvarint(head)
	made, m := binary.Uvarint(head[max(n, 0):])
	if n <= 0 || m <= 0 || made > maxObject {
		return 0, errors.New("a delta without the size of what it makes")
	}
	return int64(made), nil
}

// looseSize returns the size of the object in the file path.
func (s *store) looseSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	s.r.Reset(f)
	head, err := s.inflateHead(s.r)
	if err != nil {
		return 0, err
	}
	header, _, ok := bytes.Cut(head, []byte{0})
	_, size, spaced := bytes.Cut(header, []byte(" "))
	if !ok || !spaced {
		return 0, errors.New("loose object without a header")
	}
	return strconv.ParseInt(string(size), 10, 64)
}

// inflateHead reads the beginning of a zlib stream, enough for any header.
func (s *store) inflateHead(r *bufio.Reader) ([]byte, error) {
	if err := s.resetInflater(r); err != nil {
		return nil, err
	}
	head := make([]byte, 32)
	n, err := io.ReadFull(s.zr, head)
	if n > 0 {
		err = nil
	}
	return head[:n], err
}

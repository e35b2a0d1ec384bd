// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"strconv"
	"strings"
)

// A cacheTree says which tree the entries below a directory make, so that a
// tree and the index can be compared without looking at what they have in
// common. It is git's own cached tree extension: git keeps it, and takes out
// the directories in which it changes something.
type cacheTree struct {
	name  string // the last element; "" at the root
	count int    // the number of entries; negative if the tree is not known
	id    oid
	subs  []*cacheTree
}

func (t *cacheTree) sub(name string) *cacheTree {
	if t != nil {
		for _, s := range t.subs {
			if s.name == name {
				return s
			}
		}
	}
	return nil
}

// invalidate says that the entry at path is not as in the trees above it.
func (t *cacheTree) invalidate(path string) {
	for t != nil {
		t.count = -1
		name, rest, _ := strings.Cut(path, "/")
		t, path = t.sub(name), rest
	}
}

func (t *cacheTree) encode(b []byte) []byte {
	b = append(b, t.name...)
	b = append(b, 0)
	b = strconv.AppendInt(b, int64(t.count), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(t.subs)), 10)
	b = append(b, '\n')
	if t.count >= 0 {
		b = append(b, t.id[:]...)
	}
	for _, s := range t.subs {
		b = s.encode(b)
	}
	return b
}

func parseCacheTree(data []byte) (*cacheTree, error) {
	t, rest, err := readCacheTree(data, 0)
	if err != nil || len(rest) > 0 {
		return nil, errIndex
	}
	return t, nil
}

func readCacheTree(data []byte, depth int) (t *cacheTree, rest []byte, err error) {
	name, data, ok := bytes.Cut(data, []byte{0})
	line, data, ok2 := bytes.Cut(data, []byte{'\n'})
	if !ok || !ok2 || depth > maxPath/2 {
		return nil, nil, errIndex
	}
	count, subs, _ := strings.Cut(string(line), " ")
	t = &cacheTree{name: string(name)}
	if t.count, err = strconv.Atoi(count); err != nil {
		return nil, nil, errIndex
	}
	n, err := strconv.Atoi(subs)
	if err != nil || n < 0 {
		return nil, nil, errIndex
	}
	if t.count >= 0 {
		if len(data) < len(t.id) {
			return nil, nil, errIndex
		}
		t.id, data = oid(data[:len(t.id)]), data[len(t.id):]
	}
	for range n {
		var sub *cacheTree
		if sub, data, err = readCacheTree(data, depth+1); err != nil {
			return nil, nil, err
		}
		t.subs = append(t.subs, sub)
	}
	return t, data, nil
}

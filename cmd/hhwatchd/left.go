// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/ingest"
)

// A leftover is a file in raw/ whose bytes are committed already.
type leftover struct {
	file string // its path in the repository, as a trailer quotes it
	blob checkout.Hash
}

func (f *fabric) leftover(in input) leftover {
	return leftover{quotePath(f.rawPath(in.Path)), cmp.Or(in.whole, in.blob)}
}

// findLeft finds out, after a start, which files a crash may have left in
// raw/ after they were committed: those that commits beyond archivedRef record
// as dropped. A cycle that was stopped half-way is looked at in the same way;
// one that comes through knows by itself.
func (r *repository) findLeft() error {
	if r.left != nil {
		return nil
	}
	upTo, err := r.clone.Ref(archivedRef)
	if err != nil {
		return err
	}
	head, err := r.clone.Head()
	if err != nil {
		return err
	}
	left, parts := map[leftover]int{}, map[leftover][]checkout.Hash{}
	if upTo != head {
		commits, err := r.clone.Log(upTo, head)
		if err != nil {
			return err
		}
		for _, c := range commits {
			files, blobs := c.Trailer(trailerFile), c.Trailer(trailerBlob)
			if stepOf(c) != stepDrop || len(files) != len(blobs) {
				continue
			}
			wholes := partsIn(c)
			for i, f := range files {
				this := leftover{f, checkout.Hash(blobs[i])}
				if whole, ok := wholes[unquotePath(f)]; ok {
					parts[leftover{f, whole}] = append(parts[leftover{f, whole}], this.blob)
					this.blob = whole
				}
				left[this]++
			}
		}
	}
	r.left, r.parts = left, parts
	return nil
}

// partsIn returns of which files a commit holds only a part: by its path in the
// repository, the blob of the whole.
func partsIn(c checkout.Commit) map[string]checkout.Hash {
	parts := map[string]checkout.Hash{}
	for _, t := range c.Trailer(trailerPart) {
		if whole, p, ok := strings.Cut(t, " "); ok {
			parts[unquotePath(p)] = checkout.Hash(whole)
		}
	}
	return parts
}

// splitLeft takes out of a batch of dropped files those that are committed
// already, because an earlier cycle could not take them out of raw/, or a
// crash came. To plan such a file again could let an earlier word win over a
// later one.
func (r *repository) splitLeft(f *fabric, dropped batch, b base, fr *fabricReport) (rest batch, left planned, err error) {
	rest = batch{fabric: f, origin: dropped.origin}
	left = planned{batch: rest}
	found := map[leftover]bool{}
	for _, in := range dropped.inputs {
		this := f.leftover(in)
		found[this] = true
		ours := r.left[this] > 0
		if parts := r.parts[this]; ours && len(parts) > 0 {
			// What is left of it is judged anew, like any file that was
			// rejected and is still in raw/.
			unsaid, err := r.unsaid(f, in, parts, b)
			if err != nil {
				return rest, left, err
			}
			if ours = len(unsaid) < len(in.Data); ours && len(unsaid) > 0 {
				rest.inputs = append(rest.inputs, in.part(unsaid))
				continue
			}
		} else if ours {
			if ours, err = r.committed(f, in.Path, in.blob, b); err != nil {
				return rest, left, err
			}
		}
		if !ours {
			delete(r.left, this)
			delete(r.parts, this)
			rest.inputs = append(rest.inputs, in)
			continue
		}
		left.inputs = append(left.inputs, in)
		left.already = append(left.already, true)
		left.plan.Files = append(left.plan.Files, ingest.Step{})
	}
	// A file that is not there any more, or that another one has replaced, is
	// forgotten: it may be dropped anew one day. What could not be looked at
	// may still be there.
	gone := func(l leftover) bool {
		name, err := strconv.Unquote(l.file)
		if err != nil {
			name = l.file // as in most cases, it is not quoted
		}
		p, ok := strings.CutPrefix(name, f.cfg.raw()+"/")
		return ok && !found[l] && fr.looked(p)
	}
	maps.DeleteFunc(r.left, func(l leftover, _ int) bool { return gone(l) })
	maps.DeleteFunc(r.parts, func(l leftover, _ []checkout.Hash) bool { return gone(l) })
	maps.DeleteFunc(r.told, func(l leftover, _ bool) bool { return gone(l) })
	return rest, left, nil
}

// committed reports whether a raw file that was committed still is: the remote
// can have gone on without that commit, or the clone had to be made anew. Then
// the file may be in raw/ of the tip, still to be taken in.
func (r *repository) committed(f *fabric, p string, blob checkout.Hash, b base) (bool, error) {
	if b.saysAgain(f, p, blob) {
		return true, nil
	}
	if now, ok, err := r.clone.Lookup(b.tip, f.rawPath(p)); err != nil || ok && now == blob {
		return ok, err
	}
	commit, err := r.archived(f, blob, b.tip)
	return commit != "", err
}

// unsaid returns what is left of a raw file without the parts of it that are
// committed.
func (r *repository) unsaid(f *fabric, in input, parts []checkout.Hash, b base) ([]byte, error) {
	var said [][]byte
	for _, blob := range parts {
		ok, err := r.committed(f, in.Path, blob, b)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		data, err := r.clone.Blob(blob)
		if err != nil {
			return nil, err
		}
		said = append(said, data)
	}
	return ingest.Rest(in.Data, said...), nil
}

// saysAgain reports whether a file of f is among what is planned anew.
func (b *base) saysAgain(f *fabric, p string, blob checkout.Hash) bool {
	for _, again := range b.again {
		if again.fabric == f && slices.ContainsFunc(again.inputs, func(a input) bool { return a.Path == p && a.blob == blob }) {
			return true
		}
	}
	return false
}

// looked reports whether the listing of raw/ would have found a file p.
func (f *fabricReport) looked(p string) bool {
	if f.Error != "" || f.Deferred > 0 || slices.Contains(f.Waiting, p) {
		return false
	}
	for ; p != "."; p = path.Dir(p) {
		if slices.ContainsFunc(f.Skipped, func(s string) bool { return strings.HasPrefix(s, p+": ") }) {
			return false
		}
	}
	return true
}

// archived returns the commit in the history of tip that holds a raw file's
// exact bytes, or "".
func (r *repository) archived(f *fabric, blob, tip checkout.Hash) (checkout.Hash, error) {
	commit, _ := r.book.inventory().Archived(f.cfg.Name, string(blob))
	return r.within(checkout.Hash(commit), tip)
}

// archivedPart is archived for a file of which a part was committed.
func (r *repository) archivedPart(f *fabric, blob, tip checkout.Hash) (checkout.Hash, error) {
	commit, _ := r.book.inventory().ArchivedPart(f.cfg.Name, string(blob))
	return r.within(checkout.Hash(commit), tip)
}

// within returns a commit that the journal names, or "" where there is none or
// the remote was rewritten since and the history of tip is without it.
func (r *repository) within(commit, tip checkout.Hash) (checkout.Hash, error) {
	if commit == "" {
		return "", nil
	}
	if ok, err := r.clone.IsAncestor(commit, tip); err != nil || !ok {
		return "", err
	}
	return commit, nil
}

// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"crypto/sha256"
	"encoding/json"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A fingerprint is of what tells, in the metadata of a live object, that
// something of ours may have changed in it: while it stays the same the object
// compares with a file as it did before. It is of the object's generation,
// which the API server raises with each change beside metadata and status; of
// our field manager's entry, out of which goes what others change; and of
// whether the object is another one, or being deleted. What others write into
// status, their labels and their managed fields is not in it.
type fingerprint [16]byte

// meta is the metadata of a live object.
type meta interface {
	name() string
	version() uint64 // 0 where the resource version is not a number
	fingerprint() fingerprint
}

// whole is an object as it is read for a comparison.
type whole unstructured.Unstructured

func (l *whole) object() *unstructured.Unstructured { return (*unstructured.Unstructured)(l) }
func (l *whole) name() string                       { return l.object().GetName() }
func (l *whole) version() uint64                    { return parseVersion(l.object().GetResourceVersion()) }
func (l *whole) fingerprint() fingerprint {
	o := l.object()
	entry := managedEntry(o.Object)
	apiVersion, _ := entry["apiVersion"].(string)
	return newFingerprint(string(o.GetUID()), o.GetGeneration(), o.GetResourceVersion(), o.GetDeletionTimestamp() != nil, apiVersion, entry["fieldsV1"])
}

// partial is an object as it is watched.
type partial metav1.PartialObjectMetadata

func (p *partial) name() string    { return p.Name }
func (p *partial) version() uint64 { return parseVersion(p.ResourceVersion) }
func (p *partial) fingerprint() fingerprint {
	apiVersion, fields := "", any(nil)
	for _, e := range p.ManagedFields {
		if e.Manager == Manager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == "" {
			apiVersion = e.APIVersion
			if e.FieldsV1 != nil {
				json.Unmarshal(e.FieldsV1.GetRawBytes(), &fields) // what cannot be read equals nothing
			}
			break
		}
	}
	return newFingerprint(string(p.UID), p.Generation, p.ResourceVersion, p.DeletionTimestamp != nil, apiVersion, fields)
}

func newFingerprint(uid string, generation int64, version string, deleting bool, apiVersion string, fields any) (f fingerprint) {
	if generation > 0 {
		version = "" // else nothing but that tells of changes
	}
	h := sha256.New()
	// The encoder sorts maps by key, and all is JSON: no errors.
	json.NewEncoder(h).Encode([]any{uid, generation, version, deleting, apiVersion, fields})
	copy(f[:], h.Sum(nil))
	return f
}

// parseVersion returns a resource version as a number, 0 if it is not one.
func parseVersion(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"crypto/sha1"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// An object is one Kubernetes object of one fabric.
type object struct {
	fabric string
	kind   string // VPC or Server
	name   string // unique among all fabrics, which share an API server
}

// path is the object's managed file in the repository.
func (o object) path() string {
	return fabricPath(o.fabric) + "/managed/" + strings.ToLower(o.kind) + "s/" + o.name + ".yaml"
}

// resource is what package kube calls the object's kind.
func resource(kind string) string {
	return map[string]string{
		"VPC":    "vpc.githedgehog.com/v1beta1/vpcs",
		"Server": "wiring.githedgehog.com/v1beta1/servers",
	}[kind]
}

// text is the object as somebody wrote it, saying word, in the form that its
// managed file has.
func (o object) text(word string) string {
	apiVersion := strings.TrimSuffix(resource(o.kind), "/"+strings.ToLower(o.kind)+"s")
	head := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata:\n  name: %s\n  annotations: {soak/word: %q}\n", apiVersion, o.kind, o.name, word)
	if o.kind == "Server" {
		return head + fmt.Sprintf("spec: {description: %q}\n", word)
	}
	sum := sha1.Sum([]byte(word))
	n := 2 + int(sum[0])<<4%4000
	return head + fmt.Sprintf("spec:\n  subnets:\n    default: # said by %s\n      subnet: 10.%d.%d.0/24\n      vlan: %d\n", word, sum[0], sum[1], n)
}

// A delivery is one file that was dropped on a host or pushed.
type delivery struct {
	actor   string
	host    *host // nil where it was pushed
	fabric  string
	path    string // below raw/
	data    string
	blob    string
	objects map[object]string // their texts; nil where the file is to be rejected
	marker  string            // in a file that is to be rejected
	// doubtful: its own dropper replaced it before it was seen to have left
	// raw/, so that it may have come too late to be read.
	doubtful bool
}

func (d *delivery) rejected() bool { return d.marker != "" }

func (d *delivery) String() string {
	where := "pushed"
	if d.host != nil {
		where = "dropped on " + d.host.name
	}
	return fmt.Sprintf("%s/raw/%q (blob %.12s, %s by %s)", d.fabric, d.path, d.blob, where, d.actor)
}

// A model is told what was dropped and pushed, and nothing else.
type model struct {
	start time.Time

	mu         sync.Mutex
	last       map[object]map[string]string // by actor, what it said last; "" where it removed the object
	texts      map[string]string            // of objects, by blob
	deliveries []*delivery
	byBlob     map[string][]*delivery
	actions    map[string]int
	documents  int
	words      map[string]int
	log        []string
}

func newModel() *model {
	return &model{
		start: time.Now(),
		last:  map[object]map[string]string{}, texts: map[string]string{},
		byBlob: map[string][]*delivery{}, actions: map[string]int{}, words: map[string]int{},
	}
}

// word returns what the actor has not said yet.
func (m *model) word(actor string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.words[actor]++
	return fmt.Sprintf("%s-%d", actor, m.words[actor])
}

// note counts an action and enters it in the log.
func (m *model) note(action, format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.actions[action]++
	m.log = append(m.log, fmt.Sprintf("%9.3fs %s ", time.Since(m.start).Seconds(), action)+fmt.Sprintf(format, args...))
}

// deliver enters a delivery that is about to be made.
func (m *model) deliver(action string, d *delivery) *delivery {
	d.blob = blobHash(d.data)
	var names []string
	for o := range d.objects {
		names = append(names, o.name)
	}
	slices.Sort(names)
	if len(names) > 30 {
		names = append(names[:30], "…")
	}
	m.note(action, "%s of %d bytes: %s %s", d, len(d.data), strings.Join(names, " "), d.marker)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deliveries = append(m.deliveries, d)
	m.byBlob[d.blob] = append(m.byBlob[d.blob], d)
	m.documents += max(1, len(d.objects))
	m.enter(d.actor, d.objects)
	return d
}

// says enters what an actor said of objects otherwise than by a delivery.
func (m *model) says(actor string, texts map[object]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.enter(actor, texts)
}

func (m *model) enter(actor string, texts map[object]string) {
	for o, text := range texts {
		if m.last[o] == nil {
			m.last[o] = map[string]string{}
		}
		m.last[o][actor] = text
		if text != "" {
			m.texts[blobHash(text)] = text
		}
	}
}

// doubt notes that a delivery may never have been read.
func (m *model) doubt(d *delivery) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d.doubtful = true
}

// wanted returns what each managed file may hold, as blobs; an object that
// every writer's last word removed has none.
func (m *model) wanted() map[string][]string {
	want := map[string][]string{}
	for o, by := range m.last {
		for _, text := range by {
			if text != "" {
				want[o.path()] = append(want[o.path()], blobHash(text))
			}
		}
	}
	return want
}

// story returns the lines of the log that mention any of the words, the last
// ones where there are many.
func (m *model) story(words ...string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var lines []string
	for _, l := range m.log {
		if slices.ContainsFunc(words, func(w string) bool { return w != "" && strings.Contains(l, w) }) {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// counts lists how many actions of each kind there were.
func (m *model) counts() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m.actions)) {
		parts = append(parts, fmt.Sprintf("%d %s", m.actions[k], k))
	}
	return strings.Join(parts, ", ")
}

// join makes a file of documents.
func join(texts map[object]string) string {
	objects := slices.SortedFunc(maps.Keys(texts), func(a, b object) int { return strings.Compare(a.name, b.name) })
	var docs []string
	for _, o := range objects {
		docs = append(docs, texts[o])
	}
	return strings.Join(docs, "---\n")
}

// blobHash is git's id of a blob (gitformat-loose(5) has the header).
func blobHash(data string) string {
	return fmt.Sprintf("%x", sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(data), data)))
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

func fabricPath(fabric string) string { return "gitops/hedgehog/" + fabric }

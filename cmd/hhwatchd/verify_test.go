// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/journal"
)

// A host is a state directory with one repository of one fabric, whose cycles
// a test runs one by one.
type host struct {
	t   *testing.T
	cfg *Config
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	remote := filepath.Join(dir, "remote.git")
	if err := checkout.InitBare(remote, "main"); err != nil {
		t.Fatal(err)
	}
	return (&host{t: t}).on(remote)
}

// on is a host with a state directory of its own.
func (h *host) on(remote string) *host {
	h.t.Helper()
	text := fmt.Sprintf(`
stateDir: %q
settle: {quiet: 10ms}
repositories:
  - {name: r, url: %q, fabrics: [{name: f, path: fabrics/f}]}
`, filepath.Join(h.t.TempDir(), "state"), remote)
	cfg, err := parseConfig("c.yaml", []byte(text))
	if err != nil {
		h.t.Fatal(err)
	}
	return &host{h.t, cfg}
}

func (h *host) sync() {
	h.t.Helper()
	reports, err := once(h.t.Context(), h.cfg, slog.New(slog.DiscardHandler), "", trigger{why: "sync", ask: true, full: true})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, r := range reports {
		if r.failed() {
			h.t.Fatalf("%+v", r)
		}
	}
}

// drop drops an object and has it taken in.
func (h *host) drop(name, spec string) {
	h.t.Helper()
	dir := filepath.Join(h.cfg.cloneDir("r"), "fabrics", "f", "raw")
	if err := os.MkdirAll(dir, 0o775); err != nil {
		h.t.Fatal(err)
	}
	text := fmt.Sprintf("apiVersion: wiring.githedgehog.com/v1beta1\nkind: SwitchGroup\nmetadata:\n  name: %s\nspec: {}\n# %s\n", name, spec)
	if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o664); err != nil {
		h.t.Fatal(err)
	}
	for try := 0; ; try++ { // where there are no leases, it waits to be quiet
		h.sync()
		if _, err := os.Stat(filepath.Join(dir, name+".yaml")); os.IsNotExist(err) {
			return
		} else if try == 200 {
			h.t.Fatal("not taken in")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (h *host) verify() *verifyDoc {
	h.t.Helper()
	doc, err := verify(h.t.Context(), h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return doc
}

func (h *host) segment() string {
	return filepath.Join(h.cfg.journalDir(), fmt.Sprintf("%020d.jsonl", 1))
}

// rewrite changes the lines of the journal and makes their hashes good again,
// as the journal's documentation has them.
func (h *host) rewrite(change func(lines [][]byte) [][]byte) {
	h.t.Helper()
	data, err := os.ReadFile(h.segment())
	if err != nil {
		h.t.Fatal(err)
	}
	var out []byte
	prev := strings.Repeat("0", 64)
	for i, line := range change(bytes.SplitAfter(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))) {
		line = regexp.MustCompile(`^{"seq":\d+`).ReplaceAll(line, fmt.Appendf(nil, `{"seq":%d`, i+1))
		line = regexp.MustCompile(`,"prev":"[0-9a-f]*","hash":"[0-9a-f]*"}\n*$`).ReplaceAll(line, []byte(`,"prev":"`+prev+`"`))
		prev = fmt.Sprintf("%x", sha256.Sum256(line))
		out = fmt.Appendf(out, "%s,\"hash\":\"%s\"}\n", line, prev)
	}
	if err := os.WriteFile(h.segment(), out, 0o640); err != nil {
		h.t.Fatal(err)
	}
}

// about finds the line of the ingestion of an object.
func about(t *testing.T, lines [][]byte, name string) int {
	t.Helper()
	for i, l := range lines {
		if bytes.Contains(l, []byte(`"step":"ingest"`)) && bytes.Contains(l, []byte(`"name":"`+name+`"`)) {
			return i
		}
	}
	t.Fatalf("no line about %s", name)
	return 0
}

// apart makes an append of its own of each record.
func apart(lines [][]byte) [][]byte {
	for i, l := range lines {
		lines[i] = regexp.MustCompile(`,"part":\d+,"of":\d+`).ReplaceAll(l, nil)
	}
	return lines
}

func (d *verifyDoc) String() string {
	var b bytes.Buffer
	printVerify(&b, d)
	return b.String()
}

func TestVerify(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tamper func(*testing.T, *host)
		want   []string // what the table says; none: all is well
		mended bool     // the next cycle brings the inventory in line
	}{
		{"whole", func(*testing.T, *host) {}, nil, false},
		{"a byte changed", func(t *testing.T, h *host) {
			data, err := os.ReadFile(h.segment())
			if err != nil {
				t.Fatal(err)
			}
			data = bytes.Replace(data, []byte(`"name":"one"`), []byte(`"name":"onf"`), 1)
			if err := os.WriteFile(h.segment(), data, 0o640); err != nil {
				t.Fatal(err)
			}
		}, []string{"DAMAGED", "segment 00000000000000000001.jsonl, byte ", "does not match its hash; record ", "DISAGREES  f: SwitchGroup/one: managed/ in git has it"}, false},
		{"an object's text changed, with all hashes", func(t *testing.T, h *host) {
			h.rewrite(func(lines [][]byte) [][]byte {
				i := about(t, lines, "one")
				lines[i] = regexp.MustCompile(`("path":"[^"]*managed[^"]*","blob":)"[0-9a-f]*"`).ReplaceAll(lines[i], []byte(`$1"`+strings.Repeat("7", 40)+`"`))
				return lines
			})
		}, []string{"DISAGREES  f: SwitchGroup/one: git has the text ", "the journal 7777777", "of a journal that began otherwise: the journal was rewritten"}, true},
		{"an object put in, with all hashes", func(t *testing.T, h *host) {
			h.rewrite(func(lines [][]byte) [][]byte {
				lines = apart(lines)
				i := about(t, lines, "one")
				put := bytes.ReplaceAll(bytes.Clone(lines[i]), []byte("one"), []byte("six"))
				return append(lines, regexp.MustCompile(`"tree":"[0-9a-f]*",`).ReplaceAll(put, nil))
			})
		}, []string{"DISAGREES  f: SwitchGroup/six: the journal has it, managed/ in git does not"}, true},
		{"an ingestion taken out, with all hashes", func(t *testing.T, h *host) {
			h.rewrite(func(lines [][]byte) [][]byte {
				lines = apart(lines)
				i := about(t, lines, "one")
				return append(lines[:i], lines[i+1:]...)
			})
		}, []string{"DISAGREES  f: SwitchGroup/one: managed/ in git has it, the journal does not", "the journal was rewritten"}, true},
		{"a later object's text changed, with all hashes", func(t *testing.T, h *host) {
			h.rewrite(func(lines [][]byte) [][]byte {
				i := about(t, lines, "three")
				lines[i] = regexp.MustCompile(`("path":"[^"]*managed[^"]*","blob":)"[0-9a-f]*"`).ReplaceAll(lines[i], []byte(`$1"`+strings.Repeat("7", 40)+`"`))
				return lines
			})
		}, []string{"DISAGREES  f: SwitchGroup/three: git has the text ", "is not what it was when commit "}, true},
		{"cut off at the end", func(t *testing.T, h *host) {
			data, err := os.ReadFile(h.segment())
			if err != nil {
				t.Fatal(err)
			}
			w := h.words()
			end := bytes.Index(data, fmt.Appendf(nil, `{"seq":%d,`, w-3))
			if err := os.WriteFile(h.segment(), data[:end], 0o640); err != nil {
				t.Fatal(err)
			}
		}, []string{"vouches for record ", "its end was cut off, or an older copy put in its place"}, false},
		{"a torn tail", func(t *testing.T, h *host) {
			f, err := os.OpenFile(h.segment(), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteString(`{"seq":99`); err != nil {
				t.Fatal(err)
			}
		}, []string{"TORN", "9 bytes, which the next start moves aside"}, true},
		{"another journal", func(t *testing.T, h *host) {
			if err := os.RemoveAll(h.cfg.journalDir()); err != nil {
				t.Fatal(err)
			}
			h.sync()
		}, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			for i, name := range []string{"one", "two", "three"} {
				h.drop(name, fmt.Sprint(i))
			}
			h.drop("two", "again")
			before := h.verify()
			if !before.Clean || before.Repositories[0].Newest == 0 || before.Fabrics[0].Objects != 3 {
				t.Fatalf("before:\n%v", before)
			}
			tt.tamper(t, h)
			doc := h.verify()
			if doc.Clean != (tt.want == nil) {
				t.Errorf("clean %v:\n%v", doc.Clean, doc)
			}
			for _, want := range tt.want {
				if !strings.Contains(doc.String(), want) {
					t.Errorf("does not say %q:\n%v", want, doc)
				}
			}
			if tt.want == nil && tt.name != "whole" && doc.Repositories[0].Others == 0 {
				t.Errorf("no word of the other journal:\n%v", doc)
			}

			h.sync()
			after := h.verify()
			if f := after.Fabrics[0]; len(f.Disagrees) > 0 || f.Objects != 3 || f.Note != "" {
				t.Errorf("not mended:\n%v", after)
			}
			recovered := 0
			for r, err := range journal.Read(h.cfg.journalDir(), 0) {
				if err == nil && r.Step == journal.StepRecovered {
					recovered++
				}
			}
			if tt.mended && len(doc.Fabrics[0].Disagrees) > 0 && recovered != 1 {
				t.Errorf("%d recoveries are recorded, want 1", recovered)
			}
			h.sync()
			if again := h.verify(); again.Last != after.Last {
				t.Errorf("another cycle wrote records %d to %d", after.Last+1, again.Last)
			}
		})
	}
}

// words is the newest record that a commit vouches for.
func (h *host) words() uint64 { return h.verify().Repositories[0].Newest }

// TestVerifyTwoHosts: each host's commits vouch for its own journal.
func TestVerifyTwoHosts(t *testing.T) {
	a := newHost(t)
	b := a.on(a.cfg.Repositories[0].URL)
	a.drop("one", "a")
	b.drop("two", "b")
	a.drop("three", "a")
	b.drop("four", "b")
	a.sync()
	for _, h := range []*host{a, b} {
		doc := h.verify()
		r := doc.Repositories[0]
		if !doc.Clean || r.Records == 0 || r.Others == 0 || doc.Fabrics[0].Objects != 4 {
			t.Errorf("%v", doc)
		}
	}
}

// TestVerifyWhileRunning looks while a daemon takes drops in: there is nothing
// wrong at any moment.
func TestVerifyWhileRunning(t *testing.T) {
	h := newHost(t)
	h.drop("zero", "0")
	ctx, cancel := context.WithCancel(t.Context())
	looks := 0
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ; ctx.Err() == nil; looks++ {
			if doc, err := verify(t.Context(), h.cfg); err != nil || !doc.Clean {
				t.Errorf("%v, %v", doc, err)
			}
		}
	}()
	for i := range 8 {
		h.drop(fmt.Sprint("n", i), "x")
	}
	cancel()
	<-ended
	if doc := h.verify(); doc.Fabrics[0].Objects != 9 || looks == 0 {
		t.Errorf("%d looks, then\n%v", looks, doc)
	}
}

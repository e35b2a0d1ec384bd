// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What is parsed comes from a network or a disk that may say anything. Each
// target looks for a panic, and for what is read differently when it is
// written and read again.

func FuzzParseTree(f *testing.F) {
	f.Add([]byte("100644 a\x00aaaaaaaaaaaaaaaaaaaa40000 b\x00bbbbbbbbbbbbbbbbbbbb"))
	f.Add([]byte("100664 a\x00aaaaaaaaaaaaaaaaaaaa"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseTree(data)
		if err != nil {
			return
		}
		again, err := parseTree(encodeTree(entries))
		if err != nil || len(again) != len(entries) {
			t.Fatalf("%q: read again: %v, %v", data, again, err)
		}
		for i := range entries {
			if entries[i] != again[i] {
				t.Errorf("%q: %v became %v", data, entries[i], again[i])
			}
		}
	})
}

func FuzzParseIndex(f *testing.F) {
	dir := f.TempDir()
	git(f, dir, "init", "-q")
	save(f, dir, map[string]string{"a": "1", "b/c": "1", "b/d": "1"})
	git(f, dir, "add", "-A")
	git(f, dir, "write-tree")
	for _, args := range [][]string{{}, {"--skip-worktree", "a"}, {"--index-version", "4"}} {
		git(f, dir, append([]string{"update-index"}, args...)...)
		data, err := os.ReadFile(filepath.Join(dir, ".git/index"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[:len(data)-checksumLen])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		sum := sha1.Sum(data)
		ix, err := parseIndex(append(bytes.Clone(data), sum[:]...), false)
		if err != nil {
			return
		}
		var buf bytes.Buffer
		ix.smudge()
		if err := ix.write(&buf, nil, ix.tree); err != nil {
			t.Fatal(err)
		}
		again, err := parseIndex(buf.Bytes(), false)
		if err != nil || again.len() != ix.len() || again.extended != ix.extended {
			t.Fatalf("read again: %v", err)
		}
		for i := range ix.len() {
			if !bytes.Equal(ix.path(i), again.path(i)) || ix.id(i) != again.id(i) || ix.stat(i) != again.stat(i) {
				t.Errorf("entry %d became another", i)
			}
			ix.find(string(ix.path(i)))
		}
	})
}

func FuzzParseLoose(f *testing.F) {
	f.Add([]byte("blob 1\x00x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if o, err := parseLoose(data); err == nil && !bytes.HasSuffix(data, o.data) {
			t.Errorf("%q: holds %q", data, o.data)
		}
	})
}

func FuzzWire(f *testing.F) {
	f.Add([]byte("001e# service=git-upload-pack\n0000000eversion 2\n000cls-refs\n0000"))
	f.Add([]byte("006874730d410fcb6603ace96f1dc55ea6196122532d HEAD\x00multi_ack side-band-64k symref=HEAD:refs/heads/main\n0000"))
	f.Add([]byte("003a" + strings.Repeat("1", 40) + " refs/heads/x\n0000"))
	f.Add([]byte("0051" + strings.Repeat("1", 40) + " HEAD symref-target:refs/heads/x\n0000"))
	f.Add([]byte("0016unborn refs/heads/x0000"))
	f.Add([]byte("000dpackfile\n0006\x01P0006\x02x0000"))
	f.Add([]byte("0008NAK\n000d\x03error\n"))
	f.Add([]byte("0013\x01000eunpack ok\n0017\x010012ok refs/x\n0009\x0100000000"))
	f.Add([]byte("0009ERR x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := func() *bufio.Reader { return bufio.NewReader(bytes.NewReader(data)) }
		prefixes := []string{"refs/heads/", "HEAD"}
		kept := func(l listing) {
			for name := range l.refs {
				if !strings.HasPrefix(name, "refs/heads/") && !strings.HasPrefix(name, "HEAD") {
					t.Errorf("kept %q", name)
				}
			}
		}
		if a, err := readAdvert(r(), uploadPack, prefixes...); err == nil {
			kept(a.listing)
		}
		if l, err := readLsRefs(r(), prefixes); err == nil {
			kept(l)
		}
		for _, v2 := range []bool{true, false} {
			if pack, err := readPack(r(), v2); err == nil {
				io.Copy(io.Discard, pack)
			}
		}
		readReport(r(), &advert{}, "refs/x", new(transcript))
		readReport(r(), &advert{caps: []string{"side-band-64k"}}, "refs/x", new(transcript))
	})
}

func FuzzParseURL(f *testing.F) {
	for _, raw := range []string{"https://u:p@h/x", "git@h:x", "u:hunter2@h:x", "ssh://u@[::1]:22/~/x", "[h:2222]:x", "file:///x", "https://u:a/b@h/"} {
		f.Add(raw, "hunter2")
	}
	f.Fuzz(func(t *testing.T, raw, password string) {
		if l, err := parseURL(raw); err == nil && l.scheme == "ssh" {
			if _, _, err := net.SplitHostPort(l.addr()); err != nil {
				t.Errorf("%q: %v", raw, err)
			}
		}
		// No password gets through, whatever is in it, nor into the error.
		if len(password) < 5 || strings.ContainsAny(password, "/?#@ :") {
			return
		}
		for _, with := range []string{"https://u:" + password + "@git.example.net/x", "ssh://u:" + password + "@git.example.net/x", "file://u:" + password + "@/x"} {
			if _, err := parseURL(with); err == nil || strings.Contains(err.Error(), password) && !strings.Contains(errCredentials.Error()+errPassword.Error(), password) {
				t.Errorf("%q: %v", with, err)
			}
		}
	})
}

func FuzzNetrc(f *testing.F) {
	f.Add("machine h login u password p\n# comment\nmacdef m\nput x\n\ndefault login \"a \\\" b\" password #x account y\n")
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := parseNetrc(text)
		if err != nil {
			return
		}
		// Written plainly and read again they are the same.
		var b strings.Builder
		for _, e := range entries {
			head := "default"
			if e.machine != "" {
				head = "machine " + netrcQuote(e.machine)
			}
			b.WriteString(head + " login " + netrcQuote(e.login) + " password " + netrcQuote(e.password) + "\n")
		}
		again, err := parseNetrc(b.String())
		if err != nil || !slices.Equal(again, entries) {
			t.Errorf("%q became %q, %v", entries, again, err)
		}
	})
}

// netrcQuote quotes a word for a .netrc.
func netrcQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

func FuzzTrailers(f *testing.F) {
	f.Add("S\n\nA: 1\nB: 2\n")
	f.Fuzz(func(t *testing.T, message string) {
		for _, tr := range (Commit{Message: message}).trailers() {
			if tr.Key == "" || strings.Contains(tr.Value, "\n") {
				t.Errorf("%q: %q", message, tr)
			}
		}
	})
}

// objectsToPack makes a repository with objects of which some are deltas of
// others once they are packed, and returns their names, a line each.
func objectsToPack(f *testing.F) (dir, names string) {
	f.Helper()
	dir, s := newStore(f)
	base := strings.Repeat("text to make deltas of\n", 50)
	for _, text := range []string{base + "1", base + "2", base + "3", "x"} {
		id, err := write(s, []byte(text))
		if err != nil {
			f.Fatal(err)
		}
		names += id.String() + "\n"
	}
	return dir, names
}

// FuzzPack opens a pack with an index that is not its own, and a damaged one.
func FuzzPack(f *testing.F) {
	dir, names := objectsToPack(f)
	cmd := exec.Command("git", "pack-objects", "-q", "objects/pack/pack")
	cmd.Dir, cmd.Env, cmd.Stdin = dir, gitEnv, strings.NewReader(names)
	if out, err := cmd.CombinedOutput(); err != nil {
		f.Fatalf("%v\n%s", err, out)
	}
	read := func(pattern string) []byte {
		data, err := os.ReadFile(mustGlob(f, dir, pattern)[0])
		if err != nil {
			f.Fatal(err)
		}
		return data
	}
	f.Add(read("objects/pack/*.idx"), read("objects/pack/*.pack"))
	f.Fuzz(func(t *testing.T, idx, data []byte) {
		dir := t.TempDir()
		s := &store{dirs: []string{dir}, r: bufio.NewReader(nil)}
		s.cache.limit = cacheSize
		for name, content := range map[string][]byte{"p.idx": idx, "p.pack": data} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p, err := openPack(filepath.Join(dir, "p.idx"), true)
		if err != nil {
			return
		}
		defer p.close()
		for i := range min(p.n, 20) {
			p.find(oid(p.name(i)))
			s.unpacked(p, i)
		}
		if p.n <= 1000 {
			p.each(func(e packedEntry) error {
				_, err := io.Copy(io.Discard, e.data)
				return err
			})
		}
	})
}

// FuzzCheckPath: a path that may be written stays in the work tree, outside of
// .git, for whoever cleans it up or folds its case.
func FuzzCheckPath(f *testing.F) {
	for _, p := range []string{"a/b", "../a", "/a", ".git/x", ".GIT", "a//b", "a/../b", "git~1", ".g\u200cit/x", `a\.git`, "a\nb"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if checkPath(p) != "" {
			return
		}
		if !filepath.IsLocal(p) || filepath.Clean(p) != p || p == "." {
			t.Errorf("%q is safe", p)
		}
		for name := range strings.SplitSeq(strings.ToLower(p), "/") {
			if strings.TrimRight(name, ". ") == ".git" || strings.HasPrefix(name, ".git:") {
				t.Errorf("%q is safe", p)
			}
		}
	})
}

// FuzzCone reads what a person may have made of the sparse checkout's patterns;
// what we write is read as it was meant.
func FuzzCone(f *testing.F) {
	f.Add("/*\n!/*/\n/a/\n!/a/*/\n/a/b/\n", "a/b")
	f.Add("*.c\n", `x*/[y]\z`)
	f.Fuzz(func(t *testing.T, text, dir string) {
		parseCone(text).has(dir)
		if checkPath(dir) != "" || strings.Contains(dir, "\n") {
			return
		}
		c := parseCone(conePatterns([]string{dir}))
		if c == nil || !c.has(dir+"/x/y") || !c.has("x") || c.has("x"+dir+"/y") {
			t.Errorf("%q: %v", dir, c)
		}
	})
}

// FuzzReceive takes a pack from the network, which may be anything. What is
// taken of it can be read.
func FuzzReceive(f *testing.F) {
	dir, names := objectsToPack(f)
	for _, args := range [][]string{{"--stdout"}, {"--stdout", "--delta-base-offset"}, {"--stdout", "--window=0"}} {
		cmd := exec.Command("git", append([]string{"pack-objects", "-q"}, args...)...)
		cmd.Dir, cmd.Env, cmd.Stdin = dir, gitEnv, strings.NewReader(names)
		out, err := cmd.Output()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(out[:len(out)-20])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		s, err := openStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		sum := sha1.Sum(data) // a wrong one would be the end of it
		err = s.receive(t.Context(), bytes.NewReader(append(bytes.Clone(data), sum[:]...)), nil)
		if err != nil {
			if left, _ := filepath.Glob(filepath.Join(dir, "tmp_*")); left != nil {
				t.Errorf("left behind: %v", left)
			}
			return
		}
		again, err := openStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer again.close()
		loose, err := filepath.Glob(filepath.Join(dir, "??", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range loose {
			id, _ := parseOID(filepath.Base(filepath.Dir(name)) + filepath.Base(name))
			if _, err := again.get(id); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
}

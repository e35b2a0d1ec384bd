// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sftpServer is OpenSSH's, which sftp can talk to without a daemon.
const sftpServer = "/usr/lib/openssh/sftp-server"

// pause is how long slow writers pause, many times as long as the quiet period
// of the tests.
const pause = 400 * time.Millisecond

// The ways in which files get into raw/: each brings text there, in pieces and
// with pauses in between if it can.
var writers = []struct {
	name  string
	needs string // the program
	write func(t *testing.T, source, target string)
}{
	{"cp", "cp", func(t *testing.T, source, target string) { run(t, nil, "cp", source, target) }},
	{"mv", "mv", func(t *testing.T, source, target string) { run(t, nil, "mv", source, target) }},
	{"install", "install", func(t *testing.T, source, target string) { run(t, nil, "install", "-m", "640", source, target) }},
	{"tee, slowly", "tee", func(t *testing.T, source, target string) { run(t, slowly(t, source), "tee", target) }},
	{"dd, slowly", "dd", func(t *testing.T, source, target string) {
		run(t, slowly(t, source), "dd", "status=none", "of="+target)
	}},
	{"sh, which appends", "sh", func(t *testing.T, source, target string) {
		run(t, slowly(t, source), "sh", "-c", `exec >>"$0"; while IFS= read -r line; do printf '%s\n' "$line"; done`, target)
	}},
	{"sed -i, of a hidden file that is renamed", "sed", func(t *testing.T, source, target string) {
		hidden := filepath.Join(filepath.Dir(target), "."+filepath.Base(target))
		run(t, nil, "cp", source, hidden)
		run(t, nil, "sed", "-i", "s/absolutely/only/", hidden)
		run(t, nil, "mv", hidden, target)
	}},
	{"rsync", "rsync", func(t *testing.T, source, target string) { run(t, nil, "rsync", source, target) }},
	{"rsync --inplace", "rsync", func(t *testing.T, source, target string) { run(t, nil, "rsync", "--inplace", source, target) }},
	{"sftp, slowly", sftpServer, func(t *testing.T, source, target string) {
		run(t, strings.NewReader("put "+source+" "+target+"\n"), "sftp", "-q", "-D", sftpServer, "-B", "1024", "-l", "64", "-b", "-")
	}},
}

// run runs a program with an input.
func run(t *testing.T, in io.Reader, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = in
	cmd.Stdout = io.Discard // tee copies to it
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &out)
	}
}

// slowly reads a file in three pieces, of which the first two end within a
// line, with pauses in between.
func slowly(t *testing.T, source string) io.Reader {
	t.Helper()
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	go func() { // ends with the reader, or with the text
		third := len(text) / 3
		for _, piece := range [][]byte{text[:third], text[third : 2*third], text[2*third:]} {
			if _, err := w.Write(piece); err != nil {
				return
			}
			time.Sleep(pause)
		}
		w.Close()
	}()
	t.Cleanup(func() { r.Close() })
	return r
}

// However a file gets into raw/, and however long that takes: it is taken in
// once, whole, or not yet.
func TestWriters(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.drop("fabric-1", "first.yaml", vpc("vpc-0", 1000))
	w.pushed("fabric-1", "vpcs/vpc-0.yaml")
	for i, writer := range writers {
		t.Run(writer.name, func(t *testing.T) {
			if _, err := exec.LookPath(writer.needs); err != nil {
				t.Skip(err)
			}
			var docs []string
			for j := range 3 {
				docs = append(docs, vpc(fmt.Sprintf("vpc-%d-%d", i, j), 1001+10*i+j)+strings.Repeat("      # one of many lines\n", 100))
			}
			text := strings.Join(docs, "---\n")
			source := filepath.Join(t.TempDir(), "source.yaml")
			write(t, source, text)
			name := fmt.Sprintf("w%d.yaml", i)
			writer.write(t, source, filepath.Join(w.raw("fabric-1"), name))
			for j := range docs {
				w.pushed("fabric-1", fmt.Sprintf("vpcs/vpc-%d-%d.yaml", i, j))
			}
			// Each version of it that history has is the whole file.
			raw := "gitops/hedgehog/fabric-1/raw/" + name
			commits := strings.Fields(w.remote("log", "--format=%H", "--diff-filter=AM", "main", "--", raw))
			if len(commits) != 1 {
				t.Errorf("commits %s brought it", commits)
			}
			for _, c := range commits {
				if got := w.remote("show", c+":"+raw) + "\n"; got != text {
					t.Errorf("in commit %s it is\n%s", c, got)
				}
			}
			if kept, _ := filepath.Glob(filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged", name+"*")); len(kept) > 0 {
				t.Errorf("it was rejected: %s", kept)
			}
		})
	}
}

// A writer that is killed half-way leaves what it wrote: as a file that is no
// YAML it is rejected as a whole.
func TestKilledWriter(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.drop("fabric-1", "first.yaml", vpc("vpc-0", 1000))
	w.pushed("fabric-1", "vpcs/vpc-0.yaml")

	r, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	target := filepath.Join(w.raw("fabric-1"), "half.yaml")
	tee := exec.CommandContext(t.Context(), "tee", target)
	tee.Stdin = r
	if err := tee.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	half := vpc("vpc-1", 1001) + "---\n" + strings.Replace(vpc("vpc-2", 1002), "name: vpc-2", "name: \"vpc-2", 1)
	if _, err := io.WriteString(in, half); err != nil {
		t.Fatal(err)
	}
	w.eventually("the daemon to wait for the writer", func() error {
		st, err := w.look()
		if err == nil && len(st.Fabrics[0].Waiting) != 1 {
			err = fmt.Errorf("it waits for %q", st.Fabrics[0].Waiting)
		}
		return err
	})
	tee.Process.Kill()
	tee.Wait()
	w.eventually("the reason", func() error {
		_, err := os.Stat(filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged/half.yaml.reason"))
		return err
	})
	if managed := w.managed("fabric-1"); len(managed) != 1 {
		t.Errorf("managed/ holds %v", managed)
	}
}

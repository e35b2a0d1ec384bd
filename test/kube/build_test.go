// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const goMod = `module example.net/controlplane

go 1.26.0

require (
	k8s.io/kubernetes v1.37.2
)
`

func writeSources(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestCompile builds programs that are quick to build.
func TestCompile(t *testing.T) {
	for name, test := range map[string]struct {
		mod, main string
		err       string // "" for none
	}{
		"good":          {goMod, "package main\n\nfunc main() {}\n", ""},
		"bad program":   {goMod, "package main\n\nfunc main() { wrong }\n", "main.go:3:15: undefined: wrong"},
		"no Kubernetes": {"module example.net/controlplane\n", "package main\n\nfunc main() {}\n", "does not require k8s.io/kubernetes"},
	} {
		t.Run(name, func(t *testing.T) {
			src := writeSources(t, map[string]string{"go.mod": test.mod, "main.go": test.main})
			binary := filepath.Join(t.TempDir(), "controlplane")
			var progress bytes.Buffer
			err := apiServer.compile(t.Context(), src, binary, &progress)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("the error is %v, should say %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(progress.String(), "Kubernetes v1.37.2") {
				t.Errorf("progress: %s", &progress)
			}
			if err := exec.CommandContext(t.Context(), binary).Run(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestHashSources(t *testing.T) {
	files := map[string]string{"go.mod": goMod, "go.sum": "", "main.go": "package main\n"}
	hash := func() string {
		t.Helper()
		h, err := hashSources(writeSources(t, files))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	first := hash()
	if again := hash(); again != first {
		t.Errorf("the same sources elsewhere: %s, first %s", again, first)
	}
	files["main_test.go"] = "package main\n"
	if got := hash(); got != first {
		t.Error("a test is not a part of the program")
	}
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		files[name] += "\n"
		got := hash()
		if got == first {
			t.Errorf("a change of %s makes no difference", name)
		}
		first = got
	}
}

// cancelOnWrite is a user who gives up when told to wait.
type cancelOnWrite struct {
	bytes.Buffer
	cancel context.CancelFunc
}

func (w *cancelOnWrite) Write(p []byte) (int, error) {
	w.cancel()
	return w.Buffer.Write(p)
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var quiet bytes.Buffer
	unlock, err := lock(t.Context(), path, "it", &quiet)
	if err != nil || quiet.Len() > 0 {
		t.Fatalf("a free lock: %v, said %q", err, &quiet)
	}

	ctx, cancel := context.WithCancel(t.Context())
	said := &cancelOnWrite{cancel: cancel}
	if _, err := lock(ctx, path, "it", said); !errors.Is(err, context.Canceled) {
		t.Errorf("a lock that is held: %v, want that the wait ends with the context", err)
	}
	if !strings.Contains(said.String(), "waiting") {
		t.Errorf("it waits without a word: %q", said)
	}

	unlock()
	unlock, err = lock(t.Context(), path, "it", &quiet)
	if err != nil {
		t.Fatalf("a lock that was given back: %v", err)
	}
	unlock()
}

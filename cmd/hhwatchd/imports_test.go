// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// The rooms import nothing of each other, and two of them alone know git and
// Kubernetes: docs/architecture.md.
func TestImportsFormAStar(t *testing.T) {
	const module = "github.com/hhwatchd/hhwatchd"
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	alone := map[string]string{
		"github.com/go-git/":   module + "/checkout",
		"k8s.io/client-go/":    module + "/apply",
		"github.com/fsnotify/": module + "/watcher",
	}
	// ingest is pure: no file, no network (and no clock; it knows time as a type of YAML).
	impure := map[string]bool{"os": true, "os/exec": true, "net": true, "net/http": true, "syscall": true, "math/rand": true, "math/rand/v2": true}
	seen := 0
	d := json.NewDecoder(strings.NewReader(string(out)))
	for d.More() {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(p.ImportPath, module+"/test/") {
			continue
		}
		seen++
		for _, imp := range p.Imports {
			if p.ImportPath == module+"/ingest" && impure[imp] {
				t.Errorf("ingest imports %s; it is to be pure", imp)
			}
			for prefix, room := range alone {
				if strings.HasPrefix(imp, prefix) && p.ImportPath != room {
					t.Errorf("%s imports %s; only %s may", p.ImportPath, imp, room)
				}
			}
			if !strings.HasPrefix(imp, module) || imp == module+"/internal/durable" || p.ImportPath == module+"/cmd/hhwatchd" {
				continue
			}
			t.Errorf("%s imports %s: rooms know nothing of each other", p.ImportPath, imp)
		}
	}
	if seen < 8 {
		t.Errorf("only %d packages were looked at", seen)
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/fabric"
)

const wiringHead = "apiVersion: wiring.githedgehog.com/v1beta1\n"

func server(name string) string {
	return wiringHead + "kind: Server\nmetadata:\n  name: " + name + "\nspec: {}\n"
}

func connection(server, port string) string {
	return wiringHead + fmt.Sprintf(`kind: Connection
metadata:
  name: %[1]s--unbundled--leaf-01
spec:
  unbundled:
    link:
      server:
        port: %[1]s/enp2s1
      switch:
        port: %[2]s
`, server, port)
}

// Objects are held against those that the fabric holds: as drops, pushes and
// people's own commits leave them, before and after a restart.
func TestReferences(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.drop("fabric-1", "wiring.yaml", fabric.Spec{Spines: 1, Leaves: 5, Servers: 3, VPCs: 2, Attachments: 2, Peerings: 1}.YAML())
	w.pushed("fabric-1", "servers/server-001.yaml")
	rejected := func(name, code string) {
		t.Helper()
		reason := filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged", name+".reason")
		w.eventually("the reason of "+name, func() error {
			text, err := os.ReadFile(reason)
			if err == nil && !strings.Contains(string(text), "  "+code) {
				err = fmt.Errorf("it says\n%s", text)
			}
			return err
		})
	}
	w.drop("fabric-1", "nobody.yaml", connection("server-99", "leaf-01/E1/50"))
	rejected("nobody.yaml", "HH501: spec.unbundled.link.server.port: there is no Server/server-99\n  what to do: ")
	w.push("gitops/hedgehog/fabric-1/raw/taken.yaml", server("server-98")+"---\n"+connection("server-98", "leaf-03/E1/1"))
	w.hh("sync") // which fails, because of it
	rejected("taken.yaml", `HH504: spec.unbundled.link.switch.port: port "leaf-03/E1/1" is used by Connection/`)
	if h := w.history(); !strings.Contains(h, "HH501") || !strings.Contains(h, "HH504") {
		t.Errorf("the history does not tell why they were rejected:\n%s", h)
	}

	// Validation beforehand says the same.
	file := filepath.Join(t.TempDir(), "taken.yaml")
	write(t, file, server("server-98")+"---\n"+connection("server-98", "leaf-03/E1/1"))
	if out, code := w.hh("validate", "--fabric", "fabric-1", file); code != 1 || !strings.Contains(out, "HH504 ") || strings.Contains(out, "HH501 ") {
		t.Errorf("validate ends with %d:\n%s", code, out)
	}
	w.must("validate", file)

	// Server and connection in one delivery; and a word about what is missing
	// that the fabric does not insist on.
	w.drop("fabric-1", "new.yaml", server("server-99")+"---\n"+connection("server-99", "leaf-01/E1/50"))
	w.pushed("fabric-1", "connections/server-99--unbundled--leaf-01.yaml")
	w.drop("fabric-1", "redundant.yaml", wiringHead+"kind: Switch\nmetadata:\n  name: leaf-09\nspec:\n  redundancy:\n    group: nowhere\n    type: eslag\n")
	w.pushed("fabric-1", "switches/leaf-09.yaml")
	w.eventually("a warning", func() error {
		if out := w.daemon.output(); strings.Count(out, "ingested raw/redundant.yaml, but: document 1, line 7: HH501 spec.redundancy.group: there is no SwitchGroup/nowhere") != 1 {
			return fmt.Errorf("it said\n%s", out)
		}
		return nil
	})

	// Somebody takes the server away in git; the daemon starts anew.
	c := w.git.Clone(t, "fabrics")
	c.Git("rm", "-q", "gitops/hedgehog/fabric-1/managed/servers/server-99.yaml")
	c.Git("commit", "-qm", "remove")
	c.Push()
	w.must("sync")
	w.drop("fabric-1", "again.yaml", strings.Replace(connection("server-99", "leaf-01/E1/51"), "name: server-99", "name: second", 1))
	rejected("again.yaml", "HH501: spec.unbundled.link.server.port: there is no Server/server-99\n")
	w.stop()
	w.start()
	w.drop("fabric-1", "once-more.yaml", strings.Replace(connection("server-99", "leaf-01/E1/51"), "name: server-99", "name: second", 1))
	rejected("once-more.yaml", "HH501: spec.unbundled.link.server.port: there is no Server/server-99\n")
}

// The real files, dropped one after the other, are taken in without a word.
func TestRealFiles(t *testing.T) {
	names, _ := filepath.Glob("../../../shared/hedgehog/samples/*.yaml")
	if len(names) == 0 {
		t.Skip("the real files are not at hand")
	}
	w := newWorld(t, options{})
	w.start()
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		w.drop("fabric-1", filepath.Base(name), string(text))
	}
	w.pushed("fabric-1", "vpcs/test-vpc.yaml")
	w.eventually("all of their objects", func() error {
		if n := len(w.managed("fabric-1")); n != 48 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	if out := w.daemon.output(); strings.Contains(out, "HH") {
		t.Errorf("it said\n%s", out)
	}
}

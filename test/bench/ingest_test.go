// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/fabric"
	"github.com/hhwatchd/hhwatchd/test/kube"
)

// BenchmarkIngest measures what it takes to give the verdict on files, from the
// start of the process to its end: of hhwatchd validate without schemas and
// with them, and of kubectl apply --dry-run=client, which reads the same and
// asks an API server for the kinds only.
func BenchmarkIngest(b *testing.B) {
	hhwatchd := filepath.Join(b.TempDir(), "hhwatchd")
	if out, err := exec.Command("go", "build", "-o", hhwatchd, "../../cmd/hhwatchd").CombinedOutput(); err != nil {
		b.Fatalf("building hhwatchd: %v\n%s", err, out)
	}
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		b.Logf("not beside kubectl: %v", err)
	}
	var api *kube.Server
	if kubectl != "" {
		api = kube.Start(b, kube.Options{CRDs: []string{kube.FixtureCRDs()}})
	}
	for _, shape := range []struct{ documents, each int }{{46, 46}, {1000, 1000}, {10000, 10000}, {10000, 1}, {50000, 10000}} {
		dir := b.TempDir()
		documents, files := writeFabric(b, dir, shape.documents, shape.each)
		run := func(name, program string, args ...string) {
			b.Run(fmt.Sprintf("%s/documents=%d/files=%d", name, documents, files), func(b *testing.B) {
				var cpu, peak int64
				for b.Loop() {
					cmd := exec.CommandContext(b.Context(), program, args...)
					if out, err := cmd.CombinedOutput(); err != nil {
						b.Fatalf("%s: %v\n%s", cmd, err, out[:min(len(out), 2000)])
					}
					usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
					cpu += (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Microseconds()
					peak = max(peak, usage.Maxrss)
				}
				b.ReportMetric(float64(b.N*documents)/b.Elapsed().Seconds(), "documents/s")
				b.ReportMetric(float64(cpu)/float64(b.N*documents), "cpu-µs/document")
				b.ReportMetric(float64(peak)/1024, "peak-MiB")
			})
		}
		run("hhwatchd", hhwatchd, "validate", dir)
		run("hhwatchd-schemas", hhwatchd, "validate", "--crds", kube.FixtureCRDs(), dir)
		if api != nil && shape.documents <= 10000 {
			run("kubectl", kubectl, "--kubeconfig", api.Kubeconfig, "apply", "--dry-run=client", "--validate=false", "-f", dir)
		}
	}
}

// writeFabric writes about n documents of a generated fabric, in files of so
// many each, and returns how many there are of both.
func writeFabric(b *testing.B, dir string, n, each int) (documents, files int) {
	objects := fabric.Spec{Spines: 2, Leaves: max(5, n/60), Servers: n / 4, VPCs: n / 8, Attachments: n / 4, Peerings: n/8 - 1}.Objects()
	objects = objects[:min(n, len(objects))]
	for at := 0; at < len(objects); at += each {
		var text []byte
		for _, o := range objects[at:min(at+each, len(objects))] {
			text = append(text, "---\n"+o.YAML...)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%06d.yaml", at)), text, 0o644); err != nil {
			b.Fatal(err)
		}
		files++
	}
	return len(objects), files
}

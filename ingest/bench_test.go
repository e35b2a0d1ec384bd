// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// fabricDocument returns the i-th object of a generated fabric: switches,
// servers, connections and VPCs of the size and shape that people write.
func fabricDocument(i int) string {
	const wiring = "apiVersion: wiring.githedgehog.com/v1beta1\n"
	switch i % 4 {
	case 0:
		return wiring + fmt.Sprintf(`kind: Switch
metadata:
  name: leaf-%d
spec:
  boot:
    mac: 0c:20:12:%02x:%02x:00
  description: rack %d # top
  groups:
  - mclag-%d
  profile: vs
  redundancy:
    group: mclag-%d
    type: mclag
  role: server-leaf
`, i, i>>8&0xff, i&0xff, i, i/2, i/2)
	case 1:
		return wiring + fmt.Sprintf(`kind: Server
metadata:
  name: server-%d
spec:
  description: "S-%d MCLAG leaf-%d"
`, i, i, i)
	case 2:
		return wiring + fmt.Sprintf(`kind: Connection
metadata:
  name: server-%d--mclag--leaf-%d--leaf-%d
spec:
  mclag:
    links:
    - server:
        port: server-%d/enp2s1
      switch:
        port: leaf-%d/E1/5
    - server:
        port: server-%d/enp2s2
      switch:
        port: leaf-%d/E1/5
`, i, i, i+1, i, i, i, i+1)
	default:
		return fmt.Sprintf(`apiVersion: vpc.githedgehog.com/v1beta1
kind: VPC
metadata:
  name: vpc-%d
spec:
  subnets:
    default:
      subnet: 10.%d.%d.0/24
      gateway: 10.%d.%d.1
      vlan: %d
      dhcp:
        enable: true
`, i, i>>8&0xff, i&0xff, i>>8&0xff, i&0xff, 1000+i%3000)
	}
}

// fabricFiles returns n documents in files of the given number each.
func fabricFiles(n, each int) []File {
	var files []File
	var b bytes.Buffer
	for i := range n {
		b.WriteString("---\n" + fabricDocument(i))
		if (i+1)%each == 0 || i == n-1 {
			files = append(files, File{Path: fmt.Sprintf("%06d.yaml", i), Data: bytes.Clone(b.Bytes())})
			b.Reset()
		}
	}
	return files
}

func BenchmarkPlan(b *testing.B) {
	for _, schemas := range []string{"", "../test/crds", hedgehogCRDs} {
		policy, name := hedgehog, "none"
		if schemas != "" {
			if _, err := os.Stat(schemas); err != nil {
				continue
			}
			policy, name = withSchemas(b, hedgehog, schemas), path.Base(path.Dir(schemas))
		}
		for _, shape := range []struct{ documents, each int }{
			{46, 46}, {100, 100}, {10000, 10000}, {10000, 1}, {50000, 50000},
		} {
			files := fabricFiles(shape.documents, shape.each)
			b.Run(fmt.Sprintf("schemas=%s/files=%d/documents=%d", name, len(files), shape.documents), func(b *testing.B) {
				// One core, as for a daemon that leaves the others to the work
				// of the host.
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
				b.ReportAllocs()
				before := cpuTime(b)
				for b.Loop() {
					plan, err := policy.Plan(files, tree{}.managed, nil)
					if err != nil || len(plan.Writes) != shape.documents {
						b.Fatalf("%d writes, error %v", len(plan.Writes), err)
					}
				}
				documents := float64(b.N * shape.documents)
				b.ReportMetric(documents/b.Elapsed().Seconds(), "documents/s")
				b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/documents, "cpu-µs/document")
			})
		}
	}
}

// cpuTime returns the CPU time of the process, which means something also on a
// machine that has other work.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// TestFabric: the benchmark measures what it says.
func TestFabric(t *testing.T) {
	for _, f := range fabricFiles(100, 50) {
		v := hedgehog.Read(f)
		if len(v.Objects) != 50 {
			t.Fatalf("%s", Reason(v))
		}
		if err := holds(string(f.Data), v); err != nil {
			t.Error(err)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package watcher

import (
	"fmt"
	"testing"
)

// BenchmarkTakeOut is the way of a batch of 1,000 small files: listed, read,
// retired, buried.
func BenchmarkTakeOut(b *testing.B) {
	const batch = 1000
	dir := b.TempDir()
	for b.Loop() {
		b.StopTimer()
		for i := range batch {
			write(b, dir, fmt.Sprintf("%d/x%d.yaml", i%10, i), "some content\n")
		}
		b.StartTimer()
		found, _, err := List(dir, anyInput)
		if err != nil || len(found) != batch {
			b.Fatal(len(found), err)
		}
		var files []*File
		for _, e := range found {
			f, err := Read(dir, e.Path, 0, 1<<20)
			if err != nil {
				b.Fatal(err)
			}
			files = append(files, f)
		}
		spent, _, err := Retire(files)
		if err != nil || len(spent) != batch {
			b.Fatal(len(spent), err)
		}
		if _, err := Bury(spent); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/batch, "µs/file")
}

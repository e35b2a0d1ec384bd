// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// typical is what the ingestion of a file with one object appends.
func typical(i int) []Record {
	o := vpcObject(fmt.Sprint("vpc-", i%5000), id(fmt.Sprint(i)), Created)
	ingest := step(StepIngest, id("c"), o).from("gitops/hedgehog/fabric-1/raw/vpc.yaml", id(fmt.Sprint("raw", i)), id("c0"), Ingested)
	ingest.Cycle = "20261123T063400.123"
	return []Record{ingest}
}

// BenchmarkAppend appends a record at a time; BenchmarkBareAppend writes and
// syncs the same number of bytes with nothing around it.
func BenchmarkAppend(b *testing.B) {
	j := mustOpen(b, b.TempDir())
	for i := 0; b.Loop(); i++ {
		mustAppend(b, j, typical(i)...)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkBareAppend(b *testing.B) {
	w := write(b, typical(1))
	f, err := os.OpenFile(filepath.Join(b.TempDir(), "bare"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for b.Loop() {
		if _, err := f.Write(w.data); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkOpen replays a journal.
func BenchmarkOpen(b *testing.B) {
	const records, each = 100_000, 1000
	dir := memDir(b)
	j := mustOpen(b, dir)
	for i := 0; i < records; i += each {
		var batch []Record
		for k := range each {
			batch = append(batch, typical(i+k)...)
		}
		mustAppend(b, j, batch...)
	}
	mustClose(b, j)
	for b.Loop() {
		mustClose(b, mustOpen(b, dir))
	}
	b.ReportMetric(records*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkInventoryMemory holds 100,000 objects, each applied.
func BenchmarkInventoryMemory(b *testing.B) {
	const objects = 100_000
	var before, after runtime.MemStats
	for b.Loop() {
		inv := newInventory()
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range objects {
			line, err := appendLine(nil, Record{Seq: 1, Step: StepIngest, Fabric: "fabric-1", To: id("c"),
				File:    &File{Path: "gitops/hedgehog/fabric-1/raw/all.yaml", Blob: id("raw"), Commit: id("c0"), Outcome: Ingested},
				Objects: []Object{vpcObject(fmt.Sprintf("vpc-%06d", i), id(fmt.Sprint(i)), Created)}})
			if err != nil {
				b.Fatal(err)
			}
			r, err := parseLine(line)
			if err != nil {
				b.Fatal(err)
			}
			inv.apply(r)
			r.Step = StepApply
			inv.apply(r)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(inv)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/objects, "B/object")
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is beyond limits.cycle waits for the next cycle, which follows by itself,
// pushed or dropped. The order stays that of arrival: the last word wins.
func TestCycleLimit(t *testing.T) {
	w := newWorld(t, options{})
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, "limits: {file: 1KiB, cycle: 1KiB}\n"+string(text))
	const each = 6
	one := vpc("vpc-1", 1001)
	many := func(i int) string { return strings.Repeat("# padding\n", 40) + vpc(fmt.Sprintf("vpc-%d", i), 1000+i) }
	for i := range each {
		w.push(fmt.Sprintf("gitops/hedgehog/fabric-1/raw/pushed-%d.yaml", i), many(10+i))
	}
	w.start()
	for i := range each {
		w.drop("fabric-1", fmt.Sprintf("dropped-%d.yaml", i), many(20+i))
	}
	w.drop("fabric-1", "large.yaml", strings.Repeat("# padding\n", 200)+one)
	w.drop("fabric-1", "last.yaml", strings.Replace(many(20), "1020", "1999", 1))
	w.eventually("all of them", func() error {
		if got := w.managed("fabric-1"); len(got) != 2*each || !strings.Contains(got["vpcs/vpc-20.yaml"], "1999") {
			return fmt.Errorf("%d objects", len(got))
		}
		return nil
	})
	w.eventually("the one that is too large", func() error {
		reason, err := os.ReadFile(filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged/large.yaml.reason"))
		if err == nil && !strings.Contains(string(reason), "HH102") {
			err = errors.New(string(reason))
		}
		return err
	})
	w.must("journal", "verify")
	w.clean()
}

// A pushed file that is larger than limits.file is refused, and moves by its
// name in git alone.
func TestLargePush(t *testing.T) {
	w := newWorld(t, options{})
	w.push("gitops/hedgehog/fabric-1/raw/vpc-1.yaml", vpc("vpc-1", 1001))
	const size = 20 << 20
	w.push("gitops/hedgehog/fabric-1/raw/large.yaml", strings.Repeat("# 10 bytes\n", size/11)+vpc("vpc-2", 1002))
	blob := w.remote("rev-parse", "main:gitops/hedgehog/fabric-1/raw/large.yaml")
	w.start()
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")
	if got := w.remote("rev-parse", "main:gitops/hedgehog/fabric-1/unmanaged/large.yaml"); got != blob {
		t.Errorf("the file is %s now, was %s", got, blob)
	}
	if reason := w.remote("show", "main:gitops/hedgehog/fabric-1/unmanaged/large.yaml.reason"); !strings.Contains(reason, "HH102: the file has 209") {
		t.Error(reason)
	}
	if got := w.managed("fabric-1"); len(got) != 1 {
		t.Errorf("managed %v", got)
	}
	if history := w.history(); !strings.Contains(history, "rejected raw/large.yaml") {
		t.Error(history)
	}
	w.clean()
}

// What was dropped while the remote was away is held against the limits again
// when it is planned anew: a file that is too large by then goes to unmanaged/
// as it was.
func TestLimitsAfterRace(t *testing.T) {
	w := newWorld(t, options{})
	w.push("README", "a repository\n")
	w.start()
	w.git.Fail(503)
	large := strings.Repeat("# padding\n", 200) + vpc("vpc-9", 1009)
	w.drop("fabric-1", "large.yaml", large)
	want := map[string]string{}
	for i := range 5 {
		text := strings.Repeat("# padding\n", 40) + vpc(fmt.Sprintf("vpc-%d", i), 1000+i)
		w.drop("fabric-1", fmt.Sprintf("small-%d.yaml", i), text)
		first, rest, _ := strings.Cut(vpc(fmt.Sprintf("vpc-%d", i), 1000+i), "\n")
		want[fmt.Sprintf("vpcs/vpc-%d.yaml", i)] = first + "\n" + strings.Repeat("# padding\n", 40) + rest
	}
	w.eventually("all in commits", func() error {
		if entries, err := os.ReadDir(w.raw("fabric-1")); err != nil || len(entries) > 0 {
			return fmt.Errorf("%d files in raw/, %v", len(entries), err)
		}
		return nil
	})
	w.stop()
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, "limits: {file: 1KiB, cycle: 1KiB}\n"+string(text))
	w.git.Clear()
	w.push("README", "somebody was first\n")
	w.start()
	w.pushed("fabric-1", "vpcs/vpc-4.yaml")
	w.wantManaged("fabric-1", want)
	file := filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged/large.yaml")
	if got, err := os.ReadFile(file); err != nil || string(got) != large {
		t.Errorf("%q, %v", got, err)
	}
	if reason, err := os.ReadFile(file + ".reason"); err != nil || !strings.Contains(string(reason), "HH102: the file has 2") {
		t.Errorf("%q, %v", reason, err)
	}
	if log := w.remote("log", "--format=%B", "main"); strings.Contains(log, "large.yaml") {
		t.Errorf("the remote was told of what is too large:\n%s", log)
	}
	w.clean()
}

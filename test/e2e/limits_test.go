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

// SPDX-License-Identifier: Apache-2.0

// Package prometheus_test holds the alerts to what promtool says of them.
// (That the metrics are there which they are about is seen in test/e2e, with
// a real scrape.)
package prometheus_test

import (
	"os/exec"
	"testing"
)

func TestRules(t *testing.T) {
	program, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed; test/setup.sh does that")
	}
	for _, args := range [][]string{
		{"check", "rules", "--lint-fatal", "hhwatchd.rules.yaml"},
		{"test", "rules", "hhwatchd.rules_test.yaml"},
	} {
		if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

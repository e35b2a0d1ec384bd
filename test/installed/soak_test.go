// SPDX-License-Identifier: Apache-2.0

package installed

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

var soakDrops = flag.Int("drops", 200, "how many files TestSoak drops, one after the other")

// soakObjects are dropped again and again, so that what grows is the history.
const soakObjects = 40

// dropper drops $1 to $2 of the soak: each file changes its object, and comes
// when the one before it has been taken.
const dropper = `#!/bin/sh
set -e
for i in $(seq $1 $2); do
	n=$((i % @N@ + 1))
	sed "s/ROUND/$i/" /usr/local/share/vpc-$n.yaml >` + raw + `/soak-$n.yaml
	while test -e ` + raw + `/soak-$n.yaml; do sleep 0.02; done
done
`

// TestSoak lets alice drop files for a long time and looks at what the service
// says and keeps: each drop is in the history once, the log has fewer than 5
// lines a cycle and no complaint, and memory does not grow.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	h := newHost(t, releases[0])
	h.configure()
	h.Must("systemctl start hhwatchd")
	for i := range soakObjects {
		text := strings.Replace(vpc(i+1), "  namespace: default\n", "  namespace: default\n  annotations: {example.net/round: \"ROUND\"}\n", 1)
		h.Write(fmt.Sprintf("/usr/local/share/vpc-%d.yaml", i+1), text, 0o644)
	}
	h.Write("/usr/local/bin/dropper", strings.ReplaceAll(dropper, "@N@", strconv.Itoa(soakObjects)), 0o755)
	soak := func(from, to int) (kib int) {
		t.Helper()
		if out, code := h.as("alice", fmt.Sprintf("dropper %d %d", from, to)); code != 0 {
			t.Fatalf("dropping: exit code %d\n%s", code, out)
		}
		return h.count("awk '/^VmRSS/ {print $2}' /proc/" + h.show("MainPID") + "/status")
	}
	began := time.Now()
	early := soak(1, *soakDrops/4)
	late := soak(*soakDrops/4+1, *soakDrops)
	took := time.Since(began)
	h.Must("hhwatchd sync") // the last cycle is over, its records are written

	if n := h.count("hhwatchd history -o json | grep -c '\"step\":\"ingest\"'"); n != *soakDrops {
		t.Errorf("the history tells of %d drops, there were %d", n, *soakDrops)
	}
	cycles := h.count("hhwatchd history -o json | grep -o '\"cycle\":\"[^\"]*' | sort -u | wc -l")
	lines := h.count("journalctl -u hhwatchd -t hhwatchd -o cat | wc -l")
	t.Logf("%d drops in %v, %d cycles; %d lines in the log, %.1f a cycle; resident %d KiB after a quarter, %d KiB at the end",
		*soakDrops, took.Round(time.Second), cycles, lines, float64(lines)/float64(cycles), early, late)
	if lines >= 5*cycles {
		t.Errorf("%d lines in the log for %d cycles", lines, cycles)
	}
	if late > early*3/2 {
		t.Errorf("resident memory went from %d to %d KiB", early, late)
	}
	if out := h.Try("journalctl -u hhwatchd -p warning -o cat"); out != "" && out != "-- No entries --" {
		t.Errorf("the log complains:\n%s", out)
	}
	h.Must("hhwatchd journal verify")
}

// count is what a command prints, as a number.
func (h host) count(shell string) int {
	h.t.Helper()
	out := h.Must(shell)
	n, err := strconv.Atoi(out)
	if err != nil {
		h.t.Fatalf("%s: %v", shell, err)
	}
	return n
}

// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBoot(t *testing.T) {
	groups := func() []string {
		found, _ := filepath.Glob("/sys/fs/cgroup/*/hhwatchd-guest-*")
		more, _ := filepath.Glob("/sys/fs/cgroup/hhwatchd-guest-*")
		return append(found, more...)
	}
	before := len(groups())
	dir := ""
	t.Run("machine", func(t *testing.T) {
		dir = t.TempDir()
		m := Boot(t, "bookworm")
		if out := m.Must("cat /proc/1/comm; stat -fc %T /sys/fs/cgroup; ls /sys/class/net 2>/dev/null || ip -o link"); !strings.HasPrefix(out, "systemd\ncgroup2fs") {
			t.Errorf("process 1 and its cgroups: %s", out)
		}
		if out := m.Must("systemd-run --wait --pipe --quiet echo in a unit"); out != "in a unit" {
			t.Errorf("a transient unit says %q", out)
		}
		m.Write("/etc/greeting/x y", "good day\n", 0o640)
		if out := m.Must("stat -c %a%U '/etc/greeting/x y'; cat '/etc/greeting/x y'"); out != "640root\ngood day" {
			t.Errorf("a file that was written: %s", out)
		}
		if _, err := os.Stat("/etc/greeting"); err == nil {
			t.Error("what was written in the machine is on the host")
		}
		if out, code := m.Run("echo no >&2; exit 3"); out != "no" || code != 3 {
			t.Errorf("Run = %q, %d", out, code)
		}
		m.Must("systemd-run --quiet sh -c 'sleep 0.2; touch /root/later'")
		m.Eventually("test -e /root/later")
	})
	if after := len(groups()); after > before {
		t.Errorf("%d cgroups stay behind: %v", after-before, groups())
	}
	if dir != "" {
		if mounts, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(mounts), dir) {
			t.Error("mounts stay behind")
		}
	}
}

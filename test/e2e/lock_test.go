// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Somebody's git left a lock a week ago. It is honoured: nothing is written
// there, status says which file it is, since when it is there and what to do,
// history says it once; it is not the remote that is blamed. When the lock is
// removed, everything goes on by itself.
func TestForeignLocks(t *testing.T) {
	for _, name := range []string{"index", "refs/heads/main", "refs/remotes/origin/main"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{})
			w.start()
			w.drop("fabric-1", "vpc-1.yaml", vpc("vpc-1", 1001))
			w.pushed("fabric-1", "vpcs/vpc-1.yaml")
			w.must("sync")
			lock := filepath.Join(w.clone(), ".git", name+".lock")
			made := time.Now().AddDate(0, 0, -7)
			w.ok(os.WriteFile(lock, nil, 0o644), os.Chtimes(lock, made, made))
			w.push("gitops/hedgehog/fabric-1/raw/vpc-3.yaml", vpc("vpc-3", 1003))
			w.drop("fabric-1", "vpc-2.yaml", vpc("vpc-2", 1002))
			says := lock + " has been there since " + made.UTC().Format("2006-01-02 15:04 MST") + ": a git command is at work in the clone, or was interrupted; if none is running, remove that file"
			w.stopsWith(says)
			// A restart is not what helps.
			w.ok(w.daemon.cmd.Process.Kill())
			<-w.daemon.done
			w.launch(exec.Command(binary, "--config", w.config, "run"))
			w.stopsWith(says)
			if st, err := w.look(); err != nil || st.Down != "" {
				t.Errorf("the remote is blamed: %s, %v", st.Down, err)
			}
			if data, err := os.ReadFile(filepath.Join(w.raw("fabric-1"), "vpc-2.yaml")); err != nil || string(data) != vpc("vpc-2", 1002) {
				t.Errorf("the drop: %q, %v", data, err)
			}
			w.ok(os.Remove(lock))
			w.wantManaged("fabric-1", map[string]string{
				"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002), "vpcs/vpc-3.yaml": vpc("vpc-3", 1003),
			})
			w.well()
			w.must("sync")
			w.clean()
			w.wantLinear(vpc("vpc-1", 1001), vpc("vpc-2", 1002), vpc("vpc-3", 1003))
			// A daemon that was killed knows of no fault that it could end.
			history := w.history()
			if told, over := strings.Count(history, says), strings.Count(history, "fault is over after"); told == 0 || told > 2 || over != 1 {
				t.Errorf("the fault is told %d times, its end %d times:\n%s", told, over, history)
			}
		})
	}
}

// A lock that a killed daemon left is nobody's, and no matter for a person.
func TestOwnLocks(t *testing.T) {
	w := newWorld(t, options{})
	w.start()
	w.drop("fabric-1", "vpc-1.yaml", vpc("vpc-1", 1001))
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")
	w.must("sync")
	w.ok(w.daemon.cmd.Process.Kill())
	<-w.daemon.done
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	w.ok(err)
	for _, name := range []string{"index", "HEAD", "config", "refs/heads/main", "refs/remotes/origin/main", "refs/hhwatchd/base", "refs/hhwatchd/archived"} {
		mark := fmt.Sprintf("hhwatchd:%d:1:%s", w.daemon.cmd.Process.Pid, strings.TrimSpace(string(boot)))
		w.ok(os.Symlink(mark, filepath.Join(w.clone(), ".git", name+".lock")))
	}
	w.drop("fabric-1", "vpc-2.yaml", vpc("vpc-2", 1002))
	w.start()
	w.pushed("fabric-1", "vpcs/vpc-2.yaml")
	w.must("sync")
	w.clean()
	if history := w.history(); strings.Contains(history, "fault") {
		t.Errorf("the history tells of a fault:\n%s", history)
	}
}

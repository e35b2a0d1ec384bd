// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/hhwatchd/hhwatchd/test/stage"
)

// memory is what a process has in RAM, in bytes (proc_pid_status(5)).
type memory struct {
	RSS  int64 `json:"rssBytes"`     // VmRSS: all of it
	Anon int64 `json:"rssAnonBytes"` // RssAnon: without the program file's pages
}

func residentMemory(pid int) (memory, error) {
	name := fmt.Sprintf("/proc/%d/status", pid)
	text, err := os.ReadFile(name)
	if err != nil {
		return memory{}, err
	}
	var m memory
	for field, p := range map[string]*int64{"VmRSS:": &m.RSS, "RssAnon:": &m.Anon} {
		_, rest, _ := strings.Cut(string(text), "\n"+field)
		fields := strings.Fields(rest)
		if len(fields) < 2 || fields[1] != "kB" {
			return memory{}, fmt.Errorf("%s has no %s", name, field)
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return memory{}, fmt.Errorf("%s: %w", name, err)
		}
		*p = n << 10
	}
	return m, nil
}

// userHz is in how many parts of a second the kernel tells times to programs:
// the same on all of Linux's architectures that Go knows (time(7)).
const userHz = 100

// cpuTime is for how long a process has been on a core, in user and in kernel
// mode, in steps of 10 ms (proc_pid_stat(5)).
func cpuTime(pid int) (time.Duration, error) {
	name := fmt.Sprintf("/proc/%d/stat", pid)
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	// The second field, the program's name, may hold anything.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return 0, fmt.Errorf("%s is too short", name)
	}
	ticks := 0
	for _, i := range []int{utime, stime} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHz, nil
}

// measureIdle lets all daemons be for a while and enters what they cost.
func measureIdle(ctx context.Context, d time.Duration, sites []*site, results []siteResult) error {
	before := make([]time.Duration, len(sites))
	for i, s := range sites {
		var err error
		if before[i], err = cpuTime(s.stage.PID); err != nil {
			return err
		}
	}
	began := time.Now()
	done := stage.Show(fmt.Sprintf("watching idle daemons for %v", d))
	select {
	case <-time.After(d):
		done()
	case <-ctx.Done():
		done()
		return ctx.Err()
	}
	took := time.Since(began)
	for i, s := range sites {
		after, err := cpuTime(s.stage.PID)
		if err != nil {
			return err
		}
		r := &results[i]
		r.IdleCPU = after - before[i]
		r.IdlePercent = 100 * r.IdleCPU.Seconds() / took.Seconds()
		if r.Memory.Idle, err = residentMemory(s.stage.PID); err != nil {
			return err
		}
	}
	return nil
}

// software tells in one line what it is that is measured.
func software(ctx context.Context, s *site) (string, error) {
	hhwatchd, err := s.stage.Hhwatchd(ctx, "--version")
	if err != nil {
		return "", err
	}
	git, err := s.stage.Run(ctx, "", nil, "git", "--version")
	if err != nil {
		return "", err
	}
	answer, err := s.stage.API.Do(http.MethodGet, "/version", "", nil)
	if err != nil {
		return "", err
	}
	var kubernetes struct{ GitVersion string }
	if err := json.Unmarshal(answer, &kubernetes); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %s, %s, kubectl and API server %s",
		strings.TrimSpace(hhwatchd), runtime.Version(), strings.TrimSpace(git), kubernetes.GitVersion), nil
}

// machine tells in one line what it is that is measured on.
func machine() string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // what cannot be read is left out
	cpu := ""
	info, _ := os.ReadFile("/proc/cpuinfo")
	if _, rest, ok := strings.Cut(string(info), "model name\t: "); ok {
		cpu, _, _ = strings.Cut(rest, "\n")
		cpu = " (" + cpu + ")"
	}
	load, _ := os.ReadFile("/proc/loadavg")
	average, _, _ := strings.Cut(string(load), " ")
	return fmt.Sprintf("%d cores%s, Linux %s, %s on %s, load %s before it began",
		runtime.NumCPU(), cpu, strings.TrimSpace(string(kernel)), os.TempDir(), fileSystem(os.TempDir()), average)
}

// fileSystem is the type of the file system that the directory is on, the
// longest mount point that is above it (proc_pid_mountinfo(5)).
func fileSystem(dir string) string {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	kind, longest := "an unknown file system", 0
	for line := range strings.Lines(string(text)) {
		mount, rest, _ := strings.Cut(line, " - ")
		fields, kinds := strings.Fields(mount), strings.Fields(rest)
		if len(fields) < 5 || len(kinds) == 0 {
			continue
		}
		point := strings.TrimSuffix(fields[4], "/") + "/"
		if strings.HasPrefix(dir+"/", point) && len(point) >= longest {
			kind, longest = kinds[0], len(point)
		}
	}
	return kind
}

// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// lockWait is how long somebody else's lock is waited for. A git command
// holds one while it writes a file; whoever holds it longer is a person at an
// editor, or dead.
const lockWait = 5 * time.Second

// lock takes git's lock on the file path, which is the existence of
// path.lock, and returns what releases it.
//
// git creates the lock as a file and fails if anything has that name. Ours is
// a symbolic link to nowhere whose target says whose it is: it comes into
// being in one step with that mark, so that a lock left by a crash of ours can
// be told from all others, and be removed, at any moment of the crash. A lock
// of anybody else's is waited for, up to lockWait, and never touched; the error
// then is a *LockedError.
func lock(ctx context.Context, path string) (unlock func() error, err error) {
	name := path + ".lock"
	deadline := time.Now().Add(lockWait)
	for {
		err := os.Symlink(lockMark(), name)
		if err == nil {
			return func() error { return os.Remove(name) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if owner, err := os.Readlink(name); err == nil && stale(owner) {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			continue
		}
		if time.Now().After(deadline) {
			fi, err := os.Lstat(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			return nil, &LockedError{name, fi.ModTime()}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %s to go: %w", name, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lockMark names this process so that it can be told from every other one
// that had or will have its number: by when it started, and in which boot.
var lockMark = sync.OnceValue(func() string {
	pid := os.Getpid()
	return fmt.Sprintf("hhwatchd:%d:%s:%s", pid, started(pid), bootID())
})

// stale reports whether mark is that of a process of hhwatchd that is gone.
func stale(mark string) bool {
	f := strings.Split(mark, ":")
	if len(f) != 4 || f[0] != "hhwatchd" {
		return false
	}
	pid, err := strconv.Atoi(f[1])
	return err == nil && (f[3] != bootID() || f[2] != started(pid))
}

// started returns when the process pid started, in clock ticks after boot, or
// "" if there is none (proc_pid_stat(5), field 22).
func started(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// Field 2, in parentheses, may hold anything.
	_, after, ok := bytes.Cut(data, []byte(") "))
	for {
		_, more, again := bytes.Cut(after, []byte(") "))
		if !again {
			break
		}
		after = more
	}
	f := bytes.Fields(after)
	if !ok || len(f) < 20 {
		return ""
	}
	return string(f[19])
}

// bootID names this boot of the machine (proc_sys_kernel(5)).
var bootID = sync.OnceValue(func() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(data))
})

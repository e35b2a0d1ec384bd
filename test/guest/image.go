// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// packages are what a root has besides Debian's essential ones and apt: an
// init, what the maintainer scripts and the tests of a service call, and git
// for a server inside.
var packages = []string{"systemd", "systemd-sysv", "dbus", "init-system-helpers", "adduser", "acl", "procps", "git", "ca-certificates"}

// Image returns the directory of a Debian root of the release ("bookworm",
// "trixie") in the user's cache directory, and makes it with mmdebstrap(1) if
// it is not there, which takes about half a minute and a Debian mirror. Nobody
// may write to it. When several processes call it, one makes it and the others
// wait.
func Image(ctx context.Context, release string, stderr io.Writer) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "hhwatchd")
	include := strings.Join(packages, ",")
	hash := sha256.Sum256([]byte(include))
	image := filepath.Join(cache, fmt.Sprintf("guest-%s-%x", release, hash[:8]))
	if _, err := os.Stat(image); err == nil {
		return image, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, image+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(image); err == nil {
		return image, nil // another process has made it meanwhile
	}
	fmt.Fprintf(stderr, "making a Debian root of %s (once, about half a minute)\n", release)
	// One that was cut off does not look whole, and is no hindrance.
	tmp := image + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=apt", "--include="+include,
		"--aptopt=APT::Install-Recommends \"false\"", release, tmp)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("making a Debian root of %s: mmdebstrap: %w\n%s", release, err, out)
	}
	return image, os.Rename(tmp, image)
}

// lock takes the lock file of that name, waiting for who holds it.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("waiting for %s: %w", name, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

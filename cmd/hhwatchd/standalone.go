// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/hhwatchd/hhwatchd/checkout"
)

//go:embed standalone.yaml
var standaloneConfig string

// standalone is the config for a start with none: everything below one
// directory of the user's, with a bare repository as the remote.
func standalone() (*Config, error) {
	dir, err := standaloneDir()
	if err != nil {
		return nil, err
	}
	c, err := parseConfig("the embedded config", []byte(strings.ReplaceAll(standaloneConfig, "$STATE", dir)))
	if err != nil {
		return nil, err
	}
	return c, nil
}

// makeStandaloneRemote makes the embedded config's bare repository at the
// first start.
func makeStandaloneRemote() error {
	c, err := standalone()
	if err != nil {
		return err
	}
	remote := c.Repositories[0].URL
	if fileExists(remote) || fileExists(c.cloneDir(c.Repositories[0].Name)) {
		return nil // a remote that went since is not for us to replace
	}
	if err := os.MkdirAll(c.StateDir, 0o755); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	if err := checkout.InitBare(remote, c.Repositories[0].Branch); err != nil {
		return fmt.Errorf("making the embedded remote: %w", err)
	}
	return nil
}

// standaloneDir follows systemd.exec(5) (STATE_DIRECTORY) and the XDG Base
// Directory Specification (XDG_STATE_HOME).
func standaloneDir() (string, error) {
	if d := os.Getenv("STATE_DIRECTORY"); d != "" {
		return filepath.SplitList(d)[0], nil
	}
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "hhwatchd"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no config at %s, and no place for one without: %w", defaultConfigFile, err)
	}
	return filepath.Join(home, ".local", "state", "hhwatchd"), nil
}

func announceStandalone(w io.Writer, c *Config) {
	r := c.Repositories[0]
	fmt.Fprintf(w, `There is no %s: running with an embedded default.
  drop a file:   cp vpc.yaml %s/
  or push one:   git clone %s, into gitops/hedgehog/fabric-1/raw/
  then look:     hhwatchd status; hhwatchd history; hhwatchd get

`, defaultConfigFile, filepath.Join(c.StateDir, "raw", r.Fabrics[0].Name), r.URL)
}

// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
)

// root is the directory of hhwatchd's go.mod; "" if the process was not started
// inside of it.
var root = findRoot()

var errNoRoot = errors.New("not inside hhwatchd's source tree: run it from there")

// findRoot looks upwards from where the process was started. (The place of this
// file is no help: with -trimpath it is not known.)
func findRoot() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte("module github.com/hhwatchd/hhwatchd\n")) {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// CRDs returns the directory of Hedgehog's own CustomResourceDefinitions where
// there is a copy beside the source tree (../shared/hedgehog/crds), and
// [FixtureCRDs] elsewhere.
func CRDs() string {
	real := filepath.Join(root, "..", "shared", "hedgehog", "crds")
	if _, err := os.Stat(real); root != "" && err == nil {
		return real
	}
	return FixtureCRDs()
}

// FixtureCRDs returns the directory of CustomResourceDefinitions with the
// groups, versions, kinds and plurals of Hedgehog's, and the fields of their
// specs that are in common use.
func FixtureCRDs() string { return filepath.Join(root, "test", "crds") }

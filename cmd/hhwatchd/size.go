// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"regexp"
	"strconv"

	"gopkg.in/yaml.v3"
)

// Size is a number of bytes, written with a binary unit: 512MiB, 1GiB.
type Size int64

const (
	mebibyte Size = 1 << 20
	gibibyte Size = 1 << 30
)

var sizeSyntax = regexp.MustCompile(`^([0-9]+) ?(KiB|MiB|GiB|TiB)$`)

// UnmarshalYAML reads a size. A number alone is refused: it could be meant in
// any unit.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	wrong := &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not a size; write 512MiB or 1GiB", n.Line, n.Value)}}
	m := sizeSyntax.FindStringSubmatch(n.Value)
	if n.Kind != yaml.ScalarNode || m == nil {
		return wrong
	}
	shift := map[string]int{"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[m[2]]
	v, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || v > math.MaxInt64>>shift {
		return wrong
	}
	*s = Size(v << shift)
	return nil
}

// String returns the size in the largest unit that leaves it a number of at
// least 1, with one digit after the point where it is not whole.
func (s Size) String() string {
	units := []string{"KiB", "MiB", "GiB", "TiB"}
	if s < 1<<10 {
		return fmt.Sprintf("%d B", int64(s))
	}
	u, v := 0, float64(s)/(1<<10)
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	if v == math.Trunc(v) {
		return fmt.Sprintf("%.0f %s", v, units[u])
	}
	return fmt.Sprintf("%.1f %s", v, units[u])
}

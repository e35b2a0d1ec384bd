// SPDX-License-Identifier: Apache-2.0

package checkout

import (
	"testing"
)

func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	w.personPushes(map[string]string{"fabric/raw/.gitkeep": "k", "fabric/managed/vpcs/a.yaml": "a\n", "README": "hello\n"})
	c := w.clone()
	w.has(map[string]string{"fabric/managed/vpcs/a.yaml": "a\n"})
	w.clean()
	w.commit(c, put("fabric/managed/vpcs/b.yaml", "b\n"), put("fabric/managed/vpcs/a.yaml", "A\n"), del("README"))
	w.has(map[string]string{"fabric/managed/vpcs/a.yaml": "A\n", "fabric/managed/vpcs/b.yaml": "b\n", "README": ""})
	w.clean()
	w.push(c)
	git(t, w.person, "pull", "-q")
	w.personPushes(map[string]string{"fabric/raw/x.yaml": "x\n"})
	w.advance(c, w.fetch(c))
	w.has(map[string]string{"fabric/raw/x.yaml": "x\n"})
	w.clean()
	git(t, w.bare, "fsck", "--strict")
}

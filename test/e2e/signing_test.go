// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// With verify on, a commit that no allowed key signed is neither ingested nor
// applied, which is told in one line and once; drops wait; and all goes on once
// the key is allowed. The daemon's own commits are signed.
func TestVerify(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	dir := t.TempDir()
	key := func(name string) string {
		file := filepath.Join(dir, name)
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return file
	}
	public := func(file string) string {
		data, err := os.ReadFile(file + ".pub")
		w.ok(err)
		return "* " + string(data)
	}
	ours, person := key("ours"), key("person")
	signers := filepath.Join(dir, "allowed")
	write(t, signers, public(ours))
	w.push("README.md", "fabrics\n")
	w.start()
	w.must("sync")
	w.stop()
	config, err := os.ReadFile(w.config)
	w.ok(err)
	write(t, w.config, strings.Replace(string(config), "    interval:",
		fmt.Sprintf("    signing: {keyFile: %s}\n    verify: {allowedSignersFile: %s}\n    interval:", ours, signers), 1))
	w.start()
	w.drop("fabric-1", "vpc-1.yaml", vpc("vpc-1", 1001))
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")

	c := w.git.Clone(t, "fabrics")
	c.Write("gitops/hedgehog/fabric-1/raw/vpc-2.yaml", vpc("vpc-2", 1002))
	c.Git("add", "-A")
	c.Git("-c", "gpg.format=ssh", "-c", "user.signingKey="+person, "commit", "-q", "-S", "-m", "add vpc-2")
	c.Git("push", "-q", "origin", "HEAD:main")
	c.Git("-c", "gpg.ssh.allowedSignersFile="+signers, "verify-commit", "HEAD~1")
	w.hh("sync")
	w.drop("fabric-1", "vpc-3.yaml", vpc("vpc-3", 1003))
	w.hh("sync")
	out, code := w.hh("status")
	if code != 1 || !strings.Contains(out, "is not accepted: its SSH key SHA256:") {
		t.Errorf("status (%d):\n%s", code, out)
	}
	if n := strings.Count(w.history(), "is not accepted"); n != 1 {
		t.Errorf("it is told %d times:\n%s", n, w.history())
	}
	if out := w.remote("ls-tree", "-r", "--name-only", "main"); strings.Contains(out, "managed/vpcs/vpc-2.yaml") {
		t.Errorf("it was ingested:\n%s", out)
	}

	write(t, signers, public(ours)+public(person))
	w.must("sync")
	w.pushed("fabric-1", "vpcs/vpc-2.yaml")
	w.pushed("fabric-1", "vpcs/vpc-3.yaml")
	w.clean()
}

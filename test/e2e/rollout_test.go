// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// History says when the switches have what was applied: not before the agent
// of each switch has applied the generation that the change led to.
func TestRollout(t *testing.T) {
	w := newWorld(t, options{cluster: true})
	const agents = "/apis/agent.githedgehog.com/v1beta1/namespaces/default/agents"
	do := func(method, path, contentType, body string) {
		t.Helper()
		if _, err := w.kube.Do(method, path, contentType, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	describe := func(leaf, description string) { // as Hedgehog's controller would, for all that is in the spec
		t.Helper()
		do("PATCH", agents+"/"+leaf, "application/merge-patch+json", fmt.Sprintf(`{"spec": {"description": %q}}`, description))
	}
	applied := func(leaf string, generation int) { // as the agent says
		t.Helper()
		do("PATCH", agents+"/"+leaf+"/status", "application/merge-patch+json", fmt.Sprintf(`{"status": {"conditions": [], "lastAppliedGen": %d}}`, generation))
	}
	t.Cleanup(func() { _, _ = w.kube.Do("DELETE", agents, "", nil) }) // other tests have the same API server
	for _, leaf := range []string{"leaf-01", "leaf-02", "leaf-03"} {
		do("POST", agents, "application/json", fmt.Sprintf(`{"apiVersion": "agent.githedgehog.com/v1beta1", "kind": "Agent", "metadata": {"name": %q}, "spec": {}}`, leaf))
		applied(leaf, 1)
	}
	w.start()
	status := func(want string) {
		t.Helper()
		w.eventually("status with "+want, func() error {
			if out, _ := w.hh("status", "-o", "json"); !strings.Contains(strings.Join(strings.Fields(out), ""), want) {
				return errors.New(out)
			}
			return nil
		})
	}
	status(`"agents":3`)
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001))
	w.eventually("vpc-1 applied", func() error {
		_, err := w.kube.Get(vpcs, "default", "vpc-1")
		return err
	})
	describe("leaf-01", "with vpc-1")
	describe("leaf-03", "with vpc-1")
	applied("leaf-01", 2)
	status(`"lagging":[{"switch":"leaf-03","generation":2,"applied":1,`) // long before the next check
	if history := w.history(); strings.Contains(history, "rolled out") {
		t.Errorf("leaf-03 has not applied it:\n%s", history)
	}
	applied("leaf-03", 2)
	tip := strings.TrimSpace(w.remote("rev-parse", "--short=7", "main"))
	w.eventually("the record", func() error {
		history := w.history()
		if !strings.Contains(history, "fabric-1  rolled out "+tip+" to the switches; leaf-01, leaf-03 applied what it led to (") {
			return errors.New(history)
		}
		return nil
	})
}

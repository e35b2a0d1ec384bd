// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"fmt"
	"net/http"
	"testing"
)

// TestAgents lists agents that are up to date, that lag, and that have never
// applied anything, and looks where there is no such kind.
func TestAgents(t *testing.T) {
	s := testServer(t)
	const agents = "/apis/agent.githedgehog.com/v1beta1/namespaces/default/agents"
	do := func(method, path, contentType, body string) {
		t.Helper()
		if _, err := s.Do(method, path, contentType, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	for name, applied := range map[string]int{"leaf-01": 2, "leaf-02": 1, "leaf-03": 0} {
		do(http.MethodPost, agents, "application/json", fmt.Sprintf(`{"apiVersion": "agent.githedgehog.com/v1beta1", "kind": "Agent", "metadata": {"name": %q}, "spec": {"description": "a"}}`, name))
		do(http.MethodPatch, agents+"/"+name, "application/merge-patch+json", `{"spec": {"description": "b"}}`)
		if applied > 0 {
			do(http.MethodPatch, agents+"/"+name+"/status", "application/merge-patch+json", fmt.Sprintf(`{"status": {"conditions": [], "lastAppliedGen": %d}}`, applied))
		}
	}
	got, err := connect(t, s).Agents(t.Context())
	if want := "[{leaf-01 2 2} {leaf-02 2 1} {leaf-03 2 0}]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v, want %s", got, err, want)
	}
	do(http.MethodDelete, agents, "", "")

	c := behind(t, s, func(w http.ResponseWriter, r *http.Request) bool {
		r.URL.Path = "/apis/nothing.example/v1/nothings"
		return false
	})
	if got, err := c.Agents(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("where there is no such kind: %v, %v", got, err)
	}
}

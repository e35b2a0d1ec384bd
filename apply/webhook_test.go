// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// webhook has the API server ask admit about the objects with the label
// webhook: <name>. admit returns a JSON patch, or why the object is refused.
// It returns when the API server does ask.
func webhook(t *testing.T, s *kube.Server, name string, operations string, admit func(object map[string]any) (patch, refusal string)) {
	t.Helper()
	asked := make(chan bool, 1)
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- true:
		default:
		}
		var review struct {
			Request struct {
				UID               string
				Object, OldObject map[string]any
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		object := review.Request.Object
		if object == nil {
			object = review.Request.OldObject
		}
		response := map[string]any{"uid": review.Request.UID, "allowed": true}
		patch, refusal := admit(object)
		if patch != "" {
			response["patchType"], response["patch"] = "JSONPatch", base64.StdEncoding.EncodeToString([]byte(patch))
		}
		if refusal != "" {
			response["allowed"], response["status"] = false, map[string]any{"message": refusal, "code": 403}
		}
		fmt.Fprint(w, toJSON(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
	}))
	t.Cleanup(hook.Close)

	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})
	config := fmt.Sprintf(`{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": %[1]q},
		"webhooks": [{
			"name": "%[1]s.test.hhwatchd.example", "admissionReviewVersions": ["v1"], "sideEffects": "None",
			"clientConfig": {"url": %[2]q, "caBundle": %[3]q},
			"rules": [{"apiGroups": ["test.hhwatchd.example"], "apiVersions": ["*"], "resources": ["*"], "operations": [%[4]s]}],
			"objectSelector": {"matchLabels": {"webhook": %[1]q}}
		}]
	}`, name, hook.URL, base64.StdEncoding.EncodeToString(ca), operations)
	const configs = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
	if _, err := s.Do(http.MethodPost, configs, "application/json", []byte(config)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.Do(http.MethodDelete, configs+"/"+name, "", nil); err != nil {
			t.Error(err)
		}
	})

	// The API server learns of it by a watch of its own. A dry run asks too.
	canary := named(t, shapeHead+"metadata: {labels: {webhook: "+name+"}}", "canary-"+name)
	if strings.Contains(operations, "DELETE") {
		if _, err := s.Do(http.MethodPost, kube.Path("test.hhwatchd.example/v1/shapes", "default"), "application/json", []byte(toJSON(canary.Value))); err != nil {
			t.Fatal(err)
		}
	}
	for {
		if strings.Contains(operations, "DELETE") {
			s.Do(http.MethodDelete, path(canary)+"?dryRun=All", "", nil)
		} else {
			s.Do(http.MethodPost, kube.Path("test.hhwatchd.example/v1/shapes", "default")+"?dryRun=All", "application/json", []byte(toJSON(canary.Value)))
		}
		select {
		case <-asked:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestWebhookMutates has a webhook add to an object, and change what is in it.
func TestWebhookMutates(t *testing.T) {
	s := testServer(t)
	webhook(t, s, "adds", `"CREATE", "UPDATE"`, func(o map[string]any) (patch, refusal string) {
		return `[
			{"op": "add", "path": "/metadata/labels/added", "value": "x"},
			{"op": "add", "path": "/spec/int", "value": 1},
			{"op": "add", "path": "/spec/struct/deep/a", "value": "by the webhook"},
			{"op": "add", "path": "/spec/free/a", "value": {"b": []}}
		]`, ""
	})
	webhook(t, s, "changes", `"CREATE", "UPDATE"`, func(o map[string]any) (patch, refusal string) {
		return `[
			{"op": "replace", "path": "/spec/text", "value": "as the webhook has it"},
			{"op": "add", "path": "/spec/atomicStructs/0/deep", "value": {"a": "by the webhook"}}
		]`, ""
	})
	const file = shapeHead + `
metadata: {labels: {webhook: %s}}
spec:
  text: %s
  struct: {deep: {}}
  free: {}
  atomicStructs: [{a: x}]
`
	c := connect(t, s)

	// What is added is not drift, for a daemon that has just started either.
	o := named(t, fmt.Sprintf(file, "adds", "a"), "webhook-adds")
	if r := one(t, c, o, true); r.Outcome != Created {
		t.Fatalf("first: %s %v", r.Outcome, r.Err)
	}
	if got := live(t, s, o)["spec"].(map[string]any)["int"]; got != 1.0 {
		t.Fatalf("the webhook did not add: %v", got)
	}
	before := writes(t, s)
	for _, c := range []*Cluster{c, connect(t, s)} {
		if r := one(t, c, o, true); r.Outcome != Unchanged {
			t.Errorf("again: %s %s %v", r.Outcome, r.Field, r.Err)
		}
	}
	if n := writes(t, s) - before; n != 0 {
		t.Errorf("%d writes for what a webhook added", n)
	}

	// What is changed is tried, and then left.
	o = named(t, fmt.Sprintf(file, "changes", "a"), "webhook-changes")
	if r := one(t, c, o, true); r.Outcome != Created {
		t.Fatalf("first: %s %v", r.Outcome, r.Err)
	}
	before = writes(t, s)
	for _, full := range []bool{true, false, true} {
		if r := one(t, c, o, full); r.Outcome != Unchanged {
			t.Errorf("again: %s %s %v", r.Outcome, r.Field, r.Err)
		}
	}
	if n := writes(t, s) - before; n != 0 {
		t.Errorf("%d writes for what a webhook insists on", n)
	}
	// Until the file changes, or somebody else changes the object.
	o = named(t, fmt.Sprintf(file+"  map: {a: x}\n", "changes", "a"), "webhook-changes")
	if r := one(t, c, o, true); r.Outcome != Configured {
		t.Errorf("with another field: %s %v", r.Outcome, r.Err)
	}
	edit(t, s, o, `{"spec": {"map": {"a": "y"}}}`)
	if r := one(t, c, o, true); r.Outcome != Configured {
		t.Errorf("after an edit: %s %v", r.Outcome, r.Err)
	}
	if r := one(t, c, o, true); r.Outcome != Unchanged {
		t.Errorf("after that: %s %v", r.Outcome, r.Err)
	}
}

// TestWebhookRefuses has a webhook refuse objects, as Hedgehog's do that judge
// an object beside others.
func TestWebhookRefuses(t *testing.T) {
	s := testServer(t)
	webhook(t, s, "refuses", `"CREATE", "UPDATE"`, func(o map[string]any) (patch, refusal string) {
		if o["metadata"].(map[string]any)["name"] == "refused" {
			return "", "VPC vpc-1 not found:\n  create it first"
		}
		return "", ""
	})
	c := connect(t, s)
	text := shapeHead + "metadata: {labels: {webhook: refuses}}"
	results := applied(t, c, []Object{named(t, text, "refused"), named(t, text, "not-refused")}, true)
	if r := results["not-refused"]; r.Outcome != Created {
		t.Errorf("not refused: %s %v", r.Outcome, r.Err)
	}
	const want = `admission webhook "refuses.test.hhwatchd.example" denied the request: VPC vpc-1 not found: create it first`
	if r := results["refused"]; r.Outcome != Failed || r.Permanent || r.Err == nil || r.Err.Error() != want {
		t.Errorf("refused: %s %q, permanent %t", r.Outcome, r.Err, r.Permanent)
	}
}

// TestWebhookKeeps has a webhook refuse to delete an object.
func TestWebhookKeeps(t *testing.T) {
	s := testServer(t)
	o := named(t, shapeHead+"metadata: {labels: {webhook: keeps}}", "kept")
	one(t, connect(t, s), o, true)
	keep := make(chan bool, 1)
	keep <- true
	webhook(t, s, "keeps", `"DELETE"`, func(map[string]any) (patch, refusal string) {
		kept := <-keep
		keep <- kept
		if kept {
			return "", "VPC has attachments"
		}
		return "", ""
	})
	c := connect(t, s)
	if r := pruned(t, c, []Object{o})[0]; r.Outcome != Failed || r.Permanent || r.Err == nil || !strings.Contains(r.Err.Error(), "VPC has attachments") {
		t.Errorf("%s %v, permanent %t", r.Outcome, r.Err, r.Permanent)
	}
	<-keep
	keep <- false
	if r := pruned(t, c, []Object{o})[0]; r.Outcome != Pruned {
		t.Errorf("%s %v", r.Outcome, r.Err)
	}
}

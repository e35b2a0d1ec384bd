// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// refuse has the API server ask admit about each VPC and VPCAttachment that is
// made or changed: it returns why one is refused, or "".
func (w *world) refuse(admit func(name string) string) {
	w.t.Helper()
	asked := make(chan bool, 1)
	hook := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		select {
		case asked <- true:
		default:
		}
		var review struct {
			Request struct{ UID, Name string }
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			if r.Context().Err() == nil { // else the API server waits no more
				w.t.Error(err)
			}
			return
		}
		why := admit(review.Request.Name)
		json.NewEncoder(rw).Encode(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
			"response": map[string]any{"uid": review.Request.UID, "allowed": why == "", "status": map[string]any{"message": why, "code": 403}}})
	}))
	w.t.Cleanup(hook.Close)
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw}))
	const configs = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
	config := fmt.Sprintf(`{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "refuse"},
		"webhooks": [{"name": "refuse.test.example", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {"url": %q, "caBundle": %q},
			"rules": [{"apiGroups": ["vpc.githedgehog.com"], "apiVersions": ["*"], "resources": ["vpcs", "vpcattachments"], "operations": ["CREATE", "UPDATE"]}]}]}`, hook.URL, ca)
	if _, err := w.kube.Do("POST", configs, "application/json", []byte(config)); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if _, err := w.kube.Do("DELETE", configs+"/refuse", "", nil); err != nil {
			w.t.Error(err)
		}
	})
	w.eventually("the API server to ask the webhook", func() error {
		w.kube.Do("PATCH", "/apis/vpc.githedgehog.com/v1beta1/namespaces/default/vpcs/canary?fieldManager=test&dryRun=All", "application/apply-patch+yaml", []byte(vpc("canary", 1)))
		select {
		case <-asked:
			return nil
		default:
			return fmt.Errorf("it does not")
		}
	})
}

// TestRefusedForAnother has objects that are refused as long as another one is
// missing, which goes in after them, or is made by somebody else.
func TestRefusedForAnother(t *testing.T) {
	w := newWorld(t, options{cluster: true, admission: "off"})
	needs := map[string]string{"vpc-1": "vpc-9", "vpc-2": "by-hand"}
	w.refuse(func(name string) string {
		if other := needs[name]; other != "" {
			if _, err := w.kube.Get(vpcs, "default", other); err != nil {
				return name + " needs " + other
			}
		}
		return ""
	})
	w.start()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001)+"---\n"+vpc("vpc-9", 1009)+"---\n"+vpc("vpc-2", 1002))
	w.liveVLAN("vpc-9", "1009")
	w.liveVLAN("vpc-1", "1001")
	w.eventually("status to tell of the refusal", func() error {
		out, code := w.hh("status")
		if code != 1 || !strings.Contains(out, "NOT APPLIED managed/vpcs/vpc-2.yaml: admission webhook") ||
			!strings.Contains(out, "vpc-2 needs by-hand (from raw/a.yaml, document 3, line ") {
			return fmt.Errorf("exit code %d\n%s", code, out)
		}
		return nil
	})
	if out := w.history("-o", "json"); !strings.Contains(out, `"from":"from raw/a.yaml, document 3, line `) {
		t.Errorf("the history does not say where vpc-2 stands:\n%s", out)
	}
	if _, err := w.kube.Do("PATCH", "/apis/vpc.githedgehog.com/v1beta1/namespaces/default/vpcs/by-hand?fieldManager=somebody",
		"application/apply-patch+yaml", []byte(vpc("by-hand", 1003))); err != nil {
		t.Fatal(err)
	}
	w.liveVLAN("vpc-2", "1002")
	w.eventually("status to be well", func() error {
		_, err := w.status()
		return err
	})
	w.clean()
}

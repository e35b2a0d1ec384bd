// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// TestVerdicts has answers of API servers, and which of them say that an object
// is refused for what it is.
func TestVerdicts(t *testing.T) {
	const (
		hook   = `admission webhook "vpc.example" `
		policy = `vpcs.vpc.githedgehog.com "a" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: `
	)
	for _, test := range []struct {
		code    int32
		reason  metav1.StatusReason
		message string
		want    string
	}{
		{403, metav1.StatusReasonForbidden, hook + "denied the request: the name is too long", "webhook"},
		{400, "", hook + "denied the request without explanation", "webhook"},
		{422, metav1.StatusReasonInvalid, hook + "denied the request: spec.vlan: Invalid value", "webhook"},
		{500, "", hook + "denied the request: getting VPCs: timeout", ""},
		{409, "", hook + "denied the request: try again", ""},
		{404, "", hook + "denied the request: no such fabric", ""},
		{400, metav1.StatusReasonBadRequest, hook + "does not support dry run", ""},
		{500, metav1.StatusReasonInternalError, `Internal error occurred: failed calling webhook "vpc.example": connection refused`, ""},
		{422, metav1.StatusReasonInvalid, policy + "gold is sold out", "object"},
		{403, metav1.StatusReasonForbidden, policy + "gold is sold out", "object"},
		{401, metav1.StatusReasonUnauthorized, policy + "gold is sold out", "object"},
		{422, metav1.StatusReasonInvalid, policy + "expression 'object.spec.x == 1' resulted in error: no such key: x", "object"},
		{422, metav1.StatusReasonInvalid, policy + "failed to configure binding: no params found", ""},
		{422, metav1.StatusReasonInvalid, `VPC.vpc.githedgehog.com "a" is invalid: spec.x: Required value`, "object"},
		{403, metav1.StatusReasonForbidden, `vpcs.vpc.githedgehog.com "a" is forbidden: User "x" cannot patch resource "vpcs" in API group "vpc.githedgehog.com" in the namespace "default"`, ""},
		{403, metav1.StatusReasonForbidden, `vpcs.vpc.githedgehog.com "a" is forbidden: exceeded quota: q, requested: 1, used: 9, limited: 9`, ""},
		{403, metav1.StatusReasonForbidden, `vpcs.vpc.githedgehog.com "a" is forbidden: unable to create new content in namespace default because it is being terminated`, ""},
		{404, metav1.StatusReasonNotFound, `namespaces "lab" not found`, ""},
		{409, metav1.StatusReasonConflict, "Operation cannot be fulfilled", ""},
		{429, metav1.StatusReasonTooManyRequests, "too many requests", ""},
		{500, "", "failed to create typed patch object: .spec.x: field not declared in schema", ""},
		{503, metav1.StatusReasonServiceUnavailable, "etcd is away", ""},
		{504, metav1.StatusReasonTimeout, "timed out", ""},
	} {
		is, webhook := isVerdict(&apierrors.StatusError{ErrStatus: metav1.Status{Code: test.code, Reason: test.reason, Message: test.message}})
		got := ""
		switch {
		case is && webhook:
			got = "webhook"
		case is:
			got = "object"
		}
		if got != test.want {
			t.Errorf("%d %s: %q, want %q", test.code, test.message, got, test.want)
		}
	}
	if is, _ := isVerdict(errors.New("admission webhook \"x\" denied the request: it came from nowhere")); is {
		t.Error("what is no answer is taken for a verdict")
	}
}

// TestRehearse asks a server which objects it would refuse. Nothing is written.
func TestRehearse(t *testing.T) {
	s := testServer(t)
	webhook(t, s, "rehearses", `"CREATE", "UPDATE"`, func(o map[string]any) (patch, refusal string) {
		if strings.HasPrefix(o["metadata"].(map[string]any)["name"].(string), "bad") {
			return "", "its name is bad"
		}
		return "", ""
	})
	c := connect(t, s)
	const labelled = "metadata: {labels: {webhook: rehearses}}"
	const denied = `admission webhook "rehearses.test.hhwatchd.example" denied the request: its name is bad`
	tests := []struct {
		name, text string
		refused    string // in the words of the server; "" for an object that is not
		field      string
		webhook    bool
		mute       string // why there is no verdict
		finalizer  bool   // it is there, and is being deleted
	}{
		{name: "good", text: labelled},
		{name: "bad", text: labelled, refused: denied, webhook: true},
		{name: "bad-and-going", text: labelled, finalizer: true},
		{name: "missing-key", text: "spec: {keyed: [{note: x}]}", refused: "spec.keyed[0].port: Required value", field: "spec.keyed[0].port"},
		{name: "label", text: "metadata: {labels: {a: 'not a label'}}", refused: "metadata.labels: Invalid value", field: "metadata.labels"},
		{name: "unknown-field", text: "spec: {txt: a}", mute: ".spec.txt: field not declared in schema"},
		{name: "other-namespace", text: "metadata: {namespace: kube-system}", mute: `a right is missing (hhwatchd validate tells all that are needed): User "hhwatchd" cannot patch resource "shapes"`},
		{name: "crd-missing", text: "kind: Missing", mute: "its CRD is not installed"},
	}
	var objs []Object
	for _, test := range tests {
		o := named(t, shapeHead+test.text, test.name)
		if test.finalizer {
			held := named(t, shapeHead+"metadata: {finalizers: [test.hhwatchd.example/held]}", test.name)
			if _, err := s.Do(http.MethodPost, kube.Path("test.hhwatchd.example/v1/shapes", "default"), "application/json", []byte(toJSON(held.Value))); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Do(http.MethodDelete, path(held), "", nil); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { edit(t, s, held, `{"metadata": {"finalizers": null}}`) })
		}
		objs = append(objs, o)
	}
	for i, test := range tests {
		refused, mute, err := c.Rehearse(t.Context(), objs[i:i+1])
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if (mute != nil) != (test.mute != "") || mute != nil && !strings.Contains(mute.Error(), test.mute) {
			t.Errorf("%s: no verdict for %v, want %q", test.name, mute, test.mute)
		}
		if (len(refused) == 1) != (test.refused != "") {
			t.Errorf("%s: refused %+v, %v", test.name, refused, mute)
			continue
		}
		if len(refused) == 1 {
			r := refused[0]
			if !strings.Contains(r.Err.Error(), test.refused) || r.Field != test.field || r.Webhook != test.webhook || r.Name != test.name {
				t.Errorf("%s: refused for %v, field %q, by a webhook %t", test.name, r.Err, r.Field, r.Webhook)
			}
		}
	}
	refused, mute, err := c.Rehearse(t.Context(), objs)
	if len(refused) != 3 || mute == nil || err != nil {
		t.Errorf("all at once: %+v, %v, %v", refused, mute, err)
	}
	if _, err := s.Get("test.hhwatchd.example/v1/shapes", "default", "good"); err == nil {
		t.Error("an object that was only asked about is there")
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// attachment is a file with one VPCAttachment, whose name begins with that of
// its VPC.
func attachment(vpc, name string) string {
	return fmt.Sprintf(`apiVersion: vpc.githedgehog.com/v1beta1
kind: VPCAttachment
metadata:
  name: %s--%s
spec:
  connection: server-1--unbundled--leaf-1
  subnet: %[1]s/default
`, vpc, name)
}

// labelled is an object with a label.
func labelled(object, label string) string {
	return strings.Replace(object, "metadata:\n", "metadata:\n  labels: {"+label+"}\n", 1)
}

// asHedgehog has a webhook refuse, as Hedgehog's does, a VPCAttachment whose VPC
// is not in the cluster; and what has "bad" in its name.
func (w *world) asHedgehog() {
	w.t.Helper()
	w.refuse(func(name string) string {
		if strings.Contains(name, "bad") {
			return "the name is bad"
		}
		if vpc, _, ok := strings.Cut(name, "--"); ok {
			if _, err := w.kube.Get(vpcs, "default", vpc); err != nil {
				return "vpc " + vpc + " not found"
			}
		}
		return ""
	})
}

const policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"

// forbid has a ValidatingAdmissionPolicy refuse objects with the label tier: gold,
// until the test is over or the function is called that is returned.
func (w *world) forbid() (allow func()) {
	w.t.Helper()
	do := func(method, path, body string) {
		w.t.Helper()
		if _, err := w.kube.Do(method, path, "application/json", []byte(body)); err != nil {
			w.t.Fatal(err)
		}
	}
	do("POST", policies, `{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "no-gold"}, "spec": {
		"matchConstraints": {"resourceRules": [{"apiGroups": ["vpc.githedgehog.com"], "apiVersions": ["*"], "resources": ["*"], "operations": ["CREATE", "UPDATE"]}]},
		"validations": [{"expression": "!has(object.metadata.labels) || !('tier' in object.metadata.labels) || object.metadata.labels.tier != 'gold'", "message": "gold is sold out"}]}}`)
	do("POST", policies[:len(policies)-len("policies")]+"policybindings", `{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "no-gold"},
		"spec": {"policyName": "no-gold", "validationActions": ["Deny"]}}`)
	refused := func() bool {
		_, err := w.kube.Do("PATCH", "/apis/vpc.githedgehog.com/v1beta1/namespaces/default/vpcs/canary?fieldManager=test&dryRun=All", "application/apply-patch+yaml",
			[]byte(labelled(vpc("canary", 1), "tier: gold")))
		return err != nil
	}
	await := func(want bool) {
		w.eventually("the policy to have its effect", func() error {
			if got := refused(); got != want {
				return fmt.Errorf("refused: %t", got)
			}
			return nil
		})
	}
	await(true)
	allow = sync.OnceFunc(func() {
		do("DELETE", policies[:len(policies)-len("policies")]+"policybindings/no-gold", "")
		do("DELETE", policies+"/no-gold", "")
		await(false)
	})
	w.t.Cleanup(allow)
	return allow
}

// asked counts the objects that the API server is asked about beforehand. As
// long as hang is set, nothing is answered.
func (w *world) asked(hang *atomic.Bool) (count func() int64) {
	var n atomic.Int64
	w.proxy.Fault(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch && r.URL.Query().Get("dryRun") != "" {
			n.Add(1)
		}
		for hang != nil && hang.Load() && r.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		return false
	})
	return n.Load
}

// wantReason waits for a rejected file's reason, and wants that text in it.
func (w *world) wantReason(name string, parts ...string) {
	w.t.Helper()
	file := filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged", name+".reason")
	w.eventually("the reason of "+name, func() error {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, part := range parts {
			if !strings.Contains(string(text), part) {
				return fmt.Errorf("it does not say %q:\n%s", part, text)
			}
		}
		return nil
	})
}

// inStep waits until the cluster holds what it should.
func (w *world) inStep(n int) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%d objects to be applied", n), func() error {
		st, err := w.status()
		if err == nil && (st.Repositories[0].Fabrics[0].Applied != n || st.Repositories[0].Fabrics[0].Objects != n) {
			err = fmt.Errorf("%+v", st.Repositories[0].Fabrics[0])
		}
		return err
	})
}

const theBadName = `the cluster refuses VPC/vpc-bad: admission webhook "refuse.test.example" denied the request: the name is bad`

// What the cluster's own admission refuses is rejected before it is committed:
// what a webhook and what a policy refuses, dropped and pushed. What it would
// refuse only for the want of what comes with it is not.
func TestAdmission(t *testing.T) {
	w := newWorld(t, options{cluster: true, proxied: true})
	w.asHedgehog()
	allow := w.forbid()
	asked := w.asked(nil)
	w.push("README", "a repository\n")
	w.start()

	// Together with what it needs.
	w.drop("fabric-1", "both.yaml", attachment("vpc-1", "server-1")+"---\n"+vpc("vpc-1", 1001))
	w.inStep(2)
	if n := asked(); n != 1 {
		t.Errorf("the cluster was asked about %d objects, want the VPC alone", n)
	}

	n := w.commits()
	w.drop("fabric-1", "dropped.yaml", "# one\n---\n"+vpc("vpc-2", 1002)+"---\n"+vpc("vpc-bad", 1003))
	w.wantReason("dropped.yaml", "dropped.yaml was not taken in: 1 problem.\n", "document 2, line 17, column 9\n  HH601: "+theBadName+"\n  what to do: ", "hhwatchd explain HH601")
	w.drop("fabric-1", "attachment.yaml", attachment("vpc-1", "bad"))
	w.wantReason("attachment.yaml", "document 1, line 4, column 9\n  HH601: the cluster refuses VPCAttachment/vpc-1--bad: admission webhook")
	if now := w.commits(); now != n {
		t.Errorf("rejected drops made commits: %s, then %s", n, now)
	}
	w.push("gitops/hedgehog/fabric-1/raw/pushed.yaml", vpc("vpc-2", 1002)+"---\n"+labelled(vpc("vpc-3", 1003), "tier: gold"))
	if out, code := w.hh("sync"); code != 1 || !strings.Contains(out, "HH601 the cluster refuses VPC/vpc-3: ") {
		t.Errorf("sync ends with %d:\n%s", code, out)
	}
	w.wantReason("pushed.yaml", "document 2, line 16, column 9\n  HH601: the cluster refuses VPC/vpc-3: ", "ValidatingAdmissionPolicy 'no-gold' with binding 'no-gold' denied request: gold is sold out\n")
	if got := len(w.managed("fabric-1")); got != 2 {
		t.Errorf("there are %d managed files, want 2", got)
	}
	if h := w.history(); strings.Count(h, "HH601 the cluster refuses ") != 3 {
		t.Errorf("the history does not tell why they were rejected:\n%s", h)
	}

	// What lies rejected is not asked about again; a policy that goes, and the
	// same file once more, is another matter.
	before := asked()
	for range 3 {
		w.must("sync")
	}
	if now := asked(); now != before {
		t.Errorf("%d objects were asked about in cycles with nothing to do", now-before)
	}
	gold := labelled(vpc("vpc-3", 1003), "tier: gold")
	w.drop("fabric-1", "gold.yaml", gold)
	w.wantReason("gold.yaml", "gold is sold out")
	allow()
	w.drop("fabric-1", "gold.yaml", gold)
	w.inStep(3)

	// An object that changes, beside another that the cluster has: one may only
	// be refused because the other one has not changed yet.
	w.drop("fabric-1", "two.yaml", vpc("vpc-1", 1005)+"---\n"+vpc("vpc-bad", 1001))
	w.pushed("fabric-1", "vpcs/vpc-bad.yaml")
	w.eventually("status to tell of the refusal", func() error {
		if out, _ := w.hh("status"); !strings.Contains(out, "NOT APPLIED managed/vpcs/vpc-bad.yaml: admission webhook") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	w.clean()
}

// With partial, the documents that the cluster takes go through. A file that has
// to be planned anew, because somebody else pushed first, is not asked about again.
func TestAdmissionPartial(t *testing.T) {
	w := newWorld(t, options{cluster: true, proxied: true, partial: true})
	w.asHedgehog()
	asked := w.asked(nil)
	w.push("README", "a repository\n")
	w.start()
	raced := false
	w.git.BeforePush(func() {
		if !raced {
			raced = true
			w.push("gitops/hedgehog/fabric-1/raw/pushed.yaml", vpc("vpc-bad", 1009)+"---\n"+vpc("vpc-9", 1010))
		}
	})
	w.drop("fabric-1", "mixed.yaml", vpc("vpc-1", 1001)+"---\n"+vpc("vpc-bad", 1003)+"---\n"+vpc("vpc-2", 1002))
	w.inStep(3)
	w.wantManaged("fabric-1", map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002), "vpcs/vpc-9.yaml": vpc("vpc-9", 1010)})
	w.wantReason("mixed.yaml", "2 other documents were taken in", "document 1, line 5, column 9\n  HH601: "+theBadName)
	w.wantReason("pushed.yaml", "1 other document was taken in", "document 1, line 4, column 9\n  HH601: "+theBadName)
	if n := asked(); n != 5 {
		t.Errorf("the cluster was asked about %d objects, want each of the 5 once", n)
	}
	w.clean()
}

// The other words of the config; and a dry run.
func TestAdmissionConfig(t *testing.T) {
	for _, setting := range []string{"error", "warning", "off"} {
		t.Run(setting, func(t *testing.T) {
			w := newWorld(t, options{cluster: true, proxied: true, admission: setting})
			w.asHedgehog()
			asked := w.asked(nil)
			w.start()
			w.drop("fabric-1", "a.yaml", vpc("vpc-bad", 1003))
			want := int64(1)
			switch setting {
			case "error":
				w.wantReason("a.yaml", "HH601: "+theBadName)
			case "warning":
				w.pushed("fabric-1", "vpcs/vpc-bad.yaml")
				w.eventually("a warning", func() error {
					if out := w.daemon.output(); strings.Count(out, "ingested raw/a.yaml, but: document 1, line 4: HH601 "+strings.ReplaceAll(theBadName, `"`, `\"`)) != 1 {
						return fmt.Errorf("it said\n%s", out)
					}
					return nil
				})
			case "off":
				w.pushed("fabric-1", "vpcs/vpc-bad.yaml")
				want = 0
			}
			if n := asked(); n != want {
				t.Errorf("the cluster was asked about %d objects, want %d", n, want)
			}
			// Validation of a file has no network.
			file := filepath.Join(t.TempDir(), "a.yaml")
			write(t, file, vpc("vpc-bad", 1003))
			w.must("validate", "--fabric", "fabric-1", file)
			if n := asked(); n != want {
				t.Errorf("validate asked the cluster")
			}
			if setting != "error" {
				return
			}
			// A dry run asks, and so does a sync without a daemon.
			w.stop()
			w.drop("fabric-1", "b.yaml", vpc("vpc-bad", 1004))
			for i, args := range [][]string{{"sync", "--once", "--dry-run"}, {"sync", "--once"}} {
				if out, code := w.hh(args...); code != 1 || !strings.Contains(out, "HH601 "+theBadName) {
					t.Errorf("%v ends with %d:\n%s", args, code, out)
				}
				if n := asked(); n != 2+int64(i) {
					t.Errorf("after %v the cluster was asked %d times", args, n)
				}
			}
			w.wantReason("b.yaml", theBadName)
		})
	}
}

// A rejected file that cannot be moved lies in raw/, and is not asked about in
// each cycle.
func TestAdmissionStuck(t *testing.T) {
	w := newWorld(t, options{cluster: true, proxied: true})
	w.asHedgehog()
	asked := w.asked(nil)
	w.start()
	unmanaged := filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged")
	os.RemoveAll(unmanaged)
	write(t, unmanaged, "a file in its place\n")
	w.drop("fabric-1", "a.yaml", vpc("vpc-bad", 1003))
	w.eventually("status to tell", func() error {
		if out, _ := w.hh("status"); !strings.Contains(out, "a.yaml: it is rejected (HH601), but cannot be moved to unmanaged/: ") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	for range 5 {
		w.hh("sync")
	}
	if n := asked(); n != 1 {
		t.Errorf("the cluster was asked %d times", n)
	}
	if err := os.Remove(unmanaged); err != nil {
		t.Fatal(err)
	}
	w.hh("sync")
	w.wantReason("a.yaml", theBadName)
	if n := asked(); n != 1 {
		t.Errorf("the cluster was asked %d times", n)
	}
	w.drop("fabric-1", "a.yaml", vpc("vpc-bad", 1003))
	w.eventually("the same file again to be asked about", func() error {
		if n := asked(); n != 2 {
			return fmt.Errorf("it was asked %d times", n)
		}
		return nil
	})
}

// A cluster that gives no verdict holds up nothing: without the right to ask,
// hanging, away, with a webhook that fails. It is asked again once it is well;
// and about no more objects than is good.
func TestAdmissionUnheard(t *testing.T) {
	w := newWorld(t, options{cluster: true, proxied: true})
	w.asHedgehog()
	var hang atomic.Bool
	asked := w.asked(&hang)
	w.start()
	says := func(line string) {
		t.Helper()
		w.eventually("status to say "+line, func() error {
			out, _ := w.hh("status")
			before, after, _ := strings.Cut(line, "…")
			if _, rest, ok := strings.Cut(out, before); !ok || !strings.Contains(rest, after) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
	takes := func(n int, before func(), after func()) {
		t.Helper()
		before()
		w.drop("fabric-1", fmt.Sprintf("%d.yaml", n), vpc(fmt.Sprintf("vpc-%d", n), 1000+n))
		w.pushed("fabric-1", fmt.Sprintf("vpcs/vpc-%d.yaml", n))
		after()
		w.hh("sync")
		w.inStep(n)
	}
	takes(1, func() {}, func() {})
	if n := asked(); n != 1 {
		t.Errorf("the cluster was asked %d times", n)
	}

	takes(2, func() { w.proxy.As("somebody") }, func() {
		says(`admission: not all objects were judged before they were committed, …: a right is missing (hhwatchd validate tells all that are needed): User "somebody" cannot patch resource "vpcs"`)
		w.proxy.As("hhwatchd")
	})

	n := asked()
	takes(3, func() { hang.Store(true) }, func() {
		if now := asked(); now > n+1 {
			t.Errorf("the cluster was asked %d times about one object", now-n)
		}
		n = asked()
		w.drop("fabric-1", "again.yaml", labelled(vpc("vpc-1", 1001), "again: yes-please"))
		w.eventually("what is dropped while it hangs", func() error {
			if text := w.managed("fabric-1")["vpcs/vpc-1.yaml"]; !strings.Contains(text, "again") {
				return fmt.Errorf("%s", text)
			}
			return nil
		})
		if now := asked(); now != n {
			t.Errorf("a cluster that hangs was asked again")
		}
		hang.Store(false)
	})

	takes(4, w.proxy.Down, func() {
		says("cluster DOWN for ")
		w.proxy.Up()
	})
	asked = w.asked(nil) // the proxy's fault went with it

	const hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
	fails := func() bool {
		_, err := w.kube.Do("PATCH", "/apis/vpc.githedgehog.com/v1beta1/namespaces/default/vpcs/canary?fieldManager=test&dryRun=All", "application/apply-patch+yaml", []byte(vpc("canary", 1)))
		return err != nil
	}
	await := func(want bool) {
		w.eventually("the webhook", func() error {
			if fails() != want {
				return fmt.Errorf("it fails: %t", !want)
			}
			return nil
		})
	}
	takes(5, func() {
		if _, err := w.kube.Do("POST", hooks, "application/json", []byte(`{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "away"},
			"webhooks": [{"name": "away.test.example", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {"url": "https://127.0.0.1:1/"},
				"rules": [{"apiGroups": ["vpc.githedgehog.com"], "apiVersions": ["*"], "resources": ["vpcs"], "operations": ["CREATE", "UPDATE"]}]}]}`)); err != nil {
			t.Fatal(err)
		}
		await(true)
	}, func() {
		says("admission: not all objects were judged before they were committed, …: Internal error occurred: failed calling webhook")
		if _, err := w.kube.Do("DELETE", hooks+"/away", "", nil); err != nil {
			t.Fatal(err)
		}
		await(false)
	})

	// It is heard again.
	w.drop("fabric-1", "bad.yaml", vpc("vpc-bad", 1999))
	w.wantReason("bad.yaml", theBadName)
	if out := w.must("status"); strings.Contains(out, "admission:") {
		t.Errorf("status still says\n%s", out)
	}

	n = asked()
	var many strings.Builder
	for i := range 250 {
		fmt.Fprintf(&many, "---\n%s", server(fmt.Sprintf("server-%d", i)))
	}
	w.drop("fabric-1", "many.yaml", many.String())
	w.inStep(255)
	if now := asked(); now != n+200 {
		t.Errorf("the cluster was asked about %d objects", now-n)
	}
	w.clean()
}

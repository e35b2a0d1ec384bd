// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// editLive changes an object in the cluster as somebody would by hand.
func (w *world) editLive(resource, name, manager, patch string) {
	w.t.Helper()
	if _, err := w.kube.Do("PATCH", kube.Path(resource, "default")+"/"+name+"?fieldManager="+manager, "application/merge-patch+json", []byte(patch)); err != nil {
		w.t.Fatal(err)
	}
}

// liveVLAN waits until a VPC in the cluster has a VLAN, as JSON.
func (w *world) liveVLAN(name, want string) {
	w.t.Helper()
	w.eventually("VLAN "+want+" of "+name, func() error {
		obj, err := w.kube.Get(vpcs, "default", name)
		if err != nil {
			return err
		}
		data, err := json.Marshal(obj["spec"])
		if err == nil && !strings.Contains(string(data), `"vlan":`+want) {
			err = fmt.Errorf("it is %s", data)
		}
		return err
	})
}

// historyHas waits until a line of the history has all of the words.
func (w *world) historyHas(words ...string) {
	w.t.Helper()
	w.eventually("history", func() error {
	lines:
		for line := range strings.Lines(w.history()) {
			for _, word := range words {
				if !strings.Contains(line, word) {
					continue lines
				}
			}
			return nil
		}
		return fmt.Errorf("no line with %q in\n%s", words, w.history())
	})
}

// drifts are the lines of status that tell of what is left as others have it.
func (w *world) drifts() ([]string, error) {
	w.t.Helper()
	out, _ := w.hh("status", "-o", "json") // exits with 1 if there are any
	var st statusDoc
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return nil, fmt.Errorf("%w in %s", err, out)
	}
	return st.Repositories[0].Fabrics[0].Drifts, nil
}

// noDrifts waits until status tells of none.
func (w *world) noDrifts() {
	w.t.Helper()
	w.eventually("status without drift", func() error {
		lines, err := w.drifts()
		if err == nil && len(lines) > 0 {
			err = fmt.Errorf("%v", lines)
		}
		return err
	})
}

const vlanPatch = `{"spec": {"subnets": {"default": {"vlan": %d}}}}`

// TestDriftRepaired has people change and delete what the daemon applied. The
// rescan is an hour away: what puts it right is the watch.
func TestDriftRepaired(t *testing.T) {
	w := newWorld(t, options{cluster: true})
	w.start()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001)+"---\n"+vpc("vpc-2", 1002))
	w.liveVLAN("vpc-1", "1001")
	w.liveVLAN("vpc-2", "1002")

	w.editLive(vpcs, "vpc-1", "kubectl-edit", fmt.Sprintf(vlanPatch, 77))
	w.liveVLAN("vpc-1", "1001")
	w.historyHas("drift: VPC/vpc-1: .spec.subnets.default.vlan was changed by kubectl-edit at ", "put right")

	if _, err := w.kube.Do("DELETE", kube.Path(vpcs, "default")+"/vpc-2", "", nil); err != nil {
		t.Fatal(err)
	}
	w.liveVLAN("vpc-2", "1002")
	w.historyHas("drift: VPC/vpc-2: was deleted", "put right")
	w.eventually("status to tell of it", func() error {
		if out, _ := w.hh("status"); !strings.Contains(out, " ago: VPC/vpc-2: was deleted\n") {
			return fmt.Errorf("it says\n%s", out)
		}
		return nil
	})
	if out := w.history("--object", "VPC/vpc-1"); !strings.Contains(out, "repaired") {
		t.Errorf("the story of vpc-1 tells of no repair:\n%s", out)
	}

	// Somebody who does not give in.
	writes := 0
	w.eventually("the end of the fight", func() error {
		obj, err := w.kube.Get(vpcs, "default", "vpc-1")
		if err != nil {
			return err
		}
		data, _ := json.Marshal(obj["spec"])
		if strings.Contains(string(data), `"vlan":1001`) {
			writes++
			w.editLive(vpcs, "vpc-1", "operator", fmt.Sprintf(vlanPatch, 78))
		}
		lines, err := w.drifts()
		if err == nil && len(lines) == 0 {
			err = fmt.Errorf("it goes on after %d changes", writes)
		}
		return err
	})
	w.historyHas("drift: VPC/vpc-1: .spec.subnets.default.vlan was changed each time that it was put right, 5 times within ", "by operator; it is left so until ")
	if out, code := w.hh("status"); code != 1 || !strings.Contains(out, "DRIFTED managed/vpcs/vpc-1.yaml: ") {
		t.Errorf("status: exit code %d\n%s", code, out)
	}
	if out, code := w.hh("diff"); code != 1 || !strings.Contains(out, "VPC/vpc-1 is not as it was applied; it was changed each time that it was put right; it is left so until ") {
		t.Errorf("diff: exit code %d\n%s", code, out)
	}
	// A new text of the object is applied all the same, and ends it.
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1003))
	w.liveVLAN("vpc-1", "1003")
	w.noDrifts()
	w.clean()
}

// TestDriftReported leaves what others change, and tells of it until it is as it
// should be.
func TestDriftReported(t *testing.T) {
	w := newWorld(t, options{cluster: true, drift: "report"})
	w.start()
	w.drop("fabric-1", "a.yaml", vpc("vpc-1", 1001)+"---\n"+vpc("vpc-2", 1002))
	w.liveVLAN("vpc-1", "1001")
	w.liveVLAN("vpc-2", "1002")
	w.editLive(vpcs, "vpc-1", "kubectl-edit", fmt.Sprintf(vlanPatch, 77))
	w.historyHas("drift: VPC/vpc-1: .spec.subnets.default.vlan was changed by kubectl-edit at ", "; it is left so (drift: report)")
	if _, err := w.kube.Do("DELETE", kube.Path(vpcs, "default")+"/vpc-2", "", nil); err != nil {
		t.Fatal(err)
	}
	w.historyHas("drift: VPC/vpc-2: was deleted; it is left so (drift: report)")

	if out, code := w.hh("sync"); code != 1 || !strings.Contains(out, "LEFT: managed/vpcs/vpc-1.yaml: ") {
		t.Errorf("sync: exit code %d\n%s", code, out)
	}
	w.liveVLAN("vpc-1", "77")
	before := w.history()
	w.stop()
	w.launch(exec.Command(binary, "--config", w.config, "run"))
	w.eventually("the look of a restart", func() error {
		lines, err := w.drifts()
		if err == nil && len(lines) != 2 {
			err = fmt.Errorf("drifts %v", lines)
		}
		return err
	})
	if n, m := strings.Count(before, "drift:"), strings.Count(w.history(), "drift:"); m != n {
		t.Errorf("%d records of drift became %d by a restart", n, m)
	}

	// They put it back, and it is well again.
	w.editLive(vpcs, "vpc-1", "kubectl-edit", fmt.Sprintf(vlanPatch, 1001))
	w.drop("fabric-1", "b.yaml", vpc("vpc-2", 1004))
	w.liveVLAN("vpc-2", "1004")
	w.noDrifts()
	w.clean()
}

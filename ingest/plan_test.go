// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// tree is a fabric's managed files.
type tree map[string]string

func (t tree) managed(path string) ([]byte, bool, error) {
	data, ok := t[path]
	return []byte(data), ok, nil
}

func TestPlan(t *testing.T) {
	old, now := vpc("a", "  x: 1\n"), vpc("a", "  x: 2\n")
	bad := "kind: VPC\n"
	const removed = "(removed)"
	for _, test := range []struct {
		name     string
		managed  tree
		files    []string
		outcomes string // of the files, "rejected" for a rejected one
		writes   tree
	}{
		{"nothing", nil, nil, "", tree{}},
		{"created", nil, []string{old}, "created", tree{"managed/vpcs/a.yaml": old}},
		{"updated", tree{"managed/vpcs/a.yaml": old}, []string{now}, "updated", tree{"managed/vpcs/a.yaml": now}},
		{"unchanged", tree{"managed/vpcs/a.yaml": old}, []string{"---\r\n" + old}, "unchanged", tree{}},
		{"an empty file is one", tree{"managed/vpcs/a.yaml": ""}, []string{old}, "updated", tree{"managed/vpcs/a.yaml": old}},
		{"comments are text too", tree{"managed/vpcs/a.yaml": old}, []string{old + "# c\n"}, "updated", tree{"managed/vpcs/a.yaml": old + "# c\n"}},
		{"the last word wins", nil, []string{old, now}, "created; updated", tree{"managed/vpcs/a.yaml": now}},
		{"changed and changed back", tree{"managed/vpcs/a.yaml": old}, []string{now, old}, "updated; updated", tree{}},
		{"twice in one file", nil, []string{old + "---\n" + old}, "created unchanged", tree{"managed/vpcs/a.yaml": old}},
		{"rejected ones count for nothing", tree{"managed/vpcs/a.yaml": old}, []string{now + "---\n" + bad, bad, vpc("b"), old}, "rejected; rejected; created; unchanged", tree{"managed/vpcs/b.yaml": vpc("b")}},
		{"many in one", tree{"managed/vpcs/a.yaml": old}, []string{vpc("b") + "---\n" + old + "---\n" + vpc("a\n  namespace: ns")}, "created unchanged created",
			tree{"managed/vpcs/b.yaml": vpc("b"), "managed/vpcs/ns/a.yaml": vpc("a\n  namespace: ns")}},
		{"absent", tree{"managed/vpcs/a.yaml": old, "managed/vpcs/b.yaml": vpc("b")}, []string{absent("a")}, "removed", tree{"managed/vpcs/a.yaml": removed}},
		{"absent already", nil, []string{absent("a")}, "unchanged", tree{}},
		{"absent and others", tree{"managed/vpcs/a.yaml": old}, []string{vpc("b") + "---\n" + absent("a")}, "created removed", tree{"managed/vpcs/a.yaml": removed, "managed/vpcs/b.yaml": vpc("b")}},
		{"absent, then not", tree{"managed/vpcs/a.yaml": old}, []string{absent("a"), now}, "removed; created", tree{"managed/vpcs/a.yaml": now}},
		{"absent, then as before", tree{"managed/vpcs/a.yaml": old}, []string{absent("a"), old}, "removed; created", tree{}},
		{"there, then absent", nil, []string{old, absent("a")}, "created; removed", tree{}},
		{"absent and not in one file", tree{"managed/vpcs/a.yaml": old}, []string{absent("a") + "---\n" + old}, "rejected", tree{}},
		{"absent in a rejected file", tree{"managed/vpcs/a.yaml": old}, []string{absent("a") + "---\n" + bad}, "rejected", tree{}},
		{"absent in another namespace", tree{"managed/vpcs/a.yaml": old}, []string{strings.Replace(absent("a"), "name: a", "name: a\n  namespace: ns", 1)}, "unchanged", tree{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var files []File
			for i, data := range test.files {
				files = append(files, File{Path: fmt.Sprintf("%d.yaml", i), Data: []byte(data)})
			}
			plan, err := hedgehog.Plan(files, test.managed.managed, nil)
			if err != nil {
				t.Fatal(err)
			}
			var steps []string
			for i, step := range plan.Files {
				if step.File != files[i].Path {
					t.Errorf("step %d is about %s", i, step.File)
				}
				var words []string
				for _, outcome := range step.Outcomes {
					words = append(words, string(outcome))
				}
				if len(step.Problems) > 0 {
					words = append(words, "rejected")
				}
				steps = append(steps, strings.Join(words, " "))
			}
			if got := strings.Join(steps, "; "); got != test.outcomes {
				t.Errorf("outcomes %s, want %s", got, test.outcomes)
			}
			writes := tree{}
			for path, data := range plan.Writes {
				if writes[path] = string(data); data == nil {
					writes[path] = removed
				}
			}
			if !maps.Equal(writes, test.writes) {
				t.Errorf("writes %q, want %q", writes, test.writes)
			}

			// What was written is what the next plan finds: it changes nothing
			// but what the last word of the batch takes back.
			after := maps.Clone(test.managed)
			if after == nil {
				after = tree{}
			}
			maps.Copy(after, writes)
			maps.DeleteFunc(after, func(_, text string) bool { return text == removed })
			again, err := hedgehog.Plan(files, after.managed, nil)
			if err != nil || len(again.Writes) > 0 {
				t.Errorf("the same batch again writes %q, error %v", again.Writes, err)
			}
		})
	}
}

// absent says that there is to be no VPC of that name, in a document that its
// schema would not allow.
func absent(name string) string {
	return vpc(name+"\n  annotations: {"+EnsureAnnotation+": absent}", "  unknown: true\n")
}

// What is to be absent is not held against its schema, and frees what it had.
func TestAbsent(t *testing.T) {
	p := widgets(t)
	old := widget("  size: 1\n")
	in := strings.Replace(widget("  sizes: 0\n"), "name: a", "name: a\n  annotations: {"+EnsureAnnotation+": absent}", 1)
	plan, err := p.Plan([]File{{Path: "x.yaml", Data: []byte(in)}}, tree{"managed/widgets/a.yaml": old}.managed, nil)
	if err != nil || len(plan.Files[0].Problems) > 0 || len(plan.Writes) != 1 || plan.Writes["managed/widgets/a.yaml"] != nil {
		t.Errorf("%s, writes %q, %v", Reason(plan.Files[0].Verdict), plan.Writes, err)
	}

	managed, fabric := manage(t, wired)
	gone := strings.Replace(unbundled("c", "s/e0", "leaf/E1/1"), "{name: c}", "{name: c, annotations: {"+EnsureAnnotation+": absent}}", 1)
	files := []File{{Path: "1.yaml", Data: []byte(unbundled("d", "s/e0", "leaf/E1/1"))}, {Path: "2.yaml", Data: []byte(gone)},
		{Path: "3.yaml", Data: []byte(object("VPCAttachment", "b", "{subnet: one, connection: c}"))}}
	plan, err = hedgehog.Plan(files, managed.managed, fabric)
	if err != nil || len(plan.Files[0].Problems)+len(plan.Files[1].Problems) > 0 || codesOf(plan.Files[2].Problems) != noObjectThere || len(plan.Writes) != 2 {
		t.Errorf("%+v, %v", plan, err)
	}

	if _, problems := hedgehog.ReadManaged("managed/vpcs/a.yaml", []byte(absent("a"))); codesOf(problems) != badEnsure {
		t.Errorf("as a managed file: %v", problems)
	}
}

func TestPlanError(t *testing.T) {
	plan, err := hedgehog.Plan([]File{{Path: "x.yaml", Data: []byte(vpc("a"))}}, func(path string) ([]byte, bool, error) {
		return nil, false, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	}, nil)
	if !errors.Is(err, fs.ErrPermission) || plan.Files != nil {
		t.Errorf("got %v, %v", plan, err)
	}
}

// TestPlanOrder: files of a batch that do not overlap give the same plan in
// any order.
func TestPlanOrder(t *testing.T) {
	var files []File
	for i, e := range slices.Concat(accepted, refused) {
		// Each file has objects of its own.
		data := strings.ReplaceAll(e.in, "name: a", fmt.Sprintf("name: a%d", i))
		data = strings.ReplaceAll(data, "name: b", fmt.Sprintf("name: b%d", i))
		data = strings.ReplaceAll(data, `"name": "`, fmt.Sprintf(`"name": "j%d`, i))
		files = append(files, File{Path: fmt.Sprintf("%d.yaml", i), Data: []byte(data)})
	}
	plan := func(files []File) (map[string]Step, map[string][]byte) {
		p, err := hedgehog.Plan(files, tree{}.managed, nil)
		if err != nil {
			t.Fatal(err)
		}
		steps := make(map[string]Step)
		for _, s := range p.Files {
			s.Input = 0
			steps[s.File] = s
		}
		return steps, p.Writes
	}
	steps, writes := plan(files)
	slices.Reverse(files)
	steps2, writes2 := plan(files)
	if !reflect.DeepEqual(steps, steps2) || !reflect.DeepEqual(writes, writes2) {
		t.Error("the plan depends on the order of files that do not overlap")
	}
	if len(writes) < len(accepted) {
		t.Errorf("only %d writes", len(writes))
	}
}

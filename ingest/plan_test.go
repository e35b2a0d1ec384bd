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
				writes[path] = string(data)
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
			again, err := hedgehog.Plan(files, after.managed, nil)
			if err != nil || len(again.Writes) > 0 {
				t.Errorf("the same batch again writes %q, error %v", again.Writes, err)
			}
		})
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

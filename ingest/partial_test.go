// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

var partial = func() Policy {
	p := hedgehog
	p.Partial = true
	return p
}()

// told writes down what became of a batch: names of objects that were taken
// in, and documents and codes of those that were not.
func told(plan Plan) string {
	var words []string
	for _, s := range plan.Files {
		w := fmt.Sprint(s.Input)
		if s.Part != nil {
			w += " part"
		}
		for _, o := range s.Objects {
			w += " " + o.Name
		}
		for _, p := range s.Problems {
			w += fmt.Sprintf(" %d:%d:%s", p.Document, p.Line, p.Code)
		}
		words = append(words, w)
	}
	return strings.Join(words, "; ")
}

func TestPartial(t *testing.T) {
	const secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n"
	for _, test := range []struct {
		name  string
		files []string
		want  string
		left  string // the text of the last part that is left
	}{
		{"all good", []string{vpc("a") + "---\n" + vpc("b")}, "0 a b", ""},
		{"none good", []string{secret + "---\n" + secret}, "0 1:1:HH301 2:6:HH301", ""},
		{"the second", []string{vpc("a") + "---\n" + secret + "---\n" + vpc("b")}, "0 part a b; 0 part 1:2:HH301", "---\n" + secret},
		{"the first, with comments", []string{"# x\n---\n# y\n" + secret + "--- # z\n" + vpc("a")}, "0 part a; 0 part 1:4:HH301", "# x\n---\n# y\n" + secret},
		{"no line feed at the end", []string{vpc("a") + "---\n" + strings.TrimSpace(secret)}, "0 part a; 0 part 1:2:HH301", "---\n" + strings.TrimSpace(secret)},
		{"CRLF and a byte order mark", []string{"\ufeff" + strings.ReplaceAll(secret+"---\n"+vpc("a"), "\n", "\r\n")}, "0 part a; 0 part 1:1:HH301", "\ufeff" + strings.ReplaceAll(secret, "\n", "\r\n")},
		{"not YAML", []string{vpc("a") + "---\na: [\n---\n" + vpc("b")}, "0 part a b; 0 part 1:2:HH110", "---\na: [\n"},
		{"a bad separator", []string{vpc("a") + "--- x\n" + vpc("b")}, "0 part a; 0 part 1:1:HH112", "--- x\n" + vpc("b")},
		{"comments at the end", []string{secret + "---\n" + vpc("a") + "---\n# c\n"}, "0 part a; 0 part 1:1:HH301", secret},
		{"something of no document", []string{vpc("a") + "---\n# \x01\n"}, "0 1:1:HH120 0:8:HH105", ""},
		{"a bad separator at the end", []string{secret + "---\n" + vpc("a") + "---\n" + vpc("b") + "---x\n"}, "0 part a; 0 part 1:1:HH301 2:12:HH112", secret + "---\n" + vpc("b") + "---x\n"},
		{"twice", []string{vpc("a", "  x: 1\n") + "---\n" + vpc("b") + "---\n" + vpc("a", "  x: 2\n")}, "0 part b; 0 part 1:1:HH212 2:9:HH212", vpc("a", "  x: 1\n") + "---\n" + vpc("a", "  x: 2\n")},
		{"twice the same", []string{vpc("a") + "---\n" + secret + "---\n" + vpc("a")}, "0 part a a; 0 part 1:2:HH301", "---\n" + secret},
		{"other files", []string{vpc("a"), secret, vpc("b") + "---\n" + secret, vpc("c")}, "0 a; 1 1:1:HH301; 2 part b; 2 part 1:2:HH301; 3 c", "---\n" + secret},
		{"a bad name", []string{secret, vpc("a")}, "0 1:1:HH301; 1 a", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var files []File
			for i, text := range test.files {
				files = append(files, File{Path: fmt.Sprintf("%d.yaml", i), Data: []byte(text)})
			}
			plan, err := partial.Plan(files, tree{}.managed, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := told(plan); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			left := ""
			for _, s := range plan.Files {
				if s.Part != nil && len(s.Problems) > 0 {
					left = string(s.Part)
				}
			}
			if left != test.left {
				t.Errorf("left is %q, want %q", left, test.left)
			}
			for i := range files {
				if err := holdsTogether(files[i].Data, plan, i); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// holdsTogether checks the two parts of a file: each line is in one of them,
// and each is to its reader what it was to the whole.
func holdsTogether(data []byte, plan Plan, input int) error {
	var in, left *Step
	for i := range plan.Files {
		switch s := &plan.Files[i]; {
		case s.Input != input || s.Part == nil:
		case in == nil:
			in = s
		default:
			left = s
		}
	}
	if in == nil {
		return nil
	}
	if left == nil || len(in.Objects) == 0 || len(in.Problems) > 0 || len(left.Objects) > 0 || len(left.Problems) == 0 || left.Taken == 0 {
		return fmt.Errorf("not two parts: %+v, %+v", in, left)
	}
	if len(in.Part)+len(left.Part) != len(data) || !bytes.Equal(Rest(data, in.Part), left.Part) || len(Rest(data, left.Part, in.Part)) > 0 {
		return fmt.Errorf("%q is not %q and %q", data, in.Part, left.Part)
	}
	v := hedgehog.Read(File{Path: in.File, Data: in.Part})
	for i := range v.Objects {
		v.Objects[i].Value = nil // as in a plan
	}
	if !reflect.DeepEqual(v.Objects, in.Objects) || len(v.Problems) > 0 {
		return fmt.Errorf("what was taken in is read as %+v, not %+v", v, in.Objects)
	}
	if v = hedgehog.Read(File{Path: in.File, Data: left.Part}); !reflect.DeepEqual(v.Problems, left.Problems) {
		return fmt.Errorf("what is left has the problems %v, not %v", v.Problems, left.Problems)
	}
	return nil
}

// What is rejected for the others of the fabric is one document, too, with
// those that refer to it. Of two in one file that want the same, the earlier
// one has it.
func TestPartialReferences(t *testing.T) {
	managed, fabric := manage(t, wired)
	in := unbundled("k", "s/e0", "leaf/E1/1") + "---\n" + // ports that are taken
		object("VPCAttachment", "b", "{subnet: one, connection: k}") + "---\n" + // refers to it
		unbundled("d", "s/e8", "leaf/E1/8") + "---\n" + unbundled("e", "s/e8", "leaf/E1/9") + "---\nkind: 1\n---\n" +
		object("VPCAttachment", "f", "{subnet: one, connection: d}")
	plan, err := partial.Plan([]File{{Path: "x.yaml", Data: []byte(in)}}, managed.managed, fabric)
	if err != nil {
		t.Fatal(err)
	}
	var taken, codes []string
	for _, o := range plan.Files[0].Objects {
		taken = append(taken, o.Name)
	}
	for _, p := range plan.Files[1].Problems {
		codes = append(codes, fmt.Sprintf("%d:%s", p.Document, p.Code))
	}
	if got, want := fmt.Sprint(taken, codes), "[d f] [1:HH504 1:HH504 2:HH501 3:HH504 4:HH202 4:HH203 4:HH204]"; got != want {
		t.Errorf("got %s, want %s\n%s", got, want, Reason(plan.Files[1].Verdict))
	}
	if reason := string(Reason(plan.Files[1].Verdict)); !strings.Contains(reason, "2 other documents were taken in") {
		t.Error(reason)
	}
	if problems := ParseReason(Reason(plan.Files[1].Verdict)); !reflect.DeepEqual(problems, plan.Files[1].Problems) {
		t.Errorf("the reason says %v", problems)
	}
}

// FuzzPartial: the two parts of a file are the file, and each is read as it was
// in it.
func FuzzPartial(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, []byte(vpc("aa") + "---\n" + string(data)), []byte(string(data) + "\n---\n" + vpc("aa"))} {
			plan, err := partial.Plan([]File{{Path: "x.yaml", Data: data}}, tree{}.managed, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := holdsTogether(data, plan, 0); err != nil {
				t.Error(err)
			}
		}
	})
}

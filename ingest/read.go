// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	yamlv2 "go.yaml.in/yaml/v2"
	"gopkg.in/yaml.v3"
	kjson "sigs.k8s.io/json"
	kyaml "sigs.k8s.io/yaml"
)

// File is one raw file.
type File struct {
	Path string // slash-separated, below raw/
	Data []byte

	// Size is the file's size in bytes where Data was not read because there
	// is more of it than [Limits] allow.
	Size int64
}

// Verdict is what became of one file: objects, or problems.
type Verdict struct {
	File     string // its path
	Objects  []Object
	Problems []Problem // any: the whole file is rejected, and Objects is empty

	// Taken is how many other documents of the file were taken in, where the
	// verdict is on what is left of it; see [Policy.Partial].
	Taken int
}

// Read decides on one file, on its own: all of its objects are held against
// their schemas.
func (p Policy) Read(f File) Verdict {
	return p.readOver(f, func(string) []byte { return nil })
}

// ReadAccepted reads a file that was accepted before, perhaps by other schemas:
// its objects are not held against them, nor against the limits.
func (p Policy) ReadAccepted(f File) Verdict {
	p.Limits = widest
	return p.readOver(f, nil)
}

// readOver decides on a file on top of the managed files that managed returns
// by their path, nil where there is none. Without managed, objects are not held
// against their schemas.
func (p Policy) readOver(f File, managed func(path string) []byte) Verdict {
	r := p.read([]File{f}, managed, func(*Object) {})[0]
	if len(r.problems.list) > 0 {
		return Verdict{File: f.Path, Problems: r.problems.inOrder()}
	}
	for i := range r.objects {
		o := &r.objects[i]
		o.Text = bytes.Clone(o.Text) // the data is the caller's own
	}
	return Verdict{File: f.Path, Objects: r.objects}
}

// ReadManaged reads a managed file: exactly one object, at the path (below the
// fabric's directory, as in [Object]) that its identity gives. Its text need
// not be normalised, people edit managed files too; the object's is. It is not
// held against its schema: what is in git has been accepted, and the cluster
// has the last word.
func (p Policy) ReadManaged(path string, data []byte) (Object, []Problem) {
	v := p.ReadAccepted(File{Path: path, Data: data})
	if len(v.Problems) > 0 {
		return Object{}, v.Problems
	}
	ps := &problems{file: path}
	if n := len(v.Objects); n != 1 {
		ps.add(Problem{Document: 2, Line: v.Objects[1].Line, Code: notOneObject,
			Message: fmt.Sprintf("the file holds %d objects", n)})
		return Object{}, ps.list
	}
	o := v.Objects[0]
	if o.Absent {
		ps.add(Problem{Document: 1, Line: o.Line, Code: badEnsure, Message: "a managed file says that there is to be no such object"})
		return Object{}, ps.list
	}
	if o.Path != path {
		ps.add(Problem{Document: 1, Line: o.Line, Code: wrongPath,
			Message: fmt.Sprintf("%s belongs at %s", o.ID, o.Path)})
		return Object{}, ps.list
	}
	return o, nil
}

// readDocument reads one document to its managed text and its values. It
// reports whether there is an object; problems that were found beside it are
// in ps. With managed nil, the object is not held against its schema.
func (p Policy) readDocument(doc document, managed func(string) []byte, ps *problems) (Object, bool) {
	r := &reader{doc: doc, problems: ps, limits: p.limits()}
	root, value := r.read()
	if value == nil {
		return Object{}, false
	}
	read := r.found == 0
	o, framed := p.identify(r, root, value)
	if o.Absent = isAbsent(value); o.Absent && framed && r.found == 0 {
		o.Document, o.Line = doc.number, doc.line
		o.fillNamespace()
		return o, true
	}
	if framed && r.found == 0 {
		text, ok := normalise(doc, root, value)
		if !ok {
			r.report(root, Problem{Code: textNotKept, Message: "moving the comments would change the object's values"})
			return Object{}, false
		}
		o.Document, o.Line, o.Text = doc.number, doc.line, text
	}
	// What is managed with this very text has been judged, perhaps by an older
	// schema, and stays as it is.
	if s := p.Schemas.version(o.Group, o.Kind, o.APIVersion); s != nil && read && managed != nil {
		var now []byte
		if framed {
			now = managed(o.Path)
		}
		if now == nil || !bytes.Equal(now, o.Text) {
			r.judge(s, root, value, func() map[string]any {
				if now == nil {
					return nil
				}
				old, problems := p.ReadManaged(o.Path, now)
				if len(problems) > 0 || old.APIVersion != o.APIVersion {
					return nil // there is nothing to compare with
				}
				return old.Value
			})
		}
	}
	if refusal, ok := p.Refused.of(o.Path, o.Text); ok && framed && managed != nil && !bytes.Equal(managed(o.Path), o.Text) {
		p.refuse(r, root, value, o.ID, refusal)
	}
	if !framed || r.found > 0 {
		return Object{}, false
	}
	o.fillNamespace()
	return o, true
}

// refuse reports what the fabric's cluster says against an object.
func (p Policy) refuse(r *reader, root *yaml.Node, value map[string]any, id ID, refusal Refusal) {
	to := r
	if p.Admission == WarnOfAdmission {
		to = &reader{doc: r.doc, problems: &problems{file: r.problems.file}}
	}
	at := locate(root, value, cmp.Or(refusal.Field, "metadata.name"))
	to.report(at.node(), Problem{Code: refusedByCluster, Message: fmt.Sprintf("the cluster refuses %s: %s", id, tame(refusal.Message))})
	if to != r {
		r.problems.warnings = append(r.problems.warnings, to.problems.list...)
	}
}

// reader reads one document in both ways and reports where they differ.
type reader struct {
	doc      document
	problems *problems
	limits   Limits
	found    int // problems of this document
}

// report adds a problem of this document, at a node of it.
func (r *reader) report(n *yaml.Node, p Problem) {
	p.Line, p.Column = r.doc.line, 0
	if n != nil && n.Line > 0 {
		p.Line, p.Column = r.doc.line+n.Line-1, n.Column
	}
	r.reportHere(p)
}

func (r *reader) reportHere(p Problem) {
	p.Document = r.doc.number
	p.Line = min(p.Line, r.doc.end) // parsers give up behind it, too
	r.found++
	r.problems.add(p)
}

// read returns the document as YAML 1.2 nodes and as Kubernetes reads it. The
// value is nil where the document cannot be read at all, or is no mapping.
func (r *reader) read() (*yaml.Node, map[string]any) {
	switch body := r.doc.body; {
	case r.doc.unreadable:
		return nil, nil
	case len(body) > MaxDocument:
		r.report(nil, Problem{Code: documentLarge,
			Message: fmt.Sprintf("the document has %d bytes, the most is %d", len(body), MaxDocument)})
		return nil, nil
	case body[0] == '%':
		r.report(nil, Problem{Code: directive, Message: "the document begins with a directive"})
		return nil, nil
	}
	root, err := parseNodes(r.doc.body)
	if err != nil {
		r.syntax(err)
		return nil, nil
	}
	c := checker{reader: r}
	c.check(root, 0)
	if c.aliases && !c.stop {
		c.sizes = make(map[*yaml.Node]int)
		if c.expandedSize(root) > r.limits.Expanded {
			c.stop = true
			r.report(root, Problem{Code: badAlias,
				Message: fmt.Sprintf("with its aliases expanded, the document has more than %d bytes", r.limits.Expanded)})
		}
	}
	if c.stop {
		return nil, nil
	}

	value, err := readKubernetes(r.doc.body)
	if err != nil {
		if r.found == 0 {
			r.unreadable(err)
		}
		return nil, nil
	}
	if r.found == 0 {
		r.compare(root, value, nil)
		r.compareJSON(value)
	}
	object, ok := value.(map[string]any)
	if !ok {
		r.report(root, Problem{Code: notMapping, Message: "the document is " + typeOf(value) + ", not an object"})
		return nil, nil
	}
	return root, object
}

// moreError says that a document ends on its own and that something follows,
// which kubectl would drop.
type moreError struct {
	line int // where it begins, from 1
}

func (e *moreError) Error() string {
	return "the document goes on behind its end"
}

// parseNodes reads a document with gopkg.in/yaml.v3.
func parseNodes(body []byte) (root *yaml.Node, err error) {
	defer recoverParser(&err)
	dec := yaml.NewDecoder(bytes.NewReader(body))
	var n yaml.Node
	if err := dec.Decode(&n); err != nil {
		return nil, err
	}
	var more yaml.Node
	switch err := dec.Decode(&more); {
	case err == nil:
		return nil, &moreError{more.Line}
	case err != io.EOF:
		_, line := parserMessage(err)
		return nil, &moreError{max(line, 1)}
	}
	return n.Content[0], nil
}

// readKubernetes reads a document as kubectl does: with sigs.k8s.io/yaml to
// JSON, and that to the types of k8s.io/apimachinery's unstructured objects,
// in which numbers are int64 where they can be and else float64.
//
// Most documents hold only what comes out of JSON as it went in. For these the
// parser of sigs.k8s.io/yaml is enough.
func readKubernetes(body []byte) (value any, err error) {
	defer recoverParser(&err)
	var parsed any
	if err := yamlv2.Unmarshal(body, &parsed); err != nil {
		return nil, err
	}
	if value, ok := withoutJSON(parsed); ok {
		return value, nil
	}
	data, err := kyaml.YAMLToJSON(body)
	if err != nil {
		return nil, err
	}
	err = kjson.UnmarshalCaseSensitivePreserveInts(data, &value)
	return value, err
}

// withoutJSON returns what the parser made of a document in the types of
// unstructured objects. It reports false where JSON might make something else
// of it: numbers that are not int64, keys that are no text, and text that is not
// UTF-8.
func withoutJSON(parsed any) (value any, ok bool) {
	switch v := parsed.(type) {
	case nil, bool, int64:
		return v, true
	case int:
		return int64(v), true
	case string:
		return v, utf8.ValidString(v)
	case []any:
		for i := range v {
			if v[i], ok = withoutJSON(v[i]); !ok {
				return nil, false
			}
		}
		return v, true
	case map[any]any:
		object := make(map[string]any, len(v))
		for key, field := range v {
			name, isText := key.(string)
			if !isText || !utf8.ValidString(name) {
				return nil, false
			}
			if object[name], ok = withoutJSON(field); !ok {
				return nil, false
			}
		}
		return object, true
	}
	return nil, false
}

// recoverParser turns a panic of a YAML parser into an error. Both parsers
// have some that hostile input can reach ("internal error: … please report"),
// and a file must not be able to end the daemon, again at every start.
func recoverParser(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("yaml: the parser gave up: %v", v)
	}
}

// reading describes a value for a message.
func reading(v any) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v) + " (a boolean)"
	case string:
		return clip(v) + " (text)"
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64) + " (a number)"
	case int, int64, uint64:
		return fmt.Sprint(v) + " (a number)"
	}
	return typeOf(v)
}

// typeOf describes the type of a value for a message: where its content has
// no place, it might be secret.
func typeOf(v any) string {
	switch v.(type) {
	case nil:
		return "nothing (null)"
	case bool:
		return "a boolean"
	case string:
		return "text"
	case []any:
		return "a list"
	case map[string]any:
		return "a mapping"
	}
	return "a number"
}

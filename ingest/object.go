// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unique"

	"gopkg.in/yaml.v3"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	apifield "k8s.io/apimachinery/pkg/util/validation/field"
)

// ID is the identity of an object. The version is not part of it: an object
// keeps its identity when its API moves on.
type ID struct {
	Group, Kind, Namespace, Name string
}

// String returns the identity as kind/name, or kind/namespace/name outside of
// the namespace "default".
func (id ID) String() string {
	if id.Namespace == "" || id.Namespace == "default" {
		return id.Kind + "/" + id.Name
	}
	return id.Kind + "/" + id.Namespace + "/" + id.Name
}

// Object is one object of a file.
type Object struct {
	ID
	APIVersion string // group and version, as written
	Plural     string // resource name

	Document int // which of the file's documents with an object, from 1
	Line     int // of its first line in the file, from 1

	// Path is that of its managed file, slash-separated, below the fabric's
	// directory: managed/<plural>/<name>.yaml, or
	// managed/<plural>/<namespace>/<name>.yaml outside of the fabric's own
	// namespace.
	Path string

	// Text is the content of the managed file.
	Text []byte

	// Absent: there is to be no managed file, [EnsureAnnotation] says. Text is
	// nil, and Value holds what the author wrote to name the object.
	Absent bool

	// Value is the object as Kubernetes reads it, in the types of
	// unstructured objects: map[string]any, []any, string, bool, int64,
	// float64 and nil. Its metadata.namespace is always filled in. The objects
	// of a [Plan] have none.
	Value map[string]any

	relations *relations // those of Value; while a Plan is made
}

// EnsureAnnotation on an object with the value "absent" says that there is to
// be no such object: its managed file is removed. The rest of the document
// beyond what names the object does not matter.
const EnsureAnnotation = "hhwatchd.githedgehog.com/ensure"

// isAbsent reports whether an object says that there is to be none.
func isAbsent(value map[string]any) bool {
	metadata, _ := value["metadata"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	return annotations[EnsureAnnotation] == "absent"
}

// fillNamespace writes the namespace into the value, which Text leaves out
// where the author did.
func (o *Object) fillNamespace() {
	o.Value["metadata"].(map[string]any)["namespace"] = o.Namespace
}

// A fault is what is wrong with a field of an object.
type fault struct {
	at      string // a top-level key, near which it is reported
	code    string
	message string
	hint    string
}

// identify takes an object's identity from its values and reports what is
// wrong with its frame: the fields that all objects of Kubernetes share. It
// returns what there is of the identity also where that is no good object.
func (p Policy) identify(r *reader, root *yaml.Node, value map[string]any) (Object, bool) {
	before := r.found
	// field reports a problem at a field, or at the nearest mapping above it
	// that is there.
	field := func(code, message string, path ...string) {
		r.report(find(root, path...), Problem{Code: code, Message: message})
	}

	apiVersion, group, version, apiVersionOK := "", "", "", false
	switch v := value["apiVersion"].(type) {
	case nil:
		field(badAPIVersion, "apiVersion is missing", "apiVersion")
	case string:
		apiVersion = unique.Make(v).Value() // one for all objects
		if group, version, apiVersionOK = splitAPIVersion(apiVersion); !apiVersionOK {
			field(badAPIVersion, "apiVersion "+clip(v)+" is not a group and a version", "apiVersion")
		}
	default:
		field(badAPIVersion, "apiVersion is "+reading(v)+", not text", "apiVersion")
	}

	kind := ""
	switch v := value["kind"].(type) {
	case nil:
		field(badKind, "kind is missing", "kind")
	case string:
		if kind = unique.Make(v).Value(); kind == "" {
			field(badKind, "kind is empty", "kind")
		}
	default:
		field(badKind, "kind is "+reading(v)+", not text", "kind")
	}
	if _, items := value["items"]; strings.HasSuffix(kind, "List") && (items || kind == "List") {
		// A list has no name of its own to ask for.
		field(isList, clip(kind)+" is a list of objects", "kind")
		return Object{}, false
	}

	o := Object{ID: ID{Group: group, Kind: kind}, APIVersion: apiVersion, Value: value}
	switch metadata := value["metadata"].(type) {
	case nil:
		field(noName, "metadata.name is missing", "metadata")
	case map[string]any:
		o.Name, o.Namespace = p.checkMetadata(metadata, field)
	default:
		field(noName, "metadata is "+typeOf(metadata)+", not a mapping", "metadata")
	}

	if apiVersionOK && kind != "" {
		k, f := p.allow(group, version, kind)
		if f != nil {
			r.report(find(root, f.at), Problem{Code: f.code, Message: f.message, Hint: f.hint})
		}
		o.Plural = k.Plural
	}
	if r.found > before {
		return o, false
	}
	o.Path = p.path(o.Plural, o.ID)
	return o, true
}

// checkMetadata checks the metadata that matter before an object reaches the
// API server, and returns its name and namespace.
func (p Policy) checkMetadata(metadata map[string]any, field func(code, message string, path ...string)) (name, namespace string) {
	_, generates := metadata["generateName"]
	if generates {
		field(generatedName, "metadata.generateName is used", "metadata", "generateName")
	}
	switch v := metadata["name"].(type) {
	case nil:
		if !generates {
			field(noName, "metadata.name is missing", "metadata", "name")
		}
	case string:
		name = v
		switch {
		case len(v) <= 253 && !isSubdomain(v), v == "":
			field(badName, "the name "+clip(v)+" is not a DNS subdomain", "metadata", "name")
		case len(v)+len(".yaml") > 255:
			field(nameTooLong, fmt.Sprintf("the name has %d characters", len(v)), "metadata", "name")
		}
	default:
		field(noName, "metadata.name is "+reading(v)+", not text", "metadata", "name")
	}

	namespace = p.Namespace
	switch v := metadata["namespace"].(type) {
	case nil:
	case string:
		// An empty one is as good as none, to kubectl too.
		if v != "" {
			namespace = unique.Make(v).Value()
		}
		if v != "" && !isLabel(v) {
			field(badNamespace, "the namespace "+clip(v)+" is not a DNS label", "metadata", "namespace")
		}
	default:
		field(badNamespace, "metadata.namespace is "+reading(v)+", not text", "metadata", "namespace")
	}

	for _, key := range []string{"labels", "annotations"} {
		switch entries := metadata[key].(type) {
		case nil:
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(entries)) {
				v, ok := entries[k].(string)
				if !ok {
					field(badStringMap, fmt.Sprintf("metadata.%s: %s is %s, not text", key, clip(k), reading(entries[k])), "metadata", key, k)
				}
				if k == EnsureAnnotation && ok && v != "absent" {
					field(badEnsure, fmt.Sprintf("metadata.annotations: %s is %s, not absent", EnsureAnnotation, clip(v)), "metadata", key, k)
				}
				for _, message := range badEntry(key, k, v) {
					field(badMetadata, "metadata."+key+": "+message, "metadata", key, k)
				}
			}
		default:
			field(badStringMap, "metadata."+key+" is "+typeOf(entries)+", not a mapping", "metadata", key)
		}
	}

	// status and metadata.creationTimestamp, which "kubectl create
	// --dry-run=client -o yaml" writes, do no harm: server-side apply ignores
	// them.
	for _, key := range []string{"resourceVersion", "uid", "managedFields"} {
		if v, there := metadata[key]; there && v != nil {
			field(serverMetadata, "metadata."+key+" is set by the API server only", "metadata", key)
		}
	}
	checkOtherMetadata(metadata, field)
	return name, namespace
}

// badEntry returns what the API server would say of a label or an annotation.
func badEntry(field, key, value string) (messages []string) {
	name := key
	if field == "annotations" {
		name = strings.ToLower(key) // pkg/api/validation.ValidateAnnotations
	}
	for _, m := range validation.IsQualifiedName(name) {
		messages = append(messages, "the key "+clip(key)+": "+m)
	}
	if field == "labels" {
		for _, m := range validation.IsValidLabelValue(value) {
			messages = append(messages, clip(key)+" has the value "+clip(value)+": "+m)
		}
	}
	return messages
}

// checkOtherMetadata checks the metadata that people rarely write, and those
// that there are not.
func checkOtherMetadata(metadata map[string]any, report func(code, message string, path ...string)) {
	if annotations, ok := metadata["annotations"].(map[string]any); ok {
		size := 0
		for k, v := range annotations {
			text, _ := v.(string)
			size += len(k) + len(text)
		}
		if size > apivalidation.TotalAnnotationSizeLimitB {
			report(badMetadata, fmt.Sprintf("the annotations have %d bytes, the most is %d", size, apivalidation.TotalAnnotationSizeLimitB), "metadata", "annotations")
		}
	}
	rest := maps.Clone(metadata)
	for _, checked := range []string{"name", "namespace", "generateName", "labels", "annotations", "resourceVersion", "uid", "managedFields"} {
		delete(rest, checked)
	}
	if len(rest) == 0 {
		return
	}
	meta, _, unknown, err := objectmeta.GetObjectMetaWithOptions(map[string]any{"metadata": rest}, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
	if err != nil {
		report(badMetadata, "metadata: "+err.Error(), "metadata")
		return
	}
	for _, path := range unknown {
		report(unknownField, "unknown field "+clipPath(path), strings.Split(path, ".")...)
	}
	at := apifield.NewPath("metadata")
	errs := append(apivalidation.ValidateFinalizers(meta.Finalizers, at.Child("finalizers")),
		apivalidation.ValidateOwnerReferences(meta.OwnerReferences, at.Child("ownerReferences"))...)
	for _, e := range errs {
		report(badMetadata, e.Error(), strings.FieldsFunc(e.Field, func(r rune) bool { return r == '.' || r == '[' || r == ']' })[:2]...)
	}
}

// find returns the node of a field, or of the nearest mapping above it that
// is there.
func find(root *yaml.Node, path ...string) *yaml.Node {
	at, n := root, root
	for _, name := range path {
		entries := target(n)
		if entries.Kind != yaml.MappingNode {
			return at
		}
		n = nil
		for i := 0; i < len(entries.Content); i += 2 {
			if key := target(entries.Content[i]); key.Kind == yaml.ScalarNode && key.Value == name {
				at, n = entries.Content[i], entries.Content[i+1]
				break
			}
		}
		if n == nil {
			return at
		}
	}
	return at
}

// splitAPIVersion splits group/version; the core group has no name and no
// slash.
func splitAPIVersion(s string) (group, version string, ok bool) {
	group, version, found := strings.Cut(s, "/")
	if !found {
		return "", s, isLabel(s)
	}
	return group, version, isSubdomain(group) && isLabel(version)
}

// isLabel reports whether s is a label of RFC 1123 as Kubernetes has it: up to
// 63 lower case letters, digits and '-', the first and last of which is no '-'.
func isLabel(s string) bool {
	return len(s) <= 63 && isLabelOfAnyLength(s)
}

func isLabelOfAnyLength(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case c == '-' && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return s != ""
}

// isSubdomain reports whether s is a subdomain of RFC 1123 as Kubernetes has
// it: at most 253 characters, labels of any length with dots between them.
func isSubdomain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if !isLabelOfAnyLength(label) {
			return false
		}
	}
	return len(s) <= 253
}

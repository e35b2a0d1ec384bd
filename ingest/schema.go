// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	kyaml "sigs.k8s.io/yaml"
)

// Schemas are the compiled schemas of CustomResourceDefinitions. They never
// change, and may be used from several goroutines at once. A nil *Schemas
// knows no kind.
type Schemas struct {
	kinds map[groupKind]*definition
}

type groupKind struct{ group, kind string }

// A definition is what is known of one kind.
type definition struct {
	versions map[string]*schema // those that are served
	served   []string           // their names, the most stable and newest first
}

// A schema is that of one version of a kind.
type schema struct {
	structural *structuralschema.Structural
	values     validation.SchemaValidator
	rules      *cel.Validator // x-kubernetes-validations; nil where there are none
	status     bool           // status is a subresource, and not ours to write
	embedded   bool           // it holds other objects somewhere (x-kubernetes-embedded-resource)
	defaults   bool           // it has some
	lists      bool           // it says of lists what their items are to each other (x-kubernetes-list-type)
}

// Compile compiles those CustomResourceDefinitions in the files that define
// one of the policy's kinds, and passes over all other documents. Each
// definition that cannot be used is an error, with its file and name; the
// others are compiled nevertheless.
func (p Policy) Compile(files []File) (*Schemas, error) {
	s := &Schemas{kinds: make(map[groupKind]*definition)}
	var errs []error
	for _, f := range files {
		ps := &problems{file: f.Path}
		for _, doc := range documents(f.Data, ps) {
			if err := s.add(p, doc); err != nil {
				errs = append(errs, fmt.Errorf("%s: document %d: %w", printable(f.Path), doc.number, err))
			}
		}
		if len(ps.list) > 0 {
			errs = append(errs, errors.New(ps.list[0].String()))
		}
	}
	return s, errors.Join(errs...)
}

// Kinds returns how many kinds are known.
func (s *Schemas) Kinds() int {
	if s == nil {
		return 0
	}
	return len(s.kinds)
}

func (s *Schemas) definition(group, kind string) *definition {
	if s == nil {
		return nil
	}
	return s.kinds[groupKind{group, kind}]
}

// version returns the schema of a kind in a version; nil where none is known.
func (s *Schemas) version(group, kind, apiVersion string) *schema {
	d := s.definition(group, kind)
	if d == nil {
		return nil
	}
	return d.versions[apiVersion[strings.LastIndexByte(apiVersion, '/')+1:]]
}

func (s *Schemas) add(p Policy, doc document) error {
	var head struct{ APIVersion, Kind string }
	if err := kyaml.Unmarshal(doc.body, &head); err != nil {
		return err
	}
	if head.Kind != "CustomResourceDefinition" {
		return nil
	}
	if head.APIVersion != apiextensionsv1.SchemeGroupVersion.String() {
		return fmt.Errorf("a CustomResourceDefinition of %s; only %s is read", clip(head.APIVersion), apiextensionsv1.SchemeGroupVersion)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := kyaml.Unmarshal(doc.body, &crd); err != nil {
		return err
	}
	key := groupKind{crd.Spec.Group, crd.Spec.Names.Kind}
	i := slices.IndexFunc(p.Kinds, func(k Kind) bool { return k.Group == key.group && k.Kind == key.kind })
	if i < 0 {
		return nil
	}
	if k := p.Kinds[i]; crd.Spec.Names.Plural != k.Plural {
		return fmt.Errorf("the plural of kind %s of %s is %q, not %q", clip(key.kind), groupName(key.group), crd.Spec.Names.Plural, k.Plural)
	}
	if crd.Spec.Scope != apiextensionsv1.NamespaceScoped {
		return fmt.Errorf("objects of kind %s of %s are in no namespace; a fabric holds only such as are", clip(key.kind), groupName(key.group))
	}
	if s.kinds[key] != nil {
		return fmt.Errorf("kind %s of %s is defined a second time", clip(key.kind), groupName(key.group))
	}
	d := &definition{versions: make(map[string]*schema)}
	for _, v := range crd.Spec.Versions {
		if !v.Served {
			continue
		}
		compiled, err := compile(v)
		if err != nil {
			return fmt.Errorf("%s, version %s: %w", crd.Name, v.Name, err)
		}
		d.versions[v.Name] = compiled
		d.served = append(d.served, v.Name)
	}
	slices.SortFunc(d.served, func(a, b string) int { return version.CompareKubeAwareVersionStrings(b, a) })
	s.kinds[key] = d
	return nil
}

// compile makes of a version's schema what the API server makes of it.
func compile(v apiextensionsv1.CustomResourceDefinitionVersion) (*schema, error) {
	if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
		return nil, errors.New("it has no schema")
	}
	props := new(apiextensions.JSONSchemaProps)
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, props, nil); err != nil {
		return nil, err
	}
	structural, err := structuralschema.NewStructural(props)
	if err != nil {
		return nil, err
	}
	if errs := structuralschema.ValidateStructural(nil, structural); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	values, _, err := validation.NewSchemaValidator(props)
	if err != nil {
		return nil, err
	}
	s := &schema{
		structural: structural,
		values:     values,
		rules:      cel.NewValidator(structural, true, celconfig.PerCallLimit),
		status:     v.Subresources != nil && v.Subresources.Status != nil,
	}
	find := structuralschema.Visitor{Structural: func(at *structuralschema.Structural) bool {
		s.embedded = s.embedded || at.XEmbeddedResource
		s.defaults = s.defaults || at.Default.Object != nil
		s.lists = s.lists || at.XListType != nil
		return false
	}}
	find.Visit(structural)
	return s, nil
}

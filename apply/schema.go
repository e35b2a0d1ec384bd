// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"encoding/json"
	"slices"
)

// structural is what is needed here of a CRD's structural schema, as it is
// published in OpenAPI v3
// (https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3).
// Its methods can be called on nil, which stands for a value of which the
// schema says nothing.
type structural struct {
	Properties           map[string]*structural
	AdditionalProperties additional
	Items                *structural
	Default              any
	ListType             string   `json:"x-kubernetes-list-type"`
	ListMapKeys          []string `json:"x-kubernetes-list-map-keys"`
	MapType              string   `json:"x-kubernetes-map-type"`
}

// additional is additionalProperties, which is a schema or a boolean.
type additional struct{ *structural }

func (a *additional) UnmarshalJSON(data []byte) error {
	if data[0] != '{' {
		return nil
	}
	return json.Unmarshal(data, &a.structural)
}

// field returns the schema of a field of a map.
func (s *structural) field(name string) *structural {
	if s == nil {
		return nil
	}
	if f, ok := s.Properties[name]; ok {
		return f
	}
	return s.AdditionalProperties.structural
}

// item returns the schema of a list's elements.
func (s *structural) item() *structural {
	if s == nil {
		return nil
	}
	return s.Items
}

// granularMap reports whether each field of a map has its own owners.
func (s *structural) granularMap() bool { return s == nil || s.MapType != "atomic" }

// granularList reports whether each element of a list has its own owners.
func (s *structural) granularList() bool {
	return s != nil && (s.ListType == "map" || s.ListType == "set")
}

// completes reports whether live is what the API server makes of desired by
// filling in defaults.
func (s *structural) completes(desired, live any) bool {
	switch d := desired.(type) {
	case nil:
		if s != nil && s.Default != nil {
			return s.completes(s.Default, live)
		}
	case map[string]any:
		l, ok := live.(map[string]any)
		if !ok {
			return false
		}
		for k := range d {
			if _, ok := l[k]; !ok {
				return false
			}
		}
		for k, v := range l {
			if !s.field(k).completes(d[k], v) {
				return false
			}
		}
		return true
	case []any:
		l, ok := live.([]any)
		return ok && slices.EqualFunc(d, l, s.item().completes)
	}
	return equal(desired, live)
}

// schema returns the schema of a kind; nil if the API server has none to give.
// The document that it comes in has those of all kinds in a group, and may be
// some hundred KiB: what is needed of it is kept for this one operation, so
// that a CRD that changes is noticed.
func (op *operation) schema(ctx context.Context, k Kind) (*structural, error) {
	op.schemasMu.Lock() // also so that only one asks
	defer op.schemasMu.Unlock()
	if s, ok := op.schemas[k]; ok {
		return s, nil
	}
	limited, cancel := context.WithTimeout(ctx, op.conn.readLimit)
	defer cancel()
	data, err := op.conn.raw.Get().AbsPath("/openapi/v3", versionPath(k.Group, k.Version)).DoRaw(limited)
	if err != nil {
		if stop, _ := op.conn.judge(ctx, err, op.conn.readLimit); stop != nil {
			return nil, stop
		}
	}
	if op.schemas == nil {
		op.schemas = map[Kind]*structural{}
	}
	s := findSchema(data, k)
	op.schemas[k] = s
	return s, nil
}

// findSchema returns a kind's schema from an OpenAPI v3 document.
func findSchema(data []byte, k Kind) *structural {
	var doc struct {
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if json.Unmarshal(data, &doc) != nil {
		return nil
	}
	for _, raw := range doc.Components.Schemas {
		var is struct {
			Kinds []struct{ Group, Version, Kind string } `json:"x-kubernetes-group-version-kind"`
		}
		if json.Unmarshal(raw, &is) != nil || len(is.Kinds) != 1 || is.Kinds[0] != struct{ Group, Version, Kind string }{k.Group, k.Version, k.Kind} {
			continue
		}
		s := new(structural)
		if json.Unmarshal(raw, s) == nil {
			return s
		}
	}
	return nil
}

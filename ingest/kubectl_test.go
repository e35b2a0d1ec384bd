// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"io"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

// kubectl reads a file as "kubectl apply -f" does, with the same library
// calls: FileVisitor and StreamVisitor of k8s.io/cli-runtime/pkg/resource,
// then the JSON decoder of unstructured objects. Documents that kubectl skips
// are left out.
func kubectl(data []byte) ([]any, error) {
	if trimmed := bytes.TrimLeft(bytes.TrimPrefix(data, []byte("\ufeff")), " \t\r\n"); bytes.HasPrefix(trimmed, []byte("{")) {
		// After a JSON object, kubectl fails when fewer than four bytes
		// follow that are not JSON, such as a short comment. That is a bug of
		// its reader, not a reading.
		data = append(bytes.Clone(data), "\n\n\n\n"...)
	}
	r := transform.NewReader(bytes.NewReader(data), unicode.BOMOverride(unicode.UTF8.NewDecoder()))
	d := utilyaml.NewYAMLOrJSONDecoder(r, 4096)
	var values []any
	for {
		var ext runtime.RawExtension
		if err := d.Decode(&ext); err != nil {
			if err == io.EOF {
				return values, nil
			}
			return nil, err
		}
		raw := bytes.TrimSpace(ext.Raw)
		if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
			continue
		}
		var v any
		if err := utiljson.Unmarshal(raw, &v); err != nil {
			return nil, err
		}
		values = append(values, v)
	}
}

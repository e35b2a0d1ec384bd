// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/hhwatchd/hhwatchd/test/fabric"
	"github.com/hhwatchd/hhwatchd/test/kube"
)

// A load is a kind of file to drop. No two of its files are alike: each object
// has the number of its file in an annotation.
type load struct {
	title string
	text  func(n int) string // file n, from 1 on, without the annotation
	made  int                // so many files
}

// runAnnotation holds the number of the file that an object is from.
const runAnnotation = "example.net/run"

// oneObject is a new VPC in each file, beyond those that the repository has.
func oneObject(files int) *load {
	return &load{
		title: "one new object",
		text: func(n int) string {
			all := fabric.VPCs(files + n)
			return all[len(all)-1].YAML
		},
	}
}

// manyObjects is the wiring of a small fabric, always the same. Where there is
// a copy of a real one beside the source tree, it is that.
func manyObjects() *load {
	text := fabric.Spec{Spines: 2, Leaves: 5, Servers: 12}.YAML() // as many objects as the real one
	if real, err := os.ReadFile(filepath.Join(filepath.Dir(kube.CRDs()), "samples", "prepop.yaml")); err == nil {
		text = string(real)
	}
	return &load{
		title: fmt.Sprintf("one file of %d objects, all of them changed", strings.Count("\n"+text, "\nkind: ")),
		text:  func(int) string { return text },
	}
}

// A file is one that is dropped.
type file struct {
	name    string
	run     string // its number, as the annotation has it
	text    []byte
	objects []object
}

// An object is one of a file's.
type object struct{ kind, name string }

var metadata = regexp.MustCompile(`(?m)^metadata:\n`)

// next makes the next file. Its objects say no namespace, so that each can go
// into any.
func (l *load) next() (*file, error) {
	l.made++
	f := &file{name: "wiring.yaml", run: fmt.Sprint(l.made)}
	text := strings.ReplaceAll(l.text(l.made), "\n  namespace: default\n", "\n")
	annotated := fmt.Sprintf("metadata:\n  annotations:\n    %s: %q\n", runAnnotation, f.run)
	f.text = metadata.ReplaceAll([]byte(text), []byte(annotated))
	d := yaml.NewDecoder(bytes.NewReader(f.text))
	for {
		var o struct {
			Kind     string
			Metadata struct{ Name string }
		}
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading what is to be dropped: %w", err)
		}
		if o.Kind != "" { // a document of comments has none
			f.objects = append(f.objects, object{o.Kind, o.Metadata.Name})
		}
	}
	if len(f.objects) == 1 {
		f.name = f.objects[0].name + ".yaml"
	}
	return f, nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// A manifest is one object and the file that it was read from.
type manifest struct {
	*unstructured.Unstructured
	file string
}

// readManifests reads the objects of YAML files; for a directory, those of the
// *.yaml in it.
func readManifests(paths []string) ([]manifest, error) {
	var objects []manifest
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		files := []string{path}
		if info.IsDir() {
			files, err = filepath.Glob(filepath.Join(path, "*.yaml"))
			if err != nil {
				return nil, err
			}
			if len(files) == 0 {
				return nil, fmt.Errorf("no *.yaml in %s", path)
			}
		}
		for _, file := range files {
			f, err := os.Open(file)
			if err != nil {
				return nil, err
			}
			read, err := decode(f)
			f.Close()
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", file, err)
			}
			for _, o := range read {
				objects = append(objects, manifest{o, file})
			}
		}
	}
	return objects, nil
}

// decode reads all documents, leaving out empty ones.
func decode(r io.Reader) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	d := yaml.NewYAMLOrJSONDecoder(r, 4096)
	for {
		o := new(unstructured.Unstructured)
		err := d.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
}

// install applies the objects in the order given and returns when the API
// server is ready and serves the resources that the CustomResourceDefinitions
// among them define.
func install(ctx context.Context, config *rest.Config, objects []manifest) error {
	config.QPS = -1 // no client-side rate limit
	disco, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	healthy := func(path string) func() bool {
		return func() bool {
			_, err := disco.RESTClient().Get().AbsPath(path).DoRaw(ctx)
			return err == nil
		}
	}
	// The administrator can write long before the server is ready, since the
	// group system:masters needs no roles.
	poll(ctx, healthy("/readyz/poststarthook/crd-informer-synced"))
	// A controller of the API server creates the namespace in its own time.
	namespaces := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
	poll(ctx, func() bool {
		_, err := namespaces.Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		return err == nil
	})

	groups, err := restmapper.GetAPIGroupResources(disco)
	if err != nil {
		return fmt.Errorf("discovering the API: %w", err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	served := sets.New[schema.GroupVersionResource]()
	for _, o := range objects {
		if err := apply(ctx, client, mapper, o.Unstructured); err != nil {
			return fmt.Errorf("applying %s %s of %s: %w", o.GetKind(), o.GetName(), o.file, err)
		}
		if o.GetKind() == "CustomResourceDefinition" {
			served.Insert(resources(o.Unstructured)...)
		}
	}

	// What discovery lists is established and served: the API server fills both
	// from the same watch.
	poll(ctx, func() bool {
		_, lists, err := disco.ServerGroupsAndResources()
		if err != nil {
			return false
		}
		missing := served.Clone()
		for _, list := range lists {
			gv, err := schema.ParseGroupVersion(list.GroupVersion)
			if err != nil {
				return false
			}
			for _, r := range list.APIResources {
				missing.Delete(gv.WithResource(r.Name))
			}
		}
		return missing.Len() == 0
	})
	poll(ctx, healthy("/readyz"))
	return ctx.Err()
}

// poll calls f until it returns true or the context is done.
func poll(ctx context.Context, f func() bool) {
	wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(context.Context) (bool, error) { return f(), nil })
}

// apply is a server-side apply of one object.
func apply(ctx context.Context, client dynamic.Interface, mapper meta.RESTMapper, o *unstructured.Unstructured) error {
	gvk := o.GroupVersionKind()
	mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return err
	}
	var resource dynamic.ResourceInterface = client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		resource = client.Resource(mapping.Resource).Namespace(o.GetNamespace())
	}
	_, err = resource.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: "controlplane", Force: true})
	return err
}

// resources are the resources of the versions that a CustomResourceDefinition
// serves.
func resources(crd *unstructured.Unstructured) []schema.GroupVersionResource {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	plural, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "plural")
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	var all []schema.GroupVersionResource
	for _, v := range versions {
		version, _ := v.(map[string]any)
		name, _ := version["name"].(string)
		if version["served"] == true {
			all = append(all, schema.GroupVersionResource{Group: group, Version: name, Resource: plural})
		}
	}
	return all
}

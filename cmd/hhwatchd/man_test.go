// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manual is a manual page's source, without what marks words up.
func manual(t *testing.T, page string) string {
	t.Helper()
	data, err := os.ReadFile("../../packaging/man/" + page)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(data)), " ")
}

// hhwatchd(8) has every command and every flag.
func TestManualOfCommands(t *testing.T) {
	page := manual(t, "hhwatchd.8")
	root := newCommand(new(bool))
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	var look func(*cobra.Command, string)
	look = func(c *cobra.Command, names string) {
		if len(c.Commands()) == 0 || c.Name() == "completion" {
			if !strings.Contains(page, ".It Cm "+names+" ") {
				t.Errorf("no command %s", names)
			}
			c.LocalFlags().VisitAll(func(f *pflag.Flag) {
				if f.Name != "help" && c.Name() != "completion" && !strings.Contains(page, "Fl Fl "+f.Name+" ") {
					t.Errorf("no flag --%s of %s", f.Name, names)
				}
			})
			return
		}
		for _, sub := range c.Commands() {
			look(sub, strings.TrimSpace(names+" "+sub.Name()))
		}
	}
	look(root, "")
	for _, f := range strings.Split(page, "Fl Fl ")[1:] {
		name, _, _ := strings.Cut(f, " ")
		found := false
		var has func(*cobra.Command)
		has = func(c *cobra.Command) {
			found = found || c.Flags().Lookup(name) != nil || c.PersistentFlags().Lookup(name) != nil
			for _, sub := range c.Commands() {
				has(sub)
			}
		}
		if has(root); !found {
			t.Errorf("there is no flag --%s", name)
		}
	}
}

// hhwatchd.yaml(5) has every key, and so has the example.
func TestManualOfConfig(t *testing.T) {
	page := manual(t, "hhwatchd.yaml.5")
	data, err := os.ReadFile("../../packaging/hhwatchd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	example := string(data)
	n := 0
	var look func(reflect.Type, string)
	look = func(typ reflect.Type, at string) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			key := f.Tag.Get("yaml")
			if key == "" {
				continue
			}
			elem, list := f.Type, f.Type.Kind() == reflect.Slice
			for elem.Kind() == reflect.Slice || elem.Kind() == reflect.Pointer {
				elem = elem.Elem()
			}
			n++
			if elem.Kind() != reflect.Struct || list {
				if full := strings.TrimPrefix(at+"."+key, "."); !strings.Contains(page, "Cm "+full+" ") && !strings.Contains(page, ", "+full+" ") {
					t.Errorf("no key %s", full)
				}
			}
			if !strings.Contains(example, key+":") {
				t.Errorf("no key %s in packaging/hhwatchd.yaml", key)
			}
			switch {
			case elem.Kind() != reflect.Struct:
			case list:
				look(elem, "")
			default:
				look(elem, at+"."+key)
			}
		}
	}
	look(reflect.TypeFor[Config](), "")
	if n < 20 {
		t.Errorf("only %d keys found", n)
	}
}

// What groff thinks of the pages, where it is installed.
func TestManualsRender(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff is not installed")
	}
	for _, page := range []string{"hhwatchd.8", "hhwatchd.yaml.5"} {
		cmd := exec.Command(groff, "-mandoc", "-Tutf8", "-ww", "-b", "-z", "../../packaging/man/"+page)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", page, err, out)
		}
	}
}

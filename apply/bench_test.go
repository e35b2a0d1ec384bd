// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

var (
	bench       = flag.Bool("figures", false, "measure, and print the figures")
	benchSizes  = flag.String("sizes", "46,1000,5000", "`numbers` of objects to measure with")
	benchRounds = flag.Int("rounds", 3, "`number` of times that each way is measured; the median counts")
)

// vpcs returns n objects with the label bench=<label>.
func vpcs(t testing.TB, n int) []Object {
	var objs []Object
	for i := range n {
		objs = append(objs, digested(objects(t, fmt.Sprintf(`
apiVersion: vpc.githedgehog.com/v1beta1
kind: VPC
metadata: {name: bench-%[1]d}
spec:
  ipv4Namespace: default
  vlanNamespace: default
  subnets:
    default: {subnet: 10.0.1.0/24, gateway: 10.0.1.1, vlan: 1001, dhcp: {enable: true, range: {start: 10.0.1.10}}}
    backend: {subnet: 10.0.2.0/24, gateway: 10.0.2.1, vlan: 1002, isolated: true}
`, i))[0]))
	}
	return objs
}

// deleteVPCs deletes all of them. Of thousands, one request does not come to the
// end in its time.
func deleteVPCs(t testing.TB, s *kube.Server) {
	var err error
	for range 30 {
		if _, err = s.Do(http.MethodDelete, kube.Path("vpc.githedgehog.com/v1beta1/vpcs", "default"), "", nil); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// retext gives an object another text.
func retext(t testing.TB, o Object, vlan int) Object {
	o.Value = parseYAML(t, toJSON(o.Value))
	o.Value["spec"].(map[string]any)["subnets"].(map[string]any)["default"].(map[string]any)["vlan"] = vlan
	return digested(o)
}

// A contest measures ways to do the same, by turns, so that whatever else the
// machine does weighs on all of them alike.
type contest struct {
	t      *testing.T
	title  string
	names  []string
	times  map[string][]time.Duration
	number int // of objects
}

func (c *contest) time(name string, do func() error) {
	c.t.Helper()
	began := time.Now()
	if err := do(); err != nil {
		c.t.Fatalf("%s, %s: %v", c.title, name, err)
	}
	if !slices.Contains(c.names, name) {
		c.names = append(c.names, name)
	}
	took := time.Since(began)
	c.times[name] = append(c.times[name], took)
	if c.number > 1 {
		c.t.Logf("%s: %s: %v", c.title, name, took.Round(10*time.Microsecond))
	}
}

// print prints medians, and how many times as long as the first way the others
// take.
func (c *contest) print(w io.Writer) {
	first := median(c.times[c.names[0]])
	for _, name := range c.names {
		m := median(c.times[name])
		fmt.Fprintf(w, "%s\t%s\t%v\t%.0f/s\t%.2f\n", c.title, name, m.Round(10*time.Microsecond), float64(c.number)/m.Seconds(), m.Seconds()/first.Seconds())
	}
}

func median(d []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(d))[len(d)/2]
}

// TestFigures measures applying beside kubectl apply --server-side, with and
// without its validation, and a bare loop around client-go's dynamic client
// that applies each object with eight in flight. It fails on no figure.
func TestFigures(t *testing.T) {
	if !*bench {
		t.Skip("without -figures")
	}
	s := testServer(t)
	kubectl, err := kube.Kubectl(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	resource := client.Resource(schema.GroupVersionResource{Group: vpc, Version: "v1beta1", Resource: "vpcs"}).Namespace("default")
	bare := func(ctx context.Context, objs []Object) error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(8)
		for _, o := range objs {
			g.Go(func() error {
				_, err := resource.Apply(ctx, o.Name, &unstructured.Unstructured{Object: o.Value}, metav1.ApplyOptions{FieldManager: Manager, Force: true})
				return err
			})
		}
		return g.Wait()
	}
	cache := t.TempDir()
	byKubectl := func(file string, flags ...string) error {
		cmd := exec.CommandContext(t.Context(), kubectl, append([]string{"apply", "--server-side", "--force-conflicts", "--field-manager", Manager, "-f", file}, flags...)...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+s.AdminKubeconfig, "KUBECACHEDIR="+cache)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("kubectl: %w: %s", err, out[max(0, len(out)-1000):])
		}
		return nil
	}

	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "what\thow\tmedian\tobjects\tratio")
	for size := range strings.SplitSeq(*benchSizes, ",") {
		n, err := strconv.Atoi(size)
		if err != nil {
			t.Fatal(err)
		}
		objs := vpcs(t, n)
		var text bytes.Buffer
		for _, o := range objs {
			fmt.Fprintf(&text, "---\n%s\n", toJSON(o.Value))
		}
		file := filepath.Join(t.TempDir(), "objects.yaml")
		if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		first := &contest{t: t, title: fmt.Sprintf("first, %d objects", n), times: map[string][]time.Duration{}, number: n}
		again := &contest{t: t, title: fmt.Sprintf("again, %d objects", n), times: map[string][]time.Duration{}, number: n}
		one := &contest{t: t, title: fmt.Sprintf("one changed of %d", n), times: map[string][]time.Duration{}, number: 1}
		drift := &contest{t: t, title: fmt.Sprintf("drift, one of %d", n), times: map[string][]time.Duration{}, number: 1}
		c := connect(t, s)
		ways := []struct {
			name string
			do   func() error
		}{
			{"bare client-go loop", func() error { return bare(t.Context(), objs) }},
			{"hhwatchd, comparing all", func() error { return applyAll(t, c, objs, true) }},
			{"kubectl", func() error { return byKubectl(file) }},
			{"kubectl --validate=false", func() error { return byKubectl(file, "--validate=false") }},
		}
		for round := range *benchRounds {
			// The first time, each into an empty kind; each begins a round once.
			for i := range ways {
				deleteVPCs(t, s)
				way := ways[(i+round)%len(ways)]
				first.time(way.name, way.do)
			}
			// Again, with nothing to do.
			for i := range ways {
				way := ways[(i+round)%len(ways)]
				again.time(way.name, way.do)
			}
			w := watched(t, c, objs)
			again.time("hhwatchd, by its watch", func() error {
				for _, o := range objs {
					if _, ok := w.Holds(o.Key(), o.Digest); !ok {
						return fmt.Errorf("%s is not known", o.Name)
					}
				}
				return nil
			})
			// One of them, several times.
			for i := range 20 {
				o := retext(t, objs[i%n], 2000+i)
				one.time("hhwatchd", func() error { return applyAll(t, c, []Object{o}, false) })
				objs[i%n] = retext(t, objs[i%n], 1001)
				if err := applyAll(t, c, objs[i%n:i%n+1], false); err != nil {
					t.Fatal(err)
				}
			}
			// Somebody edits one: from their answer to its being put right.
			for i := range 20 {
				o := objs[i%n]
				w.Take()
				edit(t, s, o, `{"spec": {"subnets": {"default": {"vlan": 77}}}}`)
				drift.time("hhwatchd, from the edit's answer", func() error {
					awaitChange(t, w, o.Key())
					return applyAll(t, c, []Object{o}, false)
				})
			}
			w.Close()
		}
		for _, c := range []*contest{first, again, one, drift} {
			c.print(table)
		}
		table.Flush()
	}
	deleteVPCs(t, s)
}

func applyAll(t *testing.T, c *Cluster, objs []Object, full bool) error {
	return c.Apply(t.Context(), objs, full, func(r Result) {
		if r.Err != nil {
			t.Errorf("%s: %v", r.Name, r.Err)
		}
	})
}

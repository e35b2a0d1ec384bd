// SPDX-License-Identifier: Apache-2.0

// Demo shows on one screen what hhwatchd does, on real parts: a git server, a
// Kubernetes API server with Hedgehog's kinds, and the daemon.
//
//	go run ./test/demo -hhwatchd bin/hhwatchd
//
// It lays out a fabric, drops a file by hand, pushes two others from a second
// clone, one of them wrong, waits until everything is where it belongs, and
// shows that with the commands that an operator would use; $DEMO is the temporary
// directory that holds it all. It removes all that it made, also on Ctrl-C and
// when something fails; then it exits with 1 and shows the end of the daemon's
// log.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hhwatchd/hhwatchd/test/fabric"
	"github.com/hhwatchd/hhwatchd/test/stage"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("demo: ")
	hhwatchd := flag.String("hhwatchd", "bin/hhwatchd", "the `program` to show")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatal("usage: demo [-hhwatchd PROGRAM]")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // a reader that leaves, such as head(1), is no reason not to clean up
	if err := run(ctx, *hhwatchd); err != nil {
		if ctx.Err() != nil {
			log.Fatalf("interrupted: %v", err)
		}
		log.Fatal(err)
	}
}

// interval is how often the remote is asked: more often than by default, since
// somebody is watching.
const interval = 2 * time.Second

func run(ctx context.Context, hhwatchd string) (err error) {
	began := time.Now()
	s, err := stage.Open(ctx, stage.Options{Hhwatchd: hhwatchd, Interval: interval})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "the end of the daemon's log:\n%s", s.Log(20))
		}
		err = errors.Join(err, s.Close())
	}()
	if err := s.StartDaemon(ctx); err != nil {
		return err
	}
	p := newScreen(os.Stdout, s.Dir)
	p.heading(fmt.Sprintf("A git server, a Kubernetes API server and hhwatchd, up in %.1f s", time.Since(began).Seconds()),
		"DEMO="+s.Dir)
	p.printf("git server %s, API server %s, hhwatchd pid %d", s.Git.RepoURL("fabrics"), s.API.URL, s.PID)

	if err := layOut(ctx, s, p); err != nil {
		return err
	}
	spec := fabric.Spec{Spines: 2, Leaves: 4, Servers: 8, VPCs: 2, Attachments: 8}
	if err := drop(ctx, s, p, spec); err != nil {
		return err
	}
	if err := push(ctx, s, p, spec); err != nil {
		return err
	}
	return show(ctx, s, p)
}

// layOut lets hhwatchd make the fabric's directories in the empty repository.
func layOut(ctx context.Context, s *stage.Stage, p *screen) error {
	p.heading("The fabric's directories are laid out in the empty repository", "hhwatchd init --fabric "+stage.Fabric)
	out, err := s.Hhwatchd(ctx, "init", "--fabric", stage.Fabric)
	if err != nil {
		return err
	}
	p.printf("%s", out)
	return nil
}

// drop puts a whole fabric in one file into raw/, as a person on the management
// host does.
func drop(ctx context.Context, s *stage.Stage, p *screen, spec fabric.Spec) error {
	p.heading("A fabric is dropped by hand", "cp fabric.yaml $DEMO/state/raw/"+stage.Fabric+"/")
	if err := os.WriteFile(filepath.Join(s.Raw, "fabric.yaml"), []byte(spec.YAML()), 0o644); err != nil {
		return err
	}
	closed := time.Now()
	objects := len(spec.Objects())
	err := await(ctx, s, "the API server to have the fabric", func(ctx context.Context) error {
		return s.Settled(ctx, objects)
	})
	if err != nil {
		return err
	}
	p.printf("%d objects are in git and in the API server %.1f s after the copy.", objects, time.Since(closed).Seconds())
	return nil
}

// await waits for a condition and shows that.
func await(ctx context.Context, s *stage.Stage, what string, ready func(context.Context) error) error {
	defer stage.Show("waiting for " + what)()
	return s.Await(ctx, what, ready)
}

// typo is typo.yaml, the file that hhwatchd has to refuse.
const typo = `apiVersion: vpc.githedgehog.com/v1beta1
kind: VPC
metadata:
  name: vpc-00005
spec: {subnets: {default: {subnet: 10.0.9.0/24, gateway: 10.0.9.1, vlan: 1009}}}
---
apiVersion: vpc.githedgehog.com/v1beta1
kind: VPC
metadata:
  nmae: vpc-00006
spec: {subnets: {default: {subnet: 10.0.10.0/24, gateway: 10.0.10.1, vlan: 1010}}}
`

// push pushes two more files from a second clone, one of them wrong.
func push(ctx context.Context, s *stage.Stage, p *screen, spec fabric.Spec) error {
	p.heading("Two files are pushed from elsewhere; one has a typo", "git add raw/tenants.yaml raw/typo.yaml && git commit && git push")
	const more = 2
	tenants := fabric.Join(fabric.VPCs(spec.VPCs + more)[spec.VPCs:])
	clone := filepath.Join(s.Dir, "laptop")
	if _, err := s.Run(ctx, "", nil, "git", "clone", "--quiet", s.Git.RepoURL("fabrics"), clone); err != nil {
		return err
	}
	raw := filepath.Join(clone, filepath.FromSlash(stage.FabricPath), "raw")
	for name, text := range map[string]string{"tenants.yaml": tenants, "typo.yaml": typo} {
		if err := os.WriteFile(filepath.Join(raw, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"add", "raw/tenants.yaml", "raw/typo.yaml"},
		{"commit", "--quiet", "--message", "Two more tenants"},
		{"push", "--quiet"},
	} {
		if _, err := s.Run(ctx, filepath.Dir(raw), nil, "git", args...); err != nil {
			return err
		}
	}
	pushed := time.Now()
	objects := len(spec.Objects()) + more
	err := await(ctx, s, "the API server to have what was pushed", func(ctx context.Context) error {
		if _, err := os.Stat(reason(s)); err != nil {
			return err
		}
		return s.Settled(ctx, objects)
	})
	if err != nil {
		return err
	}
	p.printf("Pulled, ingested and applied %.1f s after the push; here the remote is asked every %v.",
		time.Since(pushed).Seconds(), interval)
	return nil
}

// reason is the file that says why typo.yaml was rejected.
func reason(s *stage.Stage) string {
	return filepath.Join(s.Clone, filepath.FromSlash(stage.FabricPath), "unmanaged", "typo.yaml.reason")
}

// show shows what has become of it all.
func show(ctx context.Context, s *stage.Stage, p *screen) error {
	dir := filepath.Join(s.Clone, filepath.FromSlash(stage.FabricPath))
	p.heading("One file for each object", "ls -R $DEMO/state/repos/site-a/"+stage.FabricPath)
	for _, name := range []string{"raw", "managed", "unmanaged"} {
		if err := showTree(p, filepath.Join(dir, name)); err != nil {
			return err
		}
	}

	p.heading("What is wrong, and what to do, beside the file that was rejected", "cat unmanaged/typo.yaml.reason")
	text, err := os.ReadFile(reason(s))
	if err != nil {
		return err
	}
	p.printf("%s", text)

	p.heading("The git server's log", "git log --format='%h %an %s'")
	out, err := s.Run(ctx, s.Bare, nil, "git", "log", "--format=%h %<(14)%an%s", "main")
	if err != nil {
		return err
	}
	p.printf("%s", out)

	for _, c := range []struct {
		title string
		args  []string
	}{
		{"What came in, and what became of it", []string{"history", "--fabric", stage.Fabric, "--last", "5"}},
		{"One object's story", []string{"history", "--object", "VPC/vpc-00003"}},
		{"What the fabric should hold, and where it came from", []string{"get", "vpc"}},
		{"How the daemon is", []string{"status"}},
	} {
		p.heading(c.title, "hhwatchd "+strings.Join(c.args, " "))
		out, err := s.Hhwatchd(ctx, c.args...)
		if err != nil {
			return err
		}
		p.printf("%s", out)
	}
	return showObjects(s, p)
}

// showTree shows one of the fabric's directories: how many files are in it and
// in those below it, and the first names.
func showTree(p *screen, top string) error {
	var dirs []string
	files := map[string][]string{}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			dirs = append(dirs, path)
		case d.Name() != ".gitkeep":
			files[filepath.Dir(path)] = append(files[filepath.Dir(path)], d.Name())
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		names := files[dir]
		if len(names) == 0 && dir != top {
			continue
		}
		name := strings.Repeat("  ", strings.Count(strings.TrimPrefix(dir, top), "/")) + filepath.Base(dir) + "/"
		switch {
		case len(names) > 0:
			p.printf("%-20s %3d  %s", name, len(names), some(names, 60))
		case len(dirs) == 1:
			p.printf("%-20s   0", name)
		default:
			p.printf("%s", name)
		}
	}
	return nil
}

// some lists as many names as have room, but at least one.
func some(names []string, room int) string {
	text := names[0]
	for _, name := range names[1:] {
		if len(text)+len(name) > room {
			return text + " …"
		}
		text += " " + name
	}
	return text
}

// kinds are the resources that the demo's objects are of.
var kinds = []string{
	"wiring.githedgehog.com/v1beta1/vlannamespaces",
	"vpc.githedgehog.com/v1beta1/ipv4namespaces",
	"wiring.githedgehog.com/v1beta1/switchgroups",
	"wiring.githedgehog.com/v1beta1/switches",
	"wiring.githedgehog.com/v1beta1/servers",
	"wiring.githedgehog.com/v1beta1/connections",
	"vpc.githedgehog.com/v1beta1/vpcs",
	"vpc.githedgehog.com/v1beta1/vpcattachments",
}

// showObjects asks the API server itself.
func showObjects(s *stage.Stage, p *screen) error {
	p.heading("What the API server holds", "kubectl get vlannamespaces,ipv4namespaces,switchgroups,…")
	var counts []string
	total := 0
	for _, resource := range kinds {
		list, err := s.API.List(resource, "default")
		if err != nil {
			return err
		}
		counts = append(counts, fmt.Sprintf("%s %d", resource[strings.LastIndex(resource, "/")+1:], len(list)))
		total += len(list)
	}
	half := len(counts) / 2
	p.printf("%s,\n%s: %d objects", strings.Join(counts[:half], ", "), strings.Join(counts[half:], ", "), total)

	vpc, err := s.API.Get("vpc.githedgehog.com/v1beta1/vpcs", "default", "vpc-00003")
	if err != nil {
		return err
	}
	metadata, _ := vpc["metadata"].(map[string]any)
	fields, _ := metadata["managedFields"].([]any)
	for _, f := range fields {
		f, _ := f.(map[string]any)
		p.printf("VPC/vpc-00003: the fields are managed by %v (operation %v)", f["manager"], f["operation"])
	}
	return nil
}

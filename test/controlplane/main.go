// SPDX-License-Identifier: Apache-2.0

// Controlplane is a Kubernetes API server for tests: etcd and the real
// kube-apiserver in one process, on loopback, with RBAC on.
//
//	controlplane --dir DIR [--port N] [--crds DIR]... [--rbac FILE]
//
// It applies the manifests that it is given, waits until the custom resources
// among them are served, writes DIR/admin.kubeconfig (group system:masters) and
// DIR/hhwatchd.kubeconfig (user hhwatchd, who may do what --rbac grants), and
// prints one line,
//
//	ready https://127.0.0.1:PORT
//
// on standard output. It ends when its standard input is closed, so that it
// never outlives whoever started it, and on SIGTERM or SIGINT.
//
// All state is below DIR: a second run with the same --dir and --port goes on
// where the first one ended, even after SIGKILL. The logs of both servers go to
// DIR/controlplane.log; standard error has one line, if it fails.
//
// The server is for tests only: etcd does not fsync, so that a power failure
// may lose what it holds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("controlplane: ")
	var cfg config
	flag.StringVar(&cfg.dir, "dir", "", "`directory` of the data, logs and kubeconfigs; created when missing")
	flag.IntVar(&cfg.port, "port", 0, "TCP `port` on 127.0.0.1; 0 picks a free one")
	flag.Func("crds", "`directory` of CustomResourceDefinitions to install; may be given again", func(s string) error {
		cfg.crds = append(cfg.crds, s)
		return nil
	})
	flag.StringVar(&cfg.rbac, "rbac", "", "`file` of RBAC objects to install")
	flag.Parse()
	if flag.NArg() > 0 || cfg.dir == "" {
		log.Fatal("usage: controlplane --dir DIR [--port N] [--crds DIR]... [--rbac FILE]")
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		io.Copy(io.Discard, os.Stdin) // returns when the parent is gone
		cancel()
	}()
	if err := run(ctx, cfg); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
	// Neither server is shut down in an orderly way: that would wait for the
	// watches of clients. etcd has handed every write that it acknowledged to
	// the kernel, so the end of the process loses none.
}

type config struct {
	dir  string
	port int
	crds []string
	rbac string
}

// run serves until the context is cancelled or one of the servers fails.
func run(ctx context.Context, cfg config) error {
	// The work below happens in cfg.dir, so other paths must not be relative.
	paths := cfg.crds
	if cfg.rbac != "" {
		paths = append(paths, cfg.rbac)
	}
	for i := range paths {
		abs, err := filepath.Abs(paths[i])
		if err != nil {
			return err
		}
		paths[i] = abs
	}
	objects, err := readManifests(paths)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.dir, 0o700); err != nil {
		return err
	}
	if err := os.Chdir(cfg.dir); err != nil {
		return err
	}
	if err := redirectLogs("controlplane.log"); err != nil {
		return err
	}

	listener, err := listen(cfg.port)
	if err != nil {
		return err
	}
	pki, err := issue("pki")
	if err != nil {
		return fmt.Errorf("issuing certificates: %w", err)
	}
	etcd, err := startEtcd()
	if err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	failed := make(chan error, 1)
	go func() { failed <- serve(ctx, listener, pki) }()
	go func() { failed <- fmt.Errorf("etcd: %w", <-etcd.Err()) }()

	serverURL := "https://" + listener.Addr().String()
	ready := make(chan error, 1)
	go func() { ready <- prepare(ctx, serverURL, pki, objects) }()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-failed:
		return err
	case err := <-ready:
		if err != nil {
			return err
		}
	}
	fmt.Println("ready", serverURL)

	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-failed:
		return err
	}
}

// prepare makes the cluster what the ready line promises.
func prepare(ctx context.Context, serverURL string, pki *pki, objects []manifest) error {
	for _, user := range []string{"admin", "hhwatchd"} {
		if err := writeKubeconfig(user+".kubeconfig", serverURL, user, pki); err != nil {
			return fmt.Errorf("writing %s.kubeconfig: %w", user, err)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", "admin.kubeconfig")
	if err != nil {
		return err
	}
	return install(ctx, config, objects)
}

// redirectLogs lets file descriptor 2, where klog, etcd and a panic write, lead
// to the file and keeps the former standard error for package log.
func redirectLogs(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	parent, err := syscall.Dup(2)
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(parent)
	log.SetOutput(os.NewFile(uintptr(parent), "stderr"))
	return os.NewSyscallError("dup3", syscall.Dup3(int(f.Fd()), 2, 0))
}

// listen binds the port, or a free one when it is 0. That comes from below the
// ports that Linux gives to outgoing connections (32768 and up), so that none
// takes it while the server is being restarted.
func listen(port int) (net.Listener, error) {
	for tries := 1; ; tries++ {
		p := port
		if p == 0 {
			p = 20000 + rand.IntN(12000)
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
		if errors.Is(err, syscall.EADDRINUSE) && port == 0 && tries < 100 {
			continue
		}
		return l, err
	}
}

// startEtcd starts etcd in the current directory, on Unix sockets, and returns
// when it takes requests.
func startEtcd() (*embed.Etcd, error) {
	wal.SegmentSizeBytes = 4 << 20 // preallocated twice in each data directory; 64 MB by default

	cfg := embed.NewConfig()
	cfg.Dir = "etcd"
	cfg.UnsafeNoFsync = true
	cfg.LogLevel = "warn"
	cfg.LogOutputs = []string{"stderr"}
	client := url.URL{Scheme: "unix", Host: "etcd.sock"}
	peer := url.URL{Scheme: "unix", Host: "etcd-peer.sock"}
	cfg.ListenClientUrls = []url.URL{client}
	cfg.AdvertiseClientUrls = []url.URL{client}
	cfg.ListenPeerUrls = []url.URL{peer}
	cfg.AdvertisePeerUrls = []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case err := <-etcd.Err():
		return nil, err
	}
}

// serve runs kube-apiserver on the listener until the context is cancelled.
func serve(ctx context.Context, listener net.Listener, pki *pki) error {
	s := options.NewServerRunOptions()
	fs := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, f := range s.Flags().FlagSets {
		fs.AddFlagSet(f)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	err := fs.Parse([]string{
		"--etcd-servers=unix://etcd.sock",
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1", // otherwise that of the default route, which may be missing
		"--endpoint-reconciler-type=none",
		"--secure-port=" + strconv.Itoa(port),
		"--tls-cert-file=" + pki.path("server.crt"),
		"--tls-private-key-file=" + pki.path("server.key"),
		"--client-ca-file=" + pki.path("ca.crt"),
		"--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + pki.path("server.key"),
		"--service-account-signing-key-file=" + pki.path("server.key"),
		"--service-cluster-ip-range=10.255.0.0/24",
		// No controller manager makes the tokens that this plugin waits for.
		"--disable-admission-plugins=ServiceAccount",
	})
	if err != nil {
		return fmt.Errorf("kube-apiserver's flags: %w", err)
	}
	s.SecureServing.Listener = listener
	if err := s.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("kube-apiserver's feature gates: %w", err)
	}
	completed, err := s.Complete(ctx)
	if err != nil {
		return fmt.Errorf("kube-apiserver's options: %w", err)
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return fmt.Errorf("kube-apiserver's options: %w", errors.Join(errs...))
	}
	if err := app.Run(ctx, completed); err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	return errors.New("kube-apiserver ended")
}

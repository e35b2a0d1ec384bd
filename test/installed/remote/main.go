// SPDX-License-Identifier: Apache-2.0

// Remote is a git server for a machine of tests: HTTPS on a free port of
// loopback, with basic authentication, serving the bare repositories in a
// directory. It writes url and ca.pem to its run directory and then tells
// systemd that it is ready.
//
//	remote -dir /srv/git -run /run/remote -user hhwatchd -password secret
package main

import (
	"flag"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
)

func main() {
	log.SetFlags(0)
	dir := flag.String("dir", "", "`directory` of the repositories")
	run := flag.String("run", "", "`directory` for url and ca.pem")
	user := flag.String("user", "", "who may fetch and push")
	password := flag.String("password", "", "their password")
	flag.Parse()

	srv, err := gitserver.Listen(gitserver.Options{Dir: *dir, Username: *user, Password: *password, TLS: true})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	srv.Create("fabrics")
	ca, err := os.ReadFile(srv.CAFile)
	if err != nil {
		log.Fatal(err)
	}
	for name, text := range map[string]string{"url": srv.RepoURL("fabrics"), "ca.pem": string(ca)} {
		if err := os.WriteFile(filepath.Join(*run, name), []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Fatal(err)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
}

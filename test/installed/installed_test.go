// SPDX-License-Identifier: Apache-2.0

// Package installed tests what an operator installs: the Debian package, on
// Debian, with the machine's own systemd as process 1. See package guest for
// how a machine comes about.
package installed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hhwatchd/hhwatchd/test/fabric"
	"github.com/hhwatchd/hhwatchd/test/guest"
)

// releases are the Debian releases that the package is for, with their systemd.
var releases = []string{"bookworm", "trixie"} // 252, 257

// programs are what goes into a machine.
type programs struct {
	dir          string
	older, newer string // two versions of the package
	remote       string // the git server
}

// build makes the programs, once.
var build = sync.OnceValues(func() (p programs, err error) {
	if p.dir, err = os.MkdirTemp("", "hhwatchd-installed-"); err != nil {
		return p, err
	}
	if p.older, err = buildPackage(p.dir, "1.0.0"); err != nil {
		return p, err
	}
	if p.newer, err = buildPackage(p.dir, "1.1.0"); err != nil {
		return p, err
	}
	p.remote = filepath.Join(p.dir, "remote")
	cmd := exec.Command("go", "build", "-o", p.remote, "./remote")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return p, fmt.Errorf("building the git server: %w\n%s", err, out)
	}
	return p, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built.Load() {
		p, _ := build()
		os.RemoveAll(p.dir)
	}
	os.Exit(code)
}

// built says that build was called.
var built atomic.Bool

// programsOnce returns the programs, which the first test that calls it makes.
func programsOnce(t *testing.T) programs {
	t.Helper()
	built.Store(true)
	p, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// buildPackage builds the package below dir and returns its file.
func buildPackage(dir, version string) (string, error) {
	cmd := exec.Command("../../packaging/deb/build.sh")
	cmd.Env = append(os.Environ(), "DIST="+dir, "VERSION="+version)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the package: %w\n%s", err, out)
	}
	arch, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, fmt.Sprintf("hhwatchd_%s_%s.deb", version, strings.TrimSpace(string(arch)))), nil
}

// raw is where people drop files for the fabric.
const raw = "/var/lib/hhwatchd/raw/fabric-1"

// A host is a management host: a machine with a git server on it, a member of
// the group hhwatchd (alice), and somebody who is not (bob).
type host struct {
	*guest.Machine
	t *testing.T
}

// newHost boots a host and installs the older package on it.
func newHost(t *testing.T, release string) host {
	t.Helper()
	h := host{guest.Boot(t, release), t}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", h.Try("systemctl status --no-pager --lines=0 hhwatchd; hhwatchd status; ls -la "+raw+"/; journalctl -u hhwatchd --no-pager -n 40"))
		}
	})
	p := programsOnce(t)
	h.Copy(p.older, "/root/older.deb", 0o644)
	h.Copy(p.newer, "/root/newer.deb", 0o644)
	h.Copy(p.remote, "/usr/local/bin/remote", 0o755)
	h.Must("mkdir -p /srv/git /run/remote; systemd-run --quiet --unit=remote -p Type=notify remote -dir /srv/git -run /run/remote -user hhwatchd -password s3cr3t-token")
	h.Must("apt-get install -y /root/older.deb")
	h.Must("adduser --disabled-password --gecos '' alice && adduser --disabled-password --gecos '' bob && adduser alice hhwatchd")
	return h
}

// configure gives the service a config, and the git server's password as a
// credential of systemd's.
func (h host) configure() {
	h.t.Helper()
	h.Must("cp /run/remote/ca.pem /etc/hhwatchd/ca.pem")
	h.Write("/etc/git-token", "s3cr3t-token\n", 0o600)
	h.Write("/etc/systemd/system/hhwatchd.service.d/credentials.conf", "[Service]\nLoadCredential=git-token:/etc/git-token\n", 0o644)
	h.Write("/etc/hhwatchd/hhwatchd.yaml", `# ours
settle: {quiet: 50ms, max: 1s}
repositories:
  - name: site-a
    url: `+h.Must("cat /run/remote/url")+`
    interval: 1h
    auth: {username: hhwatchd, passwordFile: $CREDENTIALS_DIRECTORY/git-token, caFile: /etc/hhwatchd/ca.pem}
    fabrics:
      - {name: fabric-1, path: gitops/hedgehog/fabric-1}
`, 0o640)
	h.Must("chgrp hhwatchd /etc/hhwatchd/hhwatchd.yaml; systemctl daemon-reload")
}

// as runs a shell command as that user, with the groups it has.
func (h host) as(user, shell string) (out string, code int) {
	h.t.Helper()
	return h.Run("runuser -u " + user + " -- sh -c " + quote(shell))
}

// quote is text as one word of a shell command.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// drop lets alice drop a file for the fabric.
func (h host) drop(name, text string) {
	h.t.Helper()
	if out, code := h.as("alice", "printf %s "+quote(text)+" >"+raw+"/"+name); code != 0 {
		h.t.Fatalf("alice cannot drop %s: %s", name, out)
	}
}

// push commits a file to the remote as a person elsewhere does.
func (h host) push(name, text string) {
	h.t.Helper()
	h.Write("/root/pushed", text, 0o644)
	h.Must(`set -e; rm -rf /root/work; url=$(sed 's|//|//hhwatchd:s3cr3t-token@|' /run/remote/url)
		export GIT_SSL_CAINFO=/run/remote/ca.pem
		git clone -q "$url" /root/work 2>&1; cd /root/work; git checkout -q -B main
		mkdir -p "$(dirname ` + name + `)"; cp /root/pushed ` + name + `; git add .
		git -c user.name=Carol -c user.email=carol@example.net commit -q -m "Add ` + name + `"; git push -q origin main 2>&1`)
}

// remote runs git on the server's repository.
func (h host) remote(args string) string {
	h.t.Helper()
	return h.Must("git -C /srv/git/fabrics.git " + args)
}

// arrives waits until the managed file is on the remote.
func (h host) arrives(file string) {
	h.t.Helper()
	h.Eventually("git -C /srv/git/fabrics.git cat-file -e main:gitops/hedgehog/fabric-1/managed/" + file)
}

// show is a property of the service.
func (h host) show(property string) string {
	h.t.Helper()
	return h.Must("systemctl show --value -p " + property + " hhwatchd")
}

func vpc(i int) string { return fabric.VPCs(i)[i-1].YAML }

// managed is the managed file of vpc(i).
func managed(i int) string { return fmt.Sprintf("vpcs/vpc-%05d.yaml", i) }

// TestInstalled goes through the life of an installation. Each part begins
// where the one before it ended.
func TestInstalled(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	for _, release := range releases {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, release)
			for _, part := range []struct {
				name string
				test func(host)
			}{
				{"install", host.testInstall},
				{"start", host.testStart},
				{"drop", host.testDrop},
				{"rights", host.testRights},
				{"push", host.testPush},
				{"journald", host.testJournald},
				{"http", host.testHTTP},
				{"reload", host.testReload},
				{"bad config", host.testBadConfig},
				{"killed", host.testKilled},
				{"watchdog", host.testWatchdog},
				{"sandbox", host.testSandbox},
				{"upgrade", host.testUpgrade},
				{"remove", host.testRemove},
			} {
				if !t.Run(part.name, func(t *testing.T) { part.test(host{h.Machine.For(t), t}) }) {
					break
				}
			}
		})
	}
}

// Without a config the service waits for one: it is enabled, not started, and
// not failed.
func (h host) testInstall() {
	if out := h.Must("systemctl is-enabled hhwatchd"); out != "enabled" {
		h.t.Errorf("after the installation the service is %s", out)
	}
	if state, failed := h.show("ActiveState"), h.Try("systemctl --failed --plain --no-legend"); state != "inactive" || failed != "" {
		h.t.Errorf("without a config the service is %s; failed units: %q", state, failed)
	}
	if out := h.Must("stat -c '%n %a %U:%G' /var/lib/hhwatchd /var/lib/hhwatchd/repos /etc/hhwatchd"); out != `/var/lib/hhwatchd 750 hhwatchd:hhwatchd
/var/lib/hhwatchd/repos 2755 hhwatchd:hhwatchd
/etc/hhwatchd 750 root:hhwatchd` {
		h.t.Errorf("the directories are\n%s", out)
	}
}

// systemctl start returns when the first look is over.
func (h host) testStart() {
	h.configure()
	h.push("gitops/hedgehog/fabric-1/raw/first.yaml", vpc(1))
	h.Must("systemctl start hhwatchd")
	h.remote("cat-file -e main:gitops/hedgehog/fabric-1/managed/" + managed(1))
	if state := h.show("ActiveState"); state != "active" {
		h.t.Errorf("the service is %s", state)
	}
	tip := h.remote("rev-parse --short=7 main")
	if status := h.show("StatusText"); !strings.Contains(status, tip) {
		h.t.Errorf("its status is %q, want the commit %s in it", status, tip)
	}
}

// A member of the group drops a file, and is its author.
func (h host) testDrop() {
	h.drop("second.yaml", vpc(2))
	h.arrives(managed(2))
	if author := h.remote("log -1 --format=%an --diff-filter=A main -- gitops/hedgehog/fabric-1/raw/second.yaml"); author != "alice" {
		h.t.Errorf("the author of the drop is %q", author)
	}
	h.Eventually("! test -e " + raw + "/second.yaml")
	if out, code := h.as("alice", "hhwatchd status"); code != 0 || !strings.Contains(out, "fabric-1") {
		h.t.Errorf("alice asks for the status: exit code %d\n%s", code, out)
	}
}

// What members of the group may not do, and what others may not.
func (h host) testRights() {
	const state = "/var/lib/hhwatchd"
	for _, tt := range []struct {
		user, shell string
		may         bool
	}{
		{"alice", "touch " + raw + "/x && rm " + raw + "/x", true},
		{"alice", "mkdir " + raw + "/sub && rmdir " + raw + "/sub", true},
		{"alice", "cat /etc/hhwatchd/hhwatchd.yaml", true},
		{"alice", "hhwatchd history", true},
		{"alice", "touch " + state + "/x", false},
		{"alice", "touch " + state + "/journal/x", false},
		{"alice", "sh -c 'echo >> " + state + "/journal/*.jsonl'", false},
		{"alice", "touch " + state + "/repos/site-a/x", false},
		{"alice", "touch " + state + "/repos/site-a/.git/x", false},
		{"alice", "touch " + state + "/repos/site-a/gitops/hedgehog/fabric-1/managed/x", false},
		{"alice", "rm " + state + "/repos/site-a/gitops/hedgehog/fabric-1/managed/" + managed(1), false},
		{"alice", "mv " + state + "/repos/site-a/gitops/hedgehog/fabric-1/raw /tmp/", false},
		{"alice", "rm " + raw, false},
		{"alice", "touch /etc/hhwatchd/x", false},
		{"alice", "cat /run/credentials/hhwatchd.service/git-token", false},
		{"alice", "cat /proc/$(pgrep -x hhwatchd)/environ", false},
		{"bob", "ls " + state, false},
		{"bob", "touch " + raw + "/x", false},
		{"bob", "cat /etc/hhwatchd/hhwatchd.yaml", false},
		{"bob", "hhwatchd status", false},
	} {
		if out, code := h.as(tt.user, tt.shell); (code == 0) != tt.may {
			h.t.Errorf("%s: %s: exit code %d, want it allowed: %v\n%s", tt.user, tt.shell, code, tt.may, out)
		}
	}
	if out := h.Must("cd /proc/$(pgrep -x hhwatchd) && cat cmdline environ | tr '\\000' ' '"); !strings.Contains(out, "hhwatchd.yaml run") || strings.Contains(out, "s3cr3t") {
		h.t.Errorf("a secret in the arguments or the environment:\n%s", out)
	}
	if out := h.Must("journalctl -u hhwatchd -o json"); strings.Contains(out, "s3cr3t") {
		h.t.Errorf("a secret in the log:\n%s", out)
	}
}

// What is pushed is taken in with the next poll.
func (h host) testPush() {
	h.push("gitops/hedgehog/fabric-1/raw/third.yaml", vpc(3))
	if out, code := h.as("alice", "hhwatchd sync"); code != 0 {
		h.t.Errorf("hhwatchd sync: exit code %d\n%s", code, out)
	}
	h.remote("cat-file -e main:gitops/hedgehog/fabric-1/managed/" + managed(3))
}

// The history stands in journald, and is found by field.
func (h host) testJournald() {
	commit := h.remote("log -1 --format=%H --diff-filter=D main -- gitops/hedgehog/fabric-1/raw/second.yaml")
	for _, tt := range []struct{ match, want string }{
		{"HHWATCHD_FABRIC=fabric-1", "second.yaml"},
		{"HHWATCHD_STEP=ingest", "second.yaml"},
		{"HHWATCHD_FILE=gitops/hedgehog/fabric-1/raw/second.yaml", "alice"},
		{"HHWATCHD_REPOSITORY=site-a", "pushed"},
		{"MESSAGE_ID=e8ba2ec9c5db4acc810a992a5c529065", "second.yaml"}, // ingested
		{"HHWATCHD_COMMIT=" + commit, "second.yaml"},
	} {
		out := h.Must("journalctl -u hhwatchd -o cat " + tt.match)
		if !strings.Contains(out, tt.want) {
			h.t.Errorf("journalctl %s does not tell of %s:\n%s", tt.match, tt.want, out)
		}
	}
	if out := h.Must("journalctl -u hhwatchd -x HHWATCHD_STEP=ingest"); !strings.Contains(out, "became a file for each of its objects") {
		h.t.Errorf("the catalog explains nothing:\n%s", out)
	}
	if out := h.Try("journalctl -u systemd-journald -o cat | grep -i suppress"); out != "" {
		h.t.Errorf("journald dropped messages: %s", out)
	}
}

// The listener works within the sandbox: what Prometheus scrapes is there, and
// a forge that knows the secret has the daemon pull.
func (h host) testHTTP() {
	h.Write("/etc/webhook-secret", "s3cr3t-webhook\n", 0o600)
	h.Write("/etc/systemd/system/hhwatchd.service.d/credentials.conf", "[Service]\nLoadCredential=git-token:/etc/git-token\nLoadCredential=webhook-secret:/etc/webhook-secret\n", 0o644)
	h.Must("cat >>/etc/hhwatchd/hhwatchd.yaml <<'end'\nhttp: {listen: 127.0.0.1:9470, webhookSecretFile: /run/credentials/hhwatchd.service/webhook-secret}\nend\nsystemctl daemon-reload; systemctl restart hhwatchd")
	// ask is a request in HTTP/1.0; Debian's base has no other client.
	ask := func(request string) string {
		return h.Must(`perl -MIO::Socket::INET -e '
			my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:9470") or die "$!";
			print $s join("\r\n", split(/\n/, $ARGV[0], -1)); print while <$s>' ` + quote(request))
	}
	const push = `{"ref": "refs/heads/main"}`
	call := func(token string) string {
		return ask(fmt.Sprintf("POST /webhook HTTP/1.0\nX-Gitlab-Event: Push Hook\nX-Gitlab-Token: %s\nContent-Type: application/json\nContent-Length: %d\n\n%s", token, len(push), push))
	}
	for _, tt := range []struct{ request, want string }{
		{"/readyz", "200 OK"},
		{"/healthz", "200 OK"},
		{"/metrics", "hhwatchd_build_info{"},
		{"/metrics", "process_resident_memory_bytes "},
		{"/metrics", "hhwatchd_fabric_last_success_timestamp_seconds{"},
	} {
		if out := ask("GET " + tt.request + " HTTP/1.0\n\n"); !strings.Contains(out, tt.want) {
			h.t.Errorf("%s lacks %q:\n%s", tt.request, tt.want, out)
		}
	}
	tip := h.remote("rev-parse main")
	h.push("gitops/hedgehog/fabric-1/raw/called.yaml", vpc(14))
	if out := call("guessed"); !strings.Contains(out, " 403 ") {
		h.t.Errorf("a call with a wrong secret is answered with\n%s", out)
	}
	if now := h.remote("log --format=%an " + tip + "..main"); now != "Carol" {
		h.t.Errorf("a call with a wrong secret led to commits of %s", now)
	}
	if out := call("s3cr3t-webhook"); !strings.Contains(out, " 202 ") {
		h.t.Errorf("a call with the secret is answered with\n%s", out)
	}
	h.arrives(managed(14))
}

// A reload returns when the pull that it forced is done.
func (h host) testReload() {
	pid := h.show("MainPID")
	h.push("gitops/hedgehog/fabric-1/raw/fourth.yaml", vpc(4))
	h.Must("systemctl reload hhwatchd")
	h.remote("cat-file -e main:gitops/hedgehog/fabric-1/managed/" + managed(4))
	if now := h.show("MainPID"); now != pid {
		h.t.Errorf("the reload started another process: %s, was %s", now, pid)
	}
}

// A bad config fails the reload, and the daemon goes on with the old one; it
// fails a restart once and for all, without a loop.
func (h host) testBadConfig() {
	const config = "/etc/hhwatchd/hhwatchd.yaml"
	pid := h.show("MainPID")
	h.Must("cp -p " + config + " /root/good.yaml; echo 'intervall: 1m' >> " + config)
	out, code := h.Run("systemctl reload hhwatchd")
	if code == 0 {
		h.t.Error("a reload with a bad config does not fail")
	}
	if log := h.Must("journalctl -u hhwatchd -o cat -n 20"); !strings.Contains(log, "intervall") {
		h.t.Errorf("the log does not say what is wrong:\n%s\n%s", out, log)
	}
	if now := h.show("MainPID"); now != pid || h.show("ActiveState") != "active" {
		h.t.Errorf("after it the service is %s, process %s, was %s", h.show("ActiveState"), now, pid)
	}
	h.drop("fifth.yaml", vpc(5))
	h.arrives(managed(5))

	if out, code := h.Run("systemctl restart hhwatchd"); code == 0 {
		h.t.Errorf("a restart with a bad config does not fail: %s", out)
	}
	h.Must("sleep 6") // longer than RestartSec
	if state, status, restarts := h.show("ActiveState"), h.show("ExecMainStatus"), h.show("NRestarts"); state != "failed" || status != "78" || restarts != "0" {
		h.t.Errorf("after it the service is %s, with status %s and %s restarts", state, status, restarts)
	}
	h.Must("cp -p /root/good.yaml " + config + "; systemctl start hhwatchd")
}

// However it ends, it is started again and goes on where it was.
func (h host) testKilled() {
	h.Write("/etc/systemd/system/hhwatchd.service.d/soon.conf", "[Service]\nRestartSec=100ms\n", 0o644)
	h.Must("systemctl daemon-reload")
	for i, signal := range []string{
		"KILL",
		"QUIT", // Go's runtime then ends as with a panic: all stacks, exit code 2
		"SEGV",
	} {
		pid, restarts := h.show("MainPID"), h.count("systemctl show --value -p NRestarts hhwatchd")
		h.drop(fmt.Sprintf("killed-%d.yaml", i), vpc(6+i))
		h.Must("kill -" + signal + " " + pid)
		h.Eventually(fmt.Sprintf("test $(systemctl show --value -p NRestarts hhwatchd) -gt %d -a $(systemctl show --value -p MainPID hhwatchd) != %s -a $(systemctl is-active hhwatchd) = active", restarts, pid))
		h.arrives(managed(6 + i))
	}
	if out, code := h.Run("hhwatchd journal verify"); code != 0 {
		h.t.Errorf("the journal afterwards: exit code %d\n%s", code, out)
	}
}

// A daemon that makes no step is killed and started again.
func (h host) testWatchdog() {
	h.Write("/etc/systemd/system/hhwatchd.service.d/soon.conf", "[Service]\nRestartSec=100ms\nWatchdogSec=3s\nTimeoutAbortSec=1s\n", 0o644)
	h.Must("systemctl daemon-reload; systemctl restart hhwatchd")
	pid := h.show("MainPID")
	h.Must("kill -STOP " + pid)
	h.drop("hung.yaml", vpc(10))
	h.Eventually("test $(systemctl show --value -p MainPID hhwatchd) != " + pid + " -a $(systemctl is-active hhwatchd) = active")
	h.arrives(managed(10))
	if log := h.Must("journalctl -u hhwatchd -o cat"); !strings.Contains(log, "Watchdog timeout") {
		h.t.Errorf("the log does not tell of the watchdog:\n%s", log)
	}
	h.Must("rm /etc/systemd/system/hhwatchd.service.d/soon.conf; systemctl daemon-reload; systemctl restart hhwatchd")
}

// testSandbox tries from within the unit what a daemon that was taken over
// would try.
func (h host) testSandbox() {
	probes := []struct {
		name, shell string
		may         bool
	}{
		{"write-state", "touch /var/lib/hhwatchd/.probe && rm /var/lib/hhwatchd/.probe", true},
		{"write-runtime", "touch /run/hhwatchd/.probe && rm /run/hhwatchd/.probe", true},
		{"read-config", "cat /etc/hhwatchd/hhwatchd.yaml", true},
		{"read-credential", "cat $CREDENTIALS_DIRECTORY/git-token", true},
		{"read-etc", "cat /etc/passwd", true},
		{"write-config", "touch /etc/hhwatchd/x", false},
		{"write-etc", "touch /etc/x", false},
		{"write-usr", "touch /usr/x", false},
		{"write-run", "touch /run/x", false},
		{"write-boot", "touch /boot/x", false},
		{"write-credential", "echo > $CREDENTIALS_DIRECTORY/git-token", false},
		{"shadow", "cat /etc/shadow", false},
		{"root-token", "cat /etc/git-token", false},
		{"homes", "ls /home/alice", false},
		{"see-tmp", "test -e /tmp/of-others", false},
		{"see-process-1", "ls /proc/1", false},
		{"sysctl", "echo 1 > /proc/sys/kernel/printk", false},
		{"cgroup", "mkdir /sys/fs/cgroup/x", false},
		{"mount", "mount -t tmpfs none /tmp", false},
		{"userns", "unshare -U true", false},
		{"netns", "unshare -n true", false},
		{"mknod", "mknod /tmp/null c 1 3", false},
		{"disk", "ls /dev/vda /dev/sda /dev/mem /dev/kmsg", false},
		{"setuid", "cp /bin/true /tmp/t && chmod u+s /tmp/t", false},
		{"su", "su -c true root", false},
		{"hostname", "hostname pwned", false},
		{"clock", "date -s 2001-01-01", false},
		{"nice", "nice -n -5 true && nice -n -5 nice | grep -qx -- -5", false},
		{"kernel-log", "dmesg", false},
		{"raw-socket", "perl -MSocket -e 'socket(S, PF_INET, SOCK_RAW, 1) or exit 1'", false},
		{"packet-socket", "perl -e 'socket(S, 17, 3, 0) or exit 1'", false},
		{"netlink", "perl -e 'socket(S, 16, 3, 0) or exit 1'", false},
		{"inet", "perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0) or exit 1'", true},
		{"trace", "perl -e 'exit(syscall(101, 0, 0, 0, 0) == 0 ? 0 : 1)'", false}, // PTRACE_TRACEME on amd64
		{"kill-others", "kill -0 $(cat /root/other.pid 2>/dev/null || echo 1)", false},
	}
	var script strings.Builder
	script.WriteString("rm -f /var/lib/hhwatchd/probes\n")
	for _, p := range probes {
		fmt.Fprintf(&script, "if sh -c %s >/dev/null 2>&1; then r=may; else r='may not'; fi; echo \"%s $r\" >>/var/lib/hhwatchd/probes\n", quote(p.shell), p.name)
	}
	h.Must("touch /tmp/of-others")
	h.Write("/usr/local/lib/probes.sh", script.String(), 0o755)
	h.Write("/etc/systemd/system/hhwatchd.service.d/probes.conf", "[Service]\nExecStartPre=/bin/sh /usr/local/lib/probes.sh\n", 0o644)
	h.Must("systemctl daemon-reload; systemctl restart hhwatchd")
	results := "\n" + h.Must("cat /var/lib/hhwatchd/probes") + "\n"
	for _, p := range probes {
		want := p.name + " may"
		if !p.may {
			want += " not"
		}
		if !strings.Contains(results, "\n"+want+"\n") {
			h.t.Errorf("in the sandbox, want: %s (%s)", want, p.shell)
		}
	}
	// The probes can tell: outside, root may do most of it.
	for _, p := range probes {
		switch p.name {
		case "write-etc", "shadow", "homes", "see-tmp", "see-process-1", "userns", "setuid", "raw-socket", "netlink":
			if out, code := h.Run("sh -c " + quote(p.shell) + "; r=$?; rm -f /etc/x /tmp/t; exit $r"); code != 0 {
				h.t.Errorf("the probe %s fails outside of the sandbox too: %s", p.name, out)
			}
		}
	}
	h.Must("rm /etc/systemd/system/hhwatchd.service.d/probes.conf /var/lib/hhwatchd/probes; systemctl daemon-reload; systemctl restart hhwatchd")
}

// An upgrade keeps the config and the history, and runs the new program.
func (h host) testUpgrade() {
	const records = "hhwatchd history -o json | wc -l"
	config, before := h.Must("md5sum /etc/hhwatchd/hhwatchd.yaml"), h.count(records)
	pid := h.show("MainPID")
	h.drop("before.yaml", vpc(11))
	h.Must("apt-get install -y /root/newer.deb")
	if out := h.Must("hhwatchd --version"); !strings.Contains(out, "1.1.0") {
		h.t.Errorf("the program says %s", out)
	}
	if now := h.show("MainPID"); now == pid || h.show("ActiveState") != "active" {
		h.t.Errorf("after the upgrade the service is %s, process %s, was %s", h.show("ActiveState"), now, pid)
	}
	h.arrives(managed(11))
	if now := h.Must("md5sum /etc/hhwatchd/hhwatchd.yaml"); now != config {
		h.t.Error("the upgrade changed the config")
	}
	if after := h.count(records); after <= before || before == 0 {
		h.t.Errorf("the history has %d records after the upgrade, %d before", after, before)
	}
	h.Must("systemctl disable hhwatchd && apt-get install -y --reinstall /root/newer.deb")
	if out := h.Try("systemctl is-enabled hhwatchd"); out != "disabled" {
		h.t.Errorf("an upgrade made a disabled service %s", out)
	}
	h.Must("systemctl enable hhwatchd")
}

// Removal keeps config and state, a purge keeps the group alone, and the
// package can come back.
func (h host) testRemove() {
	h.Must("apt-get remove -y hhwatchd")
	if out := h.Try("pgrep -x hhwatchd"); out != "" {
		h.t.Errorf("after the removal it runs: %s", out)
	}
	h.Must("test -e /etc/hhwatchd/hhwatchd.yaml -a -d /var/lib/hhwatchd/journal")
	h.Must("apt-get install -y /root/newer.deb")
	h.drop("again.yaml", vpc(12))
	h.arrives(managed(12))

	h.Must("apt-get purge -y hhwatchd")
	if out := h.Try("find / -xdev -name '*hhwatchd*' -not -path '/proc/*' -not -path '/root/*' -not -path '/var/log/*' -not -path '/etc/systemd/system/hhwatchd.service.d*' -not -path '/home/*' -not -path '/tmp/*'"); out != "" {
		h.t.Errorf("the purge leaves\n%s", out)
	}
	h.Must("getent group hhwatchd")
	if out := h.Try("systemctl list-units --all --plain --no-legend 'hhwatchd*'"); strings.Contains(out, "loaded") {
		h.t.Errorf("the purge leaves a unit: %s", out)
	}

	h.Must("apt-get install -y /root/newer.deb")
	h.configure()
	h.Must("systemctl start hhwatchd")
	h.drop("anew.yaml", vpc(13))
	h.arrives(managed(13))
	h.remote("cat-file -e main:gitops/hedgehog/fabric-1/managed/" + managed(1)) // nothing that was there is gone
}

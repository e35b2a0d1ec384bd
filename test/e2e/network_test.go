// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
)

// newSites makes repositories of those names, each on a git server of its own
// and with one fabric of the same name, for one daemon. Those whose name
// begins with "tls" are served over HTTPS.
func newSites(t *testing.T, names ...string) []*world {
	t.Helper()
	dir := t.TempDir()
	var b strings.Builder
	fmt.Fprintf(&b, "stateDir: %s/state\nsettle: {quiet: 50ms, max: 1s}\nrescan: 1h\nrepositories:\n", dir)
	var sites []*world
	for _, name := range names {
		w := &world{t: t, repo: name, state: filepath.Join(dir, "state"), config: filepath.Join(dir, "hhwatchd.yaml"), token: filepath.Join(dir, name+".token")}
		w.git = gitserver.Start(t, gitserver.Options{Username: "hhwatchd", Password: "s3cr3t-token", TLS: strings.HasPrefix(name, "tls")})
		w.bare = w.git.Create("fabrics")
		write(t, w.token, "s3cr3t-token\n")
		auth := fmt.Sprintf("username: hhwatchd, passwordFile: %q", w.token)
		if w.git.CAFile != "" {
			w.trust()
			auth += fmt.Sprintf(", caFile: %q", w.token+".ca")
		}
		fmt.Fprintf(&b, "  - name: %s\n    url: %s\n    interval: 1h\n    auth: {%s}\n", name, w.git.RepoURL("fabrics"), auth)
		fmt.Fprintf(&b, "    fabrics: [{name: %s, path: gitops/hedgehog/%s}]\n", name, name)
		sites = append(sites, w)
	}
	write(t, sites[0].config, b.String())
	return sites
}

// startAll starts the daemon of these sites and waits until each has a clone.
func startAll(sites []*world) {
	sites[0].t.Helper()
	sites[0].start()
	for _, w := range sites {
		w.eventually("the raw directory of "+w.repo, func() error { _, err := os.Stat(w.raw(w.repo)); return err })
		w.daemon = sites[0].daemon
	}
}

// trust makes the daemon trust the certificate that the git server has now.
func (w *world) trust() {
	w.t.Helper()
	ca, err := os.ReadFile(w.git.CAFile)
	if err != nil {
		w.t.Fatal(err)
	}
	write(w.t, w.token+".ca", string(ca))
}

// site is what status says of the world's repository, well or not.
func (w *world) site() repositoryDoc {
	w.t.Helper()
	out, _ := w.hh("status", "-o", "json")
	var doc statusDoc
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		w.t.Fatalf("status: %v:\n%s", err, out)
	}
	for _, r := range doc.Repositories {
		if r.Name == w.repo {
			return r
		}
	}
	w.t.Fatalf("status does not know %s:\n%s", w.repo, out)
	return repositoryDoc{}
}

// told lists what the history has of the world's repository in one step.
func (w *world) told(step string) (records []record) {
	w.t.Helper()
	for _, line := range lines(w.history("-o", "json")) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			w.t.Fatalf("history: %v:\n%s", err, line)
		}
		if r.Repository == w.repo && r.Step == step {
			records = append(records, r)
		}
	}
	return records
}

// record is the part of a record of the journal that tests look at.
type record struct {
	Repository, Fabric, Step, Error, Note string
	Objects                               []struct{ Error string }
}

// wantPlain wants a line for an operator, in words that are about the fault.
func wantPlain(t *testing.T, text, url string) {
	t.Helper()
	for _, noise := range []string{"\n", "dial tcp", "context ", "EOF", "x509", "tls:", "lookup ", "Get \"", "Post \"", "s3cr3t", "%!", "<nil>"} {
		if strings.Contains(text, noise) {
			t.Errorf("%q holds %q", text, noise)
		}
	}
	if strings.Count(text, url) > 1 {
		t.Errorf("%q repeats itself", text)
	}
}

// inClone waits until the working clone has a managed file with that text.
func (w *world) inClone(path, text string) {
	w.t.Helper()
	w.eventually(path+" in the clone of "+w.repo, func() error {
		got, err := os.ReadFile(filepath.Join(w.clone(), "gitops/hedgehog", w.repo, "managed", path))
		if err == nil && string(got) != text {
			err = fmt.Errorf("it is\n%s", got)
		}
		return err
	})
}

func clearFaults(w *world) { w.git.Clear() }

// pushLarge has somebody else push what does not fit into a small answer.
func (w *world) pushLarge() {
	noise := make([]byte, 64<<10)
	rand.Read(noise)
	w.push("docs/large.txt", hex.EncodeToString(noise))
}

// A remoteFault is a way for a remote to be unwell.
type remoteFault struct {
	name  string
	begin func(w *world)
	end   func(w *world)
	says  string // the line in status and history, with {url} for the remote's; empty: it is over at once
	tries int    // that are waited for
}

var remoteFaults = []remoteFault{
	{"rewound", func(w *world) {
		w.drop(w.repo, "x.yaml", vpc("vpc-9", 1009))
		w.pushed(w.repo, "vpcs/vpc-9.yaml")
		w.remote("update-ref", "refs/heads/main", w.remote("rev-parse", "main~2"))
	}, nil, "", 0},
	{"rewritten", func(w *world) {
		w.remote("update-ref", "refs/heads/main", w.remote("-c", "user.name=Olga", "-c", "user.email=o@example.net", "commit-tree", "-m", "a new beginning", "main^{tree}"))
	}, nil, "", 0},
	{"down", func(w *world) { w.git.Down() }, func(w *world) { w.git.Up() }, "asking {url}: cannot connect to {address}: connection refused", 3},
	{"slow", func(w *world) { w.git.Delay(1500 * time.Millisecond) }, clearFaults, "", 0},
	{"silent", func(w *world) { w.git.Hang() }, clearFaults, "asking {url}: no answer within 10s", 1},
	{"silent-fetch", func(w *world) { w.pushLarge(); w.git.HangFetch() }, clearFaults, "fetching {url}: it takes requests and then says nothing", 1},
	{"silent-push", func(w *world) { w.git.HangPush() }, clearFaults, "pushing to {url}: it takes requests and then says nothing", 1},
	{"garbage", func(w *world) { w.git.Garbage() }, clearFaults, "asking {url}: what it answers is not git's protocol: is the URL right, is a proxy or a login page in the way?", 3},
	{"http-500", func(w *world) { w.git.Fail(500) }, clearFaults, "asking {url}: it answers with HTTP 500 Internal Server Error: The server was told to fail.", 3},
	{"http-502", func(w *world) { w.git.Fail(502) }, clearFaults, "asking {url}: it answers with HTTP 502 Bad Gateway: The server was told to fail.", 3},
	{"http-503", func(w *world) { w.git.Fail(503) }, clearFaults, "asking {url}: it answers with HTTP 503 Service Unavailable: The server was told to fail.", 3},
	{"http-429", func(w *world) { w.git.Fail(429) }, clearFaults, "asking {url}: it answers with HTTP 429 Too Many Requests: The server was told to fail.", 3},
	{"http-403", func(w *world) { w.git.Fail(403) }, clearFaults, "asking {url}: the remote does not allow this with these credentials (HTTP 403: The server was told to fail.)", 3},
	{"token-old", func(w *world) { write(w.t, w.token, "0ld\n") }, func(w *world) { write(w.t, w.token, "s3cr3t-token") },
		"asking {url}: the remote refused the credentials (HTTP 401): check auth.username and auth.passwordFile", 3},
	{"token-gone", func(w *world) { os.Remove(w.token) }, func(w *world) { write(w.t, w.token, "s3cr3t-token") },
		"asking {url}: reading a credential: open {token}: no such file or directory", 3},
	{"gone", func(w *world) { os.Rename(w.bare, w.bare+".away") }, func(w *world) { os.Rename(w.bare+".away", w.bare) },
		"asking {url}: no repository there (HTTP 404): check the URL, and whether these credentials may see it", 3},
	{"emptied", func(w *world) {
		os.Rename(w.bare, w.bare+".away")
		if out, err := exec.Command("git", "init", "-q", "--bare", "-b", "main", w.bare).CombinedOutput(); err != nil {
			w.t.Fatalf("git init: %v\n%s", err, out)
		}
	}, func(w *world) { os.RemoveAll(w.bare); os.Rename(w.bare+".away", w.bare) },
		"branch main is gone from {url}; nothing is pulled or pushed until it is back", 3},
	{"branch-gone", func(w *world) { w.remote("branch", "-m", "main", "kept") }, func(w *world) { w.remote("branch", "-m", "kept", "main") },
		"branch main is gone from {url}; nothing is pulled or pushed until it is back", 3},
	{"hook", func(w *world) { w.git.RejectPush("no ticket is named\nsee the wiki") }, clearFaults,
		"pushing to {url}: the remote refused the push: no ticket is named; see the wiki (pre-receive hook declined)", 3},
	{"protected", protect, unprotect, "pushing to {url}: the remote refused the push: refs/heads/main is protected; error: hook declined to update refs/heads/main (hook declined)", 3},
	{"cut-push", func(w *world) { w.git.Truncate(100) }, clearFaults, "pushing to {url}: its answer broke off", 3},
	{"cut-fetch", func(w *world) { w.pushLarge(); w.git.Truncate(8 << 10) }, clearFaults, "fetching {url}: receiving a pack: its answer broke off", 3},
	{"tls-unknown", func(w *world) { w.git.Renew(time.Now().Add(time.Hour)) }, (*world).trust,
		"asking {url}: nobody who is trusted vouches for its certificate: set auth.caFile to that of its authority", 3},
	{"tls-expired", func(w *world) { w.git.Renew(longAgo); w.trust() }, func(w *world) { w.git.Renew(time.Now().Add(time.Hour)); w.trust() },
		"asking {url}: its certificate expired at 2020-01-02 03:04 UTC", 3},
}

var longAgo = time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)

func hook(w *world) string { return filepath.Join(w.bare, "hooks", "update") }

func protect(w *world) {
	write(w.t, hook(w), "#!/bin/sh\necho \"$1 is protected\" >&2\nexit 1\n")
	if err := os.Chmod(hook(w), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

func unprotect(w *world) { os.Remove(hook(w)) }

// wantFault waits until the fault was met several times, and wants it told
// well, and once.
func (w *world) wantFault(f remoteFault) {
	w.t.Helper()
	if f.says == "" {
		return
	}
	url := w.git.RepoURL("fabrics")
	says := strings.NewReplacer("{url}", url, "{address}", strings.TrimPrefix(w.git.URL, "http://"), "{token}", w.token).Replace(f.says)
	w.eventually(f.name+" to be tried again and again", func() error {
		st := w.site()
		if st.Down != says {
			return fmt.Errorf("status says  %s\nwant         %s", st.Down, says)
		}
		if st.Tries < f.tries {
			return fmt.Errorf("it was tried %d times", st.Tries)
		}
		return nil
	})
	wantPlain(w.t, says, url)
	out, code := w.hh("status")
	if code != 1 || !strings.Contains(out, ": "+says+"; next try ") {
		w.t.Errorf("status, exit code %d, does not say %q:\n%s", code, says, out)
	}
	if told := w.told("fault"); len(told) != 1 || told[0].Error != says {
		w.t.Errorf("%s: the history has %v", f.name, told)
	}
}

// TestRemoteFaults has one daemon with many repositories, each of which finds
// another fault at its remote, and one that finds none. Each fault is one line
// in status and one in the history, however often it is met; drops are
// committed meanwhile; and when it is over everything goes through by itself.
func TestRemoteFaults(t *testing.T) {
	t.Parallel()
	names := []string{"well"}
	for _, f := range remoteFaults {
		names = append(names, f.name)
	}
	sites := newSites(t, names...)
	well := sites[0]
	startAll(sites)
	versions := []string{vpc("vpc-1", 1001), vpc("vpc-1", 1002), vpc("vpc-1", 1003)}
	for _, w := range sites {
		w.drop(w.repo, "a.yaml", versions[0])
	}
	for _, w := range sites {
		w.pushed(w.repo, "vpcs/vpc-1.yaml")
	}
	// The remotes that hang need longer: their faults begin first and end last.
	quick, silent := []*world{well}, []*world(nil)
	faults := map[*world]remoteFault{}
	for i, f := range remoteFaults {
		w := sites[i+1]
		faults[w] = f
		f.begin(w)
		if strings.HasPrefix(f.name, "silent") {
			silent = append(silent, w)
		} else {
			quick = append(quick, w)
		}
	}
	drop := func(sites []*world, version int) {
		for _, w := range sites {
			w.drop(w.repo, fmt.Sprintf("%c.yaml", 'a'+version), versions[version])
		}
	}
	committed := func(sites []*world, version int) {
		for _, w := range sites {
			w.inClone("vpcs/vpc-1.yaml", versions[version])
		}
	}
	drop(silent, 1)
	for i := range versions[1:] {
		drop(quick, i+1)
		well.wantManaged(well.repo, map[string]string{"vpcs/vpc-1.yaml": versions[i+1]})
		committed(quick, i+1)
	}
	for _, w := range quick[1:] {
		w.wantFault(faults[w])
	}
	for _, w := range quick[1:] {
		if end := faults[w].end; end != nil {
			end(w)
		}
	}
	committed(silent, 1)
	drop(silent, 2)
	committed(silent, 2)
	for _, w := range silent {
		w.wantFault(faults[w])
		faults[w].end(w)
	}
	for _, w := range sites {
		w.wantManaged(w.repo, map[string]string{"vpcs/vpc-1.yaml": versions[2]})
		w.wantLinear(versions...)
		w.eventually(w.repo+" to be well", func() error {
			if st := w.site(); st.Down != "" || st.Unpushed > 0 || st.Error != "" {
				return fmt.Errorf("status is %+v", st)
			}
			return nil
		})
		want := 1
		if faults[w].says == "" {
			want = 0
		}
		if begun, over := w.told("fault"), w.told("clear"); len(begun) != want || len(over) != want {
			t.Errorf("%s: the history has %v and %v", w.repo, begun, over)
		}
		rewritten := 0
		for _, r := range w.told("pull") {
			if strings.Contains(r.Note, "the branch was rewritten there") {
				rewritten++
			}
		}
		if want := map[bool]int{true: 1}[strings.HasPrefix(w.repo, "rew")]; rewritten != want {
			t.Errorf("%s: the history tells of %d rewrites:\n%s", w.repo, rewritten, w.history())
		}
		if left := rawFiles(t, w, w.repo); len(left) > 0 {
			t.Errorf("%s: raw/ holds %v", w.repo, left)
		}
		w.clean()
	}
	if out, code := well.hh("status"); code != 0 {
		t.Errorf("status, exit code %d:\n%s", code, out)
	}
}

// TestSpared drops files all the time while the remote fails: it is asked no
// more often for that, and at once when a person wants it.
func TestSpared(t *testing.T) {
	t.Parallel()
	w := newSites(t, "site")[0]
	w.start()
	w.git.Fail(500)
	requests := func() int { n := w.git.Requests(); return n.AdvertiseFetch + n.LsRefs + n.AdvertisePush }
	before, start := requests(), time.Now()
	for i := 0; time.Since(start) < 5*time.Second; i++ {
		text := vpc("vpc-1", 1001+i)
		w.drop(w.repo, "a.yaml", text)
		w.inClone("vpcs/vpc-1.yaml", text)
	}
	// Two attempts are a second apart at least.
	if n, most := requests()-before, 2+int(time.Since(start)/time.Second); n > most {
		t.Errorf("the failing remote was asked %d times in %v, want %d at most", n, time.Since(start), most)
	}
	for range 3 {
		before := requests()
		if out, code := w.hh("sync"); code != 1 || !strings.Contains(out, "HTTP 500") {
			t.Errorf("sync, exit code %d:\n%s", code, out)
		}
		if requests() == before {
			t.Error("sync did not ask the remote")
		}
	}
	w.git.Clear()
	w.must("sync")
	if st := w.site(); st.Unpushed > 0 || st.Down != "" {
		t.Errorf("after a sync: %+v", st)
	}
}

// TestLateRemote starts where the remote is away, and has no clone yet; and
// one whose name cannot be resolved, until the config is corrected.
func TestLateRemote(t *testing.T) {
	t.Parallel()
	sites := newSites(t, "down", "name")
	down, name := sites[0], sites[1]
	good, err := os.ReadFile(down.config)
	if err != nil {
		t.Fatal(err)
	}
	url := name.git.RepoURL("fabrics")
	write(t, down.config, strings.Replace(string(good), url, "http://git.nowhere.invalid/fabrics.git", 1))
	down.git.Down()
	down.launch(exec.Command(binary, "--config", down.config, "run"))
	for w, says := range map[*world]string{down: "connection refused", name: "cannot find the address of git.nowhere.invalid: "} {
		w.eventually("status to say so", func() error {
			out, code := w.hh("status", "-o", "json")
			if code != 1 || !strings.Contains(out, says) {
				return fmt.Errorf("exit code %d:\n%s", code, out)
			}
			return nil
		})
		st := w.site()
		wantPlain(t, st.Down, url)
	}
	down.git.Up()
	write(t, down.config, string(good))
	down.daemon.cmd.Process.Signal(syscall.SIGHUP)
	for _, w := range sites {
		w.eventually("the clone of "+w.repo, func() error { _, err := os.Stat(w.raw(w.repo)); return err })
		w.drop(w.repo, "a.yaml", vpc("vpc-1", 1001))
		w.wantManaged(w.repo, map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001)})
	}
}

// beat has somebody else win the next n push races, with one commit each that
// is based on the last.
func (w *world) beat(n int) {
	var once func()
	won := 0
	once = func() {
		// Without a push, which would run into this again.
		cmd := exec.Command("sh", "-ec", `
			parent=$(git rev-parse -q --verify main || true)
			commit=$(git commit-tree -m "first" ${parent:+-p $parent} $(git rev-parse -q --verify main^{tree} || git mktree </dev/null))
			git update-ref refs/heads/main $commit $parent`)
		cmd.Dir = w.bare
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=Olga", "GIT_AUTHOR_EMAIL=o@example.net", "GIT_COMMITTER_NAME=Olga", "GIT_COMMITTER_EMAIL=o@example.net",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
		if out, err := cmd.CombinedOutput(); err != nil {
			w.t.Errorf("winning the race: %v\n%s", err, out)
		}
		if won++; won < n {
			w.git.BeforePush(once)
		}
	}
	w.git.BeforePush(once)
}

// TestLostRaces loses one race after another: after some in a row it waits,
// but not for the interval.
func TestLostRaces(t *testing.T) {
	t.Parallel()
	w := newSites(t, "site")[0]
	w.start()
	w.drop(w.repo, "a.yaml", vpc("vpc-1", 1001))
	w.pushed(w.repo, "vpcs/vpc-1.yaml")
	w.beat(maxRaces + 3)
	w.drop(w.repo, "b.yaml", vpc("vpc-2", 1002))
	want := map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002)}
	w.wantManaged(w.repo, want)
	w.wantLinear(vpc("vpc-1", 1001), vpc("vpc-2", 1002))
	w.eventually("the end of the fault to be told", func() error {
		begun, over := w.told("fault"), w.told("clear")
		if len(begun) != 1 || len(over) != 1 || begun[0].Error != fmt.Sprintf("others pushed to main first, %d times in a row", maxRaces+1) {
			return fmt.Errorf("the history has %v and %v", begun, over)
		}
		return nil
	})
	if n := len(w.told("push")); n != 2 {
		t.Errorf("the history has %d pushes:\n%s", n, w.history())
	}
	if n := strings.Count(w.remote("log", "--format=%s", "main"), "first"); n != maxRaces+3 {
		t.Errorf("%d of the others' commits are left:\n%s", n, w.remote("log", "--oneline", "main"))
	}
	w.clean()
}

// maxRaces is the daemon's: how often a cycle plans anew.
const maxRaces = 5

// TestEmptyAtFirst has somebody else fill an empty repository, beside our own
// first push and after it.
func TestEmptyAtFirst(t *testing.T) {
	t.Parallel()
	sites := newSites(t, "beside", "later")
	beside, later := sites[0], sites[1]
	startAll(sites)
	beside.beat(1)
	beside.drop(beside.repo, "a.yaml", vpc("vpc-1", 1001))
	later.push("gitops/hedgehog/later/raw/a.yaml", vpc("vpc-1", 1001))
	later.must("sync")
	for _, w := range sites {
		w.wantManaged(w.repo, map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001)})
		w.wantLinear(vpc("vpc-1", 1001))
		w.clean()
	}
	if log := beside.remote("log", "--format=%s", "--reverse", "main"); !strings.HasPrefix(log, "first\n") {
		t.Errorf("the other's first commit is gone:\n%s", log)
	}
}

// TestRewritten has the remote's history replaced by another one, while a drop
// waits to be pushed and after everything was.
func TestRewritten(t *testing.T) {
	t.Parallel()
	w := newSites(t, "site")[0]
	w.start()
	w.drop(w.repo, "a.yaml", vpc("vpc-1", 1001))
	w.pushed(w.repo, "vpcs/vpc-1.yaml")
	w.git.RejectPush("not now")
	w.drop(w.repo, "b.yaml", vpc("vpc-2", 1002))
	w.inClone("vpcs/vpc-2.yaml", vpc("vpc-2", 1002))
	w.eventually("the push to be refused", func() error {
		if st := w.site(); !strings.Contains(st.Down, "not now") {
			return fmt.Errorf("status is %+v", st)
		}
		return nil
	})
	other := filepath.Join(t.TempDir(), "other")
	fresh := gitserver.Open(t, t.TempDir())
	fresh.Git("init", "-q", "-b", "main", ".")
	fresh.Write("gitops/hedgehog/site/managed/vpcs/vpc-9.yaml", vpc("vpc-9", 1009))
	fresh.Commit("a new beginning")
	fresh.Git("clone", "-q", "--bare", ".", other)
	w.remote("fetch", "-q", other, "+main:main")
	w.git.Clear()
	w.must("sync")
	w.wantManaged(w.repo, map[string]string{"vpcs/vpc-2.yaml": vpc("vpc-2", 1002), "vpcs/vpc-9.yaml": vpc("vpc-9", 1009)})
	w.wantLinear(vpc("vpc-2", 1002))
	if h := w.history(); !strings.Contains(h, "rewritten") {
		t.Errorf("the history does not tell of the rewrite:\n%s", h)
	}
	w.clean()
	head := w.remote("rev-parse", "main")
	w.must("sync")
	if now := w.remote("rev-parse", "main"); now != head {
		t.Errorf("it goes on committing:\n%s", w.remote("log", "--oneline", "main"))
	}
}

// TestAside has a person commit in the clone, and lose a race: the commit is
// kept, and status says so until its ref is gone.
func TestAside(t *testing.T) {
	t.Parallel()
	w := newSites(t, "site")[0]
	w.start()
	w.drop(w.repo, "a.yaml", vpc("vpc-1", 1001))
	w.pushed(w.repo, "vpcs/vpc-1.yaml")
	c := gitserver.Open(t, w.clone())
	c.Write("docs/note.md", "by hand\n")
	commit := c.Commit("a note")
	w.beat(1)
	w.drop(w.repo, "b.yaml", vpc("vpc-2", 1002))
	w.wantManaged(w.repo, map[string]string{"vpcs/vpc-1.yaml": vpc("vpc-1", 1001), "vpcs/vpc-2.yaml": vpc("vpc-2", 1002)})
	w.eventually("status to tell of it", func() error {
		if out, code := w.hh("status"); code != 1 || !strings.Contains(out, "ASIDE     1 commit ") || !strings.Contains(out, "git -C "+w.clone()+" log --no-walk --glob=refs/hhwatchd/aside;") {
			return fmt.Errorf("status, exit code %d:\n%s", code, out)
		}
		return nil
	})
	if log := c.Git("log", "--no-walk", "--glob=refs/hhwatchd/aside", "--format=%H"); strings.TrimSpace(log) != commit {
		t.Errorf("what is aside is %s, want %s", log, commit)
	}
	w.stop()
	w.launch(exec.Command(binary, "--config", w.config, "run"))
	w.eventually("status to tell of it after a restart", func() error {
		if out, code := w.hh("status"); code != 1 || !strings.Contains(out, "ASIDE     1 commit ") {
			return fmt.Errorf("status, exit code %d:\n%s", code, out)
		}
		return nil
	})
	c.Git("update-ref", "-d", "refs/hhwatchd/aside/"+commit)
	w.must("sync")
	if out, code := w.hh("status"); code != 0 || strings.Contains(out, "ASIDE") {
		t.Errorf("status, exit code %d:\n%s", code, out)
	}
	w.clean()
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/hhwatchd/hhwatchd/test/gitserver"
)

// listen writes the HTTP part of a config, with a secret in w.secret.
func (w *world) listen(config *strings.Builder) {
	w.t.Helper()
	w.secret = filepath.Join(filepath.Dir(w.config), "webhook-secret")
	write(w.t, w.secret, "first-s3cr3t\n")
	fmt.Fprintf(config, "http: {listen: '127.0.0.1:0', webhookSecretFile: %q}\n", w.secret)
}

// address waits until the daemon listens, and returns where.
func (w *world) address() string {
	w.t.Helper()
	var st struct{ HTTP string }
	w.eventually("the HTTP listener", func() error {
		out, _ := w.hh("status", "-o", "json")
		if err := json.Unmarshal([]byte(out), &st); err != nil {
			return fmt.Errorf("status: %w:\n%s", err, out)
		}
		if st.HTTP == "" {
			return fmt.Errorf("status does not name it:\n%s", out)
		}
		return nil
	})
	return st.HTTP
}

// loopback ignores whatever proxy the machine has.
var loopback = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: patience}

// get returns the status code and the body.
func (w *world) get(url string) (int, string) {
	w.t.Helper()
	resp, err := loopback.Get(url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// samples are the values of a scrape by series, as the text format has them.
type samples map[string]float64

func parse(t *testing.T, scrape string) samples {
	t.Helper()
	s := samples{}
	for line := range strings.Lines(scrape) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		series, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if value == "" {
			series, value, _ = strings.Cut(series, " ")
		} else {
			series += "}"
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		s[series] = v
	}
	return s
}

// promtool finds Prometheus' tool, or skips what needs it.
func promtool(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed; test/setup.sh does that")
	}
	return program
}

// TestMetrics scrapes a daemon that has seen most of what there is to count.
func TestMetrics(t *testing.T) {
	w := newWorld(t, options{cluster: true, prune: true, http: true})
	w.start()
	url := "http://" + w.address()
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := w.get(url + path); code != 200 || body != "ok\n" {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}

	w.drop("fabric-1", "good.yaml", vpc("vpc-1", 1001)+"---\n"+vpc("vpc-2", 1002))
	w.inCluster(vpcs, "vpc-2")
	w.drop("fabric-1", "bad.yaml", "kind: Nonsense\n")
	w.eventually("the rejection", func() error {
		_, err := os.Stat(filepath.Join(w.clone(), "gitops/hedgehog/fabric-1/unmanaged/bad.yaml.reason"))
		return err
	})
	drifted := strings.Replace(vpc("vpc-1", 1001), "spec:", "  labels: {who: somebody}\nspec:", 1)
	drifted = strings.Replace(drifted, "vlan: 1001", "vlan: 3000", 1)
	if _, err := w.kube.Do("PATCH", "/apis/vpc.githedgehog.com/v1beta1/namespaces/default/vpcs/vpc-1?fieldManager=somebody&force=true",
		"application/apply-patch+yaml", []byte(drifted)); err != nil {
		t.Fatal(err)
	}
	w.must("sync")
	w.git.Fail(http.StatusInternalServerError)
	if _, code := w.hh("sync"); code == 0 {
		t.Fatal("a sync without the remote went well")
	}

	code, scrape := w.get(url + "/metrics")
	if code != 200 {
		t.Fatalf("/metrics: %d\n%s", code, scrape)
	}
	fabric := `fabric="fabric-1",`
	site := `repository="site-a"`
	got := parse(t, scrape)
	for series, want := range map[string]float64{
		`hhwatchd_files_total{` + fabric + `outcome="ingested",` + site + `}`:                  1,
		`hhwatchd_files_total{` + fabric + `outcome="rejected",` + site + `}`:                  1,
		`hhwatchd_objects_total{` + fabric + `outcome="created",` + site + `,step="ingest"}`:   2,
		`hhwatchd_objects_total{` + fabric + `outcome="created",` + site + `,step="apply"}`:    2,
		`hhwatchd_objects_total{` + fabric + `outcome="configured",` + site + `,step="drift"}`: 1,
		`hhwatchd_objects_total{` + fabric + `outcome="pruned",` + site + `,step="prune"}`:     0,
		`hhwatchd_drifted_objects_total{` + fabric + site + `}`:                                1,
		`hhwatchd_fabric_objects{` + fabric + site + `,state="applied"}`:                       2,
		`hhwatchd_fabric_objects{` + fabric + site + `,state="failed"}`:                        0,
		`hhwatchd_raw_files{` + fabric + site + `,state="waiting"}`:                            0,
		`hhwatchd_prune_held{` + fabric + site + `}`:                                           0,
		`hhwatchd_cluster_up{` + fabric + site + `}`:                                           1,
		`hhwatchd_api_errors_total{` + fabric + site + `}`:                                     0,
		`hhwatchd_remote_up{` + site + `}`:                                                     0,
		`hhwatchd_remote_errors_total{` + site + `,step="pull"}`:                               1,
		`hhwatchd_cycles_total{outcome="ok",` + site + `,trigger="start"}`:                     1,
		`hhwatchd_cycles_total{outcome="ok",` + site + `,trigger="sync"}`:                      1,
		`hhwatchd_cycles_total{outcome="failed",` + site + `,trigger="sync"}`:                  1,
		`hhwatchd_cycle_step_duration_seconds_count{` + site + `,step="push"}`:                 1,
		`hhwatchd_unpushed_commits{` + site + `}`:                                              0,
		`hhwatchd_journal_segments`:                                                            1,
		`hhwatchd_hung`:                                                                        0,
		`hhwatchd_webhook_calls_total{outcome="accepted"}`:                                     0,
	} {
		if v, ok := got[series]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v", series, v, ok, want)
		}
	}
	for _, series := range []string{
		`hhwatchd_cycle_duration_seconds_count{` + site + `}`,
		`hhwatchd_cycle_step_duration_seconds_count{` + site + `,step="pull"}`,
		`hhwatchd_cycle_step_duration_seconds_count{` + site + `,step="ingest"}`,
		`hhwatchd_cycle_step_duration_seconds_count{` + site + `,step="commit"}`,
		`hhwatchd_apply_duration_seconds_count{` + fabric + site + `}`,
		`hhwatchd_journal_size_bytes`, `hhwatchd_journal_records_total`,
		`process_resident_memory_bytes`, `go_goroutines`,
	} {
		if got[series] < 1 {
			t.Errorf("%s is %v", series, got[series])
		}
	}
	pushed, applied := got[`hhwatchd_repository_last_success_timestamp_seconds{`+site+`}`], got[`hhwatchd_fabric_last_success_timestamp_seconds{`+fabric+site+`}`]
	if now := float64(time.Now().Unix() + 1); pushed <= now-3600 || pushed > now || applied < pushed || applied > now {
		t.Errorf("last successes are %f and %f, now is %f", pushed, applied, now)
	}
	if strings.Contains(scrape, "vpc-1") || strings.Contains(scrape, ".yaml") {
		t.Error("the name of an object or a file is in a label")
	}

	problems, err := promlint.New(strings.NewReader(scrape)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	checkMetricNames(t, scrape)
	t.Run("promtool", func(t *testing.T) {
		cmd := exec.Command(promtool(t), "check", "metrics")
		cmd.Stdin = strings.NewReader(scrape)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("promtool check metrics: %v\n%s", err, out)
		}
	})
	w.git.Clear()
	w.stop() // with connections that are kept
}

// checkMetricNames wants each metric that the alerts and the dashboard are
// about to be in a scrape, and each of our metrics to be looked at by one of
// them.
func checkMetricNames(t *testing.T, scrape string) {
	t.Helper()
	there := map[string]bool{} // and whether it is looked at
	for line := range strings.Lines(scrape) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == "TYPE" {
			there[f[2]] = false
		}
	}
	rules, err := os.ReadFile("../../packaging/prometheus/hhwatchd.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dashboard, err := os.ReadFile("../../packaging/grafana/hhwatchd.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(dashboard, &doc); err != nil {
		t.Fatal(err)
	}
	expressions := regexp.MustCompile(`(?m)^ *expr: .*$`).FindAllString(string(rules), -1)
	if len(expressions) < 6 || len(doc.Panels) < 10 {
		t.Fatalf("%d alerts, %d panels", len(expressions), len(doc.Panels))
	}
	for _, p := range doc.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			expressions = append(expressions, target.Expr)
		}
	}
	name := regexp.MustCompile(`\b(?:hhwatchd|process|go)_[a-z_]+`)
	for _, e := range expressions {
		if !name.MatchString(e) {
			t.Errorf("%q is about no metric", e)
		}
		for _, n := range name.FindAllString(e, -1) {
			n = strings.TrimSuffix(n, "_bucket")
			if _, ok := there[n]; !ok {
				t.Errorf("%q: there is no metric %s", e, n)
			}
			there[n] = true
		}
	}
	for n, seen := range there {
		if strings.HasPrefix(n, "hhwatchd_") && !seen {
			t.Errorf("neither an alert nor a panel shows %s", n)
		}
	}
}

// TestNotReady: /readyz names the repository that start-up waits for.
func TestNotReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{http: true})
	w.git.Hang()
	w.launch(exec.Command(binary, "--config", w.config, "run"))
	url := "http://" + w.address()
	if code, body := w.get(url + "/readyz"); code != 503 || body != "repository site-a has not been looked at yet\n" {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, body := w.get(url + "/healthz"); code != 200 {
		t.Errorf("/healthz: %d %s", code, body)
	}
	w.git.Clear()
	w.eventually("the daemon to be ready", func() error {
		if code, body := w.get(url + "/readyz"); code != 200 {
			return fmt.Errorf("/readyz: %d %s", code, body)
		}
		return nil
	})

	config, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, strings.Replace(string(config), "127.0.0.1:0", "0.0.0.0:0", 1))
	if out, code := w.hh("reload"); code != 78 || !strings.Contains(out, `http.listen cannot change from "127.0.0.1:0" to "0.0.0.0:0"`) {
		t.Errorf("a reload with another address: exit code %d\n%s", code, out)
	}
	if code, body := w.get(url + "/healthz"); code != 200 {
		t.Errorf("/healthz: %d %s", code, body)
	}
	w.stop()
}

// A call is a POST of a forge.
type call struct {
	body   string
	header map[string]string
}

func sum(key, text string) []byte {
	mac := hmac.New(sha256.New, []byte(key))
	io.WriteString(mac, text)
	return mac.Sum(nil)
}

// gitea is a call about a repository on a git server, as Gitea makes it.
func gitea(secret string, about *gitserver.Server) call {
	body := fmt.Sprintf(`{"ref": "refs/heads/main", "commits": [{"message": "Add a VPC\n"}],
  "repository": {"full_name": "net/fabrics", "clone_url": %q, "ssh_url": "ssh://git@127.0.0.1:2222/net/fabrics.git"}}`, about.RepoURL("fabrics"))
	return call{body, map[string]string{"X-Gitea-Event": "push", "X-Gitea-Signature": hex.EncodeToString(sum(secret, body))}}
}

// send makes the call and returns the status code.
func (c call) send(url string) (int, error) {
	req, err := http.NewRequest("POST", url, strings.NewReader(c.body))
	if err != nil {
		return 0, err
	}
	for k, v := range c.header {
		req.Header.Set(k, v)
	}
	resp, err := loopback.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// post is send for a call that is to be answered with code.
func (w *world) post(url string, c call, code int) {
	w.t.Helper()
	if got, err := c.send(url); err != nil || got != code {
		w.t.Errorf("the call was answered with %d, want %d: %v", got, code, err)
	}
}

// pulls is how often the daemon has asked the git server for its branch.
func (w *world) pulls() int { return w.git.Requests().LsRefs }

// awaitPulls waits until there were n.
func (w *world) awaitPulls(n int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := w.git.WaitRequests(ctx, func(r gitserver.Requests) bool { return r.LsRefs >= n }); err != nil {
		w.t.Fatalf("%d pulls of %s, want %d: %v", w.pulls(), w.repo, n, err)
	}
}

// TestWebhook has a forge call a daemon with two repositories.
func TestWebhook(t *testing.T) {
	t.Parallel()
	sites := newSites(t, "site-a", "site-b")
	a, b := sites[0], sites[1]
	config, err := os.ReadFile(a.config)
	if err != nil {
		t.Fatal(err)
	}
	// On one host, as both are on this one, repositories have different paths.
	b.git.Create("others")
	text := new(strings.Builder)
	text.WriteString(strings.Replace(string(config), b.git.RepoURL("fabrics"), b.git.RepoURL("others"), 1))
	a.listen(text)
	write(t, a.config, text.String())
	startAll(sites)
	url := "http://" + a.address() + "/webhook"
	for _, w := range sites {
		w.eventually("the first look at "+w.repo, func() error {
			if w.site().Cycles == 0 {
				return fmt.Errorf("no cycle yet")
			}
			return nil
		})
	}
	const first = "first-s3cr3t"

	// One is told by its URL; the interval is an hour.
	a.push("gitops/hedgehog/site-a/raw/vpc.yaml", vpc("vpc-1", 1001))
	before := b.pulls()
	a.post(url, gitea(first, a.git), 202)
	a.eventually("what was pushed to be ingested", func() error {
		if files := a.managed("site-a"); files["vpcs/vpc-1.yaml"] == "" {
			return fmt.Errorf("managed/ has %v", files)
		}
		return nil
	})
	if n := b.pulls(); n != before {
		t.Errorf("%d pulls of the other repository", n-before)
	}

	// The other forges, about no repository that is known here: all are looked at.
	body := `{"repository": {"clone_url": "https://git.example.net/net/fabrics.git"}}`
	form := "payload=%7B%22ref%22%3A+%22refs%2Fheads%2Fmain%22%7D"
	key := "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	for _, tt := range []struct {
		name, secret string
		call         call
	}{
		{"GitHub", first, call{body, map[string]string{"X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256=" + hex.EncodeToString(sum(first, body))}}},
		{"GitHub, a form", first, call{form, map[string]string{"Content-Type": "application/x-www-form-urlencoded", "X-Hub-Signature-256": "sha256=" + hex.EncodeToString(sum(first, form))}}},
		{"GitLab", first, call{body, map[string]string{"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": first}}},
		{"GitLab, signed", key, call{body, map[string]string{"Webhook-Id": "1", "Webhook-Timestamp": "1795416942",
			"Webhook-Signature": "v1," + base64.StdEncoding.EncodeToString(sum("0123456789abcdef0123456789abcdef", "1.1795416942."+body))}}},
		{"Forgejo", first, call{body, map[string]string{"X-Forgejo-Event": "push", "X-Forgejo-Signature": hex.EncodeToString(sum(first, body))}}},
	} {
		write(t, a.secret, tt.secret)
		na, nb := a.pulls(), b.pulls()
		a.post(url, tt.call, 202)
		a.awaitPulls(na + 1)
		b.awaitPulls(nb + 1)
	}

	// What is refused makes no pull: those that follow are exactly those of
	// the one call after it. The secret is another one from one call to the next.
	na, nb := a.pulls(), b.pulls()
	write(t, a.secret, "second-s3cr3t\n")
	a.post(url, gitea(first, a.git), 403)
	a.post(url, call{body, nil}, 401)
	a.post(url, call{body, map[string]string{"X-Gitlab-Token": "guess"}}, 403)
	long := gitea("second-s3cr3t", a.git)
	long.body += strings.Repeat(" ", 25<<20)
	long.header["X-Gitea-Signature"] = hex.EncodeToString(sum("second-s3cr3t", long.body))
	a.post(url, long, 413)
	if code := chunked(t, url, long); code != 413 {
		t.Errorf("a body that is too long and does not say so: %d", code)
	}
	if code, body := a.get(url); code != 405 {
		t.Errorf("GET: %d %s", code, body)
	}
	write(t, a.secret, "\n")
	a.post(url, gitea("", a.git), 500)
	if err := os.Remove(a.secret); err != nil {
		t.Fatal(err)
	}
	a.post(url, gitea("second-s3cr3t", a.git), 500)
	a.post(url, gitea("second-s3cr3t", a.git), 500)
	write(t, a.secret, "second-s3cr3t\n")
	a.post(url, gitea("second-s3cr3t", a.git), 202)
	a.awaitPulls(na + 1)
	if na, nb = a.pulls()-na, b.pulls()-nb; na != 1 || nb != 0 {
		t.Errorf("%d and %d pulls, want 1 and 0", na, nb)
	}

	_, scrape := a.get(strings.TrimSuffix(url, "/webhook") + "/metrics")
	got := parse(t, scrape)
	for outcome, want := range map[string]float64{"accepted": 7, "unsigned": 1, "refused": 2, "too_long": 2, "failed": 3} {
		if n := got[`hhwatchd_webhook_calls_total{outcome="`+outcome+`"}`]; n != want {
			t.Errorf("%v calls are counted as %s, want %v", n, outcome, want)
		}
	}
	out := a.daemon.output()
	if n := strings.Count(out, "its secret cannot be used"); n != 2 { // empty, gone
		t.Errorf("the log tells %d times of the secret:\n%s", n, out)
	}
	if strings.Contains(out, "s3cr3t") {
		t.Errorf("a secret is in the log:\n%s", out)
	}
}

// chunked makes a call without a Content-Length.
func chunked(t *testing.T, url string, c call) int {
	t.Helper()
	req, err := http.NewRequest("POST", url, io.MultiReader(strings.NewReader(c.body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Gitea-Signature", c.header["X-Gitea-Signature"])
	resp, err := loopback.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestWebhookFlood: ten thousand calls are a handful of pulls, and the last
// call is not forgotten.
func TestWebhookFlood(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{http: true})
	w.start()
	url := "http://" + w.address() + "/webhook"
	w.awaitPulls(1)
	before := w.pulls()
	const calls = 10_000
	c := gitea("first-s3cr3t", w.git)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range calls / 8 {
				if code, err := c.send(url); err != nil || code != 202 {
					t.Errorf("sender %d: %d, %v", i, code, err)
					return
				}
			}
		})
	}
	wg.Wait()
	flood := time.Since(start)
	n := w.pulls() - before
	t.Logf("%d calls in %v led to %d pulls", calls, flood.Round(time.Millisecond), n)
	// At most after 0, 1, 3, 7 and 15 s, and then every 8 s: a slow machine is
	// flooded for longer.
	if most := 6 + int(flood/(8*time.Second)); n < 1 || n > most {
		t.Errorf("%d calls in %v led to %d pulls, want no more than %d", calls, flood, n, most)
	}

	// While a pull hangs calls come for what it may not see any more.
	w.push("gitops/hedgehog/fabric-1/raw/vpc.yaml", vpc("vpc-1", 1001))
	w.post(url, c, 202)
	w.pushed("fabric-1", "vpcs/vpc-1.yaml")
	w.git.Hang()
	n = w.pulls()
	w.post(url, c, 202)
	w.awaitPulls(n + 1)
	w.post(url, c, 202)
	w.post(url, c, 202)
	w.git.Clear()
	w.awaitPulls(n + 2)
	w.stop()
}

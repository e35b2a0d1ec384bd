// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hhwatchd/hhwatchd/apply"
	"github.com/hhwatchd/hhwatchd/journal"
)

// The metrics that a Prometheus scrapes come from three places. What happened
// is counted where the journal's records are appended (record), and where the
// reports of cycles and clusters are finished (cycle, applied). How things
// are is read at each scrape, from what status shows (gauges). Labels are the
// names of repositories and fabrics and words of ours, never of objects,
// files, or the text of errors: their number is bounded by the config.

// metrics are what happened since the daemon started. A nil one counts
// nothing: there is none where the HTTP listener is off.
type metrics struct {
	registry *prometheus.Registry

	cycles       *prometheus.CounterVec
	cycleTook    *prometheus.HistogramVec
	stepTook     *prometheus.HistogramVec
	applyTook    *prometheus.HistogramVec
	files        *prometheus.CounterVec
	objects      *prometheus.CounterVec
	drifted      *prometheus.CounterVec
	remoteErrors *prometheus.CounterVec
	apiErrors    *prometheus.CounterVec
	calls        *prometheus.CounterVec
	newest       atomic.Uint64 // record of the journal
}

// buckets are the upper bounds of the histograms, in seconds: from a cycle
// that finds nothing to do to a first clone.
var buckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

func newMetrics(s *service) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "hhwatchd", Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "hhwatchd", Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	m.cycles = counter("cycles_total", "Cycles, by what woke them and whether all of them went well.", "repository", "trigger", "outcome")
	m.cycleTook = histogram("cycle_duration_seconds", "How long cycles took, without the clusters.", "repository")
	m.stepTook = histogram("cycle_step_duration_seconds", "How long the parts of cycles took that had something to do: pull, ingest, commit, push.", "repository", "step")
	m.applyTook = histogram("apply_duration_seconds", "How long it took to bring a cluster to a commit, where requests were made.", "repository", "fabric")
	m.files = counter("files_total", "Files that came in through raw/, by what became of them.", "repository", "fabric", "outcome")
	m.objects = counter("objects_total", "Objects in records of the journal, by the step and what it did with them. What a cluster had already is no record.", "repository", "fabric", "step", "outcome")
	m.drifted = counter("drifted_objects_total", "Objects that were not in the cluster as they had been applied, and were put right.", "repository", "fabric")
	m.remoteErrors = counter("remote_errors_total", "Attempts to use the remote that failed.", "repository", "step")
	m.apiErrors = counter("api_errors_total", "Attempts to use a cluster's API server that failed as a whole.", "repository", "fabric")
	m.calls = counter("webhook_calls_total", "Calls of the webhook, by what became of them.", "outcome")
	for _, outcome := range []string{"accepted", "unsigned", "refused", "too_long", "broken_off", "failed"} {
		m.calls.WithLabelValues(outcome)
	}

	newest, _ := s.book.j.Head()
	m.newest.Store(newest)
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "hhwatchd", Name: "build_info", Help: "Always 1; the labels tell which build this is.",
		ConstLabels: prometheus.Labels{"version": version(), "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(build, gauges{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// handler answers scrapes.
func (m *metrics) handler(log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError), MaxRequestsInFlight: 4,
	})
}

// expect makes the series of what cfg has, at 0: of a counter that appears
// with its first event, a query for its increase would miss that one.
func (m *metrics) expect(cfg *Config) {
	if m == nil {
		return
	}
	for _, r := range cfg.Repositories {
		for _, outcome := range []string{"ok", "failed"} {
			m.cycles.WithLabelValues(r.Name, "interval", outcome)
		}
		for _, step := range []string{"pull", "push"} {
			m.remoteErrors.WithLabelValues(r.Name, step)
		}
		for _, f := range r.Fabrics {
			for _, outcome := range []string{journal.Ingested, journal.Rejected, journal.Already} {
				m.files.WithLabelValues(r.Name, f.Name, outcome)
			}
			if f.Cluster == nil {
				continue
			}
			m.drifted.WithLabelValues(r.Name, f.Name)
			m.apiErrors.WithLabelValues(r.Name, f.Name)
			for step, outcomes := range map[journal.Step][]apply.Outcome{
				journal.StepApply: {apply.Created, apply.Configured, apply.Failed},
				journal.StepDrift: {apply.Created, apply.Configured, apply.Drifted},
				journal.StepPrune: {apply.Pruned, apply.Failed},
			} {
				for _, outcome := range outcomes {
					m.objects.WithLabelValues(r.Name, f.Name, string(step), string(outcome))
				}
			}
		}
	}
}

// record counts what a record of the journal tells of.
func (m *metrics) record(rec journal.Record) {
	if m == nil {
		return
	}
	// Several goroutines append; they come here in any order.
	for old := m.newest.Load(); old < rec.Seq && !m.newest.CompareAndSwap(old, rec.Seq); old = m.newest.Load() {
	}
	switch rec.Step {
	case journal.StepIngest, journal.StepReject:
		if rec.File != nil {
			m.files.WithLabelValues(rec.Repository, rec.Fabric, rec.File.Outcome).Inc()
		}
	case journal.StepManaged, journal.StepApply, journal.StepDrift, journal.StepPrune:
	default:
		return
	}
	for _, o := range rec.Objects {
		m.objects.WithLabelValues(rec.Repository, rec.Fabric, string(rec.Step), o.Outcome).Inc()
	}
}

// cycle counts a cycle that has ended.
func (m *metrics) cycle(rep *report) {
	if m == nil {
		return
	}
	outcome := "ok"
	if rep.Pull.Error != "" {
		m.remoteErrors.WithLabelValues(rep.Repository, "pull").Inc()
	}
	if rep.Push.Error != "" {
		m.remoteErrors.WithLabelValues(rep.Repository, "push").Inc()
	}
	if rep.Pull.Error != "" || rep.Push.Error != "" || rep.stopped() {
		outcome = "failed"
	}
	m.cycles.WithLabelValues(rep.Repository, rep.Trigger, outcome).Inc()
	m.cycleTook.WithLabelValues(rep.Repository).Observe(rep.Took.Seconds())
	for step, took := range rep.Steps {
		m.stepTook.WithLabelValues(rep.Repository, step).Observe(took.Seconds())
	}
}

// applied counts an attempt to bring a cluster to its target.
func (m *metrics) applied(repository, fabric string, rep *applyReport) {
	if m == nil {
		return
	}
	if rep.Error != "" {
		m.apiErrors.WithLabelValues(repository, fabric).Inc()
	}
	if rep.Objects != nil || rep.Error != "" { // else there was nothing to ask
		m.applyTook.WithLabelValues(repository, fabric).Observe(rep.Took.Seconds())
	}
	m.drifted.WithLabelValues(repository, fabric).Add(float64(rep.Drifted))
}

// called counts a call of the webhook.
func (m *metrics) called(outcome string) { m.calls.WithLabelValues(outcome).Inc() }

// gauges tell how things are at the moment of a scrape. They wait for nobody
// who may hang, not even for an append to the journal.
type gauges struct{ s *service }

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("hhwatchd_"+name, help, labels, nil)
}

var (
	remoteUp          = gauge("remote_up", "Whether the remote was well when it was last asked (1) or not (0).", "repository")
	unpushed          = gauge("unpushed_commits", "Commits that the remote does not have yet.", "repository")
	repositorySuccess = gauge("repository_last_success_timestamp_seconds", "When a cycle last went well, the remote having been asked; 0 for never.", "repository")
	fabricSuccess     = gauge("fabric_last_success_timestamp_seconds", "When the cluster last held all that it should; without a cluster, as the repository's. 0 for never.", "repository", "fabric")
	fabricObjects     = gauge("fabric_objects", "Objects, by how far they have come; those without a cluster are managed.", "repository", "fabric", "state")
	rawFiles          = gauge("raw_files", "Files in raw/ that are still being written (waiting), or that cannot be taken (left_alone).", "repository", "fabric", "state")
	clusterUp         = gauge("cluster_up", "Whether the API server was well when it was last asked (1) or not (0).", "repository", "fabric")
	clusterMissing    = gauge("cluster_missing", "Kinds for which the cluster lacks a version or a right that is needed.", "repository", "fabric")
	pruneHeld         = gauge("prune_held", "Whether objects wait to be deleted until a person agrees (1) or not (0).", "repository", "fabric")
	hung              = gauge("hung", "Whether some work makes no step any more (1) or not (0).")
	journalSize       = gauge("journal_size_bytes", "Size of the journal on disk.")
	journalSegments   = gauge("journal_segments", "Files that the journal consists of.")
	journalRecords    = gauge("journal_records_total", "Records ever written to the journal: the number of the newest.")
)

func (gauges) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		remoteUp, unpushed, repositorySuccess, fabricSuccess, fabricObjects, rawFiles, clusterUp, clusterMissing, pruneHeld,
		hung, journalSize, journalSegments, journalRecords,
	} {
		to <- d
	}
}

func (g gauges) Collect(to chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, r := range g.s.running() {
		st := r.currentStatus()
		if st.Down != "" || !st.Looked.IsZero() { // else it was not asked yet
			send(remoteUp, oneIf(st.Down == ""), st.Name)
		}
		send(unpushed, float64(st.Unpushed), st.Name)
		send(repositorySuccess, seconds(st.Succeeded), st.Name)
		for i, f := range st.Fabrics {
			send(fabricSuccess, seconds(f.Succeeded), st.Name, f.Name)
			send(rawFiles, float64(len(f.Waiting)), st.Name, f.Name, "waiting")
			send(rawFiles, float64(len(f.Skipped)), st.Name, f.Name, "left_alone")
			n := g.s.book.inventory().Counts(f.Name)
			if r.fabrics[i].cluster == nil {
				send(fabricObjects, float64(f.Objects), st.Name, f.Name, string(stateManaged))
				continue
			}
			send(fabricObjects, float64(n.Pending), st.Name, f.Name, string(journal.StatePending))
			send(fabricObjects, float64(n.Applied), st.Name, f.Name, string(journal.StateApplied))
			send(fabricObjects, float64(n.Failed), st.Name, f.Name, string(journal.StateFailed))
			send(fabricObjects, float64(n.Prune), st.Name, f.Name, string(journal.StatePrune))
			if f.Down != "" || f.Commit != "" || f.Health != nil {
				send(clusterUp, oneIf(f.Down == "" && (f.Health == nil || f.Health.Error == "")), st.Name, f.Name)
			}
			if f.Health != nil && f.Health.Version != "" {
				send(clusterMissing, float64(len(f.Health.Lacks)), st.Name, f.Name)
			}
			send(pruneHeld, oneIf(f.Held != ""), st.Name, f.Name)
		}
	}
	send(hung, oneIf(g.s.hangs(hungAfter()) != ""))
	to <- prometheus.MustNewConstMetric(journalRecords, prometheus.CounterValue, float64(g.s.book.metrics.newest.Load()))
	segments, size, err := g.s.book.j.Size()
	if err != nil {
		to <- prometheus.NewInvalidMetric(journalSize, err)
		return
	}
	send(journalSize, float64(size))
	send(journalSegments, float64(segments))
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds is a point in time as Prometheus has it: seconds since 1970, 0 for
// the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// SPDX-License-Identifier: Apache-2.0

// Bench measures how long hhwatchd takes from a dropped file to git and to the
// Kubernetes API server, what it costs while it is idle, and, in the same run
// and with the same files, how long the same takes by hand.
//
//	go run ./test/bench -hhwatchd bin/hhwatchd [-runs N] [-files N,N] [-idle D] [-journal N] [-journal-only] [-o FILE]
//
// There is a site for each size of repository: a git server, an API server with
// Hedgehog's kinds, and the daemon, which has applied all that the repository
// holds: VPCs, their attachments and peerings, each in a file of its own. In
// each run a file is written into raw/ as cp does, and after that another of its
// kind goes the way by hand: git add, commit and push in a clone of an equal
// repository, and kubectl apply into another namespace of the same API server.
// So whatever else the machine does weighs on both alike.
//
// The clock starts when the dropped file is closed. How far it has come is seen
// from outside, as others see it: by the kernel's notice that the branch moved
// in the daemon's clone and on the git server (inotify(7) on refs/heads), and by
// a watch on the API server. The quiet period, for which hhwatchd waits on
// purpose, is taken off.
//
// The first site then has a bad day: files are dropped while its git server, and
// then its API server, is away, and it is measured how long after it is back all
// of them are through, beside the same with both there. That follows from when
// the daemon asks again, which is told apart.
//
// The journal is measured by itself: appending beside bare writes of as many
// bytes, by turns; and reading, opening and starting the daemon with one of a
// million records beside an empty one.
//
// A benchmark is no test: whatever the figures are, the exit code is 0. It is 1
// when something could not be measured.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

// settings are what the flags say.
type settings struct {
	Hhwatchd string        `json:"-"`
	Runs     int           `json:"runs"`
	Files    sizes         `json:"files"` // in the repositories
	Idle     time.Duration `json:"idleNanoseconds"`
	Records  int           `json:"journalRecords"` // 0: the journal is not measured
}

// sizes is a flag: numbers, separated by commas.
type sizes []int

func (s *sizes) String() string {
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(*s)), ","), "[]")
}

func (s *sizes) Set(text string) error {
	*s = nil
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 8 || n > 20_000 {
			return fmt.Errorf("%q is not a number of files from 8 to 20000", part)
		}
		*s = append(*s, n)
	}
	return nil
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	set := settings{Files: sizes{50, 10000}}
	flag.StringVar(&set.Hhwatchd, "hhwatchd", "bin/hhwatchd", "the `program` to measure")
	flag.IntVar(&set.Runs, "runs", 10, "`number` of drops of each file")
	flag.Var(&set.Files, "files", "`numbers` of files in the repositories to measure with")
	flag.DurationVar(&set.Idle, "idle", 2*time.Minute, "how long to watch the idle daemon")
	flag.IntVar(&set.Records, "journal", 1_000_000, "`number` of records of the journal to measure with; 0 leaves it out")
	only := flag.Bool("journal-only", false, "measure nothing but the journal")
	output := flag.String("o", "", "also write the figures to `FILE`, as JSON")
	flag.Parse()
	if flag.NArg() > 0 || set.Runs < 1 || set.Idle < time.Second || set.Records < 0 || *only && set.Records == 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // a reader that leaves, such as head(1), is no reason not to clean up
	if err := run(ctx, set, *only, *output); err != nil {
		if ctx.Err() != nil {
			log.Fatalf("interrupted: %v", err)
		}
		log.Fatal(err)
	}
}

func run(ctx context.Context, set settings, journalOnly bool, output string) (err error) {
	r := &result{Settings: set, Machine: machine()}
	if set.Records > 0 { // nothing else is at work yet
		if r.Journal, err = measureJournal(ctx, set.Hhwatchd, set.Records, min(set.Runs, 3)); err != nil {
			return fmt.Errorf("measuring the journal: %w", err)
		}
	}
	if !journalOnly {
		kubectl, err := kube.Kubectl(ctx, os.Stderr)
		if err != nil {
			return err
		}
		if err := measure(ctx, set, kubectl, r); err != nil {
			return err
		}
		r.print(os.Stdout)
		r.BadDay.print(os.Stdout)
	}
	if r.Journal != nil {
		r.Journal.print(os.Stdout)
	}
	if output == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(output, append(text, '\n'), 0o644)
}

// interval is how often the daemons ask their remotes, hhwatchd's default.
const interval = time.Minute

// measure opens one site after the other, so that nothing else is at work while
// one is measured; only the idle daemons share their time.
func measure(ctx context.Context, set settings, kubectl string, r *result) (err error) {
	var sites []*site
	defer func() {
		for _, s := range sites {
			if err != nil && ctx.Err() == nil {
				fmt.Fprintf(os.Stderr, "the end of the log of the daemon with %d files:\n%s", s.files, s.stage.Log(10))
			}
			err = errors.Join(err, s.stage.Close())
		}
	}()
	for _, files := range set.Files {
		s, err := openSite(ctx, set.Hhwatchd, kubectl, files)
		if err != nil {
			return err
		}
		sites = append(sites, s)
		m, err := s.measure(ctx, set.Runs)
		if err != nil {
			return fmt.Errorf("with %d files in the repository: %w", files, err)
		}
		r.Sites = append(r.Sites, m)
	}
	if r.Software, err = software(ctx, sites[0]); err != nil {
		return err
	}
	if err := measureIdle(ctx, set.Idle, sites, r.Sites); err != nil {
		return err
	}
	r.BadDay, err = sites[0].measureBadDay(ctx, min(set.Runs, 5))
	return err
}

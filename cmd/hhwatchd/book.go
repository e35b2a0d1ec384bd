// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hhwatchd/hhwatchd/journal"
)

// A book is the journal together with whoever reads along: journald with
// fields when hhwatchd runs under systemd, the log otherwise; and the metrics.
type book struct {
	j        *journal.Journal
	log      *slog.Logger
	journald bool
	appends  atomic.Int64 // how often append had something to do
	metrics  *metrics     // nil where nobody scrapes them
}

func (b *book) inventory() *journal.Inventory { return b.j.Inventory() }

// append makes recs durable, all or none, and then mirrors them. A failure is
// the disk's: it stops the cycle, which finds everything where it was when it
// runs again.
func (b *book) append(recs ...journal.Record) error {
	if len(recs) == 0 {
		return nil
	}
	if err := b.j.Append(recs...); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	b.appends.Add(1)
	for _, rec := range recs {
		b.mirror(rec)
	}
	return nil
}

// expiryInterval is how often old segments of the journal are looked for.
const expiryInterval = time.Hour

// expire removes what is past the bounds from the journal, at once and then
// every hour, until ctx is done. keep tells what is configured by then.
func (b *book) expire(ctx context.Context, keep func() JournalConfig) {
	tick := time.NewTicker(expiryInterval)
	defer tick.Stop()
	for {
		k := keep()
		rec, err := b.j.Expire(journal.Retention{MaxAge: k.MaxAge, MaxSize: int64(k.MaxSize)})
		if rec.Step != "" {
			b.mirror(rec)
		}
		if err != nil {
			b.log.Error("the journal is not kept within its bounds, trying again in an hour", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *book) mirror(rec journal.Record) {
	b.metrics.record(rec)
	if b.journald {
		if err := journal.Mirror(rec); err == nil {
			return
		}
		// No journald to be had: the log says it.
	}
	b.log.Log(context.Background(), rec.Level(), rec.String(), "cycle", rec.Cycle)
}

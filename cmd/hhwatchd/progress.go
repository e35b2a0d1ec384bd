// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// A progressFunc is told how far the work has come: done of total, where a
// total of 0 means that it is not known. Any goroutine may call it.
type progressFunc func(phase string, done, total int)

// report tells p, if there is somebody to tell.
func (p progressFunc) report(phase string, done, total int) {
	if p != nil {
		p(phase, done, total)
	}
}

// barDelay is how long work may take before a bar is drawn: what is quick
// needs none.
const barDelay = 300 * time.Millisecond

// bars draws a bar for each phase on a terminal, one after the other. The
// function that it returns first is a progressFunc; the second clears the
// line when all is done.
func bars(w io.Writer) (progressFunc, func()) {
	var mu sync.Mutex
	var bar *progressbar.ProgressBar
	var phase string
	start := time.Now()
	report := func(p string, done, total int) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(start) < barDelay {
			return
		}
		if bar == nil || p != phase || bar.GetMax() != max(total, -1) && total > 0 {
			if bar != nil {
				bar.Clear()
			}
			phase = p
			if total == 0 {
				total = -1 // a spinner
			}
			bar = progressbar.NewOptions(total,
				progressbar.OptionSetWriter(w),
				progressbar.OptionSetDescription(fmt.Sprintf("%-22s", p)),
				progressbar.OptionShowCount(),
				progressbar.OptionShowIts(),
				progressbar.OptionThrottle(65*time.Millisecond),
				progressbar.OptionFullWidth(),
				progressbar.OptionClearOnFinish(),
			)
			return // the rate is measured from here on
		}
		if total > 0 {
			bar.Set(done)
		} else {
			bar.Add(0)
		}
	}
	return report, func() {
		mu.Lock()
		defer mu.Unlock()
		if bar != nil {
			bar.Clear()
		}
	}
}

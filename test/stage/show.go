// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"os"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Show shows on standard error, where that is a terminal, what is going on and
// for how long, until done is called.
func Show(what string) (done func()) {
	bar := progressbar.NewOptions(-1,
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetVisibility(term.IsTerminal(int(os.Stderr.Fd()))),
		progressbar.OptionSetDescription(what),
		progressbar.OptionSpinnerType(14),
		progressbar.OptionSetElapsedTime(true),
		progressbar.OptionSetRenderBlankState(true),
		progressbar.OptionClearOnFinish(),
	)
	return func() { bar.Finish() }
}

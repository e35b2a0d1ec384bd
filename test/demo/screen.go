// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// width is that of the screen that the demo is made for, in characters.
const width = 100

// A screen is where the demo shows what happens: headings, the commands that
// are behind them, and what those print.
type screen struct {
	file        *os.File
	dir         string // is written as $DEMO
	bold, plain string // switch a terminal there and back
}

func newScreen(f *os.File, dir string) *screen {
	p := &screen{file: f, dir: dir}
	if term.IsTerminal(int(f.Fd())) {
		p.bold, p.plain = "\x1b[1m", "\x1b[0m"
	}
	return p
}

// heading begins a part. The command may be "".
func (p *screen) heading(title, command string) {
	fmt.Fprintf(p.file, "\n%s%s%s\n", p.bold, title, p.plain)
	if command != "" {
		fmt.Fprintf(p.file, "$ %s\n", command)
	}
}

// printf prints lines, without empty ones, cut where the screen ends.
func (p *screen) printf(format string, args ...any) {
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		line = strings.ReplaceAll(strings.TrimRight(line, " \n"), p.dir, "$DEMO")
		if line != "" {
			fmt.Fprintln(p.file, cut("  "+line))
		}
	}
}

// cut shortens a line to the width of the screen.
func cut(line string) string {
	runes := []rune(line)
	if len(runes) <= width {
		return line
	}
	return string(runes[:width-1]) + "…"
}

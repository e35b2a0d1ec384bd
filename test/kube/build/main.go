// SPDX-License-Identifier: Apache-2.0

// Build builds the API server that the tests use, unless it is built already,
// and prints its path. Tests do that by themselves, but show no progress.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/hhwatchd/hhwatchd/test/kube"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	binary, err := kube.Build(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(binary)
}

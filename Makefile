# SPDX-License-Identifier: Apache-2.0

GO          ?= go
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.1

.PHONY: all build check test crash power soak soak-installed demo bench bench-apply bench-git bench-ingest fuzz deb setup controlplane clean

all: build

build: ## build bin/hhwatchd
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/hhwatchd ./cmd/hhwatchd

check: ## format, vet, staticcheck, and the tests that need no API server
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not gofmt-clean:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) test -short ./...

test: setup controlplane ## all tests, on real servers, with the race detector
	$(GO) vet ./...
	$(GO) test -race -count=1 -timeout 40m ./...

setup: ## install what tests need and is missing (Debian)
	@test/setup.sh

controlplane: ## build the Kubernetes API server that tests use, once
	@$(GO) run ./test/kube/build

power: setup ## lose the power after every system call, in every way (half an hour)
	$(GO) test -count=1 -v -timeout 3h ./test/power -run TestPowerLoss -all

crash: setup controlplane ## kill the daemon at every system call that changes something (half an hour)
	$(GO) test -count=1 -v -timeout 3h ./test/crash -all

soak-installed: setup ## 10,000 drops on an installed service (20 minutes)
	$(GO) test -count=1 -v -timeout 2h ./test/installed -run TestSoak -drops 10000

soak: setup controlplane ## a random life with 1,000 kills (25 minutes)
	$(GO) test -count=1 -v -timeout 2h ./test/soak -kills 1000 -duration 90m

demo: setup controlplane build ## the whole thing on one screen
	@$(GO) run ./test/demo -hhwatchd bin/hhwatchd

bench: setup controlplane build ## figures, beside git and kubectl
	@$(GO) run ./test/bench -hhwatchd bin/hhwatchd

bench-apply: controlplane ## what applying takes, beside kubectl and a bare client-go loop (10 minutes)
	$(GO) test -count=1 -v -timeout 1h ./apply -run TestFigures -figures

bench-git: ## the clone's operations, beside git, up to 100,000 files (15 minutes)
	$(GO) test -count=1 -v -timeout 2h ./checkout -run 'TestGitBench$$' -git-bench 1000,10000,100000 -git-history 20000 -git-age 2000 -git-runs 7

bench-ingest: controlplane ## what a verdict on files takes, beside kubectl
	$(GO) test -run '^$$' -bench Ingest -benchtime 3x ./test/bench

fuzz: ## each fuzz target for a minute
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime 1m -fuzzminimizetime 10x $$pkg; \
		done; \
	done

deb: ## build dist/hhwatchd_*.deb
	packaging/deb/build.sh

clean:
	rm -rf bin dist

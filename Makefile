# Each target is one line over a script; `make help` lists them.
.PHONY: help build build-arm packages image test test-image test-clock lint demo cluster bench soak fuzz vuln screenshots clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 18

build: ## gridgate, gridfog and metersim for this machine, in bin/
	scripts/build.sh

build-arm: ## the same for ARMv7 and arm64, in bin/armv7/ and bin/arm64/
	scripts/build.sh armv7 && scripts/build.sh arm64

packages: ## .deb, .ipk and archives for ARMv7, arm64 and amd64, in dist/
	scripts/packages.sh

image: ## what is flashed to a card: BOARD=virt-armv7, or one that `scripts/image.sh -list` shows
	scripts/image.sh $(BOARD)

test: ## install what the tests need, and run all of them but the soak
	scripts/setup.sh && scripts/test.sh

test-image: ## images booted in QEMU on ARMv7 and arm64, broken ones, and cuts
	scripts/setup.sh && cd scripts/image && go test -tags soak -timeout 0 -v ./...

test-clock: ## set the clock of this machine by 2 s for a moment; as root, and never in CI
	scripts/test-clock.sh

lint: ## every check that does not run the code
	scripts/lint.sh

demo: build ## meters, a broker, a gateway and a fog watcher; DEMO_SECONDS=20 ends by itself, DEMO_OUTAGE=1 cuts the broker off
	@scripts/demo.sh

cluster: ## a fleet on NATS, ingest and PostgreSQL, with nodes killed on the way; GATEWAYS=250 METERS=100
	@scripts/setup.sh && scripts/cluster.sh

bench: ## benchmarks, with allocations
	go test -run '^$$' -bench . -benchmem ./...

soak: ## the long tests, SOAK_MINUTES=5
	go test -tags soak -run Soak -timeout 0 -v ./... && cd scripts/image && go test -tags soak -run Soak -timeout 0 -v ./...

fuzz: ## every fuzz target for FUZZ_SECONDS (20) seconds
	scripts/fuzz.sh

screenshots: build ## the pictures of the local page in docs/images, drawn anew
	scripts/screenshots.sh

vuln: ## known vulnerabilities, for machines that reach vuln.go.dev
	scripts/tool.sh govulncheck ./...

clean: ## remove what the other targets made
	rm -rf bin dist demo-run

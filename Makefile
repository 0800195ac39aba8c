# kedge: the commands of the project. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export GOFLAGS ?= -trimpath -tags=netgo,osusergo -buildvcs=false
export CGO_ENABLED ?= 0

ARGS ?=
ARCHS ?=

.PHONY: help
help: ## list the commands
	@awk -F':.*## ' '/^[a-z0-9%-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## install the Debian packages that building needs (root)
	@scripts/install-build-deps.sh

.PHONY: test-deps
test-deps: deps ## install the Debian packages that the tests need as well (root)
	@scripts/install-test-deps.sh

.PHONY: build
build: ## build bin/kedge with everything a site needs in it
	@scripts/build.sh

.PHONY: release
release: ## build dist/: all architectures, compressed, with checksums and SBOM; ARCHS=amd64 chooses
	@ARCHS='$(ARCHS)' scripts/release.sh

.PHONY: run
run: deps build ## build and run a site on this machine (root); ARGS='--debug' adds flags
	bin/kedge server $(ARGS)

.PHONY: test
test: test-deps build ## run all tests (root for the parts that need it)
	@scripts/test.sh ./...

.PHONY: test-unit
test-unit: ## run the tests that need neither root nor a built binary
	@scripts/test.sh ./pkg/... ./test/arch/...

.PHONY: lab
lab: build ## run the scenarios in network namespaces; RUN=Name chooses
	@scripts/test.sh -run '$(RUN)' ./test/lab/... ./test/e2e/...

.PHONY: vm-%
vm-%: test-deps build ## run one scenario in a virtual machine, for example make vm-site
	@KEDGE_VM=1 scripts/test.sh -run '(?i)$*' ./test/vm/...

.PHONY: critest
critest: test-deps build ## run the CRI conformance suite against containerd of bin/kedge (root)
	@KEDGE_CONFORMANCE=1 go test -v -count=1 -vet=off -timeout 60m -run TestCRIConformance ./test/conformance/critest

.PHONY: conformance
conformance: test-deps build ## run conformance specs of Kubernetes on two nodes of the lab (root); KEDGE_FOCUS=REGEXP chooses
	@scripts/install-test-deps.sh curl bind9-dnsutils netcat-openbsd
	@KEDGE_CONFORMANCE=1 KEDGE_FOCUS='$(KEDGE_FOCUS)' go test -v -count=1 -vet=off -timeout 130m -run TestConformance ./test/conformance/kubernetes

.PHONY: bench
bench: build ## measure the built binary; prints a table and writes bench/latest.json (root)
	@go run ./test/bench $(ARGS)

.PHONY: lint
lint: ## run the linters, at the version in scripts/versions.env
	@scripts/lint.sh

.PHONY: fmt
fmt: ## format the Go files
	@gofmt -w $$(git ls-files '*.go')

.PHONY: clean
clean: ## remove what was built
	rm -rf bin build dist

#!/usr/bin/env bash
# Runs the linters: golangci-lint at the pinned version with .golangci.yml, gofmt, and shellcheck.
# The first run builds golangci-lint into build/tools and type-checks all dependencies, which takes minutes;
# that is why it is no part of make test.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/versions.env
export GOFLAGS=-buildvcs=false CGO_ENABLED=0
tool=$PWD/build/tools/golangci-lint-$GOLANGCI_LINT_VERSION
if [ ! -x "$tool" ]; then
	mkdir -p build/tools
	GOBIN=$PWD/build/tools/new go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$GOLANGCI_LINT_VERSION"
	mv build/tools/new/golangci-lint "$tool"
fi
# shellcheck disable=SC2046 # a list of names
unformatted=$(gofmt -l $(git ls-files '*.go'))
if [ -n "$unformatted" ]; then
	echo "lint: not formatted, run make fmt:" >&2
	echo "$unformatted" >&2
	exit 1
fi
# shellcheck disable=SC2046 # a list of names
shellcheck -x $(git ls-files '*.sh') .ci/run
"$tool" run --build-tags netgo,osusergo --timeout 30m "${@:-./...}"

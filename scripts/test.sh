#!/usr/bin/env bash
# Runs go test with the project's build settings on the given packages and ends with
# one line: N passed, N failed, N skipped. Up to four tests that failed run once more, alone: FLAKY names those that passed then.
# Everything that was printed is in build/test.json.
#   scripts/test.sh [go test flags] PACKAGES
set -uo pipefail
cd "$(dirname "$0")/.." || exit
mkdir -p build
export GOFLAGS="${GOFLAGS:--trimpath -tags=netgo,osusergo -buildvcs=false}" CGO_ENABLED="${CGO_ENABLED:-0}"
# vet runs in scripts/lint.sh; linking without symbols halves the time of tests that hold Kubernetes.
flags=(-vet=off '-ldflags=-s -w' -timeout 45m)
go test -json "${flags[@]}" "$@" 2>&1 | tee build/test.json | go run ./scripts/testreport "${flags[@]}"
exit "${PIPESTATUS[2]}"

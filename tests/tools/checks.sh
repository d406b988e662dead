#!/usr/bin/env bash
# Runs the checks, and with `test` the tests too. A failure does not stop the rest. Closes with one line that counts
# every check and every test; fails unless all passed.
#
# Usage: checks.sh lint|test
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH=$PWD/.tools/bin:$PWD/.tools/node/node_modules/.bin:$PATH

passed=0
failed=0
failures=()
scratch=$(mktemp -d)
trap 'jobs -p | xargs -r kill 2>/dev/null || true; rm -rf "$scratch"' EXIT
# What hangs ends after an hour.
limit=(timeout --kill-after=30 3600)

# count NAME PASSED FAILED
count() {
    passed=$((passed + $2))
    failed=$((failed + $3))
    if (($3)); then
        failures+=("$1: $3 failed")
    fi
}

# check NAME COMMAND...: one check.
check() {
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    if "$@"; then
        count "$name" 1 0
    else
        count "$name" 0 1
    fi
}

lint() {
    check 'cargo fmt' cargo fmt --check
    # All targets: this also keeps the benches compiling.
    check 'cargo clippy' cargo clippy --all-targets --all-features --locked -- -D warnings
    # `--all-targets` leaves out what plain `cargo test` leaves out.
    check 'cargo clippy of the system tests' cargo clippy --test system --all-features --locked -- -D warnings
    # And what users build, which has no features.
    check 'cargo clippy without features' cargo clippy --locked -- -D warnings
    check 'cargo doc' env RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --locked
    check 'cargo deny' deny
    check 'buf lint' buf lint
    check 'buf breaking' buf breaking --against proto/baseline.binpb
    check 'tsc' tsc --project clients/browser
    check 'tsc of the page' tsc --project src/page/web
}

# Not `advisories`: its database would have to be fetched.
deny() {
    CARGO_NET_RETRY=10 cargo fetch --locked && cargo deny --offline check bans licenses sources
}

# rust_tests NAME ARGUMENT...: every test that ran, of any test binary. An ignored test counts as a failure: nothing is
# skipped here.
rust_tests() {
    local name=$1 log=$scratch/cargo-test status=0 ok=0 bad=0 binary_ok binary_bad binary_ignored
    shift
    printf '\n== %s\n' "$name"
    # Not through a pipe: what a test left behind would hold that open.
    : >"$log"
    "${limit[@]}" cargo test --locked --no-fail-fast "$@" >>"$log" 2>&1 &
    tail --follow --lines=+1 --pid=$! "$log" || true
    wait $! || status=$?
    while read -r binary_ok binary_bad binary_ignored; do
        ok=$((ok + binary_ok))
        bad=$((bad + binary_bad + binary_ignored))
    done < <(sed -En 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored;.*/\1 \2 \3/p' "$log")
    # A binary that died printed no result; a run without a test proves nothing.
    if ((bad == 0 && (status != 0 || ok == 0))); then
        bad=1
    fi
    count "$name" "$ok" "$bad"
}

# reported NAME REPORT COMMAND...: tests that leave a JUnit report.
reported() {
    local name=$1 report=$2 status=0 ok bad
    shift 2
    printf '\n== %s\n' "$name"
    EMITTER_BIN=${EMITTER_BIN:-${CARGO_TARGET_DIR:-target}/debug/emitter} "${limit[@]}" "$@" || status=$?
    read -r ok bad < <(.tools/venv/bin/python tests/tools/junit_totals.py "$report") || true
    ok=${ok:-0}
    bad=${bad:-0}
    if ((bad == 0 && (status != 0 || ok == 0))); then
        bad=1
    fi
    count "$name" "$ok" "$bad"
}

# stock_tests PATH...: stock clients against the built server.
stock_tests() {
    reported 'stock clients' "$scratch/stock.xml" .tools/venv/bin/python -m pytest --junit-xml "$scratch/stock.xml" "$@"
}

# node_tests NAME FILE...: tests of Node's own runner.
node_tests() {
    local name=$1 report=$scratch/node.xml
    shift
    rm -f "$report"
    # The limit is that of a test as well as of all of a file.
    reported "$name" "$report" node --test --test-concurrency=1 --test-timeout=1200000 \
        --test-reporter=spec --test-reporter-destination=stdout \
        --test-reporter=junit --test-reporter-destination="$report" "$@"
}

tests() {
    local before
    node_tests 'AsyncAPI document' tests/asyncapi/*.test.mjs
    node_tests 'browser client' clients/browser/test/*.test.mjs
    before=$failed
    # Builds the server too, which the stock clients then drive.
    check 'cargo build of the tests' cargo test --locked --no-run
    check 'cargo build of the system tests' cargo test --locked --no-run --test system
    if ((failed > before)); then
        # What an earlier build left behind must not be tested.
        stock_tests tests/stock/test_contract.py
    else
        rust_tests 'cargo test'
        rust_tests 'system tests' --test system
        stock_tests tests/stock
        node_tests 'browser' tests/browser/*.test.mjs
    fi
}

case ${1:-} in
lint) lint ;;
test)
    lint
    tests
    ;;
*)
    echo 'usage: checks.sh lint|test' >&2
    exit 2
    ;;
esac

echo
if ((failed)); then
    printf '%s\n' "${failures[@]}"
fi
echo "$passed passed, $failed failed"
((failed == 0))

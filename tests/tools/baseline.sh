#!/usr/bin/env bash
# Makes today's protos the baseline that `buf breaking` compares with, if they break nothing. To break on purpose,
# remove the old baseline first: the diff then shows it.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PWD/.tools/node/node_modules/.bin:$PATH

baseline=proto/baseline.binpb
buf lint
if [[ -e $baseline ]]; then
    buf breaking --against "$baseline"
fi
buf build --exclude-source-info --output "$baseline"

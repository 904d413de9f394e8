#!/usr/bin/env bash
# Training on random rows that are in memory, ours and the peers in turn: train.sh [ROUNDS] [PEER...]
#
# PEER is torch (fused Adam), sklearn or keras; PYTHON names a Python that has it (benches/peers/setup.sh makes one).
# Prints samples per second of the training loop for two networks: 784-64-64-10 with batches of 32, 784-1024-1024-10 with 256.
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-3}
shift || true
peers=("${@:-torch}")
python=${PYTHON:-python3}
cargo bench -q --no-run --bench train_step
# keep CASE TOOL: shows a line and notes its figure.
keep() {
  local line
  line=$(grep 'samples/s') && echo "$line"
  [ -z "${RESULTS:-}" ] || printf 'training, %s\tsamples/s\t%s\t%s\n' "$1" "$2" "$(grep -oE 'best +[0-9,]+' <<<"$line" | tr -dc 0-9)" >>"$RESULTS"
}
for _ in $(seq "$rounds"); do
  for case in founding large; do
    cargo bench -q --bench train_step -- "$case" "$(nproc)" | keep "$case" gristmill
    for peer in "${peers[@]}"; do
      "$python" benches/peers/train.py "$peer" "$case" | keep "$case" "$peer"
    done
  done
done

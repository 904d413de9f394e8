#!/usr/bin/env bash
# The founding network on Fashion-MNIST (784-64-64-10, Adam, batch 32, 10 epochs), ours and the peers in turn:
# fashion.sh [ROUNDS] [PEER...]
#
# PEER is sklearn or torch; PYTHON names a Python that has them (benches/peers/setup.sh makes one). Wants Debian's package
# dataset-fashion-mnist. Prints samples per second of the training loop and test accuracy.
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-3}
shift || true
peers=("${@:-sklearn}")
python=${PYTHON:-python3}
gristmill=${GRISTMILL:-${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/gristmill/target}/release/gristmill}
[ -x "$gristmill" ] || make build
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo run -q --release --example fashion_mnist_convert -- /usr/share/datasets/fashion-mnist "$work/data"

speed="SELECT round(60000 * count(*) / (sum(duration_ms) / 1000.0)) FROM ML.TRAINING_INFO(MODEL fashion)"
accuracy="SELECT accuracy FROM ML.EVALUATE(MODEL fashion, (SELECT label, pixels FROM '$work/data/test.parquet'))"
ours() { "$gristmill" --warehouse "$work/warehouse" -q -c "$1" --format csv --no-header; }
# keep TOOL: shows a line and notes its figure.
keep() {
  local line
  line=$(cat) && echo "$line"
  [ -z "${RESULTS:-}" ] || printf 'Fashion-MNIST\tsamples/s\t%s\t%s\n' "$1" "$(awk '{ gsub(",", "", $2); print $2 }' <<<"$line")" >>"$RESULTS"
}
for round in $(seq "$rounds"); do
  rm -rf "$work/warehouse"
  "$gristmill" run -q examples/jobs/fashion_mnist.sql -p data="$work/data" --warehouse "$work/warehouse" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
  echo "gristmill $(ours "$speed") samples/s, test accuracy $(ours "$accuracy")" | keep gristmill
  for peer in "${peers[@]}"; do
    "$python" benches/peers/fashion.py "$peer" "$work/data" | keep "$peer"
  done
done

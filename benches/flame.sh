#!/usr/bin/env bash
# A flame graph of the whole job: flame.sh [SVG]   (docs/figures/late_flights_flame.svg without an argument)
#
# Records examples/jobs/late_flights.sql with perf and draws it with inferno (`cargo install inferno`): widths are processor time
# of all threads, kernel included. Stacks are unwound from copies of the stack (CALLS=dwarf): a release binary has unwinding
# tables, and no frame pointers; CALLS=fp is for one that has them, CALLS=lbr for processors that keep last branches. FREQUENCY
# (499) is samples a second and thread. Frames of less than MIN_WIDTH (0.25) percent are left out, so that the drawing stays below
# 300 KB. FOLDED=FILE keeps the folded stacks. GRISTMILL names another binary than the release build.
set -eu
cd "$(dirname "$0")/.."
svg=${1:-docs/figures/late_flights_flame.svg}
gristmill=${GRISTMILL:-${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/gristmill/target}/release/gristmill}
[ -x "$gristmill" ] || make build
export PATH=$PATH:$HOME/.cargo/bin
missing() { echo "flame.sh: no $1: $2" >&2; exit 1; }
command -v perf >/dev/null || missing perf "apt-get install linux-perf"
command -v inferno-flamegraph >/dev/null || missing inferno "cargo install inferno"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A clock, not cycles: it is there on every machine, and its counts are nanoseconds.
perf record -q -e cpu-clock -F "${FREQUENCY:-499}" --call-graph "${CALLS:-dwarf}" -o "$work/perf" -- \
  "$gristmill" -q run examples/jobs/late_flights.sql -p out="$work/out" --warehouse "$work/warehouse" >"$work/log" 2>&1 ||
  { cat "$work/log" >&2; exit 1; }
# Without lines of the source: finding them takes minutes, and a release binary has none.
perf script --no-inline -i "$work/perf" >"$work/script" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
inferno-collapse-perf "$work/script" >"$work/folded"
[ -z "${FOLDED:-}" ] || cp "$work/folded" "$FOLDED"
mkdir -p "$(dirname "$svg")"
inferno-flamegraph --title "late_flights.sql, process start to exit" --countname ns --minwidth "${MIN_WIDTH:-0.25}" \
  "$work/folded" >"$svg"
echo "$svg: $(awk '{ n += $NF } END { printf "%.2f", n / 1e9 }' "$work/folded") s of processor time, $(stat -c %s "$svg") bytes"

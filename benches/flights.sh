#!/usr/bin/env bash
# The main job, whole processes, ours and the peers in turn: flights.sh [ROUNDS] [PEER...]
#
# PEER is sklearn, torch or spark; PYTHON names a Python that has them (benches/peers/setup.sh makes one). Prints the
# seconds of every process, then the best of each and its ratio to ours.
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

# seconds COMMAND...: runs it quietly and prints its wall time.
seconds() {
  local begun ended
  begun=$(date +%s.%N)
  "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
  ended=$(date +%s.%N)
  awk -v a="$begun" -v b="$ended" 'BEGIN { printf "%.2f\n", b - a }'
}

for round in $(seq "$rounds"); do
  rm -rf "$work/warehouse" "$work/out"
  took=$(seconds "$gristmill" run examples/jobs/late_flights.sql -p out="$work/out" --warehouse "$work/warehouse")
  echo "gristmill $took" | tee -a "$work/times"
  for peer in "${peers[@]}"; do
    took=$(seconds "$python" benches/peers/flights.py "$peer" examples/data/nycflights13)
    echo "$peer $took" | tee -a "$work/times"
    grep -h ' auc ' "$work/log" || true
  done
done
[ -z "${RESULTS:-}" ] || sed 's/^/late_flights.sql\tseconds\t/; s/ /\t/' "$work/times" >>"$RESULTS"
awk '{ if (!($1 in best) || $2 < best[$1]) best[$1] = $2 }
     END { for (peer in best) printf "best %-10s %7.2f s  %5.1fx\n", peer, best[peer], best[peer] / best["gristmill"] }' "$work/times"

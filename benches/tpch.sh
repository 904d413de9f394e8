#!/usr/bin/env bash
# The 22 queries derived from TPC-H, ours and the peers in turn: tpch.sh SCALE [ROUNDS] [PEER...]
#
# PEER is duckdb, polars, sail or spark; PYTHON names a Python that has them and tpchgen-cli (benches/peers/setup.sh makes one,
# and a second one for Sail beside it).
# Data are made once, below ${TPCH:-out/tpch}; query texts are those that DataFusion publishes with its tests. Prints the
# seconds of every query, then the best total of each and its ratio to ours.
set -eu
cd "$(dirname "$0")/.."
scale=${1:?usage: tpch.sh SCALE [ROUNDS] [PEER...]}
rounds=${2:-1}
shift; shift || true
peers=("${@:-duckdb}")
python=${PYTHON:-python3}
place=${TPCH:-out/tpch}
data=$place/$scale
queries=$place/queries
[ -d "$data" ] || "$(dirname "$python")/tpchgen-cli" parquet -s "$scale" --output-dir "$data"
[ -d "$queries" ] || "$python" benches/peers/tpch_queries.py "$queries"
cargo bench -q --no-run --bench tpch
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for _ in $(seq "$rounds"); do
  cargo bench -q --bench tpch -- "$data" "$queries" ${GRISTMILL_SET:-} | tee "$work/ours"
  awk '/^total/ { print "gristmill", $2 }' "$work/ours" >>"$work/times"
  for peer in "${peers[@]}"; do
    interpreter=$python
    [ "$peer" != sail ] || interpreter=$(dirname "$python")/../sail/bin/python
    "$interpreter" benches/peers/tpch.py "$peer" "$data" "$queries" | tee "$work/$peer"
    awk -v peer="$peer" '/^total/ { print peer, $2 }' "$work/$peer" >>"$work/times"
    # The slowest against this peer.
    join <(sort "$work/ours") <(sort "$work/$peer") | awk '/^q/ { printf "%s %.1fx\n", $1, $2 / $4 }' | sort -t' ' -k2 -rn | head -3
  done
done
[ -z "${RESULTS:-}" ] || sed "s/^/22 queries, scale $scale\tseconds\t/; s/\(.*\) /\1\t/" "$work/times" >>"$RESULTS"
awk '{ if (!($1 in best) || $2 < best[$1]) best[$1] = $2 }
     END { for (peer in best) printf "best total %-10s %7.2f s  %5.2fx of ours\n", peer, best[peer], best[peer] / best["gristmill"] }' "$work/times"

#!/usr/bin/env bash
# The ten group-by and five join queries of the h2o db-benchmark, ours and the peers in turn: h2o.sh [ROUNDS] [PEER...]
#
# PEER is duckdb or polars; PYTHON names a Python that has them, numpy and pyarrow (benches/peers/setup.sh makes one). Data
# (ROWS, 10000000) are made once, below ${H2O:-out/h2o}, by the benchmark's recipe, as Parquet. Queries read the files; answers
# become tables in memory. Prints every query's seconds and its ratio to ours, then the best totals. An answer whose rows or sums
# are not ours (relative tolerance 1e-6) is an error. GRISTMILL names another binary than the release build.
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-1}
shift || true
peers=("${@:-duckdb}")
python=${PYTHON:-python3}
rows=${ROWS:-10000000}
data=${H2O:-out/h2o}/$rows
export GRISTMILL=${GRISTMILL:-${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/gristmill/target}/release/gristmill}
[ -x "$GRISTMILL" ] || make build
if [ ! -d "$data" ]; then
  rm -rf "$data.making"
  "$python" benches/peers/h2o_data.py "$data.making" "$rows"
  mv "$data.making" "$data"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# run TOOL: prints the tool's lines and keeps them.
run() {
  "$python" benches/peers/h2o.py "$1" "$data" >"$work/$1"
  sed "s/^/$1 /" "$work/$1"
  awk -v tool="$1" '/^total/ { print $2 "\t" tool "\t" $3 }' "$work/$1" >>"$work/times"
}

# compare PEER: the ratio of every query; fails where the answers differ.
compare() {
  awk -v peer="$1" '
    /^total/ { next }
    NR == FNR { seconds[$1] = $2; $2 = ""; ours[$1] = $0; next }
    {
      printf "%-4s %8.3f s  %s %8.3f s  %5.2fx\n", $1, seconds[$1], peer, $2, $2 / seconds[$1]
      name = $1; $2 = ""; n = split($0, theirs); m = split(ours[name], mine); bad = (n != m)
      for (i = 2; i <= n; i++) {
        apart = mine[i] - theirs[i]; size = theirs[i] < 0 ? -theirs[i] : theirs[i]
        if ((apart < 0 ? -apart : apart) > 1e-6 * size || mine[i] theirs[i] ~ /nan|inf/) bad = 1
      }
      if (bad) { wrong = 1; printf "%s: rows and sums are%s, those of %s are%s\n", name, substr(ours[name], length(name) + 1), peer, substr($0, length(name) + 1) > "/dev/stderr" }
      delete seconds[name]
    }
    END { for (name in seconds) { wrong = 1; print name ": no answer of " peer > "/dev/stderr" }; exit wrong }
  ' "$work/gristmill" "$work/$1"
}

for _ in $(seq "$rounds"); do
  run gristmill
  for peer in "${peers[@]}"; do
    run "$peer"
    compare "$peer"
  done
done
[ -z "${RESULTS:-}" ] || awk -F'\t' -v rows="$rows" '{ printf "h2o %s, %.0e rows\tseconds\t%s\t%s\n", $1, rows, $2, $3 }' "$work/times" >>"$RESULTS"
awk -f benches/best.awk "$work/times" | sort

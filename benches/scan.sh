#!/usr/bin/env bash
# Scans of text: every column of lineitem as CSV and as JSON lines, ours and DuckDB in turn: scan.sh [ROUNDS]
#
# PYTHON names a Python that has duckdb and tpchgen-cli (benches/peers/setup.sh makes one). Our program writes both files once,
# beside the Parquet files of tpch.sh below ${TPCH:-out/tpch}; SCALE (1) is their scale. Prints the seconds of each and their
# ratio to ours. Different answers are an error. GRISTMILL names another binary than the release build.
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-1}
python=${PYTHON:-python3}
scale=${SCALE:-1}
place=${TPCH:-out/tpch}
data=$place/$scale
text=$place/$scale-text
export GRISTMILL=${GRISTMILL:-${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/gristmill/target}/release/gristmill}
[ -x "$GRISTMILL" ] || make build
[ -d "$data" ] || "$(dirname "$(command -v "$python")")/tpchgen-cli" parquet -s "$scale" --output-dir "$data"
if [ ! -d "$text" ]; then
  rm -rf "$text.making"
  for kind in csv:CSV jsonl:JSON; do
    "$GRISTMILL" -q -c "COPY (SELECT * FROM '$data/lineitem.parquet') TO '$text.making/lineitem.${kind%:*}' STORED AS ${kind#*:}"
  done
  mv "$text.making" "$text"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for _ in $(seq "$rounds"); do
  for tool in gristmill duckdb; do
    "$python" benches/peers/scan.py "$tool" "$text" >"$work/$tool"
    awk -F'\t' -v tool="$tool" '{ printf "%-5s %-10s %7.3f s\n", $1, tool, $2 }' "$work/$tool"
    awk -F'\t' -v tool="$tool" '{ print $1 "\t" tool "\t" $2 }' "$work/$tool" >>"$work/times"
  done
  if ! diff <(cut -f 1,3- "$work/gristmill") <(cut -f 1,3- "$work/duckdb") >&2; then
    echo "the answers differ: above ours (<) and DuckDB's (>)" >&2
    exit 1
  fi
done
[ -z "${RESULTS:-}" ] || awk -F'\t' -v scale="$scale" '{ printf "scan of %s, scale %s\tseconds\t%s\t%s\n", $1, scale, $2, $3 }' "$work/times" >>"$RESULTS"
awk -f benches/best.awk "$work/times" | sort

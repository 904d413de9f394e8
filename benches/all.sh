#!/usr/bin/env bash
# Everything that is measured against a peer, one after the other, then one table of ratios: all.sh [ROUNDS]
#
# Peers that PYTHON (python3) can import take part; the others are named and left out. `benches/peers/setup.sh DIR` installs
# them. What wants data that are not here (Debian's dataset-fashion-mnist, tpchgen-cli, numpy) is left out too, and said.
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-1}
export PYTHON=${PYTHON:-python3}
RESULTS=$(mktemp)
export RESULTS
trap 'rm -f "$RESULTS"' EXIT

# installed MODULE=PEER...: the peers whose module can be imported.
installed() {
  local pair
  for pair in "$@"; do
    if "$PYTHON" -c "import ${pair%%=*}" 2>/dev/null; then echo "${pair##*=}"; else echo "not installed: ${pair##*=}" >&2; fi
  done
}
mapfile -t learners < <(installed sklearn=sklearn torch=torch)
mapfile -t trainers < <(installed sklearn=sklearn torch=torch tensorflow=keras)
mapfile -t jobs < <(installed sklearn=sklearn torch=torch pyspark=spark)
mapfile -t queriers < <(installed duckdb=duckdb polars=polars pyspark=spark)
if [ -x "$(dirname "$(command -v "$PYTHON")")/../sail/bin/python" ]; then queriers+=(sail); else echo "not installed: sail" >&2; fi
mapfile -t frames < <(installed duckdb=duckdb polars=polars 2>/dev/null)

[ "${#jobs[@]}" -eq 0 ] || benches/flights.sh "$rounds" "${jobs[@]}"
if [ -d /usr/share/datasets/fashion-mnist ]; then
  [ "${#learners[@]}" -eq 0 ] || benches/fashion.sh "$rounds" "${learners[@]}"
else
  echo "left out: Fashion-MNIST (apt-get install dataset-fashion-mnist)" >&2
fi
[ "${#trainers[@]}" -eq 0 ] || benches/train.sh "$rounds" "${trainers[@]}"
if [ -x "$(dirname "$(command -v "$PYTHON")")/tpchgen-cli" ]; then
  [ "${#queriers[@]}" -eq 0 ] || benches/tpch.sh "${SCALE:-1}" "$rounds" "${queriers[@]}"
  [[ " ${frames[*]} " != *" duckdb "* ]] || benches/scan.sh "$rounds"
else
  echo "left out: the 22 queries, scans of text (pip install tpchgen-cli)" >&2
fi
if "$PYTHON" -c 'import numpy, pyarrow' 2>/dev/null; then
  [ "${#frames[@]}" -eq 0 ] || benches/h2o.sh "$rounds" "${frames[@]}"
else
  echo "left out: the h2o db-benchmark (pip install numpy pyarrow)" >&2
fi

# The best of each; a ratio above 1 says how many times better ours is, whatever the unit.
echo
awk -F'\t' '
  { key = $1 FS $3
    if (!(key in best) || ($2 == "seconds" ? $4 + 0 < best[key] : $4 + 0 > best[key])) best[key] = $4 + 0
    unit[$1] = $2; if (!($1 in seen)) { seen[$1] = 1; order[++n] = $1 }; if (!(key in known)) { known[key] = 1; tools[$1] = tools[$1] FS $3 } }
  END {
    printf "%-24s %-10s %14s %-10s %8s\n", "what", "tool", "best", "unit", "ours is"
    for (i = 1; i <= n; i++) {
      what = order[i]; ours = best[what FS "gristmill"]; count = split(substr(tools[what], 2), tool, FS)
      for (j = 1; j <= count; j++) {
        value = best[what FS tool[j]]
        ratio = unit[what] == "seconds" ? value / ours : ours / value
        printf "%-24s %-10s %14.2f %-10s %7.2fx\n", what, tool[j], value, unit[what], ratio
      }
    }
  }' "$RESULTS"

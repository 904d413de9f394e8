#!/usr/bin/env bash
# Stores: requests per file of a scan, COPY beside rclone, listing. stores.sh [scan] [copy] [list]   (all without arguments)
#
# Wants the servers that .ci/peers/install brings. FILES (1000) Parquet files of about 1 MB, ROWS (60000000) rows for about
# 2 GB of COPY, KEYS (100000) keys in 100 directories. Everything runs on 127.0.0.1; figures are ratios of processes that
# ran in turn. GRISTMILL names another binary than the release build.
set -eu
cd "$(dirname "$0")/.."
peers=${GRISTMILL_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/gristmill/peers}
gristmill=${GRISTMILL:-${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/gristmill/target}/release/gristmill}
[ -x "$gristmill" ] || make build
.ci/peers/install
work=$(mktemp -d)
pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; rm -rf "$work"' EXIT

export AWS_ACCESS_KEY_ID=GRISTMILLBENCH AWS_SECRET_ACCESS_KEY=gristmill-secret AWS_REGION=us-east-1 AWS_ALLOW_HTTP=true
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
until_listening() { until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do sleep 0.05; done; }
seconds() {
  local begun ended
  begun=$(date +%s.%N)
  "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
  ended=$(date +%s.%N)
  awk -v a="$begun" -v b="$ended" 'BEGIN { printf "%.2f\n", b - a }'
}

# rclone serves $work/lake as S3, also to who does not sign; its port is $port.
serve() {
  port=$(free_port)
  mkdir -p "$work/lake/bucket"
  local options=(--addr "127.0.0.1:$port" --dir-cache-time 0s --config /dev/null --cache-dir "$work/cache")
  "$peers/python/bin/rclone" serve s3 "${options[@]}" "$work/lake" >"$work/served" 2>&1 &
  pids+=($!)
  until_listening "$port"
}

# A proxy that adds 20 ms to each request, writes a line for each into $work/requests, and answers itself what it knows.
slow() {
  slow_port=$(free_port)
  python3 benches/peers/slow.py "$slow_port" "$1" 0.020 "$work/requests" &
  pids+=($!)
  until_listening "$slow_port"
}

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "ratio %.2f", a / b }'; }
# As many requests as a host is asked at a time (storage.max_requests), and directories that are listed at a time.
concurrency=64
directories=16

scan() {
  serve
  slow "$port"
  # Eight columns of numbers, plain: what is measured is reading, not decoding.
  "$gristmill" -q -c "COPY (SELECT random() AS a, random() AS b, random() AS c, random() AS d, random() AS e, random() AS f, random() AS g, random() AS h FROM generate_series(1, 15600)) TO '$work/one.parquet' OPTIONS ('format.compression' 'uncompressed', 'format.dictionary_enabled' 'false')"
  for n in $(seq "${FILES:-1000}"); do cp "$work/one.parquet" "$work/lake/bucket/part-$n.parquet"; done
  local bytes
  bytes=$(stat -c %s "$work/one.parquet")
  export AWS_ENDPOINT_URL=http://127.0.0.1:$slow_port
  local took plain
  # The first time, the proxy learns the answers.
  for _ in 1 2; do
    : >"$work/requests"
    took=$(seconds "$gristmill" -q -c "SELECT sum(a + b + c + d + e + f + g + h) FROM 's3://bucket/part-*.parquet'")
    cp "$work/requests" "$work/ours"
    plain=$(seq -f '/bucket/part-%.0f.parquet' "${FILES:-1000}" | python3 benches/peers/plain.py get "$slow_port" "$concurrency")
  done
  echo "scan: ${FILES:-1000} files of $bytes bytes, 20 ms a request: $took s, $(awk -v f="${FILES:-1000}" 'END { printf "%d requests, %.2f a file", NR, NR / f }' "$work/ours"); without us, the ends of all files and then the files, $concurrency at a time: ${plain% *} s, $(ratio "$took" "${plain% *}")"
}

copy() {
  serve
  export AWS_ENDPOINT_URL=http://127.0.0.1:$port
  "$gristmill" -q -c "COPY (SELECT value, md5(CAST(value AS VARCHAR)) AS text FROM generate_series(1, ${ROWS:-60000000})) TO '$work/big/' STORED AS PARQUET OPTIONS ('format.compression' 'uncompressed')"
  local ours theirs bytes
  bytes=$(du -sb "$work/big" | cut -f1)
  ours=$(seconds "$gristmill" -q -c "COPY (SELECT * FROM '$work/big/') TO 's3://bucket/ours/' STORED AS PARQUET MODE OVERWRITE OPTIONS ('format.compression' 'uncompressed')")
  theirs=$(seconds "$peers/python/bin/rclone" --config /dev/null copy "$work/big" ":s3,provider=Other,endpoint='http://127.0.0.1:$port',access_key_id=$AWS_ACCESS_KEY_ID,secret_access_key=$AWS_SECRET_ACCESS_KEY:bucket/theirs")
  awk -v b="$bytes" -v o="$ours" -v t="$theirs" 'BEGIN { printf "copy: %.2f GB: ours %.2f s, rclone copy %.2f s, %.0f %% of its speed\n", b / 1e9, o, t, 100 * t / o }'
}

list() {
  serve
  slow "$port"
  mkdir -p "$work/lake/bucket/keys"
  python3 - "$work/lake/bucket/keys" "${KEYS:-100000}" <<'P'
import os, sys
directory, keys = sys.argv[1], int(sys.argv[2])
for n in range(keys):
    sub = os.path.join(directory, f"d={n % 100}")
    if n < 100:
        os.makedirs(sub)
    open(os.path.join(sub, f"k{n}.csv"), "w").close()
P
  export AWS_ENDPOINT_URL=http://127.0.0.1:$slow_port
  local took plain
  for _ in 1 2; do
    : >"$work/requests"
    took=$(seconds "$gristmill" du s3://bucket/keys/)
    cp "$work/requests" "$work/ours"
    plain=$(python3 benches/peers/plain.py pages "$slow_port" bucket keys/)
  done
  echo "list: ${KEYS:-100000} keys in 100 directories, 20 ms a request: $took s, $(wc -l <"$work/ours") requests; ${plain#* } pages one after the other: ${plain% *} s, a ${directories}th of it: $(ratio "$took" "$(awk -v s="${plain% *}" -v d=$directories 'BEGIN { print s / d }')")"
}

[ $# -gt 0 ] || set -- scan copy list
for part in "$@"; do "$part"; done

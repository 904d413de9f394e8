#!/usr/bin/env bash
# Stores: requests per file of a scan, COPY beside rclone, listing. stores.sh [scan] [copy] [list]   (all without arguments)
#
# Wants the servers that .ci/peers/install brings. FILES (1000) Parquet files of about 1 MB, ROWS (60000000) rows for about
# 2 GB of COPY, KEYS (100000) keys. Everything runs on 127.0.0.1; figures are ratios of processes that ran in turn.
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

# serve PROTOCOL: rclone serves $work/lake; its port is $port.
serve() {
  port=$(free_port)
  mkdir -p "$work/lake/bucket"
  local options=(--addr "127.0.0.1:$port" --dir-cache-time 0s --config /dev/null --cache-dir "$work/cache")
  [ "$1" = s3 ] && options+=(--auth-key "$AWS_ACCESS_KEY_ID,$AWS_SECRET_ACCESS_KEY")
  "$peers/python/bin/rclone" serve "$1" "${options[@]}" "$work/lake" >"$work/served" 2>&1 &
  pids+=($!)
  until_listening "$port"
}

# A proxy that adds 20 ms to each request and writes a line for each into $work/requests.
slow() {
  slow_port=$(free_port)
  python3 benches/peers/slow.py "$slow_port" "$1" 0.020 "$work/requests" &
  pids+=($!)
  until_listening "$slow_port"
}

scan() {
  serve s3
  slow "$port"
  "$gristmill" -q -c "COPY (SELECT value, md5(CAST(value AS VARCHAR)) AS text FROM generate_series(1, 24000)) TO '$work/one.parquet'"
  for n in $(seq "${FILES:-1000}"); do cp "$work/one.parquet" "$work/lake/bucket/part-$n.parquet"; done
  local bytes
  bytes=$(stat -c %s "$work/one.parquet")
  : >"$work/requests"
  export AWS_ENDPOINT_URL=http://127.0.0.1:$slow_port
  local took
  took=$(seconds "$gristmill" -q -c "SELECT sum(value), max(text) FROM 's3://bucket/part-*.parquet'")
  echo "scan: ${FILES:-1000} files of $bytes bytes, 20 ms a request: $took s, $(awk -v f="${FILES:-1000}" 'END { printf "%d requests, %.2f a file", NR, NR / f }' "$work/requests")"
}

copy() {
  serve s3
  export AWS_ENDPOINT_URL=http://127.0.0.1:$port
  "$gristmill" -q -c "COPY (SELECT value, md5(CAST(value AS VARCHAR)) AS text FROM generate_series(1, ${ROWS:-60000000})) TO '$work/big/' OPTIONS ('format.compression' 'uncompressed')"
  local ours theirs bytes
  bytes=$(du -sb "$work/big" | cut -f1)
  ours=$(seconds "$gristmill" -q -c "COPY (SELECT * FROM '$work/big/') TO 's3://bucket/ours/' MODE OVERWRITE OPTIONS ('format.compression' 'uncompressed')")
  theirs=$(seconds "$peers/python/bin/rclone" --config /dev/null copy "$work/big" ":s3,provider=Other,endpoint='http://127.0.0.1:$port',access_key_id=$AWS_ACCESS_KEY_ID,secret_access_key=$AWS_SECRET_ACCESS_KEY:bucket/theirs")
  awk -v b="$bytes" -v o="$ours" -v t="$theirs" 'BEGIN { printf "copy: %.2f GB: ours %.2f s, rclone copy %.2f s, %.0f %% of its speed\n", b / 1e9, o, t, 100 * t / o }'
}

list() {
  serve s3
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
  : >"$work/requests"
  export AWS_ENDPOINT_URL=http://127.0.0.1:$slow_port
  local took
  took=$(seconds "$gristmill" du s3://bucket/keys/)
  echo "list: ${KEYS:-100000} keys in 100 directories, 20 ms a request: $took s, $(wc -l <"$work/requests") requests"
}

[ $# -gt 0 ] || set -- scan copy list
for part in "$@"; do "$part"; done

#!/usr/bin/env bash
# Installs the peers into a virtual environment: setup.sh DIR   (about 8 GB with PyTorch; Spark wants Java 17)
set -eu
directory=${1:?usage: setup.sh DIR}
python3 -m venv "$directory"
"$directory/bin/pip" -q install duckdb pyarrow pandas scikit-learn torch pyspark polars tpchgen-cli
echo "$directory/bin/python"

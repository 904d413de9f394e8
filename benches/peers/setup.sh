#!/usr/bin/env bash
# Installs the peers into a virtual environment: setup.sh DIR   (about 8 GB with PyTorch; Spark wants Java 17)
set -eu
directory=${1:?usage: setup.sh DIR}
python3 -m venv "$directory"
"$directory/bin/pip" -q install duckdb pyarrow pandas scikit-learn torch pyspark polars tpchgen-cli
# Sail's client and Spark do not live in one environment.
python3 -m venv "$directory/sail"
"$directory/sail/bin/pip" -q install pysail 'pyspark-client==4.2.0'
echo "$directory/bin/python"

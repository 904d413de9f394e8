"""A query over all columns of lineitem as CSV and as JSON lines in one tool, in one process, least seconds of some runs.

usage: scan.py gristmill|duckdb DATA [RUNS]
DATA holds lineitem.csv and lineitem.jsonl; GRISTMILL names our program. Both tools are told the columns and their types. One
line a format: its name, its seconds, the answer.
"""
import os
import sys
import time

tool, data = sys.argv[1:3]
runs = int(sys.argv[3]) if len(sys.argv) > 3 else 3
columns = {
    "l_orderkey": "BIGINT",
    "l_partkey": "BIGINT",
    "l_suppkey": "BIGINT",
    "l_linenumber": "INT",
    "l_quantity": "DECIMAL(15, 2)",
    "l_extendedprice": "DECIMAL(15, 2)",
    "l_discount": "DECIMAL(15, 2)",
    "l_tax": "DECIMAL(15, 2)",
    "l_returnflag": "VARCHAR",
    "l_linestatus": "VARCHAR",
    "l_shipdate": "DATE",
    "l_commitdate": "DATE",
    "l_receiptdate": "DATE",
    "l_shipinstruct": "VARCHAR",
    "l_shipmode": "VARCHAR",
    "l_comment": "VARCHAR",
}
folded = [f"{'max' if kind in ('VARCHAR', 'DATE') else 'sum'}({column})" for column, kind in columns.items()]
query = lambda table: f"SELECT count(*), {', '.join(folded)} FROM {table}"
formats = {"csv": "lineitem.csv", "json": "lineitem.jsonl"}
path = lambda name: os.path.join(data, formats[name])


def gristmill():
    from ours import job

    declared = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    stored = {"csv": "CSV", "json": "JSON"}
    options = {"csv": " OPTIONS ('format.has_header' 'true')", "json": ""}
    tables = [
        f"CREATE EXTERNAL TABLE lineitem_{name} ({declared}) STORED AS {stored[name]} LOCATION '{path(name)}'{options[name]}"
        for name in formats
    ]
    times, answers = job(tables + [query(f"lineitem_{name}") for name in formats for _ in range(runs)])
    taken = [seconds for _, seconds in times[len(tables):]]
    for place, name in enumerate(formats):
        yield name, min(taken[place * runs:(place + 1) * runs]), answers[place * runs]


def duckdb():
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"set threads={os.cpu_count()}")
    declared = ", ".join(f"'{column}': '{kind}'" for column, kind in columns.items())
    tables = {
        "csv": f"read_csv('{path('csv')}', header = true, columns = {{{declared}}})",
        "json": f"read_json('{path('json')}', format = 'newline_delimited', columns = {{{declared}}})",
    }
    for name in formats:
        best = float("inf")
        for _ in range(runs):
            begun = time.time()
            answer = connection.execute(query(tables[name])).fetchone()
            best = min(best, time.time() - begun)
        yield name, best, [str(value) for value in answer]


for name, seconds, answer in {"gristmill": gristmill, "duckdb": duckdb}[tool]():
    print(name, f"{seconds:.3f}", *answer, sep="\t", flush=True)

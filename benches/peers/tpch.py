"""The 22 queries derived from TPC-H in a peer, warm, in one process.

usage: tpch.py duckdb|polars|sail|spark DATA QUERIES [RUNS]
DATA holds lineitem.parquet and its seven companions, QUERIES q01.sql to q22.sql. One line a query: its number, the least
seconds of the runs, its rows; then the total.
"""
import os
import sys
import time

peer, data, queries = sys.argv[1:4]
runs = int(sys.argv[4]) if len(sys.argv) > 4 else 3
tables = "customer lineitem nation orders part partsupp region supplier".split()
cores = os.cpu_count()

if peer == "duckdb":
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"set threads={cores}")
    for table in tables:
        connection.execute(f"create view {table} as select * from '{data}/{table}.parquet'")
    ask = lambda query: connection.execute(query).fetchall()
elif peer == "polars":
    import polars

    context = polars.SQLContext({table: polars.scan_parquet(f"{data}/{table}.parquet") for table in tables})
    ask = lambda query: context.execute(query).collect().rows()
else:
    if peer == "sail":
        from pysail.spark import SparkConnectServer
        from pyspark.sql import SparkSession

        server = SparkConnectServer()
        server.start()
        spark = SparkSession.builder.remote(f"sc://localhost:{server.listening_address[1]}").getOrCreate()
    else:
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.master(f"local[{cores}]").config("spark.driver.memory", "12g")
        spark = builder.config("spark.sql.shuffle.partitions", "8").config("spark.ui.enabled", "false").getOrCreate()
        spark.sparkContext.setLogLevel("ERROR")
    for table in tables:
        spark.read.parquet(f"{data}/{table}.parquet").createOrReplaceTempView(table)
    ask = lambda query: spark.sql(query).collect()

total = 0.0
for number in range(1, 23):
    query = open(f"{queries}/q{number:02}.sql").read().strip().rstrip(";")
    best, rows = float("inf"), 0
    try:
        for _ in range(runs):
            begun = time.time()
            rows = len(ask(query))
            best = min(best, time.time() - begun)
    except Exception as error:
        print(f"q{number} failed: {str(error)[:100]!r}", flush=True)
        continue
    total += best
    print(f"q{number} {best:.3f} {rows}", flush=True)
print(f"total {total:.2f}", flush=True)

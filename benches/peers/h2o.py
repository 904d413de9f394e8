"""The queries of the h2o db-benchmark on Parquet files in one tool, warm, in one process.

usage: h2o.py gristmill|duckdb|polars DATA [RUNS]
DATA holds what h2o_data.py makes; GRISTMILL names our program. Answers become tables in memory, as the benchmark asks. One line
a query: its name, the least seconds of the runs, the rows and the sums of the answer; then the totals of both tasks.
"""
import os
import re
import sys
import time

tool, data = sys.argv[1:3]
runs = int(sys.argv[3]) if len(sys.argv) > 3 else 2
tables = "g x small medium big".split()
here = os.path.dirname(os.path.abspath(__file__))
text = open(os.path.join(here, "..", "h2o.sql")).read()
# Name, columns that are summed, query.
queries = [
    (name, columns.split(), query.strip())
    for name, columns, query in re.findall(r"^-- (\w+): ([\w ]+)\n(.*?);$", text, re.MULTILINE | re.DOTALL)
]
path = lambda table: os.path.join(data, f"{table}.parquet")
sums = lambda columns: ", ".join(f"CAST(sum({column}) AS DOUBLE)" for column in columns)


def gristmill():
    from ours import job

    statements = [f"CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{path(table)}'" for table in tables]
    for _, columns, query in queries:
        for run in range(runs):
            statements += [f"CREATE TABLE ans AS {query}"]
            statements += [f"SELECT count(*), {sums(columns)} FROM ans"] if run == 0 else []
            statements += ["DROP TABLE ans"]
    times, answers = job(statements)
    taken = [seconds for title, seconds in times if title == "CREATE TABLE ans"]
    for place, (name, _, _) in enumerate(queries):
        yield name, min(taken[place * runs:(place + 1) * runs]), [float(field) for field in answers[place]]


def duckdb():
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"set threads={os.cpu_count()}")
    for table in tables:
        connection.execute(f"create view {table} as select * from '{path(table)}'")
    for name, columns, query in queries:
        best = float("inf")
        for _ in range(runs):
            connection.execute("drop table if exists ans")
            begun = time.time()
            connection.execute(f"create table ans as {query}")
            best = min(best, time.time() - begun)
        answer = connection.execute(f"select count(*), {sums(columns)} from ans").fetchone()
        connection.execute("drop table ans")
        yield name, best, answer


def polars():
    import polars
    from polars import col, corr

    g, x, small, medium, big = (polars.scan_parquet(path(table)) for table in tables)
    frames = {
        "g1": g.group_by("id1").agg(col("v1").sum()),
        "g2": g.group_by("id1", "id2").agg(col("v1").sum()),
        "g3": g.group_by("id3").agg(col("v1").sum(), col("v3").mean()),
        "g4": g.group_by("id4").agg(col("v1").mean(), col("v2").mean(), col("v3").mean()),
        "g5": g.group_by("id6").agg(col("v1").sum(), col("v2").sum(), col("v3").sum()),
        "g6": g.group_by("id4", "id5").agg(col("v3").median().alias("median_v3"), col("v3").std().alias("sd_v3")),
        "g7": g.group_by("id3").agg((col("v1").max() - col("v2").min()).alias("range_v1_v2")),
        "g8": g.drop_nulls("v3").group_by("id6").agg(col("v3").top_k(2).alias("largest2_v3")).explode("largest2_v3"),
        "g9": g.group_by("id2", "id4").agg((corr("v1", "v2") ** 2).alias("r2")),
        "g10": g.group_by("id1", "id2", "id3", "id4", "id5", "id6").agg(col("v3").sum(), polars.len().alias("number")),
        "j1": x.join(small, on="id1"),
        "j2": x.join(medium, on="id2"),
        "j3": x.join(medium, on="id2", how="left"),
        "j4": x.join(medium, on="id5"),
        "j5": x.join(big, on="id3"),
    }
    for name, columns, _ in queries:
        best = float("inf")
        for _ in range(runs):
            begun = time.time()
            answer = frames[name].collect()
            best = min(best, time.time() - begun)
        yield name, best, [answer.height] + [float(answer[column].cast(polars.Float64).sum()) for column in columns]


totals = {"g": 0.0, "j": 0.0}
for name, seconds, answer in {"gristmill": gristmill, "duckdb": duckdb, "polars": polars}[tool]():
    totals[name[0]] += seconds
    print(name, f"{seconds:.3f}", int(answer[0]), *(f"{value:.12g}" for value in answer[1:]), flush=True)
print(f"total group-by {totals['g']:.2f}")
print(f"total join {totals['j']:.2f}")

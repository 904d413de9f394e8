"""Tables of the h2o db-benchmark as Parquet, by its published recipe: h2o_data.py DATA [ROWS]

Makes DATA/g.parquet (G1_<rows>_1e2_0_0: 100 large groups, ROWS/100 small ones, no NULLs, unsorted) and x, small, medium and
big (J1_<rows>_NA_0_0: ROWS, ROWS/1e6, ROWS/1e3 and ROWS rows, of whose keys nine tenths are common to both sides). The numbers
are numpy's, from the benchmark's seed; its own are R's.
"""
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

place = sys.argv[1]
rows = int(float(sys.argv[2])) if len(sys.argv) > 2 else 10_000_000
if rows < 10_000_000:
    sys.exit(f"h2o_data.py: expected at least 10000000 rows, got {rows}: the small table has a millionth of them")
groups = 100
chance = np.random.default_rng(108)


def below(limit):
    """As many numbers from 1 to `limit` as there are rows."""
    return chance.integers(1, limit + 1, rows, dtype=np.int32)


def named(numbers, digits):
    """id007 for 7: the text of numbers that repeat, made once for each of them."""
    names = pa.array([f"id{number:0{digits}d}" for number in range(numbers.max() + 1)])
    return names.take(pa.array(numbers))


def real():
    return np.round(chance.uniform(0, 100, rows), 6)


def write(name, columns):
    table = pa.table(columns)
    pq.write_table(table, os.path.join(place, f"{name}.parquet"))
    print(f"{name}: {table.num_rows} rows", flush=True)


def keys(number):
    """Distinct keys in random order: nine tenths for both sides, a tenth for the left one, a tenth for the right one."""
    drawn = chance.permutation(np.arange(1, number * 11 // 10 + 1, dtype=np.int32))
    both, left, right = np.split(drawn, [number * 9 // 10, number])
    return {"left": np.concatenate([both, left]), "right": np.concatenate([both, right])}


def spread(values, number):
    """`number` of the values in random order, each at least once."""
    more = chance.choice(values, number - len(values))
    return chance.permutation(np.concatenate([values, more]))


def text_of(numbers):
    return pc.binary_join_element_wise("id", pc.cast(pa.array(numbers), pa.string()), "")


def side(which, levels, number, value):
    """A table of the join task with the keys of the first `levels`, and their texts."""
    numbers = {f"id{i + 1}": spread(key[which], number) for i, key in enumerate(levels)}
    texts = {f"id{int(name[2:]) + 3}": text_of(key) for name, key in numbers.items()}
    return {**numbers, **texts, value: np.round(chance.uniform(0, 100, number), 6)}


os.makedirs(place, exist_ok=True)
write("g", {
    "id1": named(below(groups), 3),
    "id2": named(below(groups), 3),
    "id3": named(below(rows // groups), 10),
    "id4": below(groups),
    "id5": below(groups),
    "id6": below(rows // groups),
    "v1": below(5),
    "v2": below(15),
    "v3": real(),
})
levels = [keys(rows // 1_000_000), keys(rows // 1_000), keys(rows)]
write("x", side("left", levels, rows, "v1"))
write("small", side("right", levels[:1], rows // 1_000_000, "v2"))
write("medium", side("right", levels[:2], rows // 1_000, "v2"))
write("big", side("right", levels, rows, "v2"))

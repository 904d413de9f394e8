-- The ten group-by and five join queries of the h2o db-benchmark. Before each stand its name and the columns of its answer
-- whose sums are compared between tools. `g` is the table of the group-by task; `x`, `small`, `medium`, `big` are those of
-- the join task.

-- g1: v1
SELECT id1, sum(v1) AS v1 FROM g GROUP BY id1;
-- g2: v1
SELECT id1, id2, sum(v1) AS v1 FROM g GROUP BY id1, id2;
-- g3: v1 v3
SELECT id3, sum(v1) AS v1, avg(v3) AS v3 FROM g GROUP BY id3;
-- g4: v1 v2 v3
SELECT id4, avg(v1) AS v1, avg(v2) AS v2, avg(v3) AS v3 FROM g GROUP BY id4;
-- g5: v1 v2 v3
SELECT id6, sum(v1) AS v1, sum(v2) AS v2, sum(v3) AS v3 FROM g GROUP BY id6;
-- g6: median_v3 sd_v3
SELECT id4, id5, median(v3) AS median_v3, stddev(v3) AS sd_v3 FROM g GROUP BY id4, id5;
-- g7: range_v1_v2
SELECT id3, max(v1) - min(v2) AS range_v1_v2 FROM g GROUP BY id3;
-- g8: largest2_v3
SELECT id6, v3 AS largest2_v3
FROM (SELECT id6, v3, row_number() OVER (PARTITION BY id6 ORDER BY v3 DESC) AS place FROM g WHERE v3 IS NOT NULL) AS placed
WHERE place <= 2;
-- g9: r2
SELECT id2, id4, power(corr(v1, v2), 2) AS r2 FROM g GROUP BY id2, id4;
-- g10: v3 number
SELECT id1, id2, id3, id4, id5, id6, sum(v3) AS v3, count(*) AS number FROM g GROUP BY id1, id2, id3, id4, id5, id6;
-- j1: v1 v2
SELECT x.*, small.id4 AS small_id4, v2 FROM x JOIN small USING (id1);
-- j2: v1 v2
SELECT x.*, medium.id1 AS medium_id1, medium.id4 AS medium_id4, medium.id5 AS medium_id5, v2
FROM x JOIN medium USING (id2);
-- j3: v1 v2
SELECT x.*, medium.id1 AS medium_id1, medium.id4 AS medium_id4, medium.id5 AS medium_id5, v2
FROM x LEFT JOIN medium USING (id2);
-- j4: v1 v2
SELECT x.*, medium.id1 AS medium_id1, medium.id2 AS medium_id2, medium.id4 AS medium_id4, v2
FROM x JOIN medium USING (id5);
-- j5: v1 v2
SELECT x.*, big.id1 AS big_id1, big.id2 AS big_id2, big.id4 AS big_id4, big.id5 AS big_id5, big.id6 AS big_id6, v2
FROM x JOIN big USING (id3);

-- A network on pictures: Fashion-MNIST, 60,000 + 10,000 images of 28 x 28 in ten classes.
--
--   sudo apt-get install dataset-fashion-mnist                  # Debian and Ubuntu; 31 MB, MIT
--   cargo run --release --example fashion_mnist_convert         # idx.gz -> out/fashion_mnist/{train,test}.parquet
--   gristmill run examples/jobs/fashion_mnist.sql

DECLARE data         STRING DEFAULT 'out/fashion_mnist';
DECLARE min_accuracy DOUBLE DEFAULT 0.87;

CREATE EXTERNAL TABLE train STORED AS PARQUET LOCATION '${data}/train.parquet';
CREATE EXTERNAL TABLE test  STORED AS PARQUET LOCATION '${data}/test.parquet';

ASSERT (SELECT count(*) FROM train) = 60000 AND (SELECT count(*) FROM test) = 10000 AS 'all images are there';
ASSERT (SELECT count(DISTINCT label) FROM train) = 10 AS 'ten kinds of clothing';

-- `pixels` is one FixedSizeList column of 784 floats from 0 to 1: an array of numbers is 784 features.
CREATE OR REPLACE MODEL fashion
TRANSFORM (label, pixels)
OPTIONS (
  model_type = 'dnn_classifier', input_label_cols = ['label'],
  hidden_units = [64, 64], activation_fn = 'RELU', optimizer = 'ADAM', learn_rate = 0.001,
  batch_size = 32, max_iterations = 10, early_stop = FALSE, data_split_method = 'NO_SPLIT', seed = 1
)
AS SELECT label, pixels FROM train;

SELECT * FROM ML.EVALUATE(MODEL fashion, TABLE test);

ASSERT (SELECT accuracy FROM ML.EVALUATE(MODEL fashion, TABLE test)) >= $min_accuracy
  AS 'the founding network sorts clothes';

SELECT * FROM ML.CONFUSION_MATRIX(MODEL fashion, TABLE test);

//! The solvers against scikit-learn on the same rows (tests/golden/linear.py), against each other, and over threads.

use std::sync::Arc;
use std::time::Duration;

use engine::gang;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::shards::{Block, FeatureLayout, MemoryShards, NO_CATEGORY};
use crate::train::leaving::Leaving;
use crate::train::{CheckpointStore, MemoryCheckpoints};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// Rows cut into shards of different lengths, and these into blocks of 16.
fn shards(layout: FeatureLayout, rows: &Block, cuts: &[usize]) -> MemoryShards {
    let (dense, groups) = (layout.dense, layout.groups.len());
    let ends = cuts.iter().copied().chain([rows.rows]);
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let part = |(start, end): (usize, usize)| Block {
        rows: end - start,
        dense: rows.dense[start * dense..end * dense].to_vec(),
        indices: rows.indices[start * groups..end * groups].to_vec(),
        labels: rows.labels[start..end].to_vec(),
        weights: rows.weights[start..end].to_vec(),
        ..Block::default()
    };
    MemoryShards::from_whole(layout, 16, starts.zip(ends).map(part).collect()).unwrap()
}

fn rows(golden: &Value, case: &Value) -> (FeatureLayout, Block) {
    let groups: Vec<u32> = numbers(&golden["groups"]).iter().map(|w| *w as u32).collect();
    let layout = FeatureLayout {
        dense: 3,
        groups,
        names: (0..10).map(|i| format!("x{i}")).collect(),
        ..FeatureLayout::default()
    };
    let labels: Vec<f32> = numbers(&case["labels"]).iter().map(|x| *x as f32).collect();
    let indices = numbers(&golden[case["indices"].as_str().unwrap()]);
    let block = Block {
        rows: labels.len(),
        dense: numbers(&golden["dense"]).iter().map(|x| *x as f32).collect(),
        indices: indices.iter().map(|i| if *i < 0.0 { NO_CATEGORY } else { *i as u32 }).collect(),
        weights: match &case["weights"] {
            Value::Null => vec![1.0; labels.len()],
            weights => numbers(weights).iter().map(|x| *x as f32).collect(),
        },
        labels,
        ..Block::default()
    };
    (layout, block)
}

fn plan(case: &Value) -> LinearPlan {
    let kind = match case["kind"].as_str().unwrap() {
        "regression" => LinearKind::Regression,
        "binary" => LinearKind::Binary,
        _ => LinearKind::Multinomial(3),
    };
    LinearPlan {
        l1: case["l1"].as_f64().unwrap(),
        l2: case["l2"].as_f64().unwrap(),
        fit_intercept: case["fit_intercept"].as_bool().unwrap(),
        p_values: case.get("p_values").is_some(),
        ..LinearPlan::new(kind)
    }
}

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../tests/golden/linear.json")).unwrap()
}

fn assert_close(name: &str, what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{name}: {what}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * b.abs().max(1.0),
            "{name}: {what}[{i}] {a}, expected {b}\n{got:?}\n{expected:?}"
        );
    }
}

#[test]
fn coefficients_as_scikit_learn() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (layout, block) = rows(&golden, case);
        let train = shards(layout, &block, &[10, 10, 75, 160, 161]);
        let fitted = fit(&plan(case), &train, None, None, &()).unwrap();
        assert!(fitted.converged, "{name}: {:?}", fitted.notes);
        assert_eq!(
            name.contains("collinear") && fitted.model.kind == LinearKind::Regression && case["l2"] == 0.0,
            fitted.notes.iter().any(|note| note.contains("collinear")),
            "{name}: {:?}",
            fitted.notes
        );
        assert_close(name, "coefficients", &fitted.model.coefficients, &numbers(&case["coefficients"]), 1e-6);
        match &case["intercepts"] {
            Value::Null => assert!(fitted.model.intercepts.iter().all(|b| *b == 0.0)),
            intercepts => assert_close(name, "intercepts", &fitted.model.intercepts, &numbers(intercepts), 1e-6),
        }
        assert_eq!(fitted.model.inference.is_some(), case.get("p_values").is_some(), "{name}");
        if let Some(inference) = &fitted.model.inference {
            assert_close(name, "standard errors", &inference.standard_errors, &numbers(&case["standard_errors"]), 1e-6);
            assert_close(name, "p-values", &inference.p_values, &numbers(&case["p_values"]), 1e-6);
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        let (layout, block) = rows(&golden, case);
        let train = shards(layout, &block, &[10, 40, 75, 100, 160, 180]);
        let mut solvers = vec![Solver::Auto];
        if case["l1"] == 0.0 {
            solvers.push(Solver::GradientDescent(StepSize::LineSearch(0.1)));
        }
        for solver in solvers {
            let fitted = |workers| {
                let plan = LinearPlan { workers, solver, max_iterations: Some(20), p_values: false, ..plan(case) };
                fit(&plan, &train, Some(&train), None, &()).unwrap()
            };
            let one = fitted(1);
            for workers in [2, 3, 7] {
                let many = fitted(workers);
                assert_eq!(many.model, one.model, "{} on {workers}", case["name"]);
                let losses = |fit: &LinearFit| fit.history.iter().map(|i| (i.loss, i.eval_loss)).collect::<Vec<_>>();
                assert_eq!(losses(&many), losses(&one));
            }
        }
    }
}

/// Fits by a gang of `world` threads; all ranks must end alike.
fn fit_by_gang(
    plan: &LinearPlan,
    train: &MemoryShards,
    world: usize,
    store: Option<&dyn CheckpointStore>,
    leave_at: u64,
) -> Outcome<LinearFit> {
    let cancel = CancellationToken::new();
    let ranks = gang::local::run("fit", world, |mesh| {
        let mut mesh = Leaving::at(mesh, leave_at);
        let place = Place { mesh: &mut mesh, generation: 3, threads: 2, cancel: &cancel };
        let keeping = store.map(|store| Keeping { store, every: Duration::ZERO });
        fit_rank(plan, train, Some(train), keeping, &(), place)
    });
    let mut ranks = ranks.map_err(|failure| format!("{failure:?}")).unwrap().into_iter();
    let first = ranks.next().unwrap();
    for other in ranks {
        match (&first, &other) {
            (Outcome::Finished(a), Outcome::Finished(b)) => assert_eq!(a.model, b.model),
            (Outcome::Left, Outcome::Left) => {}
            _ => panic!("ranks end otherwise: {first:?}, {other:?}"),
        }
    }
    first
}

fn losses(fit: &LinearFit) -> Vec<(u64, Option<u64>)> {
    fit.history.iter().map(|i| (i.loss.to_bits(), i.eval_loss.map(f64::to_bits))).collect()
}

#[test]
fn any_number_of_ranks_gives_the_same_bytes_also_when_they_leave_and_go_on() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        let (layout, block) = rows(&golden, case);
        let train = shards(layout, &block, &[10, 40, 75, 100, 160, 180, 200]);
        let plan = LinearPlan { max_iterations: Some(20), ..plan(case) };
        let alone = fit(&plan, &train, Some(&train), None, &()).unwrap();
        for world in [1, 2, 3, 7, 11] {
            let Outcome::Finished(together) = fit_by_gang(&plan, &train, world, None, u64::MAX) else {
                panic!("nobody was told to leave");
            };
            assert_eq!(together.model, alone.model, "{} by {world}", case["name"]);
            assert_eq!(losses(&together), losses(&alone));
        }
        // Each gang is told to leave two passes after it has begun; the next one has another size.
        let store = MemoryCheckpoints::default();
        let mut gangs = 0;
        let fitted = loop {
            gangs += 1;
            let world = 1 + gangs % 4;
            match fit_by_gang(&plan, &train, world, Some(&store), 2 * gangs as u64 - 1) {
                Outcome::Finished(fit) => break fit,
                Outcome::Left => assert!(gangs < 500, "the passes do not come to an end"),
            }
        };
        assert!(gangs > 1, "nobody left");
        assert_eq!((fitted.model, fitted.notes), (alone.model.clone(), alone.notes.clone()));
        let other = LinearPlan { l2: plan.l2 + 1.0, p_values: false, ..plan.clone() };
        let keeping = Some(Keeping { store: &store, every: Duration::ZERO });
        let error = fit(&other, &train, Some(&train), keeping, &()).unwrap_err();
        assert!(error.to_string().contains("another training run"), "{error}");
    }
}

/// The rows of the first golden case with inputs of one scale, in one shard.
fn standardised(kind: &str) -> (MemoryShards, LinearPlan) {
    let golden = golden();
    let case = golden["cases"].as_array().unwrap().iter().find(|c| c["kind"] == kind).unwrap().clone();
    let (layout, mut block) = rows(&golden, &case);
    block.dense.chunks_exact_mut(3).for_each(|x| x[1] = (x[1] - 40.0) / 3.0);
    (shards(layout, &block, &[100]), LinearPlan { p_values: false, ..plan(&case) })
}

#[test]
fn every_solver_reaches_the_same_minimum() {
    for kind in ["regression", "binary", "multinomial"] {
        let (train, plan) = standardised(kind);
        for (l1, l2) in [(0.0, 1.5), (2.0, 1.0)] {
            let plan = LinearPlan { l1, l2, max_iterations: Some(20_000), ..plan.clone() };
            let auto = fit(&plan, &train, None, None, &()).unwrap().model;
            let exact = LinearPlan { min_rel_progress: Some(1e-15), ..plan.clone() };
            let run = |solver: fn(Run<'_>) -> Result<LinearFit>, plan: &LinearPlan| {
                let passes = RefCell::new(Passes::begin(None, None, 0).unwrap());
                let run = Run {
                    plan,
                    train: &train,
                    eval: None,
                    passes: &passes,
                    observer: &(),
                    started: Instant::now(),
                    history: Vec::new(),
                    notes: Vec::new(),
                    separated: false,
                };
                solver(run).unwrap().model
            };
            let mut others = vec![
                ("line search", run(|run| descent::batch(run, StepSize::LineSearch(0.1)), &exact)),
                ("constant", run(|run| descent::batch(run, StepSize::Constant(0.1)), &exact)),
                ("accelerated", run(descent::accelerated, &plan)),
            ];
            if l1 == 0.0 {
                others.push(("lbfgs", run(lbfgs::solve, &plan)));
            }
            for (name, other) in others {
                let name = format!("{kind} by {name}");
                // Plain descent crawls along directions that only the penalty bends.
                let tolerance = if name.contains("line") || name.contains("constant") { 1e-3 } else { 1e-5 };
                assert_close(&name, "coefficients", &other.coefficients, &auto.coefficients, tolerance);
                assert_close(&name, "intercepts", &other.intercepts, &auto.intercepts, tolerance);
            }
        }
    }
}

#[test]
fn many_dense_inputs_take_the_matrix_product() {
    // 40 inputs, beyond the loop over rows: the coefficients are found again.
    let (n, d) = (300, 40);
    let draw = |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / 8_388_608.0 - 1.0;
    let dense: Vec<f32> = (0..n * d).map(draw).collect();
    let truth: Vec<f64> = (0..d).map(|j| j as f64 / 8.0 - 2.0).collect();
    let y = |x: &[f32]| x.iter().zip(&truth).map(|(x, w)| f64::from(*x) * w).sum::<f64>() + 0.75;
    let labels = dense.chunks_exact(d).map(|x| y(x) as f32).collect();
    let block = Block { rows: n, dense, indices: vec![], labels, weights: vec![1.0; n], ..Block::default() };
    let train = shards(FeatureLayout::of_dense(d), &block, &[120]);
    let fitted = fit(&LinearPlan::new(LinearKind::Regression), &train, None, None, &()).unwrap();
    assert_close("dense", "coefficients", &fitted.model.coefficients, &truth, 1e-6);
    assert_close("dense", "intercept", &fitted.model.intercepts, &[0.75], 1e-6);
}

#[test]
fn predictions_follow_from_scores() {
    let layout = FeatureLayout { dense: 1, groups: vec![2], names: vec![], ..FeatureLayout::default() };
    let block = Block {
        rows: 2,
        dense: vec![2.0, -1.0],
        indices: vec![1, NO_CATEGORY],
        labels: vec![0.0; 2],
        weights: vec![1.0; 2],
        ..Block::default()
    };
    let model = |kind, coefficients: &[f64], intercepts: &[f64]| LinearModel {
        kind,
        layout: layout.clone(),
        coefficients: coefficients.to_vec(),
        intercepts: intercepts.to_vec(),
        inference: None,
    };
    let regression = model(LinearKind::Regression, &[0.5, 10.0, 3.0], &[1.0]);
    assert_eq!(regression.predict(&block), [5.0, 0.5]);
    let binary = model(LinearKind::Binary, &[1.0, 0.0, -2.0], &[0.0]);
    assert_eq!(binary.predict(&block), [0.5, 1.0 / (1.0 + 1f64.exp())]);
    let three = model(LinearKind::Multinomial(3), &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0], &[0.0; 3]);
    let probabilities = three.predict(&block);
    assert_close("softmax", "row 0", &probabilities[..3], &[1.0 / 3.0; 3], 1e-15);
    assert!((probabilities[3..].iter().sum::<f64>() - 1.0).abs() < 1e-15 && probabilities[3] < probabilities[4]);
}

#[test]
fn separable_classes_end_with_a_finite_model() {
    let x: Vec<f32> = (0..40).map(|i| i as f32 - 19.5).collect();
    let labels = x.iter().map(|x| f32::from(*x > 0.0)).collect();
    let block = Block { rows: 40, dense: x, indices: vec![], labels, weights: vec![1.0; 40], ..Block::default() };
    let train = shards(FeatureLayout::of_dense(1), &block, &[]);
    let fitted = fit(&LinearPlan::new(LinearKind::Binary), &train, None, None, &()).unwrap();
    assert!(fitted.model.coefficients[0].is_finite() && fitted.history.last().unwrap().loss < 1e-6, "{fitted:?}");
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let (train, plan) = standardised("regression");
    let empty = shards(FeatureLayout::of_dense(1), &Block::default(), &[]);
    let spoilt = {
        let block = Block {
            rows: 2,
            dense: vec![1.0, f32::NAN],
            labels: vec![0.0, 1.0],
            weights: vec![1.0; 2],
            indices: vec![],
            ..Block::default()
        };
        shards(FeatureLayout::of_dense(1), &block, &[])
    };
    let weightless = {
        let block = Block {
            rows: 2,
            dense: vec![1.0, 2.0],
            labels: vec![0.0, 1.0],
            weights: vec![0.0; 2],
            indices: vec![],
            ..Block::default()
        };
        shards(FeatureLayout::of_dense(1), &block, &[])
    };
    let constant = {
        let block = Block {
            rows: 4,
            dense: vec![1.0; 4],
            labels: vec![0.0, 1.0, 2.0, 1.0],
            weights: vec![1.0; 4],
            indices: vec![],
            ..Block::default()
        };
        shards(FeatureLayout::of_dense(1), &block, &[])
    };
    let one_hot = {
        let layout = FeatureLayout {
            dense: 0,
            groups: vec![2],
            names: vec!["c=a".into(), "c=b".into()],
            ..FeatureLayout::default()
        };
        let block = Block {
            rows: 4,
            dense: vec![],
            indices: vec![0, 1, 0, 1],
            labels: vec![0.0, 1.0, 1.0, 0.0],
            weights: vec![1.0; 4],
            ..Block::default()
        };
        shards(layout, &block, &[])
    };
    let descent = Solver::GradientDescent(StepSize::Constant(50.0));
    let binary = LinearPlan::new(LinearKind::Binary);
    let cases: Vec<(LinearPlan, &MemoryShards, &str)> = vec![
        (plan.clone(), &empty, "no rows to train on"),
        (plan.clone(), &spoilt, "not a finite number"),
        (binary.clone(), &spoilt, "not a finite number"),
        (LinearPlan { solver: descent, ..plan.clone() }, &spoilt, "not a finite number"),
        (plan.clone(), &weightless, "no row to train on has a weight"),
        (LinearPlan { solver: descent, ..plan.clone() }, &train, "diverged in iteration"),
        (
            LinearPlan { solver: Solver::NormalEquation, ..binary.clone() },
            &train,
            "the normal equation solves linear regression",
        ),
        (LinearPlan { l1: -1.0, ..plan.clone() }, &train, "l1_reg is -1"),
        (LinearPlan { p_values: true, l2: 1.0, ..plan.clone() }, &train, "without penalties"),
        (
            LinearPlan { p_values: true, ..LinearPlan::new(LinearKind::Multinomial(3)) },
            &train,
            "for two classes, the label has 3",
        ),
        (LinearPlan { p_values: true, ..binary.clone() }, &one_hot, "always add up to a constant"),
        (LinearPlan { p_values: true, ..plan.clone() }, &constant, "input f0 is constant or a combination"),
    ];
    for (plan, train, expected) in cases {
        let error = fit(&plan, train, None, None, &()).unwrap_err().to_string();
        assert!(error.contains(expected), "got {error}, expected {expected}");
    }
}

#[test]
fn a_cancelled_fit_stops() {
    struct Cancelled;
    impl LinearObserver for Cancelled {
        fn cancelled(&self) -> bool {
            true
        }
    }
    let (train, plan) = standardised("binary");
    assert!(matches!(fit(&LinearPlan { workers: 2, ..plan }, &train, None, None, &Cancelled), Err(Error::Cancelled)));
}

#[test]
fn blocks_are_shared_not_copied() {
    // A fold only borrows blocks: the set stays usable after it, from several threads.
    let (train, _) = standardised("regression");
    let before = Arc::strong_count(&train.block(0, 0).unwrap());
    let sum = fold::fold(&train, 3, &|| false, || gram::Means::zero(train.layout())).unwrap();
    assert_eq!(sum.divide().weight, 240.0);
    assert_eq!(Arc::strong_count(&train.block(0, 0).unwrap()), before);
}

#[test]
fn classes_that_are_told_apart_without_error_are_noticed() {
    let count = 120;
    let wave = |i: usize| ((i * i) as f32 * 0.37).sin();
    let dense = |of: &dyn Fn(usize) -> f32, label: &dyn Fn(usize) -> f32| {
        let block = Block {
            rows: count,
            dense: (0..count).map(of).collect(),
            indices: Vec::new(),
            labels: (0..count).map(label).collect(),
            weights: vec![1.0; count],
            ..Block::default()
        };
        shards(FeatureLayout::of_dense(1), &block, &[50])
    };
    let half = |i: usize| (i % 2) as f32;
    let third = |i: usize| (i % 3) as f32;
    // One category has one class alone; the others have both.
    let group = Block {
        rows: count,
        dense: (0..count).map(wave).collect(),
        indices: (0..count).map(|i| (i % 5) as u32).collect(),
        labels: (0..count).map(|i| if i % 5 == 0 { 1.0 } else { (i % 2) as f32 }).collect(),
        weights: vec![1.0; count],
        ..Block::default()
    };
    let layout = FeatureLayout { dense: 1, groups: vec![5], ..FeatureLayout::default() };
    let binary = LinearPlan::new(LinearKind::Binary);
    let three = LinearPlan::new(LinearKind::Multinomial(3));
    for (what, plan, train, expected) in [
        ("apart", binary.clone(), dense(&|i| half(i) + 0.3 * wave(i), &half), true),
        ("overlapping", binary.clone(), dense(&|i| half(i) + 2.0 * wave(i), &half), false),
        ("penalised", LinearPlan { l2: 1.0, ..binary.clone() }, dense(&|i| half(i) + 0.3 * wave(i), &half), false),
        ("a category", binary, shards(layout, &group, &[50]), true),
        ("three apart", three.clone(), dense(&|i| third(i) + 0.3 * wave(i), &third), true),
        ("three overlapping", three, dense(&|i| third(i) + 2.0 * wave(i), &third), false),
    ] {
        let fitted = fit(&plan, &train, None, None, &()).unwrap();
        assert_eq!(fitted.separated, expected, "{what}: {:?} {:?}", fitted.model.coefficients, fitted.history.last());
    }
}

//! Which columns of a table are shown, and how wide, so that it fits a terminal.
//!
//! First the widest columns give way, down to [`COLUMN_MIN`]; when that is not enough, columns leave from the middle and
//! one narrow column of dots stands for them: the first columns say which row it is, the last ones hold what was computed.

/// No column is cut below this width.
const COLUMN_MIN: usize = 12;
/// Border and padding that each column costs beside its content: one line, one blank on both sides.
const COLUMN_COST: usize = 3;

/// One column of the drawn table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The result's column `index`, cut to `width`.
    Column { index: usize, width: usize },
    /// Dots for the columns that are left out.
    Gap,
}

/// Lays out columns of the given natural widths in `terminal` columns.
pub(crate) fn fit(widths: &[usize], terminal: usize) -> Vec<Slot> {
    let shrunk = shrink(widths, terminal);
    if cost(&shrunk) <= terminal || widths.len() <= 2 {
        return shrunk.iter().enumerate().map(|(index, width)| Slot::Column { index, width: *width }).collect();
    }
    // Keep as many as fit, alternating from both ends: 0, n-1, 1, n-2, ...
    let narrow: Vec<usize> = widths.iter().map(|width| (*width).min(COLUMN_MIN)).collect();
    let mut kept: Vec<usize> = Vec::new();
    let mut used = 1 + COLUMN_COST + 1;
    for turn in 0..widths.len() {
        let index = if turn % 2 == 0 { turn / 2 } else { widths.len() - 1 - turn / 2 };
        if used + narrow[index] + COLUMN_COST > terminal && !kept.is_empty() {
            break;
        }
        used += narrow[index] + COLUMN_COST;
        kept.push(index);
    }
    kept.sort_unstable();
    let natural: Vec<usize> = kept.iter().map(|index| widths[*index]).collect();
    let widths = shrink(&natural, terminal.saturating_sub(COLUMN_COST + 1));
    let mut slots = Vec::with_capacity(kept.len() + 1);
    for (place, (index, width)) in kept.iter().zip(widths).enumerate() {
        let follows = if place == 0 { 0 } else { kept[place - 1] + 1 };
        if *index != follows {
            slots.push(Slot::Gap);
        }
        slots.push(Slot::Column { index: *index, width });
    }
    slots
}

/// Lowers the widest columns to one common height until all fit, as water levels out.
fn shrink(widths: &[usize], terminal: usize) -> Vec<usize> {
    let mut shrunk = widths.to_vec();
    while cost(&shrunk) > terminal {
        let widest = shrunk.iter().copied().max().unwrap_or(0);
        if widest <= COLUMN_MIN {
            break;
        }
        let next = shrunk.iter().copied().filter(|width| *width < widest).max().unwrap_or(0).max(COLUMN_MIN);
        let tallest = shrunk.iter().filter(|width| **width == widest).count();
        let excess = cost(&shrunk) - terminal;
        let lowered = widest.saturating_sub(excess.div_ceil(tallest)).max(next);
        shrunk.iter_mut().filter(|width| **width == widest).for_each(|width| *width = lowered);
    }
    shrunk
}

fn cost(widths: &[usize]) -> usize {
    widths.iter().map(|width| width + COLUMN_COST).sum::<usize>() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `0:5 .. 3:12` for columns 0 and 3 with dots between.
    fn laid_out(widths: &[usize], terminal: usize) -> String {
        let slots = fit(widths, terminal);
        let texts: Vec<String> = slots
            .iter()
            .map(|slot| match slot {
                Slot::Column { index, width } => format!("{index}:{width}"),
                Slot::Gap => "..".to_string(),
            })
            .collect();
        texts.join(" ")
    }

    #[test]
    fn layouts() {
        for (widths, terminal, expected) in [
            (&[5usize, 5, 5][..], 80, "0:5 1:5 2:5"),
            (&[5, 100, 5], 40, "0:5 1:20 2:5"),
            (&[5, 100, 60], 60, "0:5 1:22 2:22"),
            (&[100], 20, "0:16"),
            (&[100], 5, "0:12"),
            (&[10; 10], 60, "0:10 1:10 .. 8:10 9:10"),
            (&[20; 6], 60, "0:15 1:15 .. 5:15"),
            (&[], 60, ""),
        ] {
            assert_eq!(laid_out(widths, terminal), expected, "{widths:?} in {terminal}");
        }
    }

    #[test]
    fn a_layout_never_exceeds_the_terminal_when_two_columns_fit() {
        for columns in 1..30 {
            for terminal in 40..160 {
                let widths: Vec<usize> = (0..columns).map(|column| (column * 7 + terminal) % 50 + 1).collect();
                let slots = fit(&widths, terminal);
                let used: usize = slots
                    .iter()
                    .map(|slot| match slot {
                        Slot::Column { width, .. } => width + COLUMN_COST,
                        Slot::Gap => 1 + COLUMN_COST,
                    })
                    .sum();
                assert!(used < terminal, "{widths:?} in {terminal}: {slots:?}");
            }
        }
    }
}

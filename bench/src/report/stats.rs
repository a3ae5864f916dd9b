// SPDX-License-Identifier: MIT OR Apache-2.0

//! The statistics of the repetitions of one measurement.

/// A median, and how far the middle half of the figures is spread.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Summary {
    /// Half of the figures are below.
    pub median: f64,
    /// Distance of the quartiles, as a share of the median.
    pub spread: f64,
}

impl Summary {
    /// Computes the statistics of any number of figures; None if there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = quantile(&sorted, 0.5)?;
        let distance = quantile(&sorted, 0.75)? - quantile(&sorted, 0.25)?;
        let spread = if median == 0.0 {
            0.0
        } else {
            distance / median
        };
        Some(Self { median, spread })
    }
}

/// Returns the figure below which a share `q` of them lies, between neighbours in proportion.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let place = q * (sorted.len().checked_sub(1)?) as f64;
    let low = sorted[place.floor() as usize];
    let high = sorted[place.ceil() as usize];
    Some(low + (high - low) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_heed_one_that_is_far_off() {
        let summary = Summary::of(&[3.0, 1.0, 2.0, 1000.0, 2.0]).unwrap();
        assert_eq!(summary.median, 2.0);
        assert_eq!(summary.spread, 0.5);
    }

    #[test]
    fn between_two_figures_lies_their_mean() {
        let summary = Summary::of(&[10.0, 20.0]).unwrap();
        assert_eq!(summary.median, 15.0);
        assert_eq!(Summary::of(&[7.0]).unwrap().spread, 0.0);
        assert_eq!(Summary::of(&[]), None);
    }
}

//! A compact log-linear histogram of durations in nanoseconds.
//!
//! Values below 2^7 have a bucket each; above, every power of two is cut into 128 equal
//! buckets, so a percentile is off by less than 0.8 %. Recording is a shift and an add,
//! memory is fixed, and nothing is ever dropped.

/// Counts durations by magnitude.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, sum: 0, max: 0 }
    }

    #[inline]
    pub(crate) fn record(&mut self, nanos: u64) {
        if let Some(bucket) = self.buckets.get_mut(index_of(nanos)) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum += u128::from(nanos);
        self.max = self.max.max(nanos);
    }

    pub(crate) fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
        self.sum = 0;
        self.max = 0;
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    pub(crate) fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The smallest recorded magnitude that `fraction` of all values do not exceed, or 0 if empty.
    ///
    /// The middle of the bucket is returned, capped by the exact maximum.
    pub(crate) fn quantile(&self, fraction: f64) -> u64 {
        let rank = (fraction * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, &count) in self.buckets.iter().enumerate() {
            seen += count;
            if count > 0 && seen >= rank {
                return middle_of(index).min(self.max);
            }
        }
        self.max
    }
}

/// The bucket of a value: its power of two above, its next seven bits below.
fn index_of(value: u64) -> usize {
    if value < SUB_BUCKETS {
        return value as usize;
    }
    let shift = value.ilog2() - SUB_BITS;
    let sub = (value >> shift) - SUB_BUCKETS;
    ((u64::from(shift) + 1) * SUB_BUCKETS + sub) as usize
}

/// The value in the middle of a bucket.
fn middle_of(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB_BUCKETS {
        return index;
    }
    let shift = index / SUB_BUCKETS - 1;
    let low = (SUB_BUCKETS + index % SUB_BUCKETS) << shift;
    low + ((1_u64 << shift) >> 1)
}

const SUB_BITS: u32 = 7;
const SUB_BUCKETS: u64 = 1 << SUB_BITS;
/// One linear row, then one row for each shift from 0 to 56.
const BUCKETS: usize = (u64::BITS - SUB_BITS + 1) as usize * SUB_BUCKETS as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_bucket_whose_middle_is_near() {
        let mut value = 1_u64;
        while value < u64::MAX / 3 {
            for probe in [value - 1, value, value + 1, value + value / 3] {
                let index = index_of(probe);
                assert!(index < BUCKETS, "{probe} falls outside");
                let error = middle_of(index).abs_diff(probe) as f64;
                assert!(error <= probe as f64 / 128.0, "{probe} is off by {error}");
            }
            value *= 2;
        }
        assert!(index_of(u64::MAX) < BUCKETS);
    }

    #[test]
    fn buckets_are_ordered_and_leave_no_gap() {
        let mut previous = index_of(0);
        for value in 1..100_000 {
            let index = index_of(value);
            assert!(index == previous || index == previous + 1, "gap at {value}");
            previous = index;
        }
    }

    #[test]
    fn quantiles_of_a_uniform_ramp() {
        let mut histogram = Histogram::new();
        for value in 1..=100_000 {
            histogram.record(value);
        }
        for fraction in [0.5, 0.9, 0.99, 0.999] {
            let got = histogram.quantile(fraction) as f64;
            let want = fraction * 100_000.0;
            assert!((got - want).abs() / want < 0.01, "{fraction}: {got} is not {want}");
        }
        assert_eq!(histogram.max(), 100_000);
        assert_eq!(histogram.quantile(1.0), 100_000);
        assert!((histogram.mean() - 50_000.5).abs() < 1e-6);
    }

    #[test]
    fn a_single_outlier_shows_only_in_the_tail() {
        let mut histogram = Histogram::new();
        for _ in 0..9_999 {
            histogram.record(100);
        }
        histogram.record(1_000_000);
        assert_eq!(histogram.quantile(0.999), 100);
        assert_eq!(histogram.quantile(1.0), 1_000_000);
    }

    #[test]
    fn empty_and_cleared_histograms_are_zero() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), 0);
        histogram.record(7);
        histogram.clear();
        assert_eq!((histogram.count(), histogram.max(), histogram.quantile(0.99)), (0, 0, 0));
        assert_eq!(histogram.mean(), 0.0);
    }
}

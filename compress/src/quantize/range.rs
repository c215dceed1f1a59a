//! What is seen of a tensor on calibration data, and the range of numbers that its steps cover.

/// Number of bins of a histogram.
const BINS: usize = 2048;

/// The values of a tensor: their extremes, their distribution between them, their mean in each channel.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The least value, at most 0.
    pub least: f32,
    /// The largest value, at least 0.
    pub largest: f32,
    bins: Vec<u64>,
    sums: Vec<f64>,
    rows: u64,
}

/// How a range is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeMethod {
    /// From the least to the largest value seen.
    MinMax,
    /// All but one value in ten thousand at each end.
    Percentile,
    /// The range of least squared error, rounding and saturation counted.
    LeastSquares,
}

/// A uniform grid: value = scale · (step − zero).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Distance of two steps.
    pub scale: f32,
    /// The step of the value 0.
    pub zero: i32,
    /// The least step.
    pub low: i32,
    /// The largest step.
    pub high: i32,
}

impl Grid {
    /// Steps 0 to 255 over a range that contains 0.
    pub fn affine(least: f32, largest: f32) -> Grid {
        let (least, largest) = (f64::from(least.min(0.0)), f64::from(largest.max(0.0)));
        let scale = ((largest - least) / 255.0) as f32;
        // Of a tensor that is always 0 any grid is right.
        let scale = if scale.is_normal() { scale } else { 1.0 };
        let zero = (-least / f64::from(scale)).round_ties_even().clamp(0.0, 255.0) as i32;
        Grid { scale, zero, low: 0, high: 255 }
    }

    /// Signed steps of `bits` bits that are 2^-fraction wide.
    pub fn fixed_point(fraction: i32, bits: u32) -> Grid {
        let high = (1 << (bits - 1)) - 1;
        Grid { scale: 2f32.powi(-fraction.clamp(-100, 100)), zero: 0, low: -high - 1, high }
    }

    /// The nearest step; of two equally near the even one, as QuantizeLinear has it.
    pub fn step(&self, value: f32) -> i32 {
        let step = f64::from((value / self.scale).round_ties_even()) + f64::from(self.zero);
        step.clamp(f64::from(self.low), f64::from(self.high)) as i32
    }

    /// The value of the nearest step.
    pub fn rounded(&self, value: f32) -> f32 {
        (self.step(value) - self.zero) as f32 * self.scale
    }

    /// Whether the grid covers a value.
    fn covers(&self, value: f32) -> bool {
        let step = (value / self.scale).round_ties_even() as f64 + f64::from(self.zero);
        step >= f64::from(self.low) && step <= f64::from(self.high)
    }
}

impl Seen {
    /// Nothing seen yet, of a tensor with so many channels.
    pub fn new(channels: usize) -> Seen {
        Seen { least: 0.0, largest: 0.0, bins: vec![0; BINS], sums: vec![0.0; channels], rows: 0 }
    }

    /// The first pass: extremes, and means of channels, which lie `inner` values apart.
    pub fn extremes(&mut self, values: &[f32], inner: usize) {
        let channels = self.sums.len();
        for (i, v) in values.iter().enumerate() {
            (self.least, self.largest) = (self.least.min(*v), self.largest.max(*v));
            self.sums[i / inner % channels] += f64::from(*v);
        }
        self.rows += (values.len() / channels) as u64;
    }

    /// The second pass: the distribution.
    pub fn distribution(&mut self, values: &[f32]) {
        let width = self.width();
        for v in values {
            let bin = ((f64::from(*v) - f64::from(self.least)) / width) as usize;
            self.bins[bin.min(BINS - 1)] += 1;
        }
    }

    fn width(&self) -> f64 {
        ((f64::from(self.largest) - f64::from(self.least)) / BINS as f64).max(f64::MIN_POSITIVE)
    }

    /// The mean of each channel.
    pub fn means(&self) -> Vec<f64> {
        self.sums.iter().map(|s| s / self.rows.max(1) as f64).collect()
    }

    /// The middle of each bin that is not empty, and how many values are in it.
    fn counts(&self) -> impl Iterator<Item = (f32, u64)> {
        let width = self.width();
        let filled = self.bins.iter().enumerate().filter(|(_, n)| **n > 0);
        filled.map(move |(i, n)| ((f64::from(self.least) + (i as f64 + 0.5) * width) as f32, *n))
    }

    /// The part of the values that a grid does not cover.
    pub fn saturation(&self, grid: &Grid) -> f64 {
        let all: u64 = self.bins.iter().sum();
        let outside: u64 = self.counts().filter(|(v, _)| !grid.covers(*v)).map(|(_, n)| n).sum();
        outside as f64 / all.max(1) as f64
    }

    fn error(&self, grid: &Grid) -> f64 {
        self.counts().map(|(v, n)| f64::from(grid.rounded(v) - v).powi(2) * n as f64).sum()
    }

    /// An affine grid for the values.
    pub fn grid(&self, method: RangeMethod) -> Grid {
        let (mut least, mut largest) = (self.least, self.largest);
        match method {
            RangeMethod::MinMax => {}
            RangeMethod::Percentile => {
                let all: u64 = self.bins.iter().sum();
                let allowed = all / 10_000;
                let counts: Vec<(f32, u64)> = self.counts().collect();
                let cut = |values: &mut dyn Iterator<Item = &(f32, u64)>| {
                    let mut passed = 0;
                    for (value, count) in values {
                        passed += count;
                        if passed > allowed {
                            return Some(*value);
                        }
                    }
                    None
                };
                least = cut(&mut counts.iter()).unwrap_or(least).min(0.0);
                largest = cut(&mut counts.iter().rev()).unwrap_or(largest).max(0.0);
            }
            RangeMethod::LeastSquares => {
                // One end after the other, both drawn in by parts of a fiftieth: the error has one valley in each.
                for _ in 0..2 {
                    let part = |k: u32| 1.0 - k as f32 / 50.0;
                    let best = |error: &dyn Fn(f32) -> f64| {
                        let errors: Vec<f64> = (0..40).map(|k| error(part(k))).collect();
                        part((0..40).min_by(|a, b| errors[*a as usize].total_cmp(&errors[*b as usize])).unwrap_or(0))
                    };
                    let p = best(&|p| self.error(&Grid::affine(least, self.largest * p)));
                    largest = self.largest * p;
                    let p = best(&|p| self.error(&Grid::affine(self.least * p, largest)));
                    least = self.least * p;
                }
            }
        }
        Grid::affine(least, largest)
    }

    /// Dynamic fixed point (Gysel et al., *Ristretto*, 2016): integer length ⌈log₂ max⌉ of `bits`, and one more until at most a thousandth of the
    /// values is beyond the largest step.
    pub fn fixed_point(&self, bits: u32) -> Grid {
        let mut length = integer_length(self.largest.max(-self.least));
        loop {
            let grid = Grid::fixed_point(bits as i32 - length, bits);
            if self.saturation(&grid) <= 0.001 {
                return grid;
            }
            length += 1;
        }
    }
}

/// ⌈log₂ max⌉.
pub fn integer_length(max: f32) -> i32 {
    if max > 0.0 { f64::from(max).log2().ceil() as i32 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(values: &[f32]) -> Seen {
        let mut s = Seen::new(1);
        s.extremes(values, 1);
        s.distribution(values);
        s
    }

    #[test]
    fn grids_contain_zero_and_the_extremes() {
        for (least, largest) in [(-1.0, 2.0), (0.0, 6.0), (-3.0, 0.0), (1.0, 2.0), (-2.0, -1.0), (0.0, 0.0)] {
            let g = Grid::affine(least, largest);
            assert_eq!(g.rounded(0.0), 0.0);
            for v in [least, largest] {
                assert!((g.rounded(v) - v).abs() <= g.scale, "{v} in {g:?}");
            }
        }
    }

    #[test]
    fn an_outlier_is_given_up_by_least_squares_and_percentile_but_not_by_the_extremes() {
        let mut values: Vec<f32> = (0..100_000).map(|i| (i % 1000) as f32 / 1000.0).collect();
        values.push(100.0);
        let s = seen(&values);
        assert!(s.grid(RangeMethod::MinMax).covers(100.0));
        assert!(!s.grid(RangeMethod::Percentile).covers(100.0));
        let (fit, all) = (s.grid(RangeMethod::LeastSquares), s.grid(RangeMethod::MinMax));
        assert!(s.error(&fit) < s.error(&all), "{fit:?}");
    }

    #[test]
    fn dynamic_fixed_point_is_as_defined() {
        // max 5 has the integer length 3: 5 bits behind the point, and one less since 5 would be beyond 127/32.
        let s = seen(&(0..5001).map(|i| i as f32 / 1000.0).collect::<Vec<_>>());
        assert_eq!(s.fixed_point(8), Grid { scale: 1.0 / 16.0, zero: 0, low: -128, high: 127 });
        assert_eq!((integer_length(4.0), integer_length(4.1), integer_length(0.3), integer_length(0.0)), (2, 3, -1, 0));
    }
}

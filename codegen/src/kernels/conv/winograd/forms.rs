//! The forms of the algorithm: the numbers at which polynomials are evaluated, and the matrices that follow from them.

/// A form of the algorithm: what it does along the height and along the width.
#[derive(Debug)]
pub struct Form {
    /// Name, as in reports.
    pub name: &'static str,
    /// Of rows, of columns.
    pub axes: [Axis; 2],
    /// How much shorter the others must be predicted: what memory and error are worth.
    pub worth: f64,
}

/// A form along an axis.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// Pixels of the result that a tile has.
    pub out: usize,
    /// Extent of the kernel.
    pub kernel: usize,
    /// From a window to the next.
    pub stride: usize,
    /// The numbers at which polynomials are evaluated, opposites side by side; infinity comes last and is not listed.
    pub at: &'static [f64],
}

/// Kernels of one element have no points.
pub const ONE: Axis = Axis { out: 1, kernel: 1, stride: 1, at: &[] };

pub const fn axis(out: usize, kernel: usize, stride: usize, at: &'static [f64]) -> Axis {
    Axis { out, kernel, stride, at }
}

pub const F2_3: Axis = axis(2, 3, 1, &[0.0, 1.0, -1.0]);

pub const F4_3: Axis = axis(4, 3, 1, SIX);

pub const F6_3: Axis = axis(6, 3, 1, EIGHT);

pub const F2_5: Axis = axis(2, 5, 1, SIX);

pub const F4_5: Axis = axis(4, 5, 1, EIGHT);

pub const F2_7: Axis = axis(2, 7, 1, EIGHT);

pub const SIX: &[f64] = &[0.0, 0.75, -0.75, 1.5, -1.5];

pub const EIGHT: &[f64] = &[0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5];

/// All forms.
#[rustfmt::skip]
pub const FORMS: &[Form] = &[
    Form { name: "winograd F(2,3)",   axes: [F2_3; 2], worth: 1.05 },
    Form { name: "winograd F(4,3)",   axes: [F4_3; 2], worth: 1.08 },
    Form { name: "winograd F(6,3)",   axes: [F6_3; 2], worth: 1.2  },
    Form { name: "winograd F(2,5)",   axes: [F2_5; 2], worth: 1.08 },
    Form { name: "winograd F(4,5)",   axes: [F4_5; 2], worth: 1.2  },
    Form { name: "winograd F(2,7)",   axes: [F2_7; 2], worth: 1.2  },
    Form { name: "winograd F(2,3)/2", axes: [axis(2, 3, 2, &[1.0, -1.0]); 2],              worth: 1.05 },
    Form { name: "winograd F(3,3)/2", axes: [axis(3, 3, 2, &[0.0, 1.0, -1.0]); 2],         worth: 1.08 },
    Form { name: "winograd F(4,3)/2", axes: [axis(4, 3, 2, &[0.5, -0.5, 1.25, -1.25]); 2], worth: 1.1  },
    Form { name: "winograd F(2,3) of rows",    axes: [ONE, F2_3], worth: 1.05 },
    Form { name: "winograd F(4,3) of rows",    axes: [ONE, F4_3], worth: 1.08 },
    Form { name: "winograd F(6,3) of rows",    axes: [ONE, F6_3], worth: 1.15 },
    Form { name: "winograd F(2,5) of rows",    axes: [ONE, F2_5], worth: 1.08 },
    Form { name: "winograd F(4,5) of rows",    axes: [ONE, F4_5], worth: 1.15 },
    Form { name: "winograd F(2,7) of rows",    axes: [ONE, F2_7], worth: 1.15 },
    Form { name: "winograd F(2,3) of columns", axes: [F2_3, ONE], worth: 1.05 },
    Form { name: "winograd F(4,3) of columns", axes: [F4_3, ONE], worth: 1.08 },
    Form { name: "winograd F(6,3) of columns", axes: [F6_3, ONE], worth: 1.15 },
    Form { name: "winograd F(2,5) of columns", axes: [F2_5, ONE], worth: 1.08 },
    Form { name: "winograd F(4,5) of columns", axes: [F4_5, ONE], worth: 1.15 },
    Form { name: "winograd F(2,7) of columns", axes: [F2_7, ONE], worth: 1.15 },
];

/// The matrices of a form along an axis.
pub struct Matrices {
    /// n × n: pixels of the input to points.
    pub input_transform: Vec<Vec<f64>>,
    /// n × r: weights to points.
    pub weights: Vec<Vec<f64>>,
    /// m × n: points to pixels of the result.
    pub output_transform: Vec<Vec<f64>>,
}

impl Form {
    /// Sizes of a tile of the input.
    pub fn inner(&self) -> [usize; 2] {
        self.axes.map(|a| a.inner())
    }

    /// Sizes of a tile of the result.
    pub fn out(&self) -> [usize; 2] {
        self.axes.map(|a| a.out)
    }

    /// Products.
    pub fn points(&self) -> usize {
        self.inner().iter().product()
    }

    /// Tiles down and across an image of the result.
    pub fn tiles(&self, output: &[usize]) -> [usize; 2] {
        [0, 1].map(|i| output[i].div_ceil(self.axes[i].out))
    }
}

impl Axis {
    pub fn inner(&self) -> usize {
        (self.out - 1) * self.stride + self.kernel
    }

    /// Pixels of the input from a tile to the next.
    pub fn step(&self) -> usize {
        self.out * self.stride
    }

    pub fn matrices(&self) -> Matrices {
        let n = self.inner();
        let zeros = |columns: usize| vec![vec![0.0; columns]; n];
        let mut all = Matrices { input_transform: zeros(n), weights: zeros(self.kernel), output_transform: vec![vec![0.0; n]; self.out] };
        let mut first = 0;
        for phase in 0..self.stride {
            let taps = (self.kernel - phase).div_ceil(self.stride);
            // One weight needs no points: the transforms are identities.
            let one = if taps == 1 { Matrices::identity(self.out) } else { Matrices::at(self.at, self.out, taps) };
            let place = |column: usize| phase + column * self.stride;
            for (i, row) in one.input_transform.iter().enumerate() {
                row.iter().enumerate().for_each(|(x, v)| all.input_transform[first + i][place(x)] = *v);
                one.weights[i].iter().enumerate().for_each(|(x, v)| all.weights[first + i][place(x)] = *v);
                one.output_transform.iter().enumerate().for_each(|(y, row)| all.output_transform[y][first + i] = row[i]);
            }
            first += one.input_transform.len();
        }
        assert_eq!(first, n, "points of {self:?}");
        all
    }
}

impl Matrices {
    /// Those of one weight.
    fn identity(n: usize) -> Matrices {
        let unit: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
        Matrices { input_transform: unit.clone(), weights: vec![vec![1.0]; n], output_transform: unit }
    }

    /// Those of polynomials evaluated at some numbers and infinity (Cook and Toom).
    fn at(at: &[f64], out: usize, taps: usize) -> Matrices {
        let n = out + taps - 1;
        let powers = |p: f64, count: usize| (0..count).map(move |k| p.powi(k as i32));
        // Coefficients of the product of (x − q) for all numbers but one.
        let product = |but: usize| {
            let mut poly = vec![1.0];
            for (_, q) in at.iter().enumerate().filter(|(j, _)| *j != but) {
                let times_x = [0.0].into_iter().chain(poly.iter().copied());
                poly = times_x.zip(poly.iter().copied().chain([0.0])).map(|(a, c): (f64, f64)| a - q * c).collect();
            }
            poly.resize(n, 0.0);
            poly
        };
        let scale = |i: usize| (0..at.len()).filter(|&j| j != i).map(|j| at[i] - at[j]).product::<f64>();
        let last = |len: usize| (0..len).map(|k| f64::from(u8::from(k + 1 == len))).collect::<Vec<f64>>();
        Matrices {
            input_transform: (0..n).map(product).collect(),
            weights: (0..at.len()).map(|i| powers(at[i], taps).map(|v| v / scale(i)).collect()).chain([last(taps)]).collect(),
            output_transform: (0..out).map(|k| at.iter().map(|p| p.powi(k as i32)).chain([last(out)[k]]).collect()).collect(),
        }
    }
}

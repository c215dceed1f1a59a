//! The symbolic dimensions of a model's inputs, and the values that a user gives for them.

use crate::{Error, Options};
use dnnc_emit::variants::{self, OpenDim, open_dims};
use dnnc_frontend::{Dim, Port};
use std::collections::BTreeMap;

/// Shapes of the inputs of a model: for one value of each dimension, or for every combination of several values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputShapes {
    /// The dimensions that have several values, in the order of the inputs. None: there is one combination.
    pub open: Vec<OpenDim>,
    /// For each combination ([`variants::sizes`]) the shapes of the inputs.
    pub shapes: Vec<Vec<Vec<usize>>>,
    /// Dimensions that had no value and were set to 1.
    pub assumed: Vec<String>,
}

impl InputShapes {
    /// The dimensions that have several values, with their values in a combination.
    pub fn dims(&self, variant: usize) -> BTreeMap<&str, usize> {
        self.open.iter().map(|d| d.name.as_str()).zip(variants::sizes(&self.open, variant)).collect()
    }

    /// The dimensions of a combination, as `batch=1 seq=16`; empty when there is only one combination.
    pub fn label(&self, variant: usize) -> String {
        let sizes = variants::sizes(&self.open, variant);
        self.open.iter().zip(sizes).map(|(d, size)| format!("{}={size}", d.name)).collect::<Vec<_>>().join(" ")
    }
}

/// Type and dimensions of an input or result: `f32[batch,3,224,224]`.
pub fn describe(port: &Port) -> String {
    let ty = port.ty.map_or("?", |t| t.name());
    match &port.dims {
        None => format!("{ty}[…]"),
        Some(dims) => format!("{ty}[{}]", dims.iter().map(|d| d.to_string()).collect::<Vec<_>>().join(",")),
    }
}

/// The shapes for every combination of the values given by symbol (or `input:axis`). The leading dimension of an input (the batch) is 1 when it is not
/// given.
pub fn combinations(ports: &[Port], dims: &BTreeMap<String, Vec<usize>>, options: &Options) -> Result<InputShapes, Error> {
    if let Some((name, _)) = dims.iter().find(|(_, sizes)| sizes.is_empty()) {
        return Err(Error::Usage(format!("--dim {name}: no value is given")));
    }
    let mut one: BTreeMap<String, usize> = dims.iter().map(|(name, sizes)| (name.clone(), sizes[0])).collect();
    // This also checks the names.
    let (shapes, assumed) = bind(ports, &one)?;
    let several = |name: String| dims.get(&name).filter(|s| s.len() > 1).map(|s| (name.clone(), s.clone()));
    let mut names: Vec<String> = vec![];
    for name in ports.iter().flat_map(names_of).flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let open: Vec<OpenDim> = open_dims(names.into_iter().filter_map(several)).into_iter().filter(|d| d.sizes.len() > 1).collect();
    if open.is_empty() {
        return Ok(InputShapes { open, shapes: vec![shapes], assumed });
    }
    let count = variants::count(&open).filter(|&n| n <= options.max_variants);
    let Some(count) = count else {
        let product: Vec<String> = open.iter().map(|d| d.sizes.len().to_string()).collect();
        return Err(Error::Usage(format!(
            "--dim gives {} combinations of dimensions, each of which is compiled; the limit is {} (--max-variants)",
            product.join(" x "),
            options.max_variants
        )));
    };
    let mut all = vec![];
    for variant in 0..count {
        for (dim, size) in open.iter().zip(variants::sizes(&open, variant)) {
            one.insert(dim.name.clone(), size);
        }
        all.push(bind(ports, &one)?.0);
    }
    Ok(InputShapes { open, shapes: all, assumed })
}

/// The names of each dimension of an input: its symbol, and its position `input:axis`; none where it is fixed.
fn names_of(port: &Port) -> Vec<Vec<String>> {
    let dims = port.dims.iter().flatten().enumerate();
    dims.map(|(axis, dim)| {
        let position = format!("{}:{axis}", port.name);
        match dim {
            Dim::Known(_) => vec![],
            Dim::Symbol(s) => vec![s.clone(), position],
            Dim::Unknown => vec![position],
        }
    })
    .collect()
}

/// The shapes of a model's inputs with the values of `dims` by symbol (or `input:axis`), and 1 for a leading symbol without a value (the batch). Returns
/// the names of the symbols that were set to 1, too; any other symbol without a value is an error that lists all that are missing.
pub fn bind(ports: &[Port], dims: &BTreeMap<String, usize>) -> Result<(Vec<Vec<usize>>, Vec<String>), Error> {
    if let Some(port) = ports.iter().find(|p| p.dims.is_none()) {
        let reason = format!("the model does not say how many axes input `{}` has; give it a tensor (`dnnc run`)", port.name);
        return Err(Error::Usage(reason));
    }
    // A value given at one position holds wherever the symbol occurs.
    let (mut found, mut leading): (BTreeMap<String, (&String, usize)>, Vec<String>) = Default::default();
    let mut used: Vec<&String> = vec![];
    for (axis, names) in ports.iter().flat_map(|p| names_of(p).into_iter().enumerate()) {
        for (name, &size) in names.iter().filter_map(|n| dims.get_key_value(n)) {
            used.push(name);
            let (first, other) = *found.entry(names[0].clone()).or_insert((name, size));
            if other != size {
                return Err(Error::Usage(format!("--dim {first}={other} and --dim {name}={size} name the same dimension")));
            }
        }
        if let (0, Some(name)) = (axis, names.first()) {
            leading.push(name.clone());
        }
    }
    if let Some(name) = dims.keys().find(|n| !used.contains(n)) {
        return Err(Error::Usage(unknown(ports, name)));
    }
    let (mut assumed, mut missing): (Vec<String>, Vec<String>) = (vec![], vec![]);
    let mut size = |dim: &Dim, names: &[String]| -> usize {
        if let Dim::Known(n) = dim {
            return *n;
        }
        let name = &names[0];
        if let Some(&(_, size)) = found.get(name) {
            return size;
        }
        let list = if leading.contains(name) { &mut assumed } else { &mut missing };
        if !list.contains(name) {
            list.push(name.clone());
        }
        1
    };
    let shape = |p: &Port| p.dims.iter().flatten().zip(names_of(p)).map(|(dim, names)| size(dim, &names)).collect();
    let shapes: Vec<Vec<usize>> = ports.iter().map(shape).collect();
    if missing.is_empty() {
        return Ok((shapes, assumed));
    }
    let given = dims.iter().map(|(name, size)| format!("{name}={size}"));
    let example = given.chain(missing.iter().map(|m| format!("{m}={EXAMPLE}"))).map(|d| format!("--dim {}", quoted(&d)));
    Err(Error::Usage(format!(
        "no value is given for dimension {}; for example: {}",
        missing.join(", "),
        example.collect::<Vec<_>>().join(" ")
    )))
}

/// A value that most networks take, for images as for sequences: a multiple of every stride.
const EXAMPLE: usize = 128;

/// An argument, quoted for a shell.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:=/,".contains(c);
    if argument.chars().all(plain) { argument.to_string() } else { format!("'{}'", argument.replace('\'', "'\\''")) }
}

/// The message for a dimension `name` that does not exist or is fixed.
fn unknown(ports: &[Port], name: &str) -> String {
    let fixed = ports.iter().find_map(|p| {
        let axis: usize = name.strip_prefix(p.name.as_str())?.strip_prefix(':')?.parse().ok()?;
        Some((p, axis, p.dims.as_ref()?.get(axis)))
    });
    match fixed {
        Some((_, _, Some(Dim::Known(n)))) => return format!("--dim {name}: the model fixes this dimension to {n}"),
        Some((p, axis, None)) => return format!("--dim {name}: input `{}` ({}) has no axis {axis}", p.name, describe(p)),
        _ => {}
    }
    let list: Vec<String> = ports.iter().map(|p| format!("`{}` ({})", p.name, describe(p))).collect();
    let mut open: Vec<String> = ports.iter().flat_map(names_of).filter_map(|n| n.into_iter().next()).collect();
    open.sort();
    open.dedup();
    let there =
        if open.is_empty() { "all dimensions are fixed".to_string() } else { format!("those that can be given are {}", open.join(", ")) };
    format!("--dim {name}: no such dimension; {there}; the inputs are {}", list.join(", "))
}

/// Values of a dimension from text: `4`, `1,4` or `1..8` (8 included), and several of these.
pub fn parse_dim_values(text: &str) -> Result<Vec<usize>, String> {
    /// Values that a range may have: more than any limit on variants allows.
    const MOST: usize = 1 << 16;
    let number = |text: &str| -> Result<usize, String> {
        text.trim().parse().map_err(|e: std::num::ParseIntError| match e.kind() {
            std::num::IntErrorKind::PosOverflow => format!("`{text}` is too large for a dimension"),
            _ => format!("`{text}` is not a dimension"),
        })
    };
    let mut sizes = vec![];
    for part in text.split(',') {
        match part.split_once("..") {
            None => sizes.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return Err(format!("`{part}` is empty: write the smaller value first"));
                }
                if last - first >= MOST {
                    return Err(format!("`{part}` has more than {MOST} values"));
                }
                sizes.extend(first..=last);
            }
        }
    }
    sizes.sort_unstable();
    sizes.dedup();
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnnc_ir::Type;

    fn port(name: &str, dims: &[&str]) -> Port {
        let dim = |d: &&str| match d.parse() {
            Ok(n) => Dim::Known(n),
            Err(_) if *d == "?" => Dim::Unknown,
            Err(_) => Dim::Symbol(d.to_string()),
        };
        Port { name: name.into(), ty: Some(Type::F32), dims: Some(dims.iter().map(dim).collect()) }
    }

    fn ports() -> [Port; 2] {
        [port("ids", &["batch", "seq"]), port("image", &["batch", "3", "?"])]
    }

    fn combined(dims: &[(&str, &str)]) -> Result<InputShapes, String> {
        let dims = dims.iter().map(|(n, s)| Ok((n.to_string(), parse_dim_values(s)?))).collect::<Result<_, String>>()?;
        combinations(&ports(), &dims, &Options { max_variants: 16, ..Options::default() }).map_err(|e| e.to_string())
    }

    #[test]
    fn values_are_lists_and_ranges() {
        assert_eq!(parse_dim_values("4"), Ok(vec![4]));
        assert_eq!(parse_dim_values("16, 4,4,1..3"), Ok(vec![1, 2, 3, 4, 16]));
        assert_eq!(parse_dim_values("0..1"), Ok(vec![0, 1]));
        for (text, why) in [
            ("", "`` is not a dimension"),
            ("-1", "`-1` is not a dimension"),
            ("1,x", "`x` is not a dimension"),
            ("99999999999999999999", "`99999999999999999999` is too large for a dimension"),
            ("8..1", "`8..1` is empty: write the smaller value first"),
            ("0..99999999999", "`0..99999999999` has more than 65536 values"),
        ] {
            assert_eq!(parse_dim_values(text), Err(why.to_string()));
        }
    }

    #[test]
    fn combinations_are_in_the_order_of_the_inputs() {
        let all = combined(&[("seq", "16,32"), ("image:2", "7"), ("batch", "1,4")]).expect("they are bound");
        assert_eq!(all.open.iter().map(|d| d.field.as_str()).collect::<Vec<_>>(), ["batch", "seq"]);
        assert_eq!(all.shapes.len(), 4);
        assert_eq!(all.shapes[1], [vec![1, 32], vec![1, 3, 7]]);
        assert_eq!(all.label(2), "batch=4 seq=16");
        let one = combined(&[("seq", "16"), ("image:2", "7")]).expect("they are bound");
        assert_eq!((one.open.len(), one.shapes.len(), one.assumed), (0, 1, vec!["batch".to_string()]));
        assert_eq!(one.shapes[0], [vec![1, 16], vec![1, 3, 7]]);
    }

    #[test]
    fn errors_say_what_to_give() {
        let cases: [(&[(&str, &str)], &str); 7] = [
            (&[], "no value is given for dimension seq, image:2; for example: --dim seq=128 --dim image:2=128"),
            (&[("batch", "4")], "no value is given for dimension seq, image:2; for example: --dim batch=4 --dim seq=128 --dim image:2=128"),
            (
                &[("bath", "4"), ("seq", "1"), ("image:2", "1")],
                "--dim bath: no such dimension; those that can be given are batch, image:2, seq; the inputs are `ids` (f32[batch,seq]), \
                 `image` (f32[batch,3,?])",
            ),
            (&[("image:1", "4"), ("seq", "1"), ("image:2", "1")], "--dim image:1: the model fixes this dimension to 3"),
            (&[("image:3", "4"), ("seq", "1"), ("image:2", "1")], "--dim image:3: input `image` (f32[batch,3,?]) has no axis 3"),
            (
                &[("seq", "1..6"), ("batch", "1..3"), ("image:2", "1")],
                "--dim gives 3 x 6 combinations of dimensions, each of which is compiled; the limit is 16 (--max-variants)",
            ),
            (&[("seq", "5"), ("ids:1", "4"), ("image:2", "1")], "--dim seq=5 and --dim ids:1=4 name the same dimension"),
        ];
        for (dims, why) in cases {
            assert_eq!(combined(dims), Err(why.to_string()));
        }
    }
}

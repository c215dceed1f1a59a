//! What the ONNX standard says of each operator: number and types of inputs and outputs, attributes. Read from `schemas.txt`, whose format is
//! described in `schemas.py`, which writes it.

use crate::node::Attribute;
use dnnc_ir::Type;
use std::collections::HashMap;
use std::sync::LazyLock;

/// One version of an operator.
#[derive(Debug)]
pub(crate) struct Schema {
    /// Opset version that brought it.
    pub since: i64,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Name, kind, whether it must be given.
    attributes: Vec<(&'static str, char, bool)>,
    /// Type variables, and a letter for each element type they may stand for.
    variables: Vec<(&'static str, &'static str)>,
}

#[derive(Debug)]
struct Port {
    /// Type variable; empty for fixed types.
    variable: &'static str,
    /// One letter per element type.
    types: &'static str,
    optional: bool,
    /// For a variadic port, how many there are at least.
    many: Option<usize>,
    /// Whether the values of a variadic port may differ in type.
    mixed: bool,
}

/// Versions by domain and name, a blank between them.
static SCHEMAS: LazyLock<HashMap<&str, Vec<Schema>>> = LazyLock::new(|| {
    let mut all: HashMap<&str, Vec<Schema>> = HashMap::new();
    for line in include_str!("schemas.txt").lines() {
        let fields: Vec<&str> = line.split(';').collect();
        let [head, inputs, outputs, attributes, variables] = fields[..] else { unreachable!("five fields a line") };
        let (name, since) = head.rsplit_once(' ').expect("a version");
        let listed: Vec<(&str, &str)> = variables.split_whitespace().filter_map(|v| v.split_once('=')).collect();
        let variables: HashMap<&str, &str> = listed.iter().copied().collect();
        let ports = |text: &'static str| text.split_whitespace().map(|p| Port::parse(p, &variables)).collect();
        let attribute = |text: &'static str| {
            let (name, kind) = text.split_once(':').expect("name and kind");
            (name, kind.chars().next().expect("a kind"), kind.ends_with('!'))
        };
        let schema = Schema {
            since: since.parse().expect("a version"),
            inputs: ports(inputs),
            outputs: ports(outputs),
            attributes: attributes.split_whitespace().map(attribute).collect(),
            variables: listed,
        };
        all.entry(name).or_default().push(schema);
    }
    all
});

impl Port {
    fn parse(text: &'static str, variables: &HashMap<&'static str, &'static str>) -> Port {
        let end = text.find(['?', '*']).unwrap_or(text.len());
        let (name, option) = text.split_at(end);
        let mixed = option.ends_with('~');
        let many = option.strip_prefix('*').map(|n| n.trim_end_matches('~').parse().expect("a number"));
        let (variable, types) = match name.strip_prefix('=') {
            Some(types) => ("", types),
            None => (name, variables.get(name).copied().unwrap_or("")),
        };
        Port { variable, types, optional: option == "?", many, mixed }
    }
}

/// What the standard knows of an operator's name.
pub(crate) enum Known {
    /// The version in force at the opset version asked for.
    Version(&'static Schema),
    /// The operator came with a later opset version.
    Later(i64),
    /// There is no such operator.
    No,
    /// The domain is not part of the standard.
    Foreign,
}

/// Looks an operator up.
pub(crate) fn find(domain: &str, name: &str, opset: i64) -> Known {
    let domain = match domain {
        "" => "ai.onnx",
        "ai.onnx.ml" => domain,
        _ => return Known::Foreign,
    };
    let Some(versions) = SCHEMAS.get(format!("{domain} {name}").as_str()) else { return Known::No };
    match versions.iter().rev().find(|s| s.since <= opset) {
        Some(schema) => Known::Version(schema),
        None => Known::Later(versions[0].since),
    }
}

/// The name of an operator of ONNX's own domain, if there is one of that name.
#[cfg(any(test, feature = "dev"))]
pub(crate) fn name_of(name: &str) -> Option<&'static str> {
    SCHEMAS.get_key_value(format!("ai.onnx {name}").as_str())?.0.strip_prefix("ai.onnx ")
}

/// All versions of an operator, oldest first.
pub(crate) fn versions(domain: &str, name: &str) -> impl Iterator<Item = &'static Schema> {
    let domain = if domain.is_empty() { "ai.onnx" } else { domain };
    SCHEMAS.get(format!("{domain} {name}").as_str()).into_iter().flatten()
}

impl Schema {
    /// Element types by type variable, as far as they are numbers; without variables, those of the first input.
    pub fn types(&self) -> Vec<(&'static str, Vec<Type>)> {
        let numbers = |letters: &str| Type::ALL.iter().copied().filter(|t| letters.contains(letter(*t))).collect::<Vec<_>>();
        if self.variables.is_empty() {
            return self.inputs.first().map(|port| ("input", numbers(port.types))).into_iter().collect();
        }
        self.variables.iter().map(|(name, letters)| (*name, numbers(letters))).filter(|(_, types)| !types.is_empty()).collect()
    }

    /// What is wrong with the numbers of inputs and outputs and with the attributes, each as a sentence.
    ///
    /// For each input and output it is said whether it has a name.
    pub fn check_node<'a>(
        &self,
        inputs: &[bool],
        outputs: &[bool],
        attributes: impl Iterator<Item = (&'a str, &'a Attribute)> + Clone,
    ) -> Vec<String> {
        let mut wrong = vec![];
        for (what, ports, names) in [("input", &self.inputs, inputs), ("output", &self.outputs, outputs)] {
            let n = names.len();
            let last = ports.iter().rposition(|p| !p.optional && p.many != Some(0)).map_or(0, |i| i + 1);
            let least = if what == "output" { 0 } else { last.max(ports.last().and_then(|p| p.many).map_or(0, |m| ports.len() - 1 + m)) };
            let most = if ports.last().is_some_and(|p| p.many.is_some()) { usize::MAX } else { ports.len() };
            if n < least || n > most {
                let s = if n == 1 { "" } else { "s" };
                let range = match (least, most) {
                    (a, b) if a == b => format!("{a}"),
                    (a, usize::MAX) => format!("at least {a}"),
                    (a, b) => format!("{a} to {b}"),
                };
                wrong.push(format!("{n} {what}{s}; it takes {range}"));
            }
            let nameless = names.iter().zip(ports).position(|(named, port)| !named && !port.optional && port.many.is_none());
            if let Some(i) = nameless {
                wrong.push(format!("{what} {i} is missing"));
            }
        }
        for (name, value) in attributes.clone() {
            match self.attributes.iter().find(|a| a.0 == name) {
                None => wrong.push(format!("unknown attribute `{name}`")),
                Some((_, kind, _)) if !fits(*kind, value) => {
                    wrong.push(format!("attribute `{name}` is {}, which is the wrong type", value.kind()))
                }
                _ => {}
            }
        }
        for (name, _, _) in self.attributes.iter().filter(|a| a.2) {
            if !attributes.clone().any(|(given, _)| given == *name) {
                wrong.push(format!("attribute `{name}` is missing"));
            }
        }
        wrong
    }

    /// Whether inputs of these types are allowed: each in its set, those of one type variable the same.
    pub fn check_types(&self, inputs: &[Option<Type>]) -> Result<(), String> {
        let mut seen: HashMap<&str, (usize, Type)> = HashMap::new();
        for (i, ty) in inputs.iter().enumerate().filter_map(|(i, t)| Some((i, (*t)?))) {
            let Some(port) = self.inputs.get(i).or(self.inputs.last()) else { continue };
            if !port.types.contains(letter(ty)) {
                let allowed: Vec<&str> = Type::ALL.iter().filter(|t| port.types.contains(letter(**t))).map(|t| t.name()).collect();
                return Err(format!("input {i} has element type {ty}; its type may be {}", allowed.join(", ")));
            }
            if port.variable.is_empty() || port.mixed {
                continue;
            }
            let (first, other) = *seen.entry(port.variable).or_insert((i, ty));
            if other != ty {
                return Err(format!("inputs {first} and {i} have different element types, {other} and {ty}"));
            }
        }
        Ok(())
    }
}

fn fits(kind: char, value: &Attribute) -> bool {
    match value {
        Attribute::Int(_) => kind == 'i',
        Attribute::Float(_) => kind == 'f',
        Attribute::Text(_) => kind == 's',
        Attribute::Tensor(_) => matches!(kind, 't' | 'p'),
        // A list without elements and without its type is any list.
        Attribute::Ints(v) => kind == 'I' || (v.is_empty() && matches!(kind, 'F' | 'S')),
        Attribute::Floats(_) => kind == 'F',
        Attribute::Texts(_) => kind == 'S',
        Attribute::Other(_) => !matches!(kind, 'i' | 'f' | 's' | 'I' | 'F' | 'S'),
    }
}

fn letter(ty: Type) -> char {
    use Type::*;
    match ty {
        Bool => 'b',
        I2 => '1',
        I4 => '2',
        I8 => '3',
        I16 => '4',
        I32 => '5',
        I64 => '6',
        U2 => '7',
        U4 => '8',
        U8 => '9',
        U16 => 't',
        U32 => 'u',
        U64 => 'v',
        F16 => 'h',
        BF16 => 'g',
        F32 => 'f',
        F64 => 'd',
        F8E4M3FN => 'A',
        F8E4M3FNUZ => 'B',
        F8E5M2 => 'C',
        F8E5M2FNUZ => 'D',
        F8E8M0 => 'E',
        F4E2M1 => 'F',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(name: &str, opset: i64) -> &'static Schema {
        match find("", name, opset) {
            Known::Version(schema) => schema,
            _ => panic!("{name} is an operator of ONNX"),
        }
    }

    #[test]
    fn every_line_is_read() {
        assert_eq!(SCHEMAS.values().map(Vec::len).sum::<usize>(), include_str!("schemas.txt").lines().count());
        assert!(SCHEMAS.values().flatten().flat_map(|s| s.inputs.iter().chain(&s.outputs)).all(|p| !p.types.is_empty()));
    }

    #[test]
    fn versions_and_names_are_told_apart() {
        assert!(matches!(find("", "HardSwish", 13), Known::Later(14)));
        assert!(matches!(find("", "Mystery", 13), Known::No));
        assert!(matches!(find("com.microsoft", "Gelu", 1), Known::Foreign));
    }

    #[test]
    fn numbers_of_inputs_and_attributes_are_checked() {
        let check = |name, inputs, outputs, attrs: &[(&'static str, Attribute)]| {
            schema(name, 17).check_node(&vec![true; inputs], &vec![true; outputs], attrs.iter().map(|(n, a)| (*n, a))).join("; ")
        };
        assert_eq!(check("Add", 2, 1, &[]), "");
        assert_eq!(check("Add", 1, 1, &[]), "1 input; it takes 2");
        assert_eq!(check("Clip", 1, 1, &[]), "");
        assert_eq!(check("Concat", 5, 1, &[("axis", Attribute::Int(0))]), "");
        assert_eq!(check("Concat", 0, 1, &[]), "0 inputs; it takes at least 1; attribute `axis` is missing");
        assert_eq!(check("Relu", 1, 2, &[("foo", Attribute::Int(0))]), "2 outputs; it takes 0 to 1; unknown attribute `foo`");
        assert_eq!(check("Softmax", 1, 1, &[("axis", Attribute::Float(0.0))]), "attribute `axis` is a number, which is the wrong type");
    }

    #[test]
    fn element_types_are_checked() {
        let check = |name, types: &[Type]| schema(name, 17).check_types(&types.iter().map(|t| Some(*t)).collect::<Vec<_>>());
        assert_eq!(check("Mul", &[Type::F32, Type::F32]), Ok(()));
        assert_eq!(check("Mul", &[Type::F32, Type::I64]), Err("inputs 0 and 1 have different element types, f32 and i64".into()));
        assert_eq!(check("Pow", &[Type::F32, Type::I64]), Ok(()));
        assert!(check("Sigmoid", &[Type::I64]).unwrap_err().starts_with("input 0 has element type i64; its type may be f16, bf16, f32"));
    }
}

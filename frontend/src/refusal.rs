//! Reasons why a model cannot be compiled, all at once, each with the node or tensor that it concerns.

use std::fmt;

/// The kind of a [`Refusal`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalKind {
    /// Legal, but dnnc cannot compile it.
    Unsupported,
    /// Breaks the rules of ONNX.
    Invalid,
    /// Beyond one of the [`Limits`](crate::limits::Limits).
    TooLarge,
}

/// One reason why a model cannot be compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Which kind of reason.
    pub kind: RefusalKind,
    /// What it concerns: `node`, `tensor`, `input`, `output`, `function` or `model`.
    pub what: &'static str,
    /// Its name; may be empty.
    pub name: String,
    /// Operator type of a node, else empty.
    pub op: String,
    /// Opset version of a node's operator, else 0.
    pub opset: i64,
    /// What is wrong, as a sentence without a full stop.
    pub reason: String,
    /// What would help; may be empty.
    pub help: String,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, what: &'static str, name: &str, reason: impl Into<String>) -> Refusal {
        Refusal { kind, what, name: name.into(), op: String::new(), opset: 0, reason: reason.into(), help: String::new() }
    }

    fn culprit(&self) -> String {
        match (self.op.is_empty(), self.name.is_empty()) {
            (true, true) => self.what.to_string(),
            (true, false) => format!("{} \"{}\"", self.what, clip(&self.name)),
            (false, _) => format!("{} (opset {})  {} \"{}\"", clip(&self.op), self.opset, self.what, clip(&self.name)),
        }
    }
}

/// Every reason why a model cannot be compiled, in the order of the model; at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusals {
    /// The model as the user named it: mostly a file name.
    pub model: String,
    /// The reasons.
    pub list: Vec<Refusal>,
}

/// Reasons printed; a broken file may have very many.
const SHOWN: usize = 40;

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.list.len();
        let model = clip(&self.model);
        if self.list.iter().all(|r| r.kind == RefusalKind::Unsupported && !r.op.is_empty()) {
            writeln!(f, "{n} operator{} of {model} cannot be compiled", if n == 1 { "" } else { "s" })?;
        } else {
            writeln!(f, "{model} cannot be compiled for {n} reason{}", if n == 1 { "" } else { "s" })?;
        }
        let shown = &self.list[..n.min(SHOWN)];
        let culprits: Vec<String> = shown.iter().map(Refusal::culprit).collect();
        let width = culprits.iter().map(|c| c.chars().count()).max().unwrap_or(0).min(64);
        for (i, (r, culprit)) in shown.iter().zip(&culprits).enumerate() {
            let branch = if i + 1 == n { "└─" } else { "├─" };
            write!(f, "  {branch} {culprit:width$}  {}", clip(&r.reason))?;
            if i + 1 < n {
                writeln!(f)?;
            }
        }
        if n > SHOWN {
            write!(f, "  └─ and {} more", n - SHOWN)?;
        }
        let mut helps: Vec<&str> = shown.iter().map(|r| r.help.as_str()).filter(|h| !h.is_empty()).collect();
        helps.dedup();
        helps.iter().try_for_each(|h| write!(f, "\nhelp: {}", clip(h)))
    }
}

impl std::error::Error for Refusals {}

/// Text of a file made safe for a terminal: no control characters, a bounded length.
fn clip(text: &str) -> String {
    const LONGEST: usize = 400;
    let clean: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() { clean + "…" } else { clean }
}

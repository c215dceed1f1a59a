//! Imports between the files of a crate: which file uses items of which other file, and the cycles among them.
//!
//! Source is scanned as text without comments, literals and `#[cfg(test)]` items. An import is a `use` of an item, or a path like `crate::a::item`,
//! `super::item` or `module::item`. A `mod` declaration is none, and neither is the `use` of a module itself: what counts is what is used through it. A path is
//! followed through `pub use` to the file that defines the item.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

/// The path of a module from the root of its crate.
type Module = Vec<String>;

/// For each file the files that it imports from, with the names of the items.
pub type Imports = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

struct Source {
    /// Path from the root of the crate's `src`.
    file: String,
    module: Module,
    tokens: Vec<String>,
    /// Modules that it declares.
    children: BTreeSet<String>,
    /// What `use` brings into scope: name, path, and whether it is visible outside.
    uses: Vec<Use>,
}

#[derive(Clone)]
struct Use {
    /// `*` for all items of the path.
    name: String,
    path: Vec<String>,
    public: bool,
}

/// The imports between the files of the crate in `src`.
pub fn imports(src: &Path) -> Imports {
    let mut sources: BTreeMap<Module, Source> = BTreeMap::new();
    for root in ["lib.rs", "main.rs"] {
        if src.join(root).exists() {
            // The modules of a program begin at another root than those of the library beside it.
            let module = if root == "main.rs" { vec!["main".to_string()] } else { vec![] };
            read(src, Path::new(root), module, &mut sources);
        }
    }
    let mut imports = Imports::new();
    for source in sources.values() {
        let mut from: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for path in source.paths() {
            if let Some((file, item)) = resolve(&sources, &source.module, &path, 0).filter(|(file, _)| *file != source.file) {
                from.entry(file).or_default().insert(item);
            }
        }
        imports.insert(source.file.clone(), from);
    }
    imports
}

/// Reads a file and the files of the modules that it declares.
fn read(src: &Path, file: &Path, module: Module, sources: &mut BTreeMap<Module, Source>) {
    let text = std::fs::read_to_string(src.join(file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let tokens = without_tests(tokens(&text));
    let (children, uses) = (declared(&tokens), uses(&tokens));
    let stem = file.file_stem().expect("a file of Rust").to_string_lossy().into_owned();
    let own = ["lib", "main", "mod"].contains(&stem.as_str());
    let folder = if own { file.with_file_name("") } else { file.with_extension("") };
    for child in &children {
        let path = [folder.join(format!("{child}.rs")), folder.join(child).join("mod.rs")].into_iter().find(|p| src.join(p).exists());
        if let Some(path) = path {
            read(src, &path, [&module[..], std::slice::from_ref(child)].concat(), sources);
        }
    }
    sources.insert(module.clone(), Source { file: file.display().to_string(), module, tokens, children, uses });
}

impl Source {
    /// All paths that may name an item of another file, absolute or relative to this module.
    fn paths(&self) -> Vec<Vec<String>> {
        let mut paths: Vec<Vec<String>> =
            self.uses.iter().map(|u| if u.name == "*" { [&u.path[..], &["*".to_string()]].concat() } else { u.path.clone() }).collect();
        let in_scope: BTreeMap<&str, &Vec<String>> = self.uses.iter().map(|u| (u.name.as_str(), &u.path)).collect();
        let mut i = 0;
        while i < self.tokens.len() {
            if self.tokens[i] == "use" {
                i += self.tokens[i..].iter().take_while(|t| *t != ";").count();
                continue;
            }
            let starts = i == 0 || self.tokens[i - 1] != "::";
            if !starts || self.tokens.get(i + 1).is_none_or(|t| t != "::") {
                i += 1;
                continue;
            }
            let mut path = vec![self.tokens[i].clone()];
            while self.tokens.get(i + 1).is_some_and(|t| t == "::") && self.tokens.get(i + 2).is_some_and(|t| is_name(t)) {
                path.push(self.tokens[i + 2].clone());
                i += 2;
            }
            if let Some(used) = in_scope.get(path[0].as_str()) {
                path.splice(0..1, used.iter().cloned());
            } else if self.children.contains(&path[0]) {
                path.insert(0, "self".into());
            }
            paths.push(path);
            i += 1;
        }
        paths
    }
}

/// The file that defines the item of a path, and its name; nothing for modules, and for items of other crates.
fn resolve(sources: &BTreeMap<Module, Source>, from: &Module, path: &[String], depth: usize) -> Option<(String, String)> {
    let main = from.first().is_some_and(|m| m == "main");
    let (mut at, mut rest): (Module, &[String]) = match path.first()?.as_str() {
        "crate" => (if main { vec!["main".into()] } else { vec![] }, &path[1..]),
        "self" => (from.clone(), &path[1..]),
        "super" => (from[..from.len().checked_sub(1)?].to_vec(), &path[1..]),
        // A relative path begins with a child module, or it names another crate.
        first if sources.get(from)?.children.contains(first) => (from.clone(), path),
        _ => return None,
    };
    while rest.first().is_some_and(|r| r == "super") {
        at.pop()?;
        rest = &rest[1..];
    }
    while let Some(name) = rest.first() {
        let child = [&at[..], std::slice::from_ref(name)].concat();
        if !sources.contains_key(&child) {
            break;
        }
        at = child;
        rest = &rest[1..];
    }
    let name = rest.first()?;
    let source = sources.get(&at)?;
    if depth < 8 {
        // An item of another crate resolves to nothing.
        if let Some(u) = source.uses.iter().find(|u| u.name == *name) {
            return resolve(sources, &at, &[&u.path[..], &rest[1..]].concat(), depth + 1);
        }
        let globs = source.uses.iter().filter(|u| u.name == "*" && u.public);
        for glob in globs {
            let below = [&glob.path[..], rest].concat();
            if let Some((file, item)) = resolve(sources, &at, &below, depth + 1)
                && sources.values().any(|s| s.file == file && s.defines(&item))
            {
                return Some((file, item));
            }
        }
    }
    Some((source.file.clone(), name.clone()))
}

impl Source {
    /// Whether an item is defined here.
    fn defines(&self, item: &str) -> bool {
        let kinds = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod", "union", "macro_rules"];
        self.tokens.windows(2).any(|w| w[1] == item && kinds.contains(&w[0].as_str()))
            || self.tokens.windows(3).any(|w| w[2] == item && w[0] == "macro_rules")
    }
}

/// Names, `::` and single characters; without comments, literals and lifetimes.
fn tokens(text: &str) -> Vec<String> {
    let mut out: Vec<String> = vec![];
    let chars: Vec<char> = text.chars().collect();
    let mut i = 0;
    while i < chars.len() {
        let (c, next) = (chars[i], chars.get(i + 1).copied().unwrap_or(' '));
        match c {
            '/' if next == '/' => i += chars[i..].iter().take_while(|c| **c != '\n').count(),
            '/' if next == '*' => {
                let mut depth = 0;
                loop {
                    match (chars.get(i), chars.get(i + 1)) {
                        (Some('/'), Some('*')) => (depth, i) = (depth + 1, i + 2),
                        (Some('*'), Some('/')) => (depth, i) = (depth - 1, i + 2),
                        (None, _) => break,
                        _ => i += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            '"' => i = end_of_string(&chars, i),
            'r' | 'b' | 'c' if starts_raw_string(&chars, i) => {
                let start = i + chars[i..].iter().take_while(|c| c.is_alphabetic()).count();
                let hashes = chars[start..].iter().take_while(|c| **c == '#').count();
                let close: String = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                i = start + hashes + 1;
                while i < chars.len() && !chars[i..].iter().take(hashes + 1).copied().eq(close.chars()) {
                    i += 1;
                }
                i += hashes + 1;
            }
            '\'' => {
                // A character, or a lifetime.
                if next == '\\' {
                    i += 3 + chars[i + 3..].iter().take_while(|c| **c != '\'').count() + 1;
                } else if chars.get(i + 2) == Some(&'\'') {
                    i += 3;
                } else {
                    i += 1 + chars[i + 1..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
                }
            }
            ':' if next == ':' => {
                out.push("::".into());
                i += 2;
            }
            c if c.is_alphanumeric() || c == '_' => {
                let name: String = chars[i..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
                i += name.chars().count();
                // The prefix of a literal, as of b"…", is dropped with it.
                out.push(name);
            }
            c => {
                if !c.is_whitespace() {
                    out.push(c.into());
                }
                i += 1;
            }
        }
    }
    out
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn starts_raw_string(chars: &[char], i: usize) -> bool {
    if i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_') {
        return false;
    }
    let prefix: String = chars[i..].iter().take_while(|c| c.is_alphabetic()).take(3).collect();
    let rest = &chars[i + prefix.len()..];
    ["r", "br", "cr"].contains(&prefix.as_str()) && rest.iter().find(|c| **c != '#') == Some(&'"')
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Leaves out items under `#[cfg(test)]` and `#[cfg(all(test, …))]`.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let begins = |at: usize, with: &[&str]| tokens[at..].iter().map(String::as_str).take(with.len()).eq(with.iter().copied());
    let mut out: Vec<String> = vec![];
    let mut i = 0;
    while i < tokens.len() {
        let of_tests = ["all", "test"].map(|first| begins(i, &["#", "[", "cfg", "(", first, if first == "all" { "(" } else { ")" }]));
        let attribute = 1 + tokens[i..].iter().take_while(|t| *t != "]").count();
        if !(of_tests[1] || of_tests[0] && tokens.get(i + 6).is_some_and(|t| t == "test")) {
            out.push(tokens[i].clone());
            i += 1;
            continue;
        }
        // To the end of the item: a semicolon, or the brace that closes its body.
        i += attribute;
        let mut depth = 0;
        while i < tokens.len() {
            match tokens[i].as_str() {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            let end = depth == 0 && (tokens[i] == ";" || tokens[i] == "}");
            i += 1;
            if end {
                break;
            }
        }
    }
    out
}

/// The modules that `mod name;` declares.
fn declared(tokens: &[String]) -> BTreeSet<String> {
    tokens.windows(3).filter(|w| w[0] == "mod" && w[2] == ";").map(|w| w[1].clone()).collect()
}

/// What the `use` items of a file bring into scope.
fn uses(tokens: &[String]) -> Vec<Use> {
    let mut out = vec![];
    let mut i = 0;
    while i < tokens.len() {
        if tokens[i] == "use" {
            let end = i + tokens[i..].iter().take_while(|t| *t != ";").count();
            let public = i > 0 && (tokens[i - 1] == "pub" || tokens[i - 1] == ")");
            tree(&tokens[i + 1..end], vec![], public, &mut out);
            i = end;
        }
        i += 1;
    }
    out
}

/// Expands a tree of imports, as in `a::{b, c as d, e::*}`.
fn tree(tokens: &[String], mut prefix: Vec<String>, public: bool, out: &mut Vec<Use>) {
    let mut i = 0;
    while i < tokens.len() {
        match tokens[i].as_str() {
            "::" => i += 1,
            "{" => {
                let mut depth = 0;
                let mut start = i + 1;
                for (j, token) in tokens.iter().enumerate().skip(i) {
                    match token.as_str() {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    if depth == 1 && token == "," || depth == 0 {
                        tree(&tokens[start..j], prefix.clone(), public, out);
                        start = j + 1;
                    }
                    if depth == 0 {
                        return;
                    }
                }
                return;
            }
            "*" => return out.push(Use { name: "*".into(), path: prefix, public }),
            "as" => {
                let name = tokens[i + 1].clone();
                return out.push(Use { name, path: prefix, public });
            }
            name => {
                // `a::{self}` is `a`.
                if name != "self" || prefix.is_empty() {
                    prefix.push(name.to_string());
                }
                i += 1;
            }
        }
    }
    if let Some(name) = prefix.last().cloned() {
        out.push(Use { name, path: prefix, public });
    }
}

/// The shortest cycle through each import that is in one, as text: `a.rs -> b.rs (Item) -> a.rs (other)`.
pub fn cycles(imports: &Imports) -> Vec<String> {
    let mut found: BTreeSet<Vec<&str>> = BTreeSet::new();
    for (file, from) in imports {
        for next in from.keys() {
            if let Some(mut cycle) = shortest(imports, next, file) {
                // The cycle from its smallest file on.
                let least = (0..cycle.len()).min_by_key(|&i| cycle[i]).unwrap_or(0);
                cycle.rotate_left(least);
                found.insert(cycle);
            }
        }
    }
    let text = |cycle: &Vec<&str>| {
        let mut text = cycle[0].to_string();
        for (i, file) in cycle.iter().enumerate() {
            let next = cycle[(i + 1) % cycle.len()];
            let names: Vec<&str> = imports[*file][next].iter().map(String::as_str).collect();
            text += &format!(" -> {next} ({})", names.join(", "));
        }
        text
    };
    found.iter().map(text).collect()
}

/// The files of a shortest way from one file to another.
fn shortest<'a>(imports: &'a Imports, from: &'a str, to: &'a str) -> Option<Vec<&'a str>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut open = VecDeque::from([from]);
    while let Some(at) = open.pop_front() {
        if at == to {
            let mut way = vec![to];
            while way[way.len() - 1] != from {
                way.push(before[way[way.len() - 1]]);
            }
            way.reverse();
            return Some(way);
        }
        for next in imports.get(at).into_iter().flat_map(BTreeMap::keys) {
            if next != from && !before.contains_key(next.as_str()) {
                before.insert(next, at);
                open.push_back(next);
            }
        }
    }
    None
}

/// The scan itself: a crate of a few files.
#[test]
fn imports_are_found_and_followed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (file, text) in [
        ("lib.rs", "mod a; mod b; pub mod c; pub use a::A; use b::B; pub use other::Foreign; pub struct Root;"),
        (
            "a.rs",
            "//! use crate::c::No;\nuse crate::{b, c::{self, Deep}}; pub struct A; fn f() { b::g(); let s = \"crate::c::No\"; c::d::h(); }",
        ),
        ("b.rs", "pub struct B; use crate::Foreign; pub fn g() {} #[cfg(test)] mod tests { use crate::c::No; }"),
        ("c/mod.rs", "pub mod d; pub use d::*; pub struct Own;"),
        ("c/d.rs", "pub struct Deep; pub fn h() -> super::Own { let c: char = '\"'; crate::A; super::super::Root }"),
    ] {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }
    let found = imports(folder.path());
    let lines: Vec<String> = found
        .iter()
        .flat_map(|(file, from)| {
            from.iter().map(move |(other, names)| format!("{file} -> {other}: {}", Vec::from_iter(names.iter().cloned()).join(" ")))
        })
        .collect();
    assert_eq!(
        lines,
        [
            "a.rs -> b.rs: g",
            "a.rs -> c/d.rs: Deep h",
            "c/d.rs -> a.rs: A",
            "c/d.rs -> c/mod.rs: Own",
            "c/d.rs -> lib.rs: Root",
            "c/mod.rs -> c/d.rs: *",
            "lib.rs -> a.rs: A",
            "lib.rs -> b.rs: B"
        ]
    );
    let cycles = cycles(&found);
    assert!(cycles.contains(&"a.rs -> c/d.rs (Deep, h) -> a.rs (A)".to_string()), "{cycles:?}");
}

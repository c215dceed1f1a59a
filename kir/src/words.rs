//! Words of the text form, and a reader of them.

use crate::ty::{Elem, Ty, Val};

/// Splits into words with their lines: names and numbers, quoted strings, and punctuation alone.
fn split(text: &str) -> Vec<(usize, String)> {
    let mut out = vec![];
    let mut quoted: Option<String> = None;
    for (n, line) in text.split_inclusive('\n').enumerate() {
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            if let Some(word) = &mut quoted {
                match c {
                    '"' => out.push((n + 1, quoted.take().expect("inside a string"))),
                    '\\' => word.extend(chars.next()),
                    c => word.push(c),
                }
                continue;
            }
            match c {
                '"' => quoted = Some("\"".into()),
                ';' => break,
                c if c.is_whitespace() => {}
                c if c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '+' => {
                    let mut word = String::from(c);
                    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                        word.push(c);
                    }
                    out.push((n + 1, word));
                }
                c => out.push((n + 1, c.into())),
            }
        }
    }
    out
}

/// Reads words one after another.
pub struct Words {
    words: Vec<(usize, String)>,
    at: usize,
}

impl Words {
    pub fn new(text: &str) -> Words {
        Words { words: split(text), at: 0 }
    }

    pub fn peek(&self) -> &str {
        self.words.get(self.at).map_or("", |w| &w.1)
    }

    pub fn next(&mut self) -> String {
        let word = self.peek().to_string();
        self.at += 1;
        word
    }

    pub fn is_empty(&self) -> bool {
        self.at >= self.words.len()
    }

    /// Where the reader is, to come back to.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Goes back to an earlier position.
    pub fn rewind(&mut self, position: usize) {
        self.at = position;
    }

    /// Line and word that were read last.
    pub fn last(&self) -> (usize, &str) {
        self.words.get(self.at.saturating_sub(1)).map_or((0, "the end"), |w| (w.0, w.1.as_str()))
    }

    pub fn eat(&mut self, word: &str) -> bool {
        let is = self.peek() == word;
        self.at += usize::from(is);
        is
    }

    pub fn expect(&mut self, word: &str) -> Result<(), String> {
        if self.next() == word { Ok(()) } else { Err(format!("expected `{word}`")) }
    }

    pub fn number<T: std::str::FromStr>(&mut self) -> Result<T, String> {
        self.next().parse().map_err(|_| "expected a number in range".into())
    }

    pub fn val(&mut self) -> Result<Val, String> {
        let word = self.next();
        // Values are dense; the bound keeps a mistyped number from asking for gigabytes.
        let n = word.strip_prefix('v').and_then(|n| n.parse::<u32>().ok()).filter(|n| *n < 1 << 24);
        n.map(Val).ok_or_else(|| "expected a value".into())
    }

    pub fn ty(&mut self) -> Result<Ty, String> {
        let word = self.next();
        let (elem, lanes) = word.split_once('x').unwrap_or((&word, "1"));
        let elem = *Elem::ALL.iter().find(|e| e.word() == elem).ok_or("expected a type")?;
        Ok(Ty { elem, lanes: lanes.parse().map_err(|_| "expected a number of lanes")? })
    }
}

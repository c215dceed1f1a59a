//! Schedules as text and as traces that Perfetto and Chrome (`chrome://tracing`) show.

use std::fmt::Write;

/// A bar of a chart.
#[derive(Clone, PartialEq, Debug)]
pub struct Bar {
    /// What runs.
    pub name: String,
    /// Where: a core, the reader.
    pub track: String,
    /// Seconds.
    pub begin: f64,
    /// Seconds.
    pub end: f64,
    /// Whether it ended too late.
    pub late: bool,
}

/// A line a bar, in their order: milliseconds from and to, track, name.
pub fn text(bars: &[Bar]) -> String {
    let mut out = String::new();
    let width = bars.iter().map(|b| b.track.chars().count()).max().unwrap_or(0);
    for b in bars {
        let late = if b.late { "  late" } else { "" };
        let _ = writeln!(out, "{:>12.3} {:>12.3} ms  {:width$}  {}{late}", b.begin * 1e3, b.end * 1e3, b.track, b.name);
    }
    out
}

/// The bars as a trace: complete events (`ph: X`) in microseconds, a thread a track.
pub fn trace(bars: &[Bar]) -> String {
    let mut tracks: Vec<&str> = bars.iter().map(|b| b.track.as_str()).collect();
    tracks.sort_unstable();
    tracks.dedup();
    let mut events = vec![];
    for (tid, track) in tracks.iter().enumerate() {
        events.push(format!(r#"{{"ph":"M","pid":1,"tid":{tid},"name":"thread_name","args":{{"name":{}}}}}"#, quoted(track)));
    }
    for b in bars {
        let tid = tracks.binary_search(&b.track.as_str()).unwrap_or(0);
        let (ts, dur) = (b.begin * 1e6, (b.end - b.begin) * 1e6);
        let color = if b.late { r#","cname":"terrible""# } else { "" };
        events.push(format!(r#"{{"ph":"X","pid":1,"tid":{tid},"name":{},"ts":{ts:.3},"dur":{dur:.3}{color}}}"#, quoted(&b.name)));
    }
    format!("{{\"traceEvents\":[\n{}\n]}}\n", events.join(",\n"))
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_text_and_a_trace() {
        let bar = |name: &str, track: &str, begin, end, late| Bar { name: name.into(), track: track.into(), begin, end, late };
        let bars = [bar("a \"b\"", "reader", 0.0, 0.5, false), bar("a", "core 0", 0.5, 0.75, true)];
        assert_eq!(text(&bars), "       0.000      500.000 ms  reader  a \"b\"\n     500.000      750.000 ms  core 0  a  late\n");
        let trace = trace(&bars);
        assert!(trace.contains(r#"{"ph":"X","pid":1,"tid":1,"name":"a \"b\"","ts":0.000,"dur":500000.000}"#), "{trace}");
        assert!(trace.contains(r#""ts":500000.000,"dur":250000.000,"cname":"terrible"}"#), "{trace}");
    }
}

//! What a run says: a table, one line a figure, and a section of `docs/performance.md`.

use std::{fmt::Write, fs, path::Path, time::SystemTime};

use anyhow::Context;

use super::{
    contest::Contestant,
    figures::{self, Ratio, Slice, quantile},
    machine,
};

/// Two identical processes may differ by this much; more, and the run does not count.
const TWINS_DIFFER_MAX: f64 = 0.03;
/// What a change may cost, as a ratio of CPU a call.
const CHANGE_MAX: f64 = 1.03;
/// Others may use this much of a core; more, and the run is thrown away.
pub const FOREIGN_MAX: f64 = 0.2;
/// Fewer rounds show that it works, and prove nothing.
const ROUNDS_MIN: usize = 100;

/// One figure to reach.
struct Target {
    name: &'static str,
    one: &'static str,
    other: &'static str,
    what: What,
    reach: f64,
    then: f64,
}

enum What {
    /// CPU a call; lower is better.
    Cost,
    /// Calls a second; higher is better.
    Rate,
}

const TARGETS: [Target; 6] = [
    target("P1", "free", "nginx-lua", What::Cost, 0.60, 0.50),
    target("P2", "free", "nginx", What::Cost, 1.10, 0.95),
    target("P3", "paid", "x402-axum", What::Cost, 0.60, 0.50),
    target("P3", "paid", "x402-axum", What::Rate, 1.50, 2.00),
    target("P4", "401", "nginx", What::Cost, 0.55, 0.45),
    target("P4", "402", "nginx", What::Cost, 0.55, 0.45),
];

const fn target(
    name: &'static str,
    one: &'static str,
    other: &'static str,
    what: What,
    reach: f64,
    then: f64,
) -> Target {
    Target { name, one, other, what, reach, then }
}

/// A run's report, and whether it counts.
pub struct Report {
    /// Lines to print.
    pub text: String,
    /// Why the run does not count; empty when it does.
    pub void: Vec<String>,
}

/// The report of a duel.
///
/// # Errors
/// Never, unless memory ends.
pub fn duel(contestants: &mut [Contestant], rounds: usize, foreign: f64) -> anyhow::Result<Report> {
    let mut text = String::new();
    writeln!(text, "closed loop, c=32, {rounds} rounds of 50 ms slices, one core; foreign load {foreign:.2} core\n")?;
    table(&mut text, contestants)?;
    let mut void = Vec::new();
    for contestant in &*contestants {
        if contestant.load.bad() > 0 {
            void.push(format!("{} gave {} unexpected answers", contestant.name, contestant.load.bad()));
        }
    }
    writeln!(text)?;
    for (one, other) in [("nginx", "nginx, again"), ("free", "free, again")] {
        let (Some(one), Some(twin)) = (slices(contestants, one), slices(contestants, other)) else { continue };
        let found = figures::ratio(twin, one, figures::cost);
        let fits = (found.value - 1.0).abs() <= TWINS_DIFFER_MAX;
        writeln!(text, "A/A {other} {:.2} within 0.03 {} ({})", found.value, verdict(fits), interval(found))?;
        if !fits {
            void.push(format!("two identical ones differ: {other} {:.3}", found.value));
        }
    }
    for one in ["free", "401", "402", "paid"] {
        let (Some(now), Some(before)) = (slices(contestants, one), slices(contestants, &format!("{one}, before")))
        else {
            continue;
        };
        let found = figures::ratio(now, before, figures::cost);
        let (value, verdict) = (found.value, verdict(found.value <= CHANGE_MAX));
        writeln!(text, "{one}/before {value:.3} ≤{CHANGE_MAX} {verdict} ({})", interval(found))?;
    }
    if foreign > FOREIGN_MAX {
        void.push(format!("a foreign load of {foreign:.2} core"));
    }
    if rounds < ROUNDS_MIN {
        void.push(format!("{rounds} rounds are fewer than {ROUNDS_MIN}"));
    }
    for target in &TARGETS {
        if let (Some(one), Some(other)) = (slices(contestants, target.one), slices(contestants, target.other)) {
            writeln!(text, "{}", target.line(one, other))?;
        }
    }
    Ok(Report { text, void })
}

impl Target {
    fn line(&self, one: &[Slice], other: &[Slice]) -> String {
        let (found, sign, passes, of) = match self.what {
            What::Cost => {
                let found = figures::ratio(one, other, figures::cost);
                (found, '≤', found.value <= self.reach, "")
            }
            What::Rate => {
                let found = figures::ratio(one, other, figures::rate);
                (found, '≥', found.value >= self.reach, " calls/s")
            }
        };
        let (name, one, other, value, reach) = (self.name, self.one, self.other, found.value, self.reach);
        let (verdict, interval, then) = (verdict(passes), interval(found), self.then);
        format!("{name} {one}/{other}{of} {value:.2} {sign}{reach:.2} {verdict} ({interval}; then {sign}{then:.2})")
    }
}

fn table(text: &mut String, contestants: &mut [Contestant]) -> anyhow::Result<()> {
    writeln!(text, "| contestant | CPU µs/call p10 | median | / nginx | calls/s p90 | p50 µs | p99 µs |")?;
    writeln!(text, "|---|---|---|---|---|---|---|")?;
    let base = slices(contestants, "nginx").map(<[Slice]>::to_vec).unwrap_or_default();
    for contestant in contestants {
        let (cost, rate) = (figures::cost(&contestant.slices), figures::rate(&contestant.slices));
        let median = quantile(contestant.slices.iter().map(Slice::cost), 0.5);
        let ratio = figures::ratio(&contestant.slices, &base, figures::cost);
        let ratio = format!("{:.2} ({})", ratio.value, interval(ratio));
        let nanos = contestant.load.nanos();
        let times = |share| quantile(nanos.iter().map(|nanos| *nanos as f64 / 1000.0), share);
        writeln!(
            text,
            "| {} | {cost:.2} | {median:.2} | {ratio} | {rate:.0} | {:.0} | {:.0} |",
            contestant.name,
            times(0.5),
            times(0.99)
        )?;
    }
    Ok(())
}

fn slices<'a>(contestants: &'a [Contestant], name: &str) -> Option<&'a [Slice]> {
    contestants.iter().find(|contestant| contestant.name == name).map(|contestant| &*contestant.slices)
}

fn interval(ratio: Ratio) -> String {
    format!("{:.2}–{:.2}", ratio.low, ratio.high)
}

/// The word at the end of a figure's line.
#[must_use]
pub fn verdict(passes: bool) -> &'static str {
    if passes { "pass" } else { "fail" }
}

/// Puts a run into its own section of the page, and leaves the others as they are.
///
/// # Errors
/// When the page cannot be read or written.
#[expect(clippy::disallowed_methods, reason = "the day of the run; it decides nothing")]
pub fn publish(page: &Path, section: &str, command: &str, text: &str) -> anyhow::Result<()> {
    let (open, close) = (format!("<!-- {section} -->\n"), format!("<!-- end of {section} -->\n"));
    let day = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let day = day.split('T').next().unwrap_or_default().to_owned();
    let run = format!("{open}\n`{command}` on {}, {day}\n\n{text}\n{close}", machine::description());
    let old = if page.exists() { fs::read_to_string(page)? } else { PAGE.to_owned() };
    let new = match (old.find(&open), old.find(&close)) {
        (Some(from), Some(to)) if from < to => {
            let (before, rest) = old.split_at(from);
            let after = rest.get(to - from + close.len()..).context("the end of a section")?;
            format!("{before}{run}{after}")
        }
        _ => format!("{old}\n{run}"),
    };
    if let Some(folder) = page.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(page, new)?;
    Ok(())
}

/// What stands above the runs.
const PAGE: &str = "\
# Performance

Written by the commands that it names; run them again to get your own. Ratios hold within a few per cent on one
machine, times do not: compare the ratios. CPU is that of the whole process. `nginx` passes on and does nothing else,
`nginx-lua` does a free call's work in Lua, `x402-axum` is its paywall before an axum and reqwest proxy, with a
facilitator that says yes. `free`, `paid`, `401` and `402` are ours; a paid call is durable twice, before the seller is
called and before the buyer is answered. Each is asked by 32 connections in turns of 50 ms; the figure is the tenth
percentile of the turns' CPU a call, with what is written behind a free call's answer counted in. What the store makes
of its tables after a paid call's turn is not in that figure; it is in the sustained one.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let folder = std::env::temp_dir().join(format!("crochet-report-{}", std::process::id()));
        let page = folder.join("performance.md");
        for text in ["first", "second"] {
            publish(&page, "duel", "./dev bench peers", text).unwrap();
            publish(&page, "sustain", "./dev bench sustain", "other").unwrap();
        }
        let written = fs::read_to_string(&page).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((written.matches("second").count(), written.matches("first").count()), (1, 0));
        assert_eq!(written.matches("other").count(), 1);
        assert!(written.starts_with("# Performance\n"));
    }

    #[test]
    fn a_figure_is_one_line() {
        let slice = |cpu_nanos| [Slice { answers: 1000, cpu_nanos, wall_nanos: 50_000_000 }];
        let line = TARGETS[2].line(&slice(41_000_000), &slice(100_000_000));
        assert_eq!(line, "P3 paid/x402-axum 0.41 ≤0.60 pass (0.41–0.41; then ≤0.50)");
    }
}

//! A report as one HTML file: charts as inline SVG, no script, nothing from elsewhere.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use crate::{
    figures::{Figure, quantile},
    play::Played,
    report::codes,
};

/// Points of a chart at most; longer runs put several seconds into one.
const POINTS_MAX: u64 = 240;
/// Lines of a chart at most.
const LINES_MAX: usize = 8;
const WIDTH: u64 = 900;
const HEIGHT: u64 = 220;
const COLOURS: [&str; LINES_MAX] =
    ["#1b6ca8", "#c0392b", "#2e8b57", "#b8860b", "#6a4c93", "#d2691e", "#008b8b", "#708090"];
const HEAD: &str = r#"<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Load test</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:left}td.n{text-align:right}
.pass{color:#2e7d32}.fail{color:#b71c1c;font-weight:bold}svg{width:100%;height:auto}
svg text{font:11px system-ui,sans-serif;fill:#555}figure{margin:1.5rem 0}figcaption{font-weight:600}
pre{overflow-x:auto;background:#f6f6f6;padding:1rem}
</style>
"#;

/// A chart's line: a value at each of its points, none where nothing was.
struct Line {
    name: String,
    values: Vec<Option<u64>>,
}

/// The page of some runs: figures, charts, and the text of each report.
///
/// # Errors
/// None: text has always room.
pub fn page(runs: &[(&Played, &[Figure], &str)]) -> Result<String, fmt::Error> {
    let mut html = String::from(HEAD);
    for (played, figures, text) in runs {
        let (name, about) = (escaped(&played.scenario.name), escaped(&played.scenario.about));
        writeln!(html, "<h1>{name}</h1>\n<p>{about}. Seed {}.</p>", played.seed)?;
        table(&mut html, figures)?;
        let time = Axis::of(played);
        chart(&mut html, &time, "Purchases a second, by when they were due", &throughput(played, &time))?;
        let from_due = "Milliseconds from when a purchase was due until its end";
        chart(&mut html, &time, from_due, &latencies(played, &time))?;
        chart(&mut html, &time, "Answers a second, by status and code", &answers(played, &time))?;
        writeln!(html, "<pre>{}</pre>", escaped(text))?;
    }
    html.push_str("</html>\n");
    Ok(html)
}

fn table(html: &mut String, figures: &[Figure]) -> fmt::Result {
    html.push_str("<table><tr><th>figure<th>value<th>target</tr>\n");
    for figure in figures {
        let line = figure.to_string();
        let mut words = line.rsplitn(3, ' ');
        let (verdict, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (name, value) = (escaped(&figure.name), figure.value);
        writeln!(html, "<tr><td>{name}<td class=n>{value}<td>{target} <span class={verdict}>{verdict}</span></tr>")?;
    }
    html.push_str("</table>\n");
    Ok(())
}

/// The time of a run, cut into points.
struct Axis {
    seconds_a_point: u64,
    points: usize,
    outages: Vec<u64>,
    load_seconds: u64,
}

impl Axis {
    fn of(played: &Played) -> Self {
        let due = played.seen.samples.iter().map(|sample| sample.due_micros / 1_000_000).max().unwrap_or(0);
        let answered = played.seen.codes.keys().next_back().copied().unwrap_or(0);
        let seconds = due.max(answered) + 1;
        let seconds_a_point = seconds.div_ceil(POINTS_MAX);
        Self {
            seconds_a_point,
            points: usize::try_from(seconds.div_ceil(seconds_a_point)).unwrap_or(0),
            outages: played.seen.outages.iter().map(|outage| outage.at_micros).collect(),
            load_seconds: seconds,
        }
    }

    fn point(&self, second: u64) -> usize {
        usize::try_from(second / self.seconds_a_point).unwrap_or(usize::MAX)
    }

    /// Sums by point as a rate a second.
    fn rates(&self, events: impl Iterator<Item = (u64, u64)>) -> Vec<Option<u64>> {
        let mut sums = vec![0; self.points];
        for (second, count) in events {
            if let Some(sum) = sums.get_mut(self.point(second)) {
                *sum += count;
            }
        }
        sums.into_iter().map(|sum| Some(sum / self.seconds_a_point)).collect()
    }
}

fn throughput(played: &Played, time: &Axis) -> Vec<Line> {
    let samples = || played.seen.samples.iter();
    let due = samples().map(|sample| (sample.due_micros / 1_000_000, 1));
    let ended = samples().map(|sample| ((sample.due_micros + sample.took_micros) / 1_000_000, 1));
    vec![Line { name: "due".into(), values: time.rates(due) }, Line { name: "ended".into(), values: time.rates(ended) }]
}

fn latencies(played: &Played, time: &Axis) -> Vec<Line> {
    let mut by_point: Vec<Vec<u64>> = vec![Vec::new(); time.points];
    for sample in &played.seen.samples {
        if let Some(times) = by_point.get_mut(time.point(sample.due_micros / 1_000_000)) {
            times.push(sample.took_micros);
        }
    }
    by_point.iter_mut().for_each(|times| times.sort_unstable());
    let line = |(name, permille): (&str, usize)| Line {
        name: name.into(),
        values: by_point
            .iter()
            .map(|times| (!times.is_empty()).then(|| quantile(times, permille).div_ceil(1000)))
            .collect(),
    };
    [("p50", 500), ("p99", 990), ("max", 1000)].map(line).into()
}

/// The most frequent codes, each a line; the rest together.
fn answers(played: &Played, time: &Axis) -> Vec<Line> {
    let mut ranked: Vec<(&str, u64)> = codes(played).into_iter().collect();
    ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown: BTreeMap<&str, usize> = ranked.iter().take(LINES_MAX - 1).map(|(code, _)| *code).zip(0..).collect();
    let rest = shown.len();
    let of = |line: usize| {
        let by_second = played.seen.codes.iter();
        let events =
            by_second.flat_map(|(second, codes)| codes.iter().map(move |(code, count)| (*second, code, *count)));
        let own = events.filter(|(_, code, _)| shown.get(code.as_str()).copied().unwrap_or(rest) == line);
        time.rates(own.map(|(second, _, count)| (second, count)))
    };
    let mut lines: Vec<Line> = ranked
        .iter()
        .take(rest)
        .zip(0..)
        .map(|((code, _), number)| Line { name: (*code).to_owned(), values: of(number) })
        .collect();
    if ranked.len() > rest {
        lines.push(Line { name: "all others".into(), values: of(rest) });
    }
    lines
}

fn chart(html: &mut String, time: &Axis, title: &str, lines: &[Line]) -> fmt::Result {
    let top = lines.iter().flat_map(|line| line.values.iter().flatten()).max().copied().unwrap_or(0).max(1);
    let last = (time.points as u64).saturating_sub(1).max(1);
    writeln!(html, "<figure><figcaption>{}</figcaption>", escaped(title))?;
    writeln!(html, r#"<svg viewBox="-50 -10 {} {}" role="img">"#, WIDTH + 60, HEIGHT + 80)?;
    for part in 0..=4 {
        let (y, value) = (HEIGHT - HEIGHT * part / 4, top * part / 4);
        writeln!(
            html,
            r##"<path d="M0 {y}H{WIDTH}" stroke="#ddd"/><text x="-6" y="{}" text-anchor="end">{value}</text>"##,
            y + 4
        )?;
    }
    let end = time.load_seconds;
    writeln!(html, r#"<text x="0" y="{}">0 s</text>"#, HEIGHT + 16)?;
    writeln!(html, r#"<text x="{WIDTH}" y="{}" text-anchor="end">{end} s</text>"#, HEIGHT + 16)?;
    for outage in &time.outages {
        let x = outage * WIDTH / (end * 1_000_000);
        writeln!(html, r##"<path d="M{x} 0V{HEIGHT}" stroke="#c00" stroke-dasharray="2 3"/>"##)?;
    }
    for (number, (line, colour)) in lines.iter().zip(COLOURS).enumerate() {
        let mut path = String::new();
        let mut is_drawing = false;
        for (point, value) in (0..).zip(&line.values) {
            if let Some(value) = value {
                let (x, y) = (point * WIDTH / last, HEIGHT - value * HEIGHT / top);
                write!(path, "{}{x} {y}", if is_drawing { 'L' } else { 'M' })?;
            }
            is_drawing = value.is_some();
        }
        writeln!(html, r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>"#)?;
        let (x, y) = ((number as u64 % 3) * WIDTH / 3, HEIGHT + 32 + 14 * (number as u64 / 3));
        let name = escaped(&line.name);
        writeln!(html, r#"<text x="{x}" y="{y}" style="fill:{colour}">■ {name}</text>"#)?;
    }
    html.push_str("</svg></figure>\n");
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auditor::Findings,
        figures::figures,
        report::report,
        run::{Sample, Seen},
        scenario::Scenario,
    };

    fn played() -> Played {
        let sample = |second: u64| Sample { due_micros: second * 1_000_000, took_micros: 1500, is_hot: false };
        let codes = (0..600).map(|second| (second, BTreeMap::from([("200 <b>".to_owned(), 3)]))).collect();
        let seen = Seen { samples: (0..600).map(sample).collect(), codes, ..Seen::default() };
        Played {
            scenario: Scenario::find("steady").unwrap(),
            seed: 7,
            seen,
            findings: Findings::default(),
            seller_complaints: Vec::new(),
            facts_lost: vec!["pay_1: <gone>".into()],
            facts: 1,
            restored: None,
        }
    }

    #[test]
    fn a_page_has_its_figures_and_charts_and_nothing_from_elsewhere() {
        let played = played();
        let figures = figures(&played).unwrap();
        let text = report(&played, &figures).unwrap();
        assert!(text.contains("steady.facts_lost 1 ≤0 fail"), "{text}");
        let html = page(&[(&played, &figures, &text)]).unwrap();
        assert_eq!(html.matches("<svg").count(), 3);
        assert!(html.contains("pay_1: &lt;gone&gt;") && !html.contains("<gone>") && !html.contains("200 <b>"));
        for outside in ["http:", "https:", "src=", "href=", "url(", "<script", "@import"] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn a_long_run_is_drawn_with_a_bounded_number_of_points() {
        let played = played();
        let time = Axis::of(&played);
        assert_eq!((time.seconds_a_point, time.points), (3, 200));
        assert_eq!(answers(&played, &time)[0].values, vec![Some(3); 200]);
        assert_eq!(latencies(&played, &time)[1].values, vec![Some(2); 200]);
    }
}

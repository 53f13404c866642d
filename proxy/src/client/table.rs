//! Answers for people: tables, lists of facts, money. What others wrote is shown without what could move a cursor.

use serde_json::Value;
use storage::model::Micros;

/// Longer cells are cut.
const CELL_MAX: usize = 60;
/// What stands where nothing is known.
const NOTHING: &str = "-";

/// The text without what a terminal would obey or a reader be misled by.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_deceptive(c) { '\u{fffd}' } else { c }).collect()
}

/// As [`plain`], line by line.
pub(super) fn plain_lines(text: &str) -> String {
    text.chars().map(|c| if is_deceptive(c) && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// The value at a place as one cell.
pub(super) fn cell(row: &Value, place: &str) -> String {
    match row.pointer(place) {
        None | Some(Value::Null) => NOTHING.into(),
        Some(Value::String(text)) => plain(text),
        Some(Value::Bool(true)) => "yes".into(),
        Some(Value::Bool(false)) => "no".into(),
        Some(Value::Array(items)) => {
            let items: Vec<_> = items.iter().map(|item| cell(item, "")).collect();
            if items.is_empty() { NOTHING.into() } else { items.join(", ") }
        }
        Some(other) => plain(&other.to_string()),
    }
}

/// Micros at a place as an amount.
pub(super) fn money(row: &Value, place: &str) -> String {
    row.pointer(place).and_then(Value::as_i64).map_or(NOTHING.into(), dollars)
}

/// Micros as people write them: two decimals at least.
pub(super) fn dollars(micros: i64) -> String {
    let units = Micros(micros).units();
    let decimals = units.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    match decimals {
        0 => format!("{units}.00 USD"),
        1 => format!("{units}0 USD"),
        _ => format!("{units} USD"),
    }
}

/// A moment at a place, to the second.
pub(super) fn moment(row: &Value, place: &str) -> String {
    let text = cell(row, place);
    match text.split_once('.') {
        Some((seconds, _)) => format!("{}Z", seconds.replace('T', " ")),
        None => text,
    }
}

/// Rows under a heading, each column as wide as its widest cell; `>` before a heading sets its column to the right.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let names: Vec<&str> = headings.iter().map(|heading| heading.trim_start_matches('>')).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| cut(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(names.get(column).map(|name| name.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).zip(headings).map(|((cell, width), heading)| {
            if heading.starts_with('>') { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let names: Vec<String> = names.iter().map(|name| (*name).to_string()).collect();
    std::iter::once(line(&names)).chain(rows.iter().map(|row| line(row))).collect()
}

/// Facts one under the other, their names as wide as the widest.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

fn cut(cell: &str) -> String {
    if cell.chars().count() <= CELL_MAX {
        return cell.to_string();
    }
    cell.chars().take(CELL_MAX - 1).chain(['\u{2026}']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [vec!["a".into(), "1.00 USD".into()], vec!["longer".into(), "x".into()]];
        assert_eq!(table(&["NAME", ">PRICE"], &rows), "NAME       PRICE\na       1.00 USD\nlonger         x\n");
        assert!(table(&["A"], &[vec!["x".repeat(100)]]).lines().all(|line| line.chars().count() <= CELL_MAX));
        assert_eq!(facts(&[("a", "b".into()), ("long", "c".into())]), "a     b\nlong  c\n");
    }

    #[test]
    fn nothing_that_was_written_elsewhere_moves_the_cursor() {
        let row = json!({"name": "a\u{1b}]0;title\u{7}\u{202e}b", "none": null, "list": ["x", "y"], "is": true});
        assert_eq!(cell(&row, "/name"), "a\u{fffd}]0;title\u{fffd}\u{fffd}b");
        assert_eq!(
            (cell(&row, "/none"), cell(&row, "/list"), cell(&row, "/is")),
            ("-".into(), "x, y".into(), "yes".into())
        );
        assert_eq!(plain_lines("a\nb\tc\r"), "a\nb\tc\u{fffd}");
    }

    #[test]
    fn money_has_two_decimals_and_all_that_count() {
        let shown = [0, 1, 50_000, 100_000, 1_000_000, 1_234_500].map(dollars);
        assert_eq!(shown, ["0.00 USD", "0.000001 USD", "0.05 USD", "0.10 USD", "1.00 USD", "1.2345 USD"]);
        assert_eq!(moment(&json!({"at": "2026-01-02T03:04:05.678Z"}), "/at"), "2026-01-02 03:04:05Z");
    }
}

//! The file of transfers: CSV as spreadsheets read it, or JSON.

use anyhow::{Context as _, Result, bail};

use crate::admin::order::{Transfer, TransferKind};

/// The first line of a file of transfers.
const COLUMNS: &str = "kind,of,number,rail,amount_micros,party,to,came_in_as,reference";

/// The file as CSV.
pub(super) fn csv(transfers: &[Transfer]) -> String {
    let rows = transfers.iter().map(|row| {
        let Transfer { kind, of, number, rail, amount_micros, party, to, came_in_as, reference } = row;
        let kind = kind.name();
        let [rail, to, came_in, reference] = [rail.as_str(), to, &came_in_as.join(" "), reference].map(field);
        format!("{kind},{of},{number},{rail},{amount_micros},{party},{to},{came_in},{reference}\n")
    });
    format!("{COLUMNS}\n{}", rows.collect::<String>())
}

/// A rail's reference is its own text: what would end a field is left out of it, and so is what a spreadsheet would
/// take for a formula.
fn field(text: &str) -> String {
    text.replace([',', '\n', '\r', '"'], "").trim_start_matches(['=', '+', '-', '@', '\t']).to_string()
}

/// The rows of a file of transfers: JSON, or CSV as it was printed with the last column filled in.
pub(super) fn transfers(text: &str) -> Result<Vec<Transfer>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).context("the file of transfers is no JSON of ours");
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    if lines.next() != Some(COLUMNS) {
        bail!("the first line of a file of transfers is {COLUMNS}");
    }
    lines.enumerate().map(|(n, line)| transfer(line).with_context(|| format!("row {}", n + 1))).collect()
}

fn transfer(line: &str) -> Result<Transfer> {
    let fields: Vec<_> = line.split(',').map(str::trim).collect();
    let [kind, of, number, rail, amount, party, to, came_in, reference] = fields[..] else {
        bail!("9 columns are needed, {} are there", fields.len());
    };
    Ok(Transfer {
        kind: match kind {
            "refund" => TransferKind::Refund,
            "payout" => TransferKind::Payout,
            other => bail!("kind is refund or payout, not {other:?}"),
        },
        of: of.into(),
        number: number.parse().context("number")?,
        rail: rail.into(),
        amount_micros: amount.parse().context("amount_micros")?,
        party: party.into(),
        to: to.into(),
        came_in_as: came_in.split_whitespace().map(str::to_string).collect(),
        reference: reference.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_transfers_comes_back_as_it_went() {
        let row = Transfer {
            kind: TransferKind::Refund,
            of: "pay_1".into(),
            number: 1,
            rail: "sandbox".into(),
            amount_micros: 5,
            party: "b".into(),
            to: String::new(),
            came_in_as: vec!["x".into(), "y".into()],
            reference: "0xa".into(),
        };
        let payout = Transfer { kind: TransferKind::Payout, came_in_as: Vec::new(), to: "0xb".into(), ..row.clone() };
        let rows = vec![row.clone(), Transfer { reference: String::new(), ..row.clone() }, payout];
        assert_eq!(transfers(&csv(&rows)).expect("read"), rows);
        assert_eq!(transfers(&serde_json::to_string(&rows).expect("written")).expect("read"), rows);
        for bad in ["", "payment\n", "a,b", "refund,a,x,c,1,d,e,f,g", "refund,a,1,c,x,d,e,f,g", "gift,a,1,c,1,d,e,f,g"]
        {
            assert!(transfers(&format!("{COLUMNS}\n{bad}\n")).is_err() || bad.is_empty(), "{bad:?}");
            assert!(transfers(bad).is_err(), "{bad:?}");
        }
        assert!(transfers("[{}]").is_err());
        let odd = Transfer { reference: "=cmd,1\n\"".into(), ..row };
        assert_eq!(transfers(&csv(&[odd])).expect("read")[0].reference, "cmd1", "no formula, no other row");
    }
}

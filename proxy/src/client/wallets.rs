//! `crochet wallets`: those of the profile, which the gateway keeps, and those of the client's folder, which sign.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{
    Client, Ended,
    arguments::WalletsCommand,
    home,
    identity::{make_wallet, prove, set, speaking_wallet},
    note, path, read_input, rows, say,
    table::{cell, facts, moment, table},
    wallet::{Chain, Wallet},
};

/// Does it.
pub(super) async fn run(client: &Client, what: &WalletsCommand) -> Result<Ended> {
    match what {
        WalletsCommand::List => client.show(&client.get("/api/v1/me/wallets").await?, list),
        WalletsCommand::Show { id } => client.show(&client.get(&path("me/wallets", id, "")).await?, one),
        WalletsCommand::Local => local(client),
        WalletsCommand::Make { solana } => kept(client, &make_wallet(client, chain(*solana))?),
        WalletsCommand::Import { file } => {
            let wallet = home::import(&read_input(file)?)?;
            client.home.keep_wallet(&wallet)?;
            kept(client, &wallet)
        }
        WalletsCommand::Link { new, solana, label, capabilities } => {
            let new = new.as_ref().map(|address| client.home.wallet(address)).transpose()?;
            let mut asked = json!({});
            set(&mut asked, "label", label.clone());
            set(&mut asked, "capabilities", words(capabilities));
            link(client, new, chain(*solana), asked).await
        }
        WalletsCommand::Change { id, label, capabilities, status, default_payment, default_payout } => {
            let mut asked = json!({});
            set(&mut asked, "label", label.clone());
            set(&mut asked, "capabilities", words(capabilities));
            set(&mut asked, "status", status.clone());
            set(&mut asked, "default_payment", *default_payment);
            set(&mut asked, "default_payout", *default_payout);
            if asked == json!({}) {
                bail!("say what to change: --label, --capabilities, --status, --default-payment or --default-payout");
            }
            change(client, "PATCH", id, asked).await
        }
        WalletsCommand::Remove { id } => change(client, "DELETE", id, json!({})).await,
    }
}

fn chain(solana: bool) -> Chain {
    if solana { Chain::Solana } else { Chain::Evm }
}

/// A list of words, when there are any.
pub(super) fn words(words: &[String]) -> Option<Vec<String>> {
    (!words.is_empty()).then(|| words.to_vec())
}

fn list(data: &Value) -> String {
    let rows = rows(data).iter().map(|row| {
        let defaults = [("/default_payment", "payment"), ("/default_payout", "payout")];
        let defaults = defaults.iter().filter(|(place, _)| row.pointer(place) == Some(&Value::Bool(true)));
        let defaults: Vec<_> = defaults.map(|(_, name)| *name).collect();
        let mut cells: Vec<_> =
            ["/id", "/chain", "/address", "/label", "/status", "/capabilities"].map(|place| cell(row, place)).into();
        cells.push(if defaults.is_empty() { "-".into() } else { defaults.join(", ") });
        cells
    });
    table(&["ID", "CHAIN", "ADDRESS", "LABEL", "STATUS", "MAY", "DEFAULT FOR"], &rows.collect::<Vec<_>>())
}

fn one(data: &Value) -> String {
    facts(&[
        ("id", cell(data, "/id")),
        ("chain", cell(data, "/chain")),
        ("address", cell(data, "/address")),
        ("label", cell(data, "/label")),
        ("status", cell(data, "/status")),
        ("may", cell(data, "/capabilities")),
        ("default for payment", cell(data, "/default_payment")),
        ("default for payout", cell(data, "/default_payout")),
        ("created", moment(data, "/created_at")),
    ])
}

fn local(client: &Client) -> Result<Ended> {
    let wallets = client.home.wallets()?;
    if client.json {
        let list: Vec<_> =
            wallets.iter().map(|wallet| json!({"chain": wallet.chain(), "address": wallet.address()})).collect();
        say(&format!("{}\n", json!({"success": true, "data": list})))?;
    } else {
        let rows: Vec<_> = wallets.iter().map(|wallet| vec![wallet.chain().to_string(), wallet.address()]).collect();
        say(&table(&["CHAIN", "ADDRESS"], &rows))?;
    }
    Ok(Ended::Done)
}

fn kept(client: &Client, wallet: &Wallet) -> Result<Ended> {
    if client.json {
        let data = json!({"chain": wallet.chain(), "address": wallet.address()});
        say(&format!("{}\n", json!({"success": true, "data": data})))?;
    } else {
        say(&format!("{}\n", wallet.address()))?;
    }
    Ok(Ended::Done)
}

/// Both wallets prove themselves, each naming the other.
async fn link(client: &Client, new: Option<Wallet>, chain: Chain, mut asked: Value) -> Result<Ended> {
    let existing = speaking_wallet(client)?;
    let profile = client.profile().await?;
    let new = new.map_or_else(|| make_wallet(client, chain), Ok)?;
    set(&mut asked, "existing_wallet", Some(prove(client, &existing, "link_wallet", &profile, Some(&new)).await?));
    set(&mut asked, "new_wallet", Some(prove(client, &new, "link_wallet", &profile, Some(&existing)).await?));
    client.show(&client.ask("POST", "/api/v1/me/wallets", Some(&asked)).await?, one)
}

async fn change(client: &Client, method: &'static str, id: &str, mut asked: Value) -> Result<Ended> {
    let profile = client.profile().await?;
    let proof = prove(client, &speaking_wallet(client)?, "update_wallet", &profile, None).await?;
    set(&mut asked, "proof", Some(proof));
    let ended = client.show(&client.ask(method, &path("me/wallets", id, ""), Some(&asked)).await?, one)?;
    if method == "DELETE" {
        note("It is out of use. Its row stays, for payments may name it.");
    }
    Ok(ended)
}

//! `crochet keys`: what else may act for the profile. A key's text is shown in one answer only.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    Client, Ended, accepted,
    arguments::KeysCommand,
    home::{Account, write_secret},
    http::{Answer, Request},
    identity::set,
    note, path, read_key, rows, say, shown_key,
    table::{cell, facts, moment, money, plain, table},
    wallets::words,
};

/// Does it.
pub(super) async fn run(client: &Client, what: &KeysCommand) -> Result<Ended> {
    match what {
        KeysCommand::List => client.show(&client.get("/api/v1/api-keys").await?, list),
        KeysCommand::Create { name, scopes, expires_in_days, max_price, daily_spend, to } => {
            let mut asked = json!({"name": name});
            set(&mut asked, "scopes", words(scopes));
            set(&mut asked, "expires_in_days", *expires_in_days);
            set(&mut asked, "max_price_micros", max_price.map(|price| price.0));
            set(&mut asked, "daily_spend_micros", daily_spend.map(|spend| spend.0));
            let mut answer = client.ask("POST", "/api/v1/api-keys", Some(&asked)).await?;
            if let Some(file) = to {
                write_secret(file, answer.text("/data/api_key")?)
                    .context("the key was made and is lost: revoke it with `crochet keys revoke`")?;
                note(&format!("The key is in {}.", file.display()));
                without_secrets(&mut answer, &["api_key", "authorization_header"]);
            }
            client.show(&answer, created)
        }
        KeysCommand::Revoke { id } => client
            .show(&client.ask("DELETE", &path("api-keys", id, ""), None).await?, |data| {
                format!("{} is revoked\n", cell(data, "/name"))
            }),
        KeysCommand::Use { file } => adopt(client, read_key(file)?).await,
    }
}

/// Takes secrets out of an answer that went somewhere else.
pub(super) fn without_secrets(answer: &mut Answer, names: &[&str]) {
    for place in ["/data", "/data/gateway_endpoint"] {
        if let Some(Value::Object(fields)) = answer.json.pointer_mut(place) {
            fields.retain(|name, _| !names.contains(&name.as_str()));
        }
    }
    answer.body = answer.json.to_string().into_bytes();
}

fn list(data: &Value) -> String {
    let rows = rows(data).iter().map(|row| {
        vec![
            cell(row, "/id"),
            cell(row, "/name"),
            cell(row, "/key_prefix"),
            cell(row, "/scopes"),
            cell(row, "/status"),
            money(row, "/max_price_micros"),
            money(row, "/daily_spend_micros"),
            moment(row, "/last_used_at"),
            moment(row, "/expires_at"),
        ]
    });
    let headings = ["ID", "NAME", "KEY", "SCOPES", "STATUS", ">A CALL", ">A DAY", "LAST USED", "EXPIRES"];
    table(&headings, &rows.collect::<Vec<_>>())
}

fn created(data: &Value) -> String {
    let mut shown = vec![
        ("id", cell(data, "/id")),
        ("name", cell(data, "/name")),
        ("scopes", cell(data, "/scopes")),
        ("a call", money(data, "/max_price_micros")),
        ("a day", money(data, "/daily_spend_micros")),
        ("expires", moment(data, "/expires_at")),
    ];
    if data.get("api_key").is_some() {
        note("This key is shown this once.");
        shown.push(("key", cell(data, "/api_key")));
    }
    facts(&shown)
}

/// Keeps a key when the gateway knows whose it is.
async fn adopt(client: &Client, key: String) -> Result<Ended> {
    let path = "/api/v1/me".to_string();
    let answer =
        accepted(client.server.send(&Request { method: "GET", path, key: Some(&key), ..Request::default() }).await?)?;
    let profile_id = answer.text("/data/profile/id")?.to_string();
    // The wallet that speaks for the profile is the same, when it is the same profile.
    let known = client.account()?.filter(|account| account.profile_id == profile_id);
    let account = Account {
        url: client.server.site().to_string(),
        api_key: key,
        profile_id,
        display_name: answer.text("/data/profile/display_name")?.to_string(),
        wallet_address: known.and_then(|account| account.wallet_address),
    };
    let file = client.home.keep_account(&account)?;
    if client.json {
        client.show(&answer, |_| String::new())?;
        return Ok(Ended::Done);
    }
    say(&facts(&[
        ("profile", format!("{} ({})", plain(&account.profile_id), plain(&account.display_name))),
        ("key", format!("{}, kept in {}", shown_key(&account.api_key), file.display())),
    ]))?;
    Ok(Ended::Done)
}

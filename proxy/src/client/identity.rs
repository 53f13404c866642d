//! Registering and recovering: a wallet signs a challenge, some work is done, and a key comes back.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    Client, Ended,
    arguments::{Recover, Register},
    home::Account,
    http::Answer,
    note, say, shown_key,
    table::{facts, plain},
    wallet::{Chain, Wallet, is_same_address, solve},
};
use crate::admin::bar::Bar;

/// `crochet register`.
pub(super) async fn register(client: &Client, order: &Register) -> Result<Ended> {
    if let Some(account) = client.account()? {
        bail!(
            "{} is registered here already, as {}: `crochet recover` gets a new key, and another --home is another agent",
            account.profile_id,
            plain(&account.display_name)
        );
    }
    let wallet = own_or_new_wallet(client, order.solana)?;
    let proof = prove_with_work(client, &wallet, "register").await?;
    let mut asked = proof;
    set(&mut asked, "display_name", order.name.clone());
    let answer = client.ask_openly("POST", "/api/v1/register", Some(&asked)).await?;
    keep(client, &answer, &wallet, "registered")
}

/// `crochet recover`.
pub(super) async fn recover(client: &Client, order: &Recover) -> Result<Ended> {
    let wallet = speaking_wallet(client)?;
    let mut asked = prove_with_work(client, &wallet, "recover").await?;
    set(&mut asked, "revoke_existing_keys", Some(order.revoke_existing_keys));
    let answer = client.ask_openly("POST", "/api/v1/auth/recover", Some(&asked)).await?;
    keep(client, &answer, &wallet, "recovered")
}

/// Keeps the key before anything is said. A key that is lost all the same is no harm: the wallet gets another.
fn keep(client: &Client, answer: &Answer, wallet: &Wallet, what: &str) -> Result<Ended> {
    let account = Account {
        url: client.server.site().to_string(),
        api_key: answer.text("/data/api_key")?.to_string(),
        profile_id: answer.text("/data/profile/id")?.to_string(),
        display_name: answer.text("/data/profile/display_name")?.to_string(),
        wallet_address: Some(wallet.address()),
    };
    let file = client.home.keep_account(&account)?;
    if client.json {
        let mut shown = answer.json.clone();
        if let Some(Value::Object(data)) = shown.pointer_mut("/data") {
            // It is in its file, and has no business in a log.
            data.remove("api_key");
            data.remove("authorization_header");
            data.insert("key_file".into(), file.display().to_string().into());
            data.insert("wallet_address".into(), wallet.address().into());
        }
        say(&format!("{shown}\n"))?;
        return Ok(Ended::Done);
    }
    say(&facts(&[
        (what, plain(&account.display_name)),
        ("profile", plain(&account.profile_id)),
        ("wallet", format!("{} ({})", wallet.address(), wallet.chain())),
        ("key", format!("{}, kept in {}", shown_key(&account.api_key), file.display())),
    ]))?;
    Ok(Ended::Done)
}

/// The wallet that is named, or the only one of the family, or a new one.
fn own_or_new_wallet(client: &Client, solana: bool) -> Result<Wallet> {
    let chain = if solana { Chain::Solana } else { Chain::Evm };
    if let Some(address) = &client.wallet {
        return client.home.wallet(address);
    }
    let mut known: Vec<_> = client.home.wallets()?.into_iter().filter(|wallet| wallet.chain() == chain).collect();
    match known.len() {
        0 => make_wallet(client, chain),
        1 => known.pop().context("one is there"),
        _ => bail!("there are several wallets: say which with --wallet ADDRESS (`crochet wallets local` lists them)"),
    }
}

/// Makes a wallet; it is on the disk before anybody hears of it.
pub(super) fn make_wallet(client: &Client, chain: Chain) -> Result<Wallet> {
    let wallet = Wallet::generate(chain)?;
    let file = client.home.keep_wallet(&wallet)?;
    note(&format!("A wallet was made: {}. Keep a copy of it: who has it has the profile.", file.display()));
    Ok(wallet)
}

/// The wallet that is named, or the one that was registered here, or the only one.
pub(super) fn speaking_wallet(client: &Client) -> Result<Wallet> {
    if let Some(address) = &client.wallet {
        return client.home.wallet(address);
    }
    if let Some(address) = client.account()?.and_then(|account| account.wallet_address) {
        return client.home.wallet(&address);
    }
    let mut known = client.home.wallets()?;
    match known.len() {
        0 => bail!("there is no wallet here: put one in with `crochet wallets import FILE`"),
        1 => known.pop().context("one is there"),
        _ => bail!("there are several wallets: say which with --wallet ADDRESS (`crochet wallets local` lists them)"),
    }
}

/// A wallet's proof for a purpose: address, nonce, signature.
pub(super) async fn prove(
    client: &Client,
    wallet: &Wallet,
    purpose: &str,
    profile: &str,
    other: Option<&Wallet>,
) -> Result<Value> {
    let mut asked = json!({"wallet_address": wallet.address(), "purpose": purpose, "profile_id": profile});
    set(&mut asked, "other_wallet_address", other.map(Wallet::address));
    let challenge = client.ask_openly("POST", "/api/v1/auth/challenge", Some(&asked)).await?;
    signed(client, wallet, &challenge)
}

async fn prove_with_work(client: &Client, wallet: &Wallet, purpose: &str) -> Result<Value> {
    let asked = json!({"wallet_address": wallet.address(), "purpose": purpose});
    let challenge = client.ask_openly("POST", "/api/v1/auth/challenge", Some(&asked)).await?;
    let mut proof = signed(client, wallet, &challenge)?;
    set(&mut proof, "pow_nonce", Some(work(&challenge, "/data/pow").await?));
    Ok(proof)
}

/// A signature over what the gateway said, when that is what it should be.
fn signed(client: &Client, wallet: &Wallet, challenge: &Answer) -> Result<Value> {
    let (message, nonce) = (challenge.text("/data/message")?, challenge.text("/data/nonce")?);
    check_message(message, &client.site, &wallet.address(), nonce)?;
    Ok(json!({"wallet_address": wallet.address(), "nonce": nonce, "signature": wallet.sign(message)}))
}

/// Nothing is signed that is no challenge of this gateway's for this wallet: neither a transaction, nor what another
/// gateway asks, which whoever got the signature could use there.
fn check_message(message: &str, site: &str, address: &str, nonce: &str) -> Result<()> {
    let mut lines = message.lines();
    let domain = lines.next().and_then(|line| line.split_once(" wants you to sign in with your "));
    let is_ours = lines.next().is_some_and(|line| is_same_address(address, line));
    let uri = message.lines().find_map(|line| line.strip_prefix("URI: ")).unwrap_or_default().trim_end_matches('/');
    ensure!(
        domain.is_some() && is_ours && message.contains(&format!("\nNonce: {nonce}\n")),
        "the gateway wants something signed that is no challenge for this wallet; it was not signed"
    );
    let host = site.split_once("://").map_or(site, |(_, host)| host);
    let is_here = domain.is_some_and(|(domain, _)| domain.eq_ignore_ascii_case(host)) && uri.eq_ignore_ascii_case(site);
    ensure!(
        is_here,
        "the challenge is for {}, and {site} was asked; it was not signed. If they are the same gateway, say --site {}",
        plain(uri),
        plain(uri)
    );
    Ok(())
}

/// The solution of the work that a challenge asks for, found behind a progress bar.
pub(super) async fn work(challenge: &Answer, place: &str) -> Result<String> {
    let difficulty = challenge.number(&format!("{place}/difficulty"))?;
    let (ended, end) = tokio::sync::oneshot::channel();
    let progress = BarHolder { bar: Some(Bar::new("hashes")), ended: Some(ended) }.into_progress();
    let solution = solve(challenge.text(&format!("{place}/challenge"))?, difficulty, progress).await;
    // The bar's last line stands before anything else is written.
    let _ = end.await;
    solution
}

/// Ends the bar when the search lets go of it.
struct BarHolder {
    bar: Option<Bar>,
    ended: Option<tokio::sync::oneshot::Sender<()>>,
}

impl BarHolder {
    fn into_progress(mut self) -> impl FnMut(u64, u64) + Send + 'static {
        move |more, total| {
            if let Some(bar) = &mut self.bar {
                bar.advance(more, Some(total));
            }
        }
    }
}

impl Drop for BarHolder {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.end();
        }
        drop(self.ended.take());
    }
}

/// Sets a field, when there is something to set.
pub(super) fn set(object: &mut Value, name: &str, value: Option<impl Into<Value>>) {
    if let (Value::Object(fields), Some(value)) = (object, value) {
        fields.insert(name.to_string(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_challenges_of_this_gateway_for_this_wallet_are_signed() {
        let (site, address) = ("https://a.example", "0x2c7536e3605d9c16a7a3d7b1898e529396a65c23");
        let message = |host: &str, address: &str, nonce: &str| {
            format!(
                "{host} wants you to sign in with your Ethereum account:\n{address}\n\nRegister.\n\nURI: https://{host}\n\
                 Version: 1\nChain ID: 1\nNonce: {nonce}\nIssued At: x"
            )
        };
        let checksummed = address.to_uppercase().replace('X', "x");
        assert!(check_message(&message("a.example", &checksummed, "n1"), site, address, "n1").is_ok());
        let bad = [
            message("a.example", "0x00", "n1"),
            message("a.example", address, "n2"),
            message("b.example", address, "n1"),
            message("b.example", address, "n1").replace("URI: https://b", "URI: https://a"),
            message("a.example", address, "n1").replace("URI: https://a", "URI: http://a"),
            String::new(),
            "transfer everything".into(),
        ];
        for bad in bad {
            assert!(check_message(&bad, site, address, "n1").is_err(), "{bad}");
        }
    }
}

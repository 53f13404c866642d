//! The client's folder: wallets, the key for each gateway, and purchases under way. Only its owner may read it, and what
//! others may read is not believed to be secret any more.
//!
//! ```text
//! wallets/ADDRESS.json      a secret key
//! gateways/SITE.json        the API key that this gateway gave, and to no other is it sent
//! purchases/HASH.json       a payment that was begun and whose answer has not come yet
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use super::wallet::{Chain, Wallet, is_same_address};

/// No file of ours is longer, bytes.
const FILE_MAX: u64 = 1 << 20;

/// The folder.
pub(super) struct Home {
    directory: PathBuf,
}

/// A wallet as it lies in its file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WalletFile {
    chain: Chain,
    address: String,
    secret_key: String,
}

/// Who we are at one gateway.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) url: String,
    pub(super) api_key: String,
    pub(super) profile_id: String,
    pub(super) display_name: String,
    /// The wallet that speaks for the profile; none when only the key is known.
    pub(super) wallet_address: Option<String>,
}

/// A payment that was begun.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Purchase {
    pub(super) url: String,
    pub(super) listing: String,
    pub(super) payment: String,
    pub(super) amount_micros: i64,
}

/// What makes a purchase this one: its file's name.
#[derive(Clone)]
pub(super) struct PurchaseName(String);

impl PurchaseName {
    /// The purchase of this call.
    pub(super) fn new(site: &str, profile: &str, listing: &str, body: &str, idempotency_key: Option<&str>) -> Self {
        let mut hash = Sha256::new();
        for part in [site, profile, listing, body, idempotency_key.unwrap_or_default()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(format!("{}.json", hex::encode(hash.finalize())))
    }
}

impl Home {
    /// The folder at `given`, or where the system keeps such things.
    ///
    /// # Errors
    /// When nobody says where that is.
    pub(super) fn find(given: Option<&Path>) -> Result<Self> {
        if let Some(directory) = given {
            return Ok(Self { directory: directory.to_path_buf() });
        }
        let configured = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let usual = || std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".config"));
        let parent = configured.or_else(usual).context("there is no home directory: say --home DIR")?;
        Ok(Self { directory: parent.join("crochet") })
    }

    /// All wallets, by address.
    ///
    /// # Errors
    /// When a file cannot be read, or others may read it.
    pub(super) fn wallets(&self) -> Result<Vec<Wallet>> {
        let directory = self.directory.join("wallets");
        let mut paths = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries
                .and_then(|entries| {
                    entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
                })
                .with_context(|| format!("{} cannot be read", directory.display()))?,
        };
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        paths.iter().map(|path| read_wallet(path)).collect()
    }

    /// The wallet with this address.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn wallet(&self, address: &str) -> Result<Wallet> {
        let found = self.wallets()?.into_iter().find(|wallet| is_same_address(&wallet.address(), address));
        found.with_context(|| format!("there is no wallet {address} in {}", self.directory.display()))
    }

    /// Keeps a wallet. One that is kept already stays as it is.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub(super) fn keep_wallet(&self, wallet: &Wallet) -> Result<PathBuf> {
        let path = self.directory.join("wallets").join(format!("{}.json", wallet.address()));
        let (chain, address, secret_key) = (wallet.chain(), wallet.address(), wallet.secret());
        self.keep(&path, &WalletFile { chain, address, secret_key })?;
        Ok(path)
    }

    /// Who we are at the gateway with this URL.
    ///
    /// # Errors
    /// When the file cannot be read, or others may read it.
    pub(super) fn account(&self, site: &str) -> Result<Option<Account>> {
        let account: Option<Account> = read(&self.account_path(site))?;
        Ok(account.filter(|account| account.url == site))
    }

    /// Keeps who we are at a gateway; replaces who we were.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn keep_account(&self, account: &Account) -> Result<PathBuf> {
        let path = self.account_path(&account.url);
        self.keep(&path, account)?;
        Ok(path)
    }

    fn account_path(&self, site: &str) -> PathBuf {
        let name: String =
            site.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' }).collect();
        self.directory.join("gateways").join(format!("{}.json", name.replace("___", "_")))
    }

    /// The payment that was begun for this call.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub(super) fn purchase(&self, name: &PurchaseName) -> Result<Option<Purchase>> {
        read(&self.directory.join("purchases").join(&name.0))
    }

    /// Notes a payment before it is made.
    ///
    /// # Errors
    /// When it cannot be written: then nothing may be paid.
    pub(super) fn keep_purchase(&self, name: &PurchaseName, purchase: &Purchase) -> Result<()> {
        self.keep(&self.directory.join("purchases").join(&name.0), purchase)
    }

    /// Forgets a payment: its answer is here, or it can buy nothing any more.
    ///
    /// # Errors
    /// When it cannot be forgotten; it is asked for again then, at no charge.
    pub(super) fn forget_purchase(&self, name: &PurchaseName) -> Result<()> {
        match fs::remove_file(self.directory.join("purchases").join(&name.0)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn keep(&self, path: &Path, content: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(content)?;
        let parent = path.parent().unwrap_or(&self.directory);
        let written = make_directory(parent).and_then(|()| write(path, &format!("{text}\n"), true));
        written.with_context(|| format!("{} cannot be written", path.display()))
    }
}

/// A secret for a file of the user's choice, which must not be there yet.
///
/// # Errors
/// When it is there, or cannot be written.
pub(super) fn write_secret(path: &Path, secret: &str) -> Result<()> {
    write(path, &format!("{secret}\n"), false).with_context(|| format!("{} cannot be written", path.display()))
}

/// Reads a file of ours, whoever's folder it is in: a wallet of another home, or a key of another program.
///
/// # Errors
/// When it is neither.
pub(super) fn import(text: &str) -> Result<Wallet> {
    match serde_json::from_str::<WalletFile>(text) {
        Ok(file) => file.wallet(),
        Err(_) => Wallet::parse(text),
    }
}

impl WalletFile {
    fn wallet(&self) -> Result<Wallet> {
        let bytes = hex::decode(&self.secret_key).ok().and_then(|bytes| bytes.try_into().ok());
        let wallet = Wallet::from_bytes(self.chain, &bytes.context("the secret key is not 32 bytes in hex")?)?;
        ensure!(is_same_address(&wallet.address(), &self.address), "the secret key is not that of {}", self.address);
        Ok(wallet)
    }
}

fn read_wallet(path: &Path) -> Result<Wallet> {
    let file: WalletFile = read(path)?.with_context(|| format!("{} has gone", path.display()))?;
    file.wallet().with_context(|| format!("{} cannot be used", path.display()))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let told = || format!("{} cannot be read", path.display());
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.with_context(told)?,
    };
    let about = file.metadata().with_context(told)?;
    if about.permissions().mode() & 0o077 != 0 {
        bail!("{0} can be read by others: if they did not, `chmod 600 {0}`", path.display());
    }
    ensure!(about.len() <= FILE_MAX, "{} is too long", path.display());
    let text = io::read_to_string(file).with_context(told)?;
    serde_json::from_str(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
}

/// A folder that only its owner may enter, and those above it that are missing.
fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Written aside, synced, and moved: what stands there after a crash is the old or the new whole.
fn write(path: &Path, text: &str, may_replace: bool) -> io::Result<()> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.{}", hex::encode(random)));
    let put = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if may_replace {
            fs::rename(&draft, path)?;
        } else {
            // A link, unlike a move, never replaces.
            fs::hard_link(&draft, path)?;
            fs::remove_file(&draft)?;
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    };
    put().inspect_err(|_| drop(fs::remove_file(&draft)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let directory = tempfile::TempDir::new().expect("temporary directory");
        let home = Home { directory: directory.path().join("a/b") };
        (directory, home)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn what_is_kept_is_for_the_owner_alone_and_read_back() {
        let (_guard, home) = home();
        assert!(home.wallets().expect("none").is_empty());
        for chain in [Chain::Evm, Chain::Solana] {
            let wallet = Wallet::generate(chain).expect("a key");
            let path = home.keep_wallet(&wallet).expect("kept");
            assert_eq!((mode(&path), mode(path.parent().expect("a folder"))), (0o600, 0o700));
            assert_eq!(home.wallet(&wallet.address()).expect("found").secret(), wallet.secret());
            assert_eq!(
                import(&fs::read_to_string(&path).expect("read")).expect("a wallet").address(),
                wallet.address()
            );
        }
        assert_eq!(home.wallets().expect("two").len(), 2);
        assert_eq!(fs::read_dir(home.directory.join("wallets")).expect("a folder").count(), 2, "no drafts are left");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let (_guard, home) = home();
        let path = home.keep_wallet(&Wallet::generate(Chain::Evm).expect("a key")).expect("kept");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        let told = home.wallets().err().expect("refused").to_string();
        assert!(told.contains("chmod 600"), "{told}");
    }

    #[test]
    fn a_key_goes_to_the_gateway_that_gave_it() {
        let (_guard, home) = home();
        let url = "http://127.0.0.1:8080".to_string();
        let (api_key, profile_id, display_name) = ("k".into(), "p".into(), "n".into());
        let path = home
            .keep_account(&Account { url: url.clone(), api_key, profile_id, display_name, wallet_address: None })
            .expect("kept");
        assert!(path.ends_with("gateways/http_127.0.0.1_8080.json"), "{}", path.display());
        assert!(home.account(&url).expect("read").is_some());
        // This one has a file of the same name.
        assert!(home.account("http://127.0.0.1_8080").expect("read").is_none());
        assert!(home.account("https://127.0.0.1:8080").expect("read").is_none());
    }

    #[test]
    fn a_purchase_is_found_by_all_that_it_is_and_forgotten_once() {
        let (_guard, home) = home();
        let name = |body: &str, key: Option<&str>| PurchaseName::new("http://a", "p", "l", body, key);
        let purchase =
            Purchase { url: "http://a".into(), listing: "l".into(), payment: "pay_1".into(), amount_micros: 5 };
        home.keep_purchase(&name("{}", None), &purchase).expect("kept");
        assert_eq!(home.purchase(&name("{}", None)).expect("read").expect("there").payment, "pay_1");
        assert!(home.purchase(&name("{ }", None)).expect("read").is_none());
        assert!(home.purchase(&name("{}", Some("k"))).expect("read").is_none());
        for _ in 0..2 {
            home.forget_purchase(&name("{}", None)).expect("forgotten");
        }
        assert!(home.purchase(&name("{}", None)).expect("read").is_none());
    }

    #[test]
    fn a_secret_never_replaces_a_file() {
        let directory = tempfile::TempDir::new().expect("temporary directory");
        let path = directory.path().join("secret");
        write_secret(&path, "one").expect("written");
        assert!(write_secret(&path, "two").is_err());
        assert_eq!((fs::read_to_string(&path).expect("read").as_str(), mode(&path)), ("one\n", 0o600));
        assert_eq!(fs::read_dir(directory.path()).expect("a folder").count(), 1, "no draft is left");
    }
}

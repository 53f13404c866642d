//! What can be typed after `crochet` by buyers and sellers.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use storage::model::Micros;

use super::{catalog::ListingsCommand, http::SILENCE};

/// What buyers and sellers do.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Registers a wallet as a new agent, and keeps the key; makes a wallet when there is none
    Register(Register),
    /// Gets a new key for the profile of a wallet
    Recover(Recover),
    /// The wallets of the profile, and those in the client's folder
    Wallets(Wallets),
    /// The profile's API keys
    Keys(Keys),
    /// What is offered: search, show; for sellers: create, change, endpoints
    Listings(Listings),
    /// Calls a listing; with --pay it pays what is asked, on the sandbox
    Call(Box<Call>),
    /// Pays for an offer on the sandbox, or shows where a payment stands
    Pay(Pay),
    /// Calls bought and sold
    Calls(Calls),
    /// What buyers say of a listing, and saying it
    Reviews(Reviews),
    /// The books: every amount that moved
    Ledger(Ledger),
    /// An agent's score
    Score(Score),
}

/// Which gateway, and who asks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Gateway")]
pub struct At {
    /// The gateway
    #[arg(long, global = true, env = "CROCHET_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,
    /// Certificates (PEM) that an https gateway may be certified by, beside the web's authorities
    #[arg(long, global = true, env = "CROCHET_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The gateway's public URL, when it is reached by another: what is signed names it
    #[arg(long, global = true, env = "CROCHET_SITE", value_name = "URL")]
    pub site: Option<String>,
    /// Where wallets and keys are kept; $XDG_CONFIG_HOME/crochet or ~/.config/crochet when it is not given
    #[arg(long, global = true, env = "CROCHET_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Use the API key in this file (- for standard input) instead of the one that is kept
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The wallet that signs, when there are several
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub wallet: Option<String>,
    /// Print the gateway's answers as they are
    #[arg(long, global = true)]
    pub json: bool,
    /// How long nothing may come from the gateway
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = SILENCE.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

/// `crochet register`.
#[derive(Debug, Args)]
pub struct Register {
    /// Which gateway, and who asks.
    #[command(flatten)]
    pub at: At,
    /// What the profile is called
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// Use a Solana wallet instead of an Ethereum one
    #[arg(long)]
    pub solana: bool,
}

/// `crochet recover`.
#[derive(Debug, Args)]
pub struct Recover {
    /// Which gateway, and who asks.
    #[command(flatten)]
    pub at: At,
    /// Revoke every key that the profile has
    #[arg(long)]
    pub revoke_existing_keys: bool,
}

/// `crochet wallets`.
#[derive(Debug, Args)]
pub struct Wallets {
    /// Which gateway, and who asks.
    #[command(flatten)]
    pub at: At,
    /// What to do; `list` when nothing is said.
    #[command(subcommand)]
    pub what: Option<WalletsCommand>,
}

/// What is done with wallets.
#[derive(Debug, Subcommand)]
pub enum WalletsCommand {
    /// Lists the profile's wallets
    List,
    /// Shows one of them
    Show {
        /// Its id
        id: String,
    },
    /// Lists the wallets in the client's folder; asks no gateway
    Local,
    /// Makes a wallet in the client's folder; asks no gateway
    Make {
        /// A Solana wallet instead of an Ethereum one
        #[arg(long)]
        solana: bool,
    },
    /// Puts a wallet into the client's folder: one of another folder, an Ethereum key in hex, or a Solana key pair
    Import {
        /// The file; - for standard input
        file: PathBuf,
    },
    /// Links a wallet of the client's folder to the profile; makes one when none is named
    Link {
        /// Its address
        #[arg(value_name = "ADDRESS")]
        new: Option<String>,
        /// Make a Solana wallet instead of an Ethereum one
        #[arg(long, conflicts_with = "new")]
        solana: bool,
        /// What it is called
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
        /// What it may be used for: auth, recovery, payment, payout; all of them when nothing is said
        #[arg(long, value_delimiter = ',', value_name = "WORDS")]
        capabilities: Vec<String>,
    },
    /// Changes one of the profile's wallets
    Change {
        /// Its id
        id: String,
        /// What it is called
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
        /// What it may be used for: auth, recovery, payment, payout
        #[arg(long, value_delimiter = ',', value_name = "WORDS")]
        capabilities: Vec<String>,
        /// active or disabled
        #[arg(long, value_name = "WORD")]
        status: Option<String>,
        /// Pay from it unless something else is said
        #[arg(long, value_name = "true|false")]
        default_payment: Option<bool>,
        /// Get paid there
        #[arg(long, value_name = "true|false")]
        default_payout: Option<bool>,
    },
    /// Puts one of the profile's wallets out of use
    Remove {
        /// Its id
        id: String,
    },
}

/// `crochet keys`.
#[derive(Debug, Args)]
pub struct Keys {
    /// Which gateway, and who asks.
    #[command(flatten)]
    pub at: At,
    /// What to do; `list` when nothing is said.
    #[command(subcommand)]
    pub what: Option<KeysCommand>,
}

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Lists the profile's keys, without the keys themselves
    List,
    /// Makes a key, and shows it this once
    Create {
        /// What it is called
        #[arg(long, value_name = "TEXT")]
        name: String,
        /// What it may do: gateway, read, write; as much as the key that asks when nothing is said
        #[arg(long, value_delimiter = ',', value_name = "WORDS")]
        scopes: Vec<String>,
        /// How long it is good
        #[arg(long, value_name = "DAYS")]
        expires_in_days: Option<u64>,
        /// The dearest call that it may buy
        #[arg(long, value_name = "USD", value_parser = usd)]
        max_price: Option<Micros>,
        /// What it may spend in a day
        #[arg(long, value_name = "USD", value_parser = usd)]
        daily_spend: Option<Micros>,
        /// Write the key into this new file (mode 0600) instead of showing it
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Revokes a key
    Revoke {
        /// Its id
        id: String,
    },
    /// Keeps a key that was made elsewhere, once the gateway knows it
    Use {
        /// The file with the key; - for standard input
        file: PathBuf,
    },
}

/// `crochet listings`.
#[derive(Debug, Args)]
pub struct Listings {
    /// Which gateway, and who asks.
    #[command(flatten)]
    pub at: At,
    /// What to do; the newest when nothing is said.
    #[command(subcommand)]
    pub what: Option<ListingsCommand>,
}

/// `crochet call`.
#[derive(Debug, Args)]
pub struct Call {
    /// Which gateway, and who asks.
    #[command(flatten)]
    pub at: At,
    /// The listing's id or slug
    pub listing: String,
    /// What to send: JSON, or @FILE, or @- for standard input
    #[arg(long, value_name = "JSON")]
    pub body: String,
    /// Pay what is asked, on the sandbox, and fetch the answer
    #[arg(long)]
    pub pay: bool,
    /// Neither agree to nor pay more than this
    #[arg(long, value_name = "USD", value_parser = usd)]
    pub max_price: Option<Micros>,
    /// Pay in SOL, ETH, USDC or USDC-SOL
    #[arg(long, value_name = "WORD")]
    pub currency: Option<String>,
    /// A payment that was made for this very call before
    #[arg(long, value_name = "ID")]
    pub payment: Option<String>,
    /// Makes it one purchase, however often it is sent; another text makes it another purchase
    #[arg(long, value_name = "TEXT")]
    pub idempotency_key: Option<String>,
    /// How long to wait for a payment to settle
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub wait: u64,
    /// Take events as they come
    #[arg(long)]
    pub stream: bool,
    /// Write the seller's answer into this file
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `crochet pay`.
#[derive(Debug, Args)]
pub struct Pay {
    /// Which gateway, and who asks.
    #[command(flatten)]
    pub at: At,
    /// The payment's id: `relay_request_id` of the offer
    pub payment: String,
    /// Show where it stands instead of paying
    #[arg(long, conflicts_with_all = ["amount", "delay_ms", "outcome"])]
    pub show: bool,
    /// Pay this much instead of the price
    #[arg(long, value_name = "USD", value_parser = usd)]
    pub amount: Option<Micros>,
    /// Settle only after so long
    #[arg(long, value_name = "MS")]
    pub delay_ms: Option<u64>,
    /// What becomes of it: success, failure, refund, reorg
    #[arg(long, value_name = "WORD")]
    pub outcome: Option<String>,
}

/// Which rows of a history.
#[derive(Debug, Args)]
pub struct Rows {
    /// Of this listing
    #[arg(long, value_name = "ID")]
    pub listing: Option<String>,
    /// Not before this moment (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Before this moment (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// So many
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: u64,
    /// Go on behind what was shown before
    #[arg(long, value_name = "TEXT")]
    pub cursor: Option<String>,
}

/// `crochet calls`.
#[derive(Debug, Args)]
pub struct Calls {
    /// Which gateway, and who asks.
    #[command(flatten)]
    pub at: At,
    /// One call, with its attempts and its result while it is kept
    pub id: Option<String>,
    /// buyer, seller or all
    #[arg(long, value_name = "WORD")]
    pub role: Option<String>,
    /// in_progress, completed, released or interrupted
    #[arg(long, value_name = "WORD")]
    pub status: Option<String>,
    /// Which of them.
    #[command(flatten)]
    pub rows: Rows,
}

/// `crochet reviews`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct Reviews {
    /// Which gateway, and who asks.
    #[command(flatten)]
    pub at: At,
    /// What to do.
    #[command(subcommand)]
    pub what: ReviewsCommand,
}

/// What is done with reviews.
#[derive(Debug, Subcommand)]
pub enum ReviewsCommand {
    /// Lists what buyers say of a listing
    List {
        /// Its id or slug
        listing: String,
        /// Which of them.
        #[command(flatten)]
        page: Page,
    },
    /// Says what you think of a listing that you bought from
    Write {
        /// Its id or slug
        listing: String,
        /// Stars for being right, 1 to 5
        #[arg(long, value_name = "1-5")]
        accuracy: u8,
        /// Stars for being there, 1 to 5
        #[arg(long, value_name = "1-5")]
        reliability: u8,
        /// Stars for being worth the money, 1 to 5
        #[arg(long, value_name = "1-5")]
        value: u8,
        /// In a few words
        #[arg(long, value_name = "TEXT")]
        title: Option<String>,
        /// In many; @FILE or @- for standard input
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
    },
}

/// Which page of a list.
#[derive(Debug, Args)]
pub struct Page {
    /// Which page
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub page: u64,
    /// So many on a page
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: u64,
}

/// `crochet ledger`.
#[derive(Debug, Args)]
pub struct Ledger {
    /// Which gateway, and who asks.
    #[command(flatten)]
    pub at: At,
    /// Sums instead of rows
    #[arg(long, conflicts_with_all = ["listing", "from", "to", "cursor"])]
    pub summary: bool,
    /// Which of them.
    #[command(flatten)]
    pub rows: Rows,
}

/// `crochet score`.
#[derive(Debug, Args)]
pub struct Score {
    /// Which gateway, and who asks.
    #[command(flatten)]
    pub at: At,
    /// Whose: an agent's id; one's own when nothing is said
    pub agent: Option<String>,
}

/// Reads an amount of dollars.
///
/// # Errors
/// When it is none.
pub(super) fn usd(text: &str) -> Result<Micros, String> {
    Micros::parse_units(text).ok_or_else(|| "say dollars as a decimal number with at most 6 decimals".into())
}

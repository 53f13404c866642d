//! The command line: what `crochet` understands.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{CommandFactory as _, Parser, Subcommand};
use config::{Config, Problems};

use crate::{admin::AdminCommand, client::ClientCommand, verify_signature::VerifyArguments};

/// Exit code for a configuration that cannot be used.
pub const EXIT_CONFIGURATION: u8 = 64;

/// The gateway between agents that buy single API calls and the sellers of those calls.
#[derive(Debug, Parser)]
#[command(name = "crochet", version = VERSION, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Version, commit, compiler.
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("CROCHET_COMMIT"), ", ", env!("CROCHET_RUSTC"), ")");

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves buyers and sellers until SIGTERM
    Serve(ConfigFile),
    /// Serves in dev mode and plays a paid call, step by step, from wallet to ledger
    Demo(ConfigFile),
    /// Checks the configuration and the store; exits 0, or 64 with all problems
    Check(ConfigFile),
    /// Prints the effective configuration
    Config {
        /// Print the defaults with their reasons instead
        #[arg(long)]
        default: bool,
        /// The file to lay over the defaults.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Copies the store into a new folder, while it serves or when it is stopped
    Backup {
        /// The folder; it must not exist
        into: PathBuf,
        /// Where the configuration is.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Makes a new store from a backup, in the folder that the configuration names
    Restore {
        /// The backup
        from: PathBuf,
        /// Where the configuration is.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Tells every record of the store in words, while it serves or when it is stopped
    Export {
        /// A line of JSON a record
        #[arg(long, required = true)]
        ndjson: bool,
        /// Where the configuration is.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// What operators do by hand: on a stopped store directly, on a running one through its operations port
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Checks a call that a seller received and saved; exits 0 when it is good, 1 when not, 2 when it cannot be read
    VerifySignature(VerifyArguments),
    /// What buyers and sellers do.
    #[command(flatten)]
    Client(Box<ClientCommand>),
    /// Prints what a shell needs to complete these commands
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// What a shell needs to complete the commands.
#[must_use]
pub fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "crochet", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Where the configuration is.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigFile {
    /// A TOML file laid over the defaults; CROCHET__SECTION__KEY variables are laid over it
    #[arg(long = "config", value_name = "FILE")]
    pub path: Option<PathBuf>,
}

/// The variables that are ours, and those that `demo` sets where they are not set.
#[must_use]
pub fn environment(demo: bool) -> BTreeMap<String, String> {
    let mut ours: BTreeMap<String, String> =
        std::env::vars().filter(|(name, _)| name.starts_with("CROCHET__")).collect();
    if demo {
        for (name, value) in [("CROCHET__MODE", "dev"), ("CROCHET__STORAGE__PATH", "./data/demo")] {
            ours.entry(name.to_string()).or_insert_with(|| value.to_string());
        }
    }
    ours
}

/// Who the system says is at work: the user behind `sudo` first.
#[must_use]
pub fn user() -> Option<String> {
    let vars: BTreeMap<String, String> = std::env::vars().collect();
    ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| vars.get(*name).filter(|user| !user.is_empty()).cloned())
}

impl ConfigFile {
    /// Reads the configuration.
    ///
    /// # Errors
    /// All problems at once.
    pub fn load(&self, demo: bool) -> Result<Config, Problems> {
        Config::load(self.path.as_deref(), environment(demo))
    }

    /// The effective configuration as text.
    ///
    /// # Errors
    /// All problems at once.
    pub fn effective(&self) -> Result<String, Problems> {
        Config::load(self.path.as_deref(), environment(false))?;
        let file = self.path.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        Config::effective_text(file.as_deref(), environment(false))
    }
}

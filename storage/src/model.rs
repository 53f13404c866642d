//! The nouns: pure values and pure transitions. Nothing here reads a clock, a file or a socket.

pub mod audit;
pub mod backward;
pub mod catalog;
pub mod history;
pub mod identity;
pub mod ids;
pub mod ledger;
pub mod money;
pub mod payment;
pub mod payout;
pub mod quote;
pub mod sandbox;
pub mod time;
pub mod trust;
pub mod work;

pub use audit::*;
pub use backward::*;
pub use catalog::*;
pub use history::*;
pub use identity::*;
pub use ids::*;
pub use ledger::*;
pub use money::*;
pub use payment::*;
pub use payout::*;
pub use quote::*;
pub use sandbox::*;
pub use time::*;
pub use trust::*;
pub use work::*;

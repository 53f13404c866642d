//! The paid door of Crochet Gateway, and the process that hosts both planes.
//!
//! [`server`] accepts connections, in the clear or by [`tls`]; [`http1`] and [`http2`] read requests from them; [`gateway`] decides whether a request is a
//! call or goes on to the control API ([`passthrough`]). A call is one function, `call`; it reaches a seller through
//! [`upstream`] and answers through [`reply`] and [`envelope`]. `main.rs` composes the process.
//!
//! *Never:* decides who may do what (that is `actors`), keeps anything (that is `storage`), relays a header of either
//! side to the other.

pub mod admin;
mod alarm;
pub mod body;
mod call;
pub mod cli;
pub mod client;
pub mod demo;
pub mod envelope;
mod event_check;
mod finish;
mod forward;
pub mod forwarded;
pub mod gateway;
pub mod http1;
pub mod http2;
pub mod json_check;
pub mod passthrough;
pub mod places;
mod replay;
pub mod reply;
pub mod server;
pub mod socket;
mod stream;
pub mod telemetry;
pub mod tls;
pub mod trace;
pub mod upstream;
mod utf8;
pub mod verify_signature;

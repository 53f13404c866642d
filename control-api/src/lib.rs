//! The other door: everything that is not a gateway call. Identity, catalog, history, the sandbox rail's own side, and
//! the pages that errors point to.
//!
//! [`start`] serves on threads of its own and returns a handle; `routes` shows every route on one screen; a handler
//! extracts, asks, replies. The address is never public: the proxy passes on what is not a gateway call.
//!
//! *Never:* calls a seller, decides on money, shows a private endpoint, or blocks a data-plane thread.

mod catalog;
mod docs;
mod door;
mod extract;
mod fields;
#[doc(hidden)]
pub mod fuzzing;
mod history;
mod identity;
mod ops;
mod query;
mod reply;
mod routes;
mod sandbox;
mod server;
mod trust;
mod webhooks;

pub use docs::openapi;
pub use identity::password::{PasswordError, hash_password};
pub use routes::{Access, ROUTES, Route};
pub use server::{ControlApi, ControlError, Listen, start};

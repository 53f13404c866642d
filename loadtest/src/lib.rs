//! Does the whole keep its books? A black box over HTTP: buyers and sellers by seed, an open-loop workload, and an
//! auditor with books of its own, against anybody's gateway.
//!
//! [`play::play`] runs a [`scenario::Scenario`] from its beginning to its end, [`figures::figures`] says in numbers what
//! came of it, [`report::report`] and [`page::page`] show it; [`agent`], [`api`] and [`gateway`] are the parts that the
//! side-by-side runner uses too.
//!
//! *Never:* uses a crate of the gateway, reads its store, or talks to anything but the addresses it was given.

pub mod agent;
pub mod api;
pub mod auditor;
pub mod books;
pub mod copying;
pub mod facilitator;
pub mod facts;
pub mod figures;
pub mod gateway;
pub mod hostile;
pub mod idempotent;
pub mod keeper;
pub mod market;
pub mod outages;
pub mod page;
pub mod play;
pub mod progress;
pub mod provider;
pub mod purchase;
pub mod relay;
pub mod report;
pub mod rows;
pub mod run;
pub mod scenario;
pub mod seed;
pub mod seller;
pub mod wallet;
pub mod workload;
pub mod x402;

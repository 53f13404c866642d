//! Does the whole keep its books? A black box over HTTP: buyers and sellers by seed, an open-loop workload, and an
//! auditor with books of its own, against anybody's gateway.
//!
//! [`workload::run`] makes the traffic, [`auditor::audit`] compares what came of it; [`agent`], [`api`] and
//! [`gateway`] are the parts that the side-by-side runner uses too.
//!
//! *Never:* uses a crate of the gateway, reads its store, or talks to anything but the addresses it was given.

pub mod agent;
pub mod api;
pub mod auditor;
pub mod books;
pub mod gateway;
pub mod report;
pub mod seed;
pub mod seller;
pub mod wallet;
pub mod workload;

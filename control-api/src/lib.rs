//! The other door: identity, catalog, history, trust.

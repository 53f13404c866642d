//! Does the whole keep its books?

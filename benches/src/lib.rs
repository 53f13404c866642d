//! How fast is a part, and beside whom?

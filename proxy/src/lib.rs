//! The paid door, and the process that hosts both planes.

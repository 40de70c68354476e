//! Does the running gateway do it? One module for each point that users were promised.

#[path = "../support/mod.rs"]
mod support;

mod routing;

//! How is one client connection served? Its requests, one after the other or side by side, until it ends.

mod guard;
mod head;
mod headers;

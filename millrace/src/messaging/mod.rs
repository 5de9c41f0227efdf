//! Topics, subscriptions and messages through the API of the write side: the tools `topic`, `subscription`, `publish` and
//! `consume`.

mod consume;
mod message;
mod path;
mod resource;
mod service;
mod table;

pub(crate) use consume::Consumer;
pub(crate) use path::Path;
pub(crate) use resource::{create, delete, describe, list, post, print_object, service};
pub(crate) use service::{Call, Failure, Service};

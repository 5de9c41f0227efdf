//! The HTTP/1.1 client of all tests and of the fault harness: blocking and async connections over one parser.
//!
//! It sends exactly the bytes it gets, so that tests can send requests that no HTTP library would, and it never
//! returns a response that is cut short.

mod connection;
mod request;
mod response;
mod stream;

pub use connection::{Connection, http, http_get, https};
pub use request::request;
pub use response::Response;
pub use stream::AsyncConnection;

//! `/analytics`: the counts of an hour, of a range of hours, and of the current hour as it changes.

mod body;
pub(crate) mod current;
mod event;
mod format;
pub(crate) mod hour;
pub(crate) mod live;
pub(crate) mod openapi;
mod params;
pub(crate) mod range;
pub(crate) mod render;
pub(crate) mod requirement;
mod rows;
pub(crate) mod single_flight;

//! `/analytics`: the counts of an hour, of a range of hours, and of the current hour as it changes.

mod body;
pub(crate) mod conditional;
pub(crate) mod current;
pub(crate) mod event;
pub(crate) mod format;
pub(crate) mod hour;
pub(crate) mod live;
pub(crate) mod openapi;
pub(crate) mod params;
pub(crate) mod range;
pub(crate) mod render;
mod rows;
pub(crate) mod single_flight;

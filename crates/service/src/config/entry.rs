//! One setting of one layer.

use toml::{Table, Value};

use super::Origin;

/// One setting of one layer.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) parts: Vec<String>,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

impl Entry {
    pub(super) fn put_into(&self, table: &mut Table) {
        put(table, &self.parts, self.value.clone());
    }
}

/// Sets a key (parts from the outside in) to a value; creates the tables in between.
pub(super) fn put(table: &mut Table, parts: &[String], value: Value) {
    let Some((first, rest)) = parts.split_first() else { return };
    if rest.is_empty() {
        table.insert(first.clone(), value);
    } else if let Value::Table(inner) = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new())) {
        put(inner, rest, value);
    }
}

//! Topics and subscriptions as text.

use serde_json::Value;

use crate::text;

/// The members of an object, a line each; those of objects in it follow their name and a full stop.
pub(crate) fn members(object: &Value) -> String {
    let mut lines = Vec::new();
    flatten("", object, &mut lines);
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    lines.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect::<Vec<_>>().join("\n")
}

fn flatten(prefix: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if !members.is_empty() && prefix != "filter" => {
            for (name, value) in members {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, lines);
            }
        }
        value => lines.push((prefix.to_owned(), shown(value))),
    }
}

/// A table of objects: a row each, with these of their members.
pub(crate) fn table(objects: &[Value], columns: &[&str]) -> String {
    let mut table = text::table(columns);
    for object in objects {
        table.add_row(columns.iter().map(|column| shown(&object[*column])));
    }
    table.to_string()
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Object(members) if members.is_empty() => "-".into(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_a_line_a_member() {
        let object =
            json!({"name": "a", "filter": {"exact": {"k": "v"}}, "settings": {"delay": "0s"}, "newest_at": null});
        let expected = [
            "filter          {\"exact\":{\"k\":\"v\"}}",
            "name            a",
            "newest_at       -",
            "settings.delay  0s",
        ];
        let text = members(&object);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, expected);
    }
}

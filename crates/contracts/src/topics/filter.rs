//! Filters on attributes: the CloudEvents subscription dialects `exact`, `prefix`, `suffix`, `all`, `any`, `not`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A filter. `type`, `source` and `subject` mean the attributes `ce-type`, `ce-source` and `ce-subject`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// The attribute has exactly this value.
    Exact(BTreeMap<String, String>),
    /// The attribute begins with this text.
    Prefix(BTreeMap<String, String>),
    /// The attribute ends with this text.
    Suffix(BTreeMap<String, String>),
    /// Every one of these matches.
    All(Vec<Filter>),
    /// At least one of these matches.
    Any(Vec<Filter>),
    /// This does not match.
    Not(Box<Filter>),
}

/// A JSON value that is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not one of the dialects, or with the wrong type of operand.
    #[error(
        "must be an object with one of exact, prefix, suffix, all, any, not; exact, prefix and suffix take an object of one or more attributes and texts that are not empty, all and any a list of one or more filters, not a filter"
    )]
    Shape,
    /// More than 32 leaves.
    #[error("must have at most 32 comparisons")]
    Leaves,
    /// More than 4 KiB as JSON.
    #[error("must have at most 4 KiB")]
    Size,
}

impl Filter {
    /// Most comparisons of one filter.
    pub const MAX_LEAVES: usize = 32;
    /// Most bytes of a filter as JSON.
    pub const MAX_BYTES: usize = 4096;

    /// Reads a filter from its JSON form.
    ///
    /// # Errors
    /// Says which rule the value breaks.
    pub fn parse(value: &Value) -> Result<Self, FilterError> {
        if value.to_string().len() > Self::MAX_BYTES {
            return Err(FilterError::Size);
        }
        let filter = Self::shape(value).ok_or(FilterError::Shape)?;
        if filter.leaves() > Self::MAX_LEAVES { Err(FilterError::Leaves) } else { Ok(filter) }
    }

    fn shape(value: &Value) -> Option<Self> {
        let object = value.as_object().filter(|object| object.len() == 1)?;
        let (dialect, operand) = object.iter().next()?;
        let texts = || {
            let object = operand.as_object().filter(|object| !object.is_empty())?;
            let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
            object.iter().map(|(name, value)| Some((name.clone(), text(value)?))).collect::<Option<BTreeMap<_, _>>>()
        };
        let list = || {
            let list = operand.as_array().filter(|list| !list.is_empty())?;
            list.iter().map(Self::shape).collect::<Option<Vec<_>>>()
        };
        Some(match dialect.as_str() {
            "exact" => Self::Exact(texts()?),
            "prefix" => Self::Prefix(texts()?),
            "suffix" => Self::Suffix(texts()?),
            "all" => Self::All(list()?),
            "any" => Self::Any(list()?),
            "not" => Self::Not(Box::new(Self::shape(operand)?)),
            _ => return None,
        })
    }

    fn leaves(&self) -> usize {
        match self {
            Self::Exact(texts) | Self::Prefix(texts) | Self::Suffix(texts) => texts.len(),
            Self::All(list) | Self::Any(list) => list.iter().map(Self::leaves).sum(),
            Self::Not(inner) => inner.leaves(),
        }
    }

    /// Whether a message with these attributes passes.
    pub fn matches<T: AsRef<str>>(&self, attributes: &[(T, T)]) -> bool {
        let holds = |texts: &BTreeMap<String, String>, test: fn(&str, &str) -> bool| {
            texts.iter().all(|(name, text)| attribute(attributes, name).is_some_and(|value| test(value, text)))
        };
        match self {
            Self::Exact(texts) => holds(texts, |value, text| value == text),
            Self::Prefix(texts) => holds(texts, |value, text| value.starts_with(text)),
            Self::Suffix(texts) => holds(texts, |value, text| value.ends_with(text)),
            Self::All(list) => list.iter().all(|filter| filter.matches(attributes)),
            Self::Any(list) => list.iter().any(|filter| filter.matches(attributes)),
            Self::Not(inner) => !inner.matches(attributes),
        }
    }
}

fn attribute<'a, T: AsRef<str>>(attributes: &'a [(T, T)], name: &str) -> Option<&'a str> {
    let find =
        |name: &str| attributes.iter().find(|(known, _)| known.as_ref() == name).map(|(_, value)| value.as_ref());
    match name {
        "type" => find("ce-type"),
        "source" => find("ce-source"),
        "subject" => find("ce-subject"),
        "id" => find("ce-id"),
        _ => find(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn attributes(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn dialects_compare_attributes() {
        let message = attributes(&[("kind", "order-created"), ("ce-type", "com.example.order"), ("region", "eu")]);
        for (filter, expected) in [
            (json!({"exact": {"region": "eu"}}), true),
            (json!({"exact": {"region": "eu", "kind": "x"}}), false),
            (json!({"prefix": {"kind": "order-"}}), true),
            (json!({"suffix": {"kind": "-created"}}), true),
            (json!({"prefix": {"type": "com.example."}}), true),
            (json!({"exact": {"absent": "x"}}), false),
            (json!({"not": {"exact": {"absent": "x"}}}), true),
            (json!({"all": [{"exact": {"region": "eu"}}, {"prefix": {"kind": "order"}}]}), true),
            (json!({"any": [{"exact": {"region": "us"}}, {"suffix": {"kind": "x"}}]}), false),
        ] {
            assert_eq!(Filter::parse(&filter).unwrap().matches(&message), expected, "{filter}");
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let leaves: Vec<_> = (0..33).map(|n| json!({"exact": {"a": n.to_string()}})).collect();
        for (bad, why) in [
            (json!(null), FilterError::Shape),
            (json!({}), FilterError::Shape),
            (json!({"exact": {}}), FilterError::Shape),
            (json!({"exact": {"a": 1}}), FilterError::Shape),
            (json!({"exact": {"a": ""}}), FilterError::Shape),
            (json!({"all": []}), FilterError::Shape),
            (json!({"sql": "a = b"}), FilterError::Shape),
            (json!({"exact": {"a": "b"}, "not": {"exact": {"a": "b"}}}), FilterError::Shape),
            (json!({ "any": leaves }), FilterError::Leaves),
            (json!({"exact": {"a": "x".repeat(4096)}}), FilterError::Size),
        ] {
            assert_eq!(Filter::parse(&bad), Err(why), "{bad}");
        }
    }
}

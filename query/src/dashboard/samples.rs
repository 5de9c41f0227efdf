//! The samples of a Prometheus text, as the admin listeners of this product render it.

/// One sample.
#[derive(Debug, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    labels: &'a str,
    pub(super) value: f64,
}

/// Every sample of a text; what is none is left out.
pub(super) fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        Some(Sample { name, labels: labels.strip_suffix('}')?, value: value.parse().ok()? })
    })
}

impl<'a> Sample<'a> {
    /// The value of a label. Those of ours are words and numbers: none holds a quote.
    pub(super) fn label(&self, name: &str) -> Option<&'a str> {
        let mut pairs = self.labels.split("\",").filter_map(|pair| pair.split_once("=\""));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.trim_end_matches('"'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_exporter_renders_is_read() {
        let text = "# HELP a_total Things\n# TYPE a_total counter\na_total{kind=\"x\",of=\"y,z\"} 12\n\nb 0.5\nnothing\nc{} 1\n";
        let all: Vec<_> = samples(text).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(
            (all[0].name, all[0].value, all[0].label("kind"), all[0].label("of")),
            ("a_total", 12.0, Some("x"), Some("y,z"))
        );
        assert_eq!((all[1].name, all[1].value, all[1].label("kind")), ("b", 0.5, None));
    }
}

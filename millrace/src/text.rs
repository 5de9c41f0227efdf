//! Text output that several commands share.

use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, presets};

/// Prints a line of a result; `false` if the reader is gone (`| head`), which ends the output, not the process.
pub(crate) fn print_line(line: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).is_ok()
}

/// A table without rows that fits the terminal.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

/// An error with its causes, but without those whose text an outer one contains already.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match &*text {
        "" => cause,
        text if text.contains(&cause) => text.to_owned(),
        text => format!("{text}: {cause}"),
    })
}

/// A number with its noun: `1 line`, `2 lines`.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cause_is_there_twice() {
        let error = |cause: &'static str| anyhow::Error::msg(cause);
        assert_eq!(chain(&error("timed out")), "timed out");
        assert_eq!(chain(&error("timed out").context("brokers: timed out")), "brokers: timed out");
        let three = error("timed out").context("brokers: timed out").context("the topics");
        assert_eq!(chain(&three), "the topics: brokers: timed out");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!([0, 1, 2].map(|count| plural(count, "line")), ["0 lines", "1 line", "2 lines"]);
    }
}

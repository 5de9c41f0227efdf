//! An export from beginning to end.

use std::path::PathBuf;

use millrace_contracts::Hour;

use super::fetch::Source;
use super::output::{Output, failed};
use super::rows::{Line, Totals, Writer, parse};
use super::span::pieces;
use super::{Format, Step, Stop};

/// Everything that determines an export.
#[derive(Debug)]
pub(crate) struct Plan {
    /// First ms.
    pub(crate) from: i64,
    /// End in ms, exclusive.
    pub(crate) to: i64,
    /// The unit of a row.
    pub(crate) step: Step,
    /// Format of the output.
    pub(crate) format: Format,
    /// A file; `None` for standard output.
    pub(crate) output: Option<PathBuf>,
    /// The query service.
    pub(crate) source: Source,
    /// Most hours of one request.
    pub(crate) hours: u32,
}

/// Exports. The file is complete or unchanged.
pub(crate) async fn run(plan: &Plan) -> Result<(), Stop> {
    if plan.to <= plan.from {
        return Err(Stop::Empty);
    }
    let exported = export(plan).await;
    if exported.is_err() {
        Output::discard(plan.output.as_deref());
    }
    exported
}

async fn export(plan: &Plan) -> Result<(), Stop> {
    let &Plan { from, to, step, format, .. } = plan;
    let failed = || failed(plan.output.as_deref());
    let refused = |why: &str| Stop::Refused(plan.source.target.to_string(), why.to_owned());
    let mut output = Some(Output::new(plan.output.clone())?);
    // Like the service: whole hours.
    let hours = (Hour::of_ms(from).start_ms(), Hour::of_ms(to - 1).end_ms());
    let mut begun = None;
    let mut all: Option<Totals> = None;
    for (from, to) in pieces(from, to, step, plan.hours) {
        let piece = plan.source.piece(from, to, step).await?;
        let text = std::str::from_utf8(&piece).map_err(|_| refused("the response is not UTF-8"))?;
        // Nothing is written before the first response: the header of an export that failed is no export.
        let writer = match output.take() {
            Some(output) => begun.insert(Writer::begin(output, format, step, hours.0, hours.1).map_err(failed())?),
            None => begun.as_mut().ok_or(Stop::Empty)?,
        };
        let mut whole = false;
        for line in text.lines() {
            match parse(line).map_err(|e| refused(&format!("invalid row: {e}")))? {
                Line::Row(row) => writer.row(&row).map_err(failed())?,
                Line::Totals(totals) => {
                    whole = true;
                    match &mut all {
                        Some(all) => all.add(&totals),
                        None => all = Some(totals),
                    }
                }
            }
        }
        if !whole {
            return Err(refused("a response without totals"));
        }
    }
    let totals = all.ok_or(Stop::Empty)?;
    begun.ok_or(Stop::Empty)?.end(&totals).map_err(failed())?.finish()
}

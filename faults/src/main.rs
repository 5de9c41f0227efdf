//! `make faults`: the rows, a random run on each engine and the negative controls. Settings are variables; see
//! `docs/faults.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace_faults::run::main()
}

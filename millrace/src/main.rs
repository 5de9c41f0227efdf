//! The `millrace` binary; all of it is in the library beside it.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _armed = match millrace_log::arm_fail_points() {
        Ok(armed) => armed,
        Err(why) => {
            eprintln!("millrace: {why}");
            return ExitCode::FAILURE;
        }
    };
    millrace::main()
}

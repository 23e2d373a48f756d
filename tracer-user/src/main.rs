//! The program: [`tracer_user::cli`] does the work, this only starts and ends.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tracer_user::cli::main(std::env::args_os()))
}

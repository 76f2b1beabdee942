//! Arguments in, exit code out.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    walfix::io::end_on_bus_errors();
    cli::main(std::env::args_os()).into()
}

//! Parses the command line and runs it.

use std::process::ExitCode;

use kernelci_live::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // redis asks for rustls without choosing who does its mathematics.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::from_command_line();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(cli.run());
    // What still runs ends with the process. To take it down beforehand would wait for threads that nobody waits for, and
    // makes tasks of the MongoDB driver panic that wait for each other.
    std::mem::forget(runtime);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

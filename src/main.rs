//! The `portcullis` executable.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Two providers in one graph would make rustls panic at the first handshake; this one is the only one, said aloud.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return ExitCode::FAILURE;
    }
    portcullis::cli::run(std::env::args_os())
}

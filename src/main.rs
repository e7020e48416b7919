//! The server binary: see `chat_api::cli` for its subcommands.

fn main() -> anyhow::Result<std::process::ExitCode> {
    chat_api::cli::main()
}

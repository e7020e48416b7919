#!/usr/bin/env bash
# Licences, sources, banned (a second TLS stack or crypto provider among them) and unused dependencies. Installs the two programs for it where they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

need() { # PROGRAM VERSION
  command -v "$1" >/dev/null 2>&1 || cargo install --locked --quiet "$1" --version "$2"
}
need cargo-deny 0.20.2
need cargo-machete 0.9.2

# The advisories need a database from the network: `cargo deny check advisories` by hand.
cargo deny --offline --log-level error check bans licenses sources
cargo deny --manifest-path benches/peer/Cargo.toml --offline --log-level error check --config deny.toml bans licenses sources
cargo machete

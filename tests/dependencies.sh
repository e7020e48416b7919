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
for manifest in Cargo.toml benches/peer/Cargo.toml; do
  # All platforms' crates are looked at, also those that no build here has downloaded.
  cargo fetch --locked --quiet --manifest-path "$manifest"
  cargo deny --config deny.toml --manifest-path "$manifest" --offline --log-level error check bans licenses sources
done
cargo machete

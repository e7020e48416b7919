# The service's image: one binary over distroless glibc, no shell, no root.
#
#   docker build -t registry.example.org/chat-api:0.1.0 .
#
# Reads Cargo.toml, Cargo.lock and src/ alone, so that a change elsewhere builds nothing anew.

FROM rust:1.95-bookworm AS build
# `dev` builds in a fraction of the time, for those who try changes (and for tests/image.sh).
ARG PROFILE=dist
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
# The dependencies as a layer of their own: built with an empty crate, kept until the lock file changes.
RUN mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --locked --profile "${PROFILE}" --bin chat-api
COPY src src
# COPY keeps old times, and cargo goes by them: without this the empty crate would count as built.
RUN touch src/lib.rs src/main.rs \
    && cargo install --locked --profile "${PROFILE}" --path . --bin chat-api --root /out

FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="chat-api" \
      org.opencontainers.image.description="Real-time chat on Kubernetes" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/bin/chat-api /usr/local/bin/chat-api
USER 10001:10001
# The chat, and probes with metrics.
EXPOSE 8080 9090
ENTRYPOINT ["/usr/local/bin/chat-api"]

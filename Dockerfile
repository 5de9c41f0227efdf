# syntax=docker/dockerfile:1
# The binary of all services. Build: docker build -t millrace:local .

FROM rust:1.95-bookworm AS build
ARG TARGETARCH
WORKDIR /src
COPY . .
# Registry and target folder stay on the build machine: a later build compiles what changed.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=millrace-target-${TARGETARCH},target=/src/target \
    cargo build --release --locked -p millrace && cp target/release/millrace /millrace

FROM debian:bookworm-slim
# The health checks use curl.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/millrace --create-home millrace \
    && install -d -o millrace -g millrace /var/lib/millrace/journal
COPY --from=build /millrace /usr/local/bin/millrace
USER millrace
WORKDIR /var/lib/millrace
# Command, query, TCP, and the admin listeners. All of them listen on loopback by default.
EXPOSE 8081 8082 8084 9081 9082 9083 9084
ENTRYPOINT ["millrace"]
CMD ["up"]

# syntax=docker/dockerfile:1
# The one binary of all services. Build: docker build -t millrace:local .

FROM rust:1.95-bookworm AS build
ARG TARGETARCH
WORKDIR /src
COPY . .
# Registry and target folder stay on the build machine between builds, so only what changed is compiled.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=millrace-target-${TARGETARCH},target=/src/target \
    cargo build --release --locked -p millrace && cp target/release/millrace /millrace

FROM debian:bookworm-slim
# curl is for the health checks.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/millrace --create-home millrace
COPY --from=build /millrace /usr/local/bin/millrace
USER millrace
WORKDIR /var/lib/millrace
# Command, query, and the admin listeners; each listens on loopback unless told otherwise.
EXPOSE 8081 8082 9081 9082 9083 9084
ENTRYPOINT ["millrace"]
CMD ["up"]

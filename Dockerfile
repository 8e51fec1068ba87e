# The images of Streamfleet, FROM scratch: a program, the libraries that it loads, and roots of trust.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --target router -t REGISTRY/streamfleet-router:TAG --push .
#
# Targets: worker, router, operator, streamfleet. Each platform is built on itself, by a builder of that kind or under emulation: what the program
# loads is found by asking its own loader. `images/build.sh` makes the same without a container engine.

FROM docker.io/library/rust:1.95-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates cmake python3 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches are the builder's, of one platform each; what is to stay is copied out of them.
ARG TARGETPLATFORM
RUN --mount=type=cache,id=cargo-$TARGETPLATFORM,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target-$TARGETPLATFORM,target=/src/target \
    cargo build --release --locked -p streamfleet-worker -p streamfleet-router -p streamfleet-operator -p streamfleet-cli \
    && for program in streamfleet-worker streamfleet-router streamfleet-operator streamfleet; do \
        package=$(echo $program | sed 's/^streamfleet$/streamfleet-cli/') \
        && python3 images/sbom.py $package target/release/$program /sbom/$program.cdx.json \
        && python3 images/pack.py tree /images/$program target/release/$program --strip --sbom /sbom/$program.cdx.json || exit 1; \
    done

FROM scratch AS base
ENV PATH=/ SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# By number: `runAsNonRoot` cannot look a name up.
USER 65532:65532
WORKDIR /
LABEL org.opencontainers.image.source=https://github.com/streamfleet/streamfleet org.opencontainers.image.licenses=Apache-2.0

FROM base AS worker
COPY --from=build /images/streamfleet-worker /
# Probes and metrics, HTTP for routers, media.
EXPOSE 9090/tcp 8081/tcp 5000/udp
ENTRYPOINT ["/streamfleet-worker"]

FROM base AS router
COPY --from=build /images/streamfleet-router /
# Probes and metrics, HTTP for clients, media of clients, what relays tell each other.
EXPOSE 9090/tcp 8080/tcp 3478/udp 3479/udp
ENTRYPOINT ["/streamfleet-router"]

FROM base AS operator
COPY --from=build /images/streamfleet-operator /
EXPOSE 9090/tcp
ENTRYPOINT ["/streamfleet-operator"]

FROM base AS streamfleet
COPY --from=build /images/streamfleet /
ENTRYPOINT ["/streamfleet"]

# The images of the writer and the reader hold static binaries and nothing else: no shell, no package that
# needs updates. The writer's image also has the planned failover (make failover) and the dashboard, the reader's image the
# auditor. Go cross-compiles on the builder's platform, so an image for another processor needs no emulation:
# docker build --platform linux/arm64 --target reader .
FROM --platform=$BUILDPLATFORM golang:1.26-alpine AS build
WORKDIR /src
ENV CGO_ENABLED=0
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod \
    go mod download
COPY internal internal
COPY reader reader
COPY auditor auditor
COPY writer writer
COPY failover failover
COPY dashboard dashboard
# The build context has no .git, so the version comes in as arguments; make build and make start set them.
ARG VERSION=devel
ARG REVISION=unknown
# BuildKit sets them to the platform of the image.
ARG TARGETOS
ARG TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags="-s -w -X heavy-read-api/internal/buildinfo.version=$VERSION -X heavy-read-api/internal/buildinfo.revision=$REVISION" \
    -o /out/ ./reader ./auditor ./writer ./failover ./dashboard && \
    mkdir /empty

# The program behind make, for a machine without Go (local/stack.sh).
FROM build AS build-local
ARG GOOS=linux
ARG GOARCH=amd64
COPY local local
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go build -trimpath -ldflags='-s -w' -o /out/local ./local

FROM scratch AS local
COPY --from=build-local /out/local /local
ENTRYPOINT ["/local"]

FROM scratch AS writer
ARG VERSION=devel
ARG REVISION=unknown
LABEL org.opencontainers.image.title="heavy-read-api-writer" \
      org.opencontainers.image.description="Accepts posts and publishes them to the readers through Redis" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /out/writer /out/failover /out/dashboard /
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --retries=3 --start-period=60s CMD ["/writer", "-health"]
ENTRYPOINT ["/writer"]

FROM scratch AS reader
ARG VERSION=devel
ARG REVISION=unknown
LABEL org.opencontainers.image.title="heavy-read-api-reader" \
      org.opencontainers.image.description="Serves posts from memory" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /out/reader /out/auditor /
# Docker gives a new volume the owner of the folder that it hides.
COPY --from=build --chown=65532:65532 /empty /snapshot
USER 65532:65532
EXPOSE 80
HEALTHCHECK --interval=5s --timeout=3s --retries=3 --start-period=60s CMD ["/reader", "-health"]
ENTRYPOINT ["/reader"]

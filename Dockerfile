# The images of the writer and of the reader. They have static binaries and nothing else: no shell, no
# package that could need an update. The writer's has the planned failover too (make failover).
FROM golang:1.26-alpine AS build
WORKDIR /src
ENV CGO_ENABLED=0
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod \
    go mod download
COPY internal internal
COPY reader reader
COPY writer writer
COPY failover failover
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go build -trimpath -ldflags='-s -w' -o /out/ ./reader ./writer ./failover

FROM scratch AS writer
COPY --from=build /out/writer /out/failover /
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --retries=3 --start-period=60s CMD ["/writer", "-health"]
ENTRYPOINT ["/writer"]

FROM scratch AS reader
COPY --from=build /out/reader /reader
USER 65532:65532
EXPOSE 80
HEALTHCHECK --interval=5s --timeout=3s --retries=3 --start-period=60s CMD ["/reader", "-health"]
ENTRYPOINT ["/reader"]

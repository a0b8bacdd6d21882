# syntax=docker/dockerfile:1
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH TARGETVARIANT VERSION=dev
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH GOARM=${TARGETVARIANT#v} \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /millrace ./cmd/millrace \
 && mkdir -p /rootfs/data /rootfs/etc/millrace

# Nothing but the binary and its certificates: no shell, no package manager. Runs with a read-only root:
#   docker run --read-only -v millrace-data:/data -v ./configs/container.yaml:/etc/millrace/millrace.yaml:ro -p 127.0.0.1:9280:9280 millrace
# The config needs  buffer: {path: /data}, for OPC UA  pki: {path: /data/pki}, and, for the page to be reached from outside,  web: {listen: ":9280"}.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /rootfs/ /
COPY --from=build /millrace /millrace
USER 65532:65532
WORKDIR /data
VOLUME /data
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/millrace", "health", "--config", "/etc/millrace/millrace.yaml"]
ENTRYPOINT ["/millrace"]
CMD ["run", "--config", "/etc/millrace/millrace.yaml"]

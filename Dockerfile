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
#   docker run --read-only -v millrace-data:/data -v ./millrace.yaml:/etc/millrace/millrace.yaml:ro millrace
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /rootfs/ /
COPY --from=build /millrace /millrace
USER 65532:65532
WORKDIR /data
VOLUME /data
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/millrace", "health"]
ENTRYPOINT ["/millrace"]
CMD ["run", "--config", "/etc/millrace/millrace.yaml"]

# The image holds three static programs and the system's certificates, nothing else. The agent starts as root, with access to the host's
# cgroup and BPF file systems; its proxy drops to user 64817 without any capability before it reads its first byte.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
# PostgreSQL's parser is C. Users and hosts are looked up in Go, because a static program can not load the C library's modules.
RUN CGO_ENABLED=1 go build -trimpath -tags netgo,osusergo \
        -ldflags "-s -w -X main.version=${VERSION} -linkmode external -extldflags '-static'" \
        -o /out/usr/local/bin/ ./cmd/sallyport ./cmd/sallyport-capture ./cmd/sallyport-proxy \
    && mkdir -p /out/etc/ssl/certs /out/etc/sallyport /out/run /out/var/lib /out/tmp \
    && chmod 1777 /out/tmp \
    && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
    && printf 'root:x:0:0:root:/:/\nsallyport:x:64817:64817:Sallyport proxy:/var/lib/sallyport:/\n' > /out/etc/passwd \
    && printf 'root:x:0:\nsallyport:x:64817:\n' > /out/etc/group

FROM scratch
COPY --from=build /out/ /
VOLUME ["/var/lib/sallyport"]
EXPOSE 9464
ENTRYPOINT ["/usr/local/bin/sallyport"]
CMD ["up", "--config", "/etc/sallyport", "--log-format", "json"]

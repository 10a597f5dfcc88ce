// Package compose tests the stack in Docker: it starts docker-compose.yaml, breaks it and checks what the stack
// promises. Each check is a subtest of TestCompose.
//
//	make test-compose                                            all checks, 6 to 10 minutes
//	make test-compose ARGS='-run /check_sentinel_planned'        one check, after what it needs has been started
//
// The tests use the Docker engine that answers, and the images of the registry. Where no engine answers, they start one,
// which needs root, and make stand-ins for the images (internal/standin). They need Go, make, bash, curl, wrk and, for an
// engine of their own, Debian's docker.io, iptables, busybox-static, redis-server, prometheus and
// prometheus-redis-exporter. They compile only with the build tag compose, so that go test ./... leaves Docker alone.
package compose

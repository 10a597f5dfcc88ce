// Package e2e has the end-to-end tests: the promises of the README against a real redis-server,
// with replicas, readers, writers and a gateway that run exactly what ships, behind a network that
// breaks. Whatever happens is recorded in a history.History, which proves the promises at the end.
package e2e

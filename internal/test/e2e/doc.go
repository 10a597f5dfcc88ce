// Package e2e contains the end-to-end tests of the promises in the README. They run the shipped replicas,
// readers, writers and gateway against a real redis-server, and inject faults into the network between them.
// A history.History records all operations and is checked for violations at the end of each test.
package e2e

//go:build race

package storetest

// manyRecords are fewer under the race detector, which makes each call to a driver
// many times slower. scripts/test runs that test without it.
const manyRecords = 10_000

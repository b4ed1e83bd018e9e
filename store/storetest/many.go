//go:build !race

package storetest

const manyRecords = 100_000

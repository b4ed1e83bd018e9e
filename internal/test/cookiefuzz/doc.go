// Package cookiefuzz has the fuzz targets for cookies. They are in a separate
// package because the fuzzer's time per input grows with the linked code.
package cookiefuzz

// Package cookiefuzz has the fuzz targets of what browsers bring along. They are in
// a package of their own because the fuzzer takes time with each input for all
// the code that is linked.
package cookiefuzz

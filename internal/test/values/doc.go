// Package values tests that a session's values read back equal: types, values,
// and fuzz targets for them. It is a separate package because its many types
// take long to compile.
package values

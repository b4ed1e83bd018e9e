// Package values tests that what a session keeps comes back as it was: types,
// values, and the fuzz targets for them. It has no code of its own; the types are
// many, and every one takes the compiler time.
package values

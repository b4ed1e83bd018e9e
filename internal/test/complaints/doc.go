// Package complaints tests what users of other session libraries reported.
package complaints

// Package adoption tests how a manager takes over sessions of another library, and
// writes back to it.
package adoption

// Package adoption tests adopting sessions of another library, and writing back
// to it.
package adoption

// Package browser holds tests of what a real browser does with the cookies
// and the error pages of the library, over HTTPS, with several sites.
package browser

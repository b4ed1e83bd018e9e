// Package browser tests the library's cookies and error pages in a real
// browser, over HTTPS, with several sites.
package browser

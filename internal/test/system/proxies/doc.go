// Package proxies tests Sojourn behind real proxies and caches: nginx, Varnish,
// HAProxy and Caddy, as Debian packages them.
package proxies

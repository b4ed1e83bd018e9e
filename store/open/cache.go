package open

import (
	"io"
	"strconv"
	"strings"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memcached"
	"github.com/sojourn-go/sojourn/store/redis"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// cacheForms lists what can be opened, for error texts.
const cacheForms = "use memory:BYTES, memcached://HOST,HOST, redis://HOST, rediscluster://HOST,HOST or redissentinel://HOST,HOST/NAME"

// Cache opens the cache that the URL names, for a layer of package tiered. It
// does not connect: a service starts even if its cache is down. The caller
// closes the cache with the io.Closer, which is never nil when the error is.
//
// Errors wrap ErrURL, and do not contain the URL's password.
func Cache(url string) (store.Cache, io.Closer, error) {
	scheme, rest, ok := strings.Cut(url, ":")
	if !ok {
		return nil, nil, urlError("it has no scheme; %s", cacheForms)
	}
	switch scheme {
	case "memory":
		bytes, err := strconv.Atoi(rest)
		if err != nil || bytes <= 0 {
			return nil, nil, urlError("a cache in memory needs its size in bytes, such as memory:67108864")
		}
		return tiered.NewMemory(bytes), io.NopCloser(nil), nil
	case "memcached":
		servers, o, err := parseMemcached(url)
		if err != nil {
			return nil, nil, err
		}
		c, err := memcached.NewCache(servers, o)
		if err != nil {
			return nil, nil, urlError("%w", err)
		}
		return c, c, nil
	case "redis", "rediss", "rediscluster", "redisclusters", "redissentinel", "redissentinels":
		o, err := redis.ParseURL(url)
		if err != nil {
			return nil, nil, urlError("%w", err)
		}
		c, err := redis.NewCache(o)
		if err != nil {
			return nil, nil, urlError("%w", err)
		}
		return c, c, nil
	default:
		return nil, nil, urlError("caches of kind %q are not available; %s", scheme, cacheForms)
	}
}

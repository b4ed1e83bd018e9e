module github.com/sojourn-go/sojourn/legacy/engine/memcached

go 1.25.0

require (
	github.com/bradfitz/gomemcache v0.0.0-20260422231931-4d751bb6e37c
	github.com/sojourn-go/sojourn v0.1.0
	github.com/sojourn-go/sojourn/legacy v0.1.0
)

require (
	github.com/fxamacker/cbor/v2 v2.9.6 // indirect
	github.com/x448/float16 v0.8.4 // indirect
)

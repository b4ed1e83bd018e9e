module github.com/sojourn-go/sojourn/legacy/engine/redis

go 1.25.0

require (
	github.com/sojourn-go/sojourn v0.1.0
	github.com/sojourn-go/sojourn/legacy v0.1.0
	github.com/valkey-io/valkey-go v1.0.79
)

require (
	github.com/fxamacker/cbor/v2 v2.9.6 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

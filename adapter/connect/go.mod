module github.com/sojourn-go/sojourn/adapter/connect

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	github.com/sojourn-go/sojourn v0.1.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/fxamacker/cbor/v2 v2.9.6 // indirect
	github.com/x448/float16 v0.8.4 // indirect
)

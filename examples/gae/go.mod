module github.com/sojourn-go/sojourn/examples/gae

go 1.25.0

require (
	github.com/sojourn-go/sojourn v0.1.0
	github.com/sojourn-go/sojourn/store/datastore v0.1.0
	google.golang.org/appengine/v2 v2.0.6
)

require (
	github.com/fxamacker/cbor/v2 v2.9.6 // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	google.golang.org/protobuf v1.35.1 // indirect
)

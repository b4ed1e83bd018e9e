module github.com/sojourn-go/sojourn/store/redis

go 1.25.0

require (
	github.com/sojourn-go/sojourn v0.0.0
	github.com/valkey-io/valkey-go v1.0.79
)

require golang.org/x/sys v0.47.0 // indirect

replace github.com/sojourn-go/sojourn => ../..

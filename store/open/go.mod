module github.com/sojourn-go/sojourn/store/open

go 1.25.0

require (
	github.com/sojourn-go/sojourn v0.0.0
	github.com/sojourn-go/sojourn/store/sqlite v0.0.0
)

replace (
	github.com/sojourn-go/sojourn => ../..
	github.com/sojourn-go/sojourn/store/sqlite => ../sqlite
)

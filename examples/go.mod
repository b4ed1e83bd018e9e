module github.com/sojourn-go/sojourn/examples

go 1.25.0

require (
	github.com/chromedp/chromedp v0.22.1
	github.com/sojourn-go/sojourn v0.0.0
	github.com/sojourn-go/sojourn/store/open v0.0.0
	github.com/sojourn-go/sojourn/store/sqlite v0.0.0
	golang.org/x/crypto v0.55.0
	modernc.org/sqlite v1.59.0
)

replace (
	github.com/sojourn-go/sojourn => ..
	github.com/sojourn-go/sojourn/store/sqlite => ../store/sqlite
)

replace github.com/sojourn-go/sojourn/store/open => ../store/open

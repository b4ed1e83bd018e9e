module github.com/sojourn-go/sojourn/legacy

go 1.25.0

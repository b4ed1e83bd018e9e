module github.com/sojourn-go/sojourn/internal/modules

go 1.25.0

require golang.org/x/mod v0.38.0

require golang.org/x/tools v0.48.0 // indirect

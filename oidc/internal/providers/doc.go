// Package providers tests package oidc against providers that others have written.
// It is a module of its own because of what they depend on.
package providers

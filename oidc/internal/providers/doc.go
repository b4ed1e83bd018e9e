// Package providers tests package oidc against third-party providers. It is a
// separate module because of their dependencies.
package providers

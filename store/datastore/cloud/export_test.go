package cloud

import "github.com/sojourn-go/sojourn/store"

// NamespaceOf returns the namespace of a store's entities.
func NamespaceOf(s store.Store) string { return s.(*Store).space }

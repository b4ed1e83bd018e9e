package gae

// NamespaceOf returns the namespace of a store's entities.
func NamespaceOf(s *Store) string { return s.space }

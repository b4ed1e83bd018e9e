package sojourngrpc

// InfoOf is infoOf, for tests.
var InfoOf = infoOf

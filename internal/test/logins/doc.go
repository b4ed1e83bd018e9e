// Package logins tests logins, logouts, the sessions of a user, what is told of them,
// and credentials that change: by a model of all of them, and case by case.
package logins

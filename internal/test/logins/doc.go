// Package logins tests logins, logouts, the sessions of a user, events, and
// credentials that change: by a model of all of them, and case by case.
package logins

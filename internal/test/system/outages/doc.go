// Package outages makes the sessions' servers fail while visitors use them, and
// checks the promises.
//
// Several replicas of the command probe run as separate processes, on a real
// store and real caches. Visitors with cookie jars send their requests to all
// replicas in turn. Meanwhile a server is killed, frozen or restarted, or its
// connections are slowed, damaged or cut. Every request is recorded with the
// times when it was sent and answered, and afterwards:
//
//   - the answers are those that the outage policy allows: none but 200 while
//     only a cache is hit; 503 for no longer than the store is;
//   - the history of each session is linearizable (checked with porcupine): there
//     is one order of all operations, in agreement with the clock, that explains
//     each answer. A request that failed may have happened, then or later, or
//     not at all. Where caches may lag, a read may be as old as they may be;
//   - nothing acknowledged is lost, and there is nothing that no request wrote:
//     counters and lists are exact;
//   - a session that was ended stays ended, with copied cookies, at all replicas;
//   - everything recovers without a restart of the replicas.
//
// The tests measure an engine's losses where losses are allowed.
//
// Two variables in the environment make the tests longer; see `make soak`.
// FAULT_TIME is how long each scenario repeats its faults, such as 2m; without
// it each fault happens once. FAULT_ROUNDS is how often each cell of the table
// of what Redis loses is measured; without it, once.
package outages

// Package outages breaks the servers that sessions live on, while visitors
// use them, and then looks whether the promises were kept.
//
// Several replicas of the command probe run as processes of their own, on a real
// store and real caches. Visitors with cookie jars send their requests to all
// replicas in turn. In the middle of it a server is killed, frozen or restarted,
// or its connections are made slow, damaged or cut. Every request is noted with
// the times when it was sent and answered, and afterwards:
//
//   - the answers are those that the outage policy allows: none but 200 while
//     only a cache is hit; 503 for no longer than the store is;
//   - the history of each session is linearizable (checked with porcupine): there
//     is one order of all operations, in agreement with the clock, that explains
//     each answer. A request that failed may have happened, then or later, or
//     not at all. Where caches may lag, a read may be as old as they may be;
//   - nothing that was acknowledged is lost, and nothing is there that nobody
//     asked for: counters and lists are exact;
//   - a session that was ended stays ended, with copied cookies, at all replicas;
//   - everything recovers without a restart of the replicas.
//
// What each engine loses where it may lose something is measured.
//
// Two variables in the environment make the tests longer; see `make soak`.
// FAULT_TIME is how long each scenario repeats its faults, such as 2m; without
// it each fault happens once. FAULT_ROUNDS is how often each cell of the table
// of what Redis loses is measured; without it, once.
package outages

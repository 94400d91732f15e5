// Package approval keeps what is held for people to decide on: requests, who decided on them and how, and the approvals that are
// left to be used. Its main type is the Desk. Whoever holds an operation asks it for a Ticket and waits; people decide by the API of
// package approval/api, as persons whom the kernel has named.
//
// A request is bound by a hash to one operation of one workload in full (see Hash), and so is its approval. It serves once, or
// within a window where the rule says so. Who asked can not decide.
//
// Everything is in files below one directory, because two proxies serve while one replaces the other, and because approvals outlive the
// proxy:
//
//	DIR/lock          flock(2) of whoever reads and changes the files below
//	DIR/owners/ID     locked for its life by each process that holds operations
//	DIR/pending/ID    requests that wait for a decision, in JSON
//	DIR/done/ID       requests that do not
//	DIR/grants/HASH.ID  approvals that are left to be used
//
// What holds always:
//   - A request is decided once: it moves from pending to done under the lock. The first decision wins.
//   - An approval that serves once is removed before the operation is forwarded.
//   - What was held by a process that is gone is withdrawn: nobody can approve it any more.
//   - What can not be written is not approved.
package approval

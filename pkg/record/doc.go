// Package record keeps the record of each session: JSON-lines events, hash-chained, sealed with the
// node's Ed25519 key at the end, and a chained ledger of all sessions, so that a flipped byte, a removed event and a removed
// session are found.
//
// A Store is opened by the process that writes, and for a while by the one that replaces it (JoinStore); it begins a Session for
// each connection:
//
//	DIR/sessions/ID/events.jsonl   the events of one session
//	DIR/shared/ID.jsonl            the events of short sessions that began when many did
//	DIR/ledger.jsonl               one line for each session opened and sealed, and for each connection refused
//	DIR/ledger.head                signed: how many lines the ledger has, and the last one's hash
//	DIR/record.key, record.pub     the node's key, made at the first start
//
// List, Read and Verify only read, by any process that may, also while a Store is open. The formats are described in
// docs/record.md.
//
// What holds always:
//   - An event is accepted when write(2) of it has completed, and before the operation that it tells of is forwarded. It then
//     survives the end of the process, however that comes; the loss of power may take what the kernel has not yet stored.
//   - A file is appended to, or cut back to where its last complete event ends; nothing else changes it.
//   - What can not be written is refused: a Session that has not begun in the ledger does not exist.
//   - What a crash leaves behind is sealed at the next start, and what was dropped is written down.
package record

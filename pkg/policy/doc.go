// Package policy turns AccessPolicy documents into compiled CEL and decides on operations with it. A decision is a value,
// computed without I/O. No match, an error in an expression, or a missing field denies.
package policy

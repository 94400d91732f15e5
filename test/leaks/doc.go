// Package leaks has no code, only tests that no masked value reaches a workload, whatever it sends: statements of every class, over the
// simple, the extended and the prepared protocol, in text and in binary, through the real agent.
//
// Two questions are asked of every byte that the client receives. Is a canary in it, a value of a masked column, in any of the forms that a
// server or a program would give it? And is it the same byte that comes when all masked values are others? The second needs
// no idea of how a value could leave: what does not depend on a value does not tell it.
package leaks

// Package conformance runs other projects' test suites through Sallyport, and expects of every test what the same test gives directly.
package conformance

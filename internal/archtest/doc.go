// Package archtest holds the rules of the house as tests: which package may
// import which, how long a file, a function and a struct may be, and what may
// not appear at all. Every rule is one function from a tree of parsed files to
// findings, one test that runs it on this repository, and one fixture that it
// must find fault with.
//
// A finding can be answered in the code with a comment `//ok: reason` on the
// line or the line above, where the rule says so. The reason is for the reader
// and must be there.
package archtest

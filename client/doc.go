// Package client talks to a running Perdure over its HTTP API, on the Unix
// socket in its state directory or on TCP with a token. It imports package api
// and the standard library only.
//
// Every error has an *[api.Error] in its chain, with the code that the server gave. When no
// server answers the code is [api.CodeUnavailable]. A *[TrimmedError] is the one
// other error; only [Client.FollowEvents] yields it.
package client

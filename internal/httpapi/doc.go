// Package httpapi is the HTTP API: routes, access, streams and the OpenAPI
// document. It decides nothing about processes; a Backend does.
//
// routes.go is the table of all routes with the access that each needs. On the
// Unix socket a caller is who the kernel says; on TCP a caller has a token, and
// Host and Origin are checked, so that no web page can reach the API through a
// name that it controls (DNS rebinding).
package httpapi

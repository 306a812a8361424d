// Package server is the composition root of `perdure up`: it finds or starts
// the supervisor, gives it the definitions, copies its journal into the event
// log, and answers the API. It holds no process: it may die at any instant and
// the next one goes on where it was.
package server

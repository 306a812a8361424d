// Package config reads the files that describe processes: perdure.yaml (several
// merge), a Procfile, and .env files. It refuses everything that is wrong with
// them at once, each finding with its place, and it can tell two states of the
// files apart (Diff) and watch the .env files (Watcher).
//
// What a key means is the business of internal/definition; this package knows
// how it is written. The JSON Schema and the reference page are made from the
// types of api and their comments:
//
//	go generate ./internal/config
package config

//go:generate go test -run TestGenerated -count=1 . -update

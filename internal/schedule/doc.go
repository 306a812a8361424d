// Package schedule puts jobs when their time has come: by cron expressions in a time
// zone, once for each tick over all nodes and crashes.
//
// # Daylight saving
//
// A schedule whose hours are restricted means times of the wall clock. A time that
// the clock skips fires once, at the moment of the change; several that are skipped
// together fire once together. A time that the clock shows twice fires the first
// time only. So "30 2 * * *" fires every day once, whatever the clock does.
//
// A schedule whose hours are "*" or a step of it goes by time that passes: during an
// hour that is shown twice it fires in both, and an hour that is skipped has none of
// its ticks. So "*/15 * * * *" fires each quarter of an hour that anybody lives through.
package schedule

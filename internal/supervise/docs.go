package supervise

import (
	"fmt"
	"strings"

	"github.com/perdure/perdure/api"
)

// StatesMarkdown is the text of docs/reference/states.md: what each state
// means, what each input does in it, and the ways between the states. It is
// made from the table that Step decides by, so it cannot be out of date.
func StatesMarkdown() string {
	var b strings.Builder
	b.WriteString("# States\n\n<!-- Generated from internal/supervise. Run: go test ./internal/supervise -run TestStatesReference -update -->\n\n")
	b.WriteString("What is wanted of a process (`desired`: running or stopped) is kept apart from its state, is written first by every\n" +
		"command, survives everything, and is read last in every decision. A stop therefore holds until somebody starts the process.\n\n")
	b.WriteString("## Meaning\n\n| state | meaning | lives |\n|---|---|---|\n")
	for _, s := range api.States() {
		means, lives := stateText(s)
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s, means, lives)
	}
	b.WriteString("\n## Ways between the states\n\n```mermaid\nstateDiagram-v2\n")
	for _, w := range ways() {
		fmt.Fprintf(&b, "    %s --> %s: %s\n", w[0], w[1], w[2])
	}
	b.WriteString("```\n\nWherever a start is ordered while a dependency is not met, it leads to `waiting` or `dependency_failed` instead of `starting`.\nA stop, a kill or a shutdown leads from every state that is wanted to `stopped`, through `stopping` where something lives.\n")
	b.WriteString("\n## What an input does\n\nAn input about another generation, or from a timer that is not armed any more, is dropped before the table is asked.\n")
	for _, s := range api.States() {
		fmt.Fprintf(&b, "\n### `%s`\n\n| input | what |\n|---|---|\n", s)
		var nothing []string
		for k := range NumKinds {
			if r := ruleOf(s, k); r == ruleIgnore {
				nothing = append(nothing, k.String())
			} else {
				fmt.Fprintf(&b, "| %s | %s |\n", k, r.says())
			}
		}
		if len(nothing) > 0 {
			fmt.Fprintf(&b, "| %s | nothing |\n", strings.Join(nothing, ", "))
		}
	}
	return b.String()
}

// String returns the kind in words.
func (k Kind) String() string {
	names := [NumKinds]string{Start: "start", Stop: "stop", Kill: "kill", Restart: "restart", Reset: "reset",
		Shutdown: "shutdown or removal", Redefine: "new definition", DepsChanged: "dependencies changed",
		Spawned: "spawned", SpawnFailed: "spawn failed", Exited: "leader ended", Gone: "all of it gone",
		ReadyAnswer: "answer of the ready probe", HealthAnswer: "answer of the health probe",
		Heartbeat: "heartbeat after a missed one", WorkerSaid: "a worker's word", Sample: "sample of its use",
		TimerFired: "timer", Adopted: "adopted by a new supervisor"}
	if k >= NumKinds {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return names[k]
}

func stateText(s api.State) (means, lives string) {
	switch s {
	case api.StateIdle:
		return "defined, never started, or reset", "no"
	case api.StateWaiting:
		return "wanted, but a dependency is not met; the detail says which", "no"
	case api.StateStarting:
		return "being spawned, or alive and not ready yet", "from the exec on"
	case api.StateRunning:
		return "alive, and ready or without a ready probe", "yes"
	case api.StateBackoff:
		return "ended by itself; started again after a wait", "no"
	case api.StateCrashLoop:
		return "the breaker is open; tried again after its cooldown", "no"
	case api.StateStopping:
		return "being ended; not everything of it is proven gone", "perhaps"
	case api.StateStopped:
		return "ended on request and proven gone", "no"
	case api.StateExited:
		return "ended by itself with success, and not restarted", "no"
	case api.StateFailed:
		return "needs an operator; the reason is `breaker`, `max_restarts`, `spawn_error`, `exit`, `boot_timeout`, `health`, `heartbeat` or `limit`", "no"
	case api.StateDependencyFailed:
		return "wanted, but a dependency can no longer be met; looked at again when that changes", "no"
	case api.StateOrphaned:
		return "lives from before and is not adopted yet", "yes"
	}
	return "", ""
}

// ways are the changes of state that the rules make. TestEveryRuleIsReached holds
// that random histories walk each of them.
func ways() [][3]string {
	return [][3]string{
		{"idle", "starting", "start"},
		{"idle", "waiting", "start, dependency unmet"},
		{"waiting", "starting", "dependencies met"},
		{"waiting", "dependency_failed", "dependency failed"},
		{"dependency_failed", "waiting", "dependency unmet again"},
		{"dependency_failed", "starting", "dependencies met"},
		{"starting", "running", "spawned, and ready where there is a probe"},
		{"starting", "backoff", "spawn failed, or ended"},
		{"running", "backoff", "ended"},
		{"running", "stopping", "stop, restart, bad health, no heartbeat, a limit, or leftovers"},
		{"starting", "stopping", "stop, restart, deadline, or leftovers"},
		{"stopping", "stopped", "all of it gone"},
		{"stopping", "starting", "all of it gone, after restart"},
		{"stopping", "backoff", "all of it gone, after bad health, no heartbeat, a limit, deadline or leftovers"},
		{"backoff", "starting", "wait over"},
		{"backoff", "waiting", "wait over, dependency unmet"},
		{"running", "crash_loop", "breaker opens, tried again"},
		{"crash_loop", "starting", "cooldown over"},
		{"running", "exited", "ended with success, not restarted"},
		{"running", "failed", "ended with failure, not restarted; breaker; max_restarts"},
		{"starting", "failed", "spawn failed, or ended, and not restarted"},
		{"stopped", "starting", "start"},
		{"exited", "starting", "start"},
		{"failed", "starting", "start, if allowed"},
		{"failed", "idle", "reset"},
		{"crash_loop", "idle", "reset"},
		{"backoff", "idle", "reset"},
		{"dependency_failed", "idle", "reset"},
	}
}

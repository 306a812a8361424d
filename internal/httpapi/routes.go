package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// access is what a caller must be allowed to do.
type access int

// The levels; each includes those before it.
const (
	nobody access = iota
	read
	operate
	admin
)

func (a access) String() string {
	return [...]string{"nobody", "read", "operate", "admin"}[a]
}

// route is one row of the table.
type route struct {
	method, path string
	access       access
	id, summary  string
	bind         func(s *server, api huma.API, op huma.Operation)
}

// routes is the table of all routes: nothing is served that is not here.
func routes() []route {
	return []route{
		{"GET", "/v1/health", read, "health", "Tell that the server lives; asks nothing else", typed((*server).health)},
		{"GET", "/v1/info", read, "info", "Tell which Perdure answers", typed((*server).info)},
		{"GET", "/v1/config", read, "config", "Return the configuration in force, secrets hidden", typed((*server).config)},
		{"GET", "/v1/doctor", read, "doctor", "Return what is wrong or worth knowing", typed((*server).doctor)},
		{"POST", "/v1/reload", admin, "reload", "Read the configuration files again", typed((*server).reload)},
		{"POST", "/v1/upgrade", admin, "upgrade", "Put another program in the place of supervisor and server; no process notices", typed((*server).upgrade)},
		{"POST", "/v1/shutdown", admin, "shutdown", "Stop all processes, then Perdure; answers when all are gone", typed((*server).shutdown)},

		{"GET", "/v1/processes", read, "list-processes", "List processes, by name", typed((*server).processes)},
		{"GET", "/v1/processes/{name}", read, "get-process", "Return one process", typed((*server).process)},
		{"PUT", "/v1/processes/{name}", admin, "define-process", "Add a process or change it", typed((*server).define)},
		{"DELETE", "/v1/processes/{name}", admin, "remove-process", "Stop a process and forget it", typed((*server).remove)},
		{"GET", "/v1/processes/{name}/definition", read, "get-definition", "Return a definition, secrets hidden", typed((*server).definition)},
		{"POST", "/v1/processes/{name}/command", operate, "command-process", "Give a command to a process", typed((*server).command)},
		{"POST", "/v1/processes/{name}/start", operate, "start-process", "Start a process", verb("start")},
		{"POST", "/v1/processes/{name}/stop", operate, "stop-process", "Stop a process", verb("stop")},
		{"POST", "/v1/processes/{name}/restart", operate, "restart-process", "Restart a process", verb("restart")},
		{"POST", "/v1/processes/{name}/reset", operate, "reset-process", "Reset the counters of a process", verb("reset")},
		{"POST", "/v1/processes/{name}/signal", operate, "signal-process", "Send a signal to a process", verb("signal")},
		{"POST", "/v1/processes/{name}/kill", operate, "kill-process", "End a process without grace", verb("kill")},
		{"POST", "/v1/processes/{name}/wait", read, "wait-process", "Wait until a process is something", typed((*server).wait)},
		{"POST", "/v1/processes/{name}/send", operate, "send-process", "Give a command to the worker of a process and wait for its reply, or send it a value", typed((*server).send)},

		{"GET", "/v1/processes/{name}/logs", read, "process-logs", "Read the log of a process", typed((*server).processLogs)},
		{"GET", "/v1/logs", read, "logs", "Read the logs of several processes", typed((*server).logs)},
		{"GET", "/v1/events", read, "list-events", "Return a page of events", typed((*server).events)},
		{"GET", "/v1/events/stream", read, "stream-events", "Replay events and follow new ones (server-sent events)", typed((*server).eventStream)},

		{"GET", "/openapi.json", read, "openapi", "Return this description", typed((*server).openapi)},
	}
}

// typed binds a method of server to a route.
func typed[I, O any](h func(*server, context.Context, *I) (*O, error)) func(*server, huma.API, huma.Operation) {
	return func(s *server, api huma.API, op huma.Operation) {
		huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
			out, err := h(s, ctx, in)
			return out, asFail(cutOff(ctx, err))
		})
	}
}

// operation makes huma's description of a route.
func (rt *route) operation(errorSchema *huma.Schema) huma.Operation {
	return huma.Operation{
		OperationID: rt.id,
		Method:      rt.method,
		Path:        rt.path,
		Summary:     rt.summary,
		Extensions:  map[string]any{"x-access": rt.access.String()},
		// The body was bounded and read before, see middleware.go.
		MaxBodyBytes:    maxBody,
		BodyReadTimeout: -1,
		Responses: map[string]*huma.Response{
			"default": {
				Description: "An error; the statuses of the codes are in the reference of the API",
				Content:     map[string]*huma.MediaType{"application/json": {Schema: errorSchema}},
			},
			rt.success(): {Description: http.StatusText(http.StatusOK)},
		},
	}
}

// success is the status of an answer without an error.
func (rt *route) success() string {
	if rt.id == "remove-process" || rt.id == "shutdown" {
		return "204"
	}
	return "200"
}

package api

// Definition says what a process is and how it is kept alive. It has the same
// shape in perdure.yaml, in the HTTP API and in Go. A zero field means its
// default; the package internal/definition fills the defaults in and checks
// the whole.
type Definition struct {
	// Name is the process's name: a letter or digit, then letters, digits,
	// "-" and "_", at most 63 in all. In a file it is the key.
	Name string `json:"name,omitempty" yaml:"-"`
	// Origin is the name of the definition that this one was spawned from;
	// empty for one that stands for itself.
	Origin string `json:"origin,omitempty" yaml:"-"`
	// Description is free text for people.
	Description string `json:"description,omitempty" yaml:"description,omitempty"`
	// Preset names a set of defaults (see Presets in the reference). Keys that
	// stand beside it override it one by one.
	Preset string `json:"preset,omitempty" yaml:"preset,omitempty"`

	// Command is the program and its arguments. In a file it may be one
	// string, which is split into words, or run under "sh -c" when it needs a
	// shell.
	Command Command `json:"command" yaml:"command"`
	// Dir is the working directory. Default: the directory of the file.
	Dir string `json:"dir,omitempty" yaml:"dir,omitempty"`
	// Env holds variables that override all others.
	Env map[string]string `json:"env,omitempty" yaml:"env,omitempty"`
	// EnvFile names .env files; later ones override earlier ones. A leading
	// "?" makes a file optional.
	EnvFile Strings `json:"env_file,omitempty" yaml:"env_file,omitempty"`
	// EnvReload says what a change of an env file does.
	EnvReload EnvReload `json:"env_reload,omitzero" yaml:"env_reload,omitempty"`
	// InheritEnv says whether the supervisor's own environment is the base of
	// the process's. Default true.
	InheritEnv *bool `json:"inherit_env,omitempty" yaml:"inherit_env,omitempty"`

	// Autostart says whether `perdure up` starts the process. Default true.
	Autostart *bool `json:"autostart,omitempty" yaml:"autostart,omitempty"`
	// Oneshot marks a program that is meant to end: its success is the state
	// "exited", it is not restarted unless Restart says so, and dependents
	// wait for it to be completed. Default false.
	Oneshot bool `json:"oneshot,omitempty" yaml:"oneshot,omitempty"`
	// DependsOn names what must hold before the process starts.
	DependsOn []Dependency `json:"depends_on,omitempty" yaml:"depends_on,omitempty"`

	// Restart says after which exits the process is started again.
	// Default: always; never for a oneshot.
	Restart RestartPolicy `json:"restart,omitempty" yaml:"restart,omitempty"`
	// NoRestartCodes are exit codes after which it is never restarted.
	NoRestartCodes []int `json:"no_restart_codes,omitzero" yaml:"no_restart_codes,omitempty"`
	// NoRestartCodeMin, when above 0, forbids a restart after exit codes from
	// it up to 127. The codes 128 to 255 mean "ended by a signal" in shells and
	// are not concerned.
	NoRestartCodeMin int `json:"no_restart_code_min,omitempty" yaml:"no_restart_code_min,omitempty"`
	// NoRestartSignals are signals after whose death it is never restarted.
	NoRestartSignals []string `json:"no_restart_signals,omitzero" yaml:"no_restart_signals,omitempty"`
	// SignalIsFailure says whether death by a signal is a failure. Default true.
	SignalIsFailure *bool `json:"signal_is_failure,omitempty" yaml:"signal_is_failure,omitempty"`
	// OnNoRestart says what happens when an exit is not followed by a restart:
	// "stay" (default) or "exit", which stops everything and ends Perdure with
	// the exit code of the process (128+n for signal n).
	OnNoRestart string `json:"on_no_restart,omitempty" yaml:"on_no_restart,omitempty"`
	// MaxRestarts is how many automatic restarts are allowed; -1 means no
	// limit, 0 none. Default -1.
	MaxRestarts *int `json:"max_restarts,omitempty" yaml:"max_restarts,omitempty"`
	// MaxRestartsScope says what resets the count: "since_healthy" (default;
	// Stable with "restarts", or an operator), "consecutive" (counts failures
	// in a row) or "lifetime" (nothing but an operator's reset).
	MaxRestartsScope string `json:"max_restarts_scope,omitempty" yaml:"max_restarts_scope,omitempty"`
	// StartResets makes an operator's start of a failed process reset its
	// counters; otherwise such a start is refused until a reset. Default true.
	StartResets *bool `json:"start_resets,omitempty" yaml:"start_resets,omitempty"`

	// Backoff is the wait before an automatic restart.
	Backoff Backoff `json:"backoff,omitzero" yaml:"backoff,omitempty"`
	// Breaker stops a crash loop.
	Breaker Breaker `json:"breaker,omitzero" yaml:"breaker,omitempty"`
	// Stable says when a process counts as sound again.
	Stable Stable `json:"stable,omitzero" yaml:"stable,omitempty"`

	// Ready gates the step from starting to running.
	Ready *Probe `json:"ready,omitempty" yaml:"ready,omitempty"`
	// Health is asked as long as the process runs.
	Health *Probe `json:"health,omitempty" yaml:"health,omitempty"`

	// Stop says how the process is ended.
	Stop StopPolicy `json:"stop,omitzero" yaml:"stop,omitempty"`
	// Logs says how its output is kept.
	Logs Logs `json:"logs,omitzero" yaml:"logs,omitempty"`

	// User and Group run the process as somebody else (names or numbers).
	User  string `json:"user,omitempty" yaml:"user,omitempty"`
	Group string `json:"group,omitempty" yaml:"group,omitempty"`
	// Umask is the file mode mask in octal text, such as "027".
	Umask string `json:"umask,omitempty" yaml:"umask,omitempty"`
	// Rlimits are resource limits by name: "nofile", "nproc", "core", "as",
	// "cpu", "data", "fsize", "memlock", "stack". The value is a number, "soft:hard" or
	// "unlimited".
	Rlimits map[string]string `json:"rlimits,omitempty" yaml:"rlimits,omitempty"`
	// Nice is the scheduling priority, -20 to 19.
	Nice *int `json:"nice,omitempty" yaml:"nice,omitempty"`
	// OOMScoreAdj is written to /proc/PID/oom_score_adj, -1000 to 1000.
	OOMScoreAdj *int `json:"oom_score_adj,omitempty" yaml:"oom_score_adj,omitempty"`
	// NoNewPrivs sets PR_SET_NO_NEW_PRIVS, so that no set-user-id program can
	// raise the process's rights. Default false.
	NoNewPrivs bool `json:"no_new_privs,omitempty" yaml:"no_new_privs,omitempty"`
	// ReapGroupOnExit says what happens to the rest of the process's group
	// when the process itself has ended: "always" (default) ends it, "failure"
	// ends it only after a failure.
	ReapGroupOnExit string `json:"reap_group_on_exit,omitempty" yaml:"reap_group_on_exit,omitempty"`

	// Metadata is data of the caller's, kept with the process, shown, and given
	// to its workers: in PERDURE_METADATA, or, when it is longer than 32 KiB or
	// has names that look secret, over their connection alone.
	Metadata map[string]any `json:"metadata,omitempty" yaml:"metadata,omitempty"`

	// Worker says whether and how the process can speak to Perdure
	// (docs/reference/wire.md): "on" (default: over a Unix socket, over TCP where
	// there is none, and for a process that runs as another user), "unix", "tcp"
	// (on loopback) or "off".
	Worker string `json:"worker,omitempty" yaml:"worker,omitempty"`
	// Heartbeat has heartbeats watched. Default: they are not.
	Heartbeat *Heartbeat `json:"heartbeat,omitempty" yaml:"heartbeat,omitempty"`
	// Limits end a process that uses too much.
	Limits *Limits `json:"limits,omitempty" yaml:"limits,omitempty"`
	// Events declare what the process emits: the name of an event and a JSON
	// Schema of its data, or true for any data. In a file the schema may be the
	// path of a file that holds it. What is not declared is taken as well.
	Events map[string]any `json:"events,omitempty" yaml:"events,omitempty"`
	// Commands declare what the process can be told: the name of a command and a
	// JSON Schema of its data, as in Events. Data that does not fit is refused.
	Commands map[string]any `json:"commands,omitempty" yaml:"commands,omitempty"`
}

// Command is a program and its arguments.
type Command []string

// Strings is a list of strings; in a file one string stands for a list of one.
type Strings []string

// RestartPolicy says after which exits a process is started again.
type RestartPolicy string

// The restart policies.
const (
	// RestartAlways restarts after every exit that nobody asked for, and
	// `perdure up` starts the process even if it was stopped by hand before.
	RestartAlways RestartPolicy = "always"
	// RestartOnFailure restarts after a failure only.
	RestartOnFailure RestartPolicy = "on-failure"
	// RestartOnSuccess restarts after a success only.
	RestartOnSuccess RestartPolicy = "on-success"
	// RestartNever never restarts.
	RestartNever RestartPolicy = "never"
	// RestartUnlessStopped restarts as always does, but a process stopped by
	// hand stays stopped over the next `perdure up`.
	RestartUnlessStopped RestartPolicy = "unless-stopped"
)

// Backoff is the wait before an automatic restart. The wait before the k-th
// restart in a row (k from 0) is Initial*Multiplier^(k+FirstExponent), at most
// Max, then jitter.
type Backoff struct {
	// Kind is "exponential" (default) or "fixed" (always Initial).
	Kind string `json:"kind,omitempty" yaml:"kind,omitempty"`
	// Initial is the first wait. Default 1s. "0s" in a file restarts at once.
	Initial *Duration `json:"initial,omitempty" yaml:"initial,omitempty"`
	// Max bounds the wait before jitter. Default 30s.
	Max Duration `json:"max,omitempty" yaml:"max,omitempty"`
	// Multiplier is the factor from one wait to the next. Default 2.
	Multiplier float64 `json:"multiplier,omitempty" yaml:"multiplier,omitempty"`
	// FirstExponent is 0 (default) or 1: the exponent of the first wait. With
	// 1 an exit after a stable run waits Initial once more.
	FirstExponent int `json:"first_exponent,omitempty" yaml:"first_exponent,omitempty"`
	// Jitter spreads the waits. Default: add up to 10 %.
	Jitter Jitter `json:"jitter,omitzero" yaml:"jitter,omitempty"`
	// ResetAfter applies to a backoff of health restarts alone: a run of this
	// length resets its exponent.
	ResetAfter Duration `json:"reset_after,omitempty" yaml:"reset_after,omitempty"`
}

// Jitter spreads waits after their cap is applied.
type Jitter struct {
	// Mode is "none", "add" (wait*(1+u*Frac)) or "scale"
	// (wait*(Lo+u*(Hi-Lo))), where u is uniform in [0,1).
	Mode string `json:"mode,omitempty" yaml:"mode,omitempty"`
	// Frac is the most that "add" adds, as a fraction of the wait.
	Frac float64 `json:"frac,omitempty" yaml:"frac,omitempty"`
	// Lo and Hi bound the factor of "scale".
	Lo float64 `json:"lo,omitempty" yaml:"lo,omitempty"`
	Hi float64 `json:"hi,omitempty" yaml:"hi,omitempty"`
}

// Breaker ends a crash loop. The Failures-th counted event within Window opens it.
type Breaker struct {
	// Failures is the count that opens the breaker. Default 5; -1 turns it off.
	Failures int `json:"failures,omitempty" yaml:"failures,omitempty"`
	// Window is the span in which they must fall. Default 1m.
	Window Duration `json:"window,omitempty" yaml:"window,omitempty"`
	// Mode is "rolling" (default: events within Window before now) or "gap"
	// (a count that starts again when the last event is longer ago than Window).
	Mode string `json:"mode,omitempty" yaml:"mode,omitempty"`
	// Count says what is counted: "failures" (default), "exits" (every exit
	// that nobody asked for) or "restarts" (exits that the policy would restart).
	Count string `json:"count,omitempty" yaml:"count,omitempty"`
	// OnOpen is "retry" (default: start again after Cooldown, window cleared),
	// "park" (stay failed until a reset), "cooldown" (stay failed; a start by
	// hand is allowed after Cooldown) or "exit" (stop everything and end
	// Perdure with ExitCode).
	OnOpen string `json:"on_open,omitempty" yaml:"on_open,omitempty"`
	// Cooldown is the wait of "retry" and "cooldown". Default: Window.
	Cooldown Duration `json:"cooldown,omitempty" yaml:"cooldown,omitempty"`
	// ExitCode is for "exit". Default 1.
	ExitCode int `json:"exit_code,omitempty" yaml:"exit_code,omitempty"`
}

// Stable says when a process counts as sound again. It is judged by a timer
// and once more at the exit.
type Stable struct {
	// After is how long the process must have run. Default 10s; "0s" means at
	// once (with From "start" then every exit is a stable one).
	After *Duration `json:"after,omitempty" yaml:"after,omitempty"`
	// From is where the time is counted from: "start" (default), "ready" or
	// "healthy".
	From string `json:"from,omitempty" yaml:"from,omitempty"`
	// Resets lists what is set back: "backoff", "failures", "window",
	// "restarts". Default: backoff, failures and restarts.
	Resets []string `json:"resets,omitzero" yaml:"resets,omitempty"`
}

// Probe asks a process whether it is ready or healthy.
type Probe struct {
	// HTTP, TCP and Exec are the ways to ask; exactly one is set. For ready there
	// are Notify, FD and Log as well, by which the process itself says it.
	HTTP *HTTPProbe `json:"http,omitempty" yaml:"http,omitempty"`
	TCP  *TCPProbe  `json:"tcp,omitempty" yaml:"tcp,omitempty"`
	Exec *ExecProbe `json:"exec,omitempty" yaml:"exec,omitempty"`
	// Port is short for tcp with the address 127.0.0.1:PORT.
	Port int `json:"port,omitempty" yaml:"port,omitempty"`
	// Notify is for ready: "worker" (a worker says ready) or "sd_notify" (the
	// program says READY=1, as under systemd; Linux).
	Notify string `json:"notify,omitempty" yaml:"notify,omitempty"`
	// FD is for ready: the number of a descriptor, 3 to 9, on which the program
	// writes a line when it is ready, as under s6.
	FD int `json:"fd,omitempty" yaml:"fd,omitempty"`
	// Log is for ready: a regular expression (RE2) that a line of its output
	// matches when it is ready.
	Log string `json:"log,omitempty" yaml:"log,omitempty"`

	// Interval is the time from the end of one ask to the next. A health ask may
	// come up to a quarter of it early, 100ms at the most, when others are made
	// at that time. Default: 10s for health, 500ms for ready.
	Interval Duration `json:"interval,omitempty" yaml:"interval,omitempty"`
	// Timeout bounds one ask. Default: 5s for health, 1500ms for ready.
	Timeout Duration `json:"timeout,omitempty" yaml:"timeout,omitempty"`
	// Failures is how many noes in a row make a process unhealthy. Default 3.
	// An ask that could not be made counts as neither yes nor no.
	Failures int `json:"failures,omitempty" yaml:"failures,omitempty"`
	// Successes is how many yeses in a row make it healthy (or ready). Default 1.
	Successes int `json:"successes,omitempty" yaml:"successes,omitempty"`
	// InitialDelay is the wait after the start before the first ask. Default 0.
	InitialDelay Duration `json:"initial_delay,omitempty" yaml:"initial_delay,omitempty"`

	// Deadline is for ready: the time from the start by which it must be
	// ready. Default 1m.
	Deadline Duration `json:"deadline,omitempty" yaml:"deadline,omitempty"`
	// OnTimeout is for ready: "fail" (default: the group is ended and it counts
	// as a failed boot) or "warn" (it counts as running, not ready).
	OnTimeout string `json:"on_timeout,omitempty" yaml:"on_timeout,omitempty"`

	// OnFail is for health: "restart" (default) or "event".
	OnFail string `json:"on_fail,omitempty" yaml:"on_fail,omitempty"`
	// Pause is for health: when set, the wait before a restart for bad health,
	// in place of the backoff.
	Pause Duration `json:"pause,omitempty" yaml:"pause,omitempty"`
	// Backoff is for health: when set, restarts for bad health wait by it, with
	// an exponent of their own.
	Backoff *Backoff `json:"backoff,omitempty" yaml:"backoff,omitempty"`
}

// HTTPProbe asks by an HTTP GET.
type HTTPProbe struct {
	// URL is what is asked, http or https.
	URL string `json:"url" yaml:"url"`
	// Status lists the statuses that mean yes: numbers ("200") or classes
	// ("2xx"). Default: 2xx.
	Status Strings `json:"status,omitempty" yaml:"status,omitempty"`
	// JSON lists top-level or dotted fields of the answer and the values that
	// they must have, such as {"status": "healthy"}.
	JSON map[string]any `json:"json,omitempty" yaml:"json,omitempty"`
	// Headers are sent along.
	Headers map[string]string `json:"headers,omitempty" yaml:"headers,omitempty"`
	// Insecure accepts any certificate of an https server. Default false.
	Insecure bool `json:"insecure,omitempty" yaml:"insecure,omitempty"`
}

// TCPProbe asks by opening a connection.
type TCPProbe struct {
	// Address is "host:port" or "unix:/path".
	Address string `json:"address" yaml:"address"`
}

// ExecProbe asks by running a command: exit code 0 is yes, any other code or
// signal is no.
type ExecProbe struct {
	// Command is run with the process's directory, environment and user.
	Command Command `json:"command" yaml:"command"`
}

// StopPolicy says how a process is ended: Signal to its group, Grace, SIGKILL
// to the group and its cgroup, then the proof that nothing is left.
type StopPolicy struct {
	// Signal is the first signal. Default TERM.
	Signal string `json:"signal,omitempty" yaml:"signal,omitempty"`
	// Grace is the time between it and SIGKILL. Default 10s.
	Grace *Duration `json:"grace,omitempty" yaml:"grace,omitempty"`
	// KillWait is how long after SIGKILL the end must be proven before the
	// process is reported as stuck. Default 1s.
	KillWait Duration `json:"kill_wait,omitempty" yaml:"kill_wait,omitempty"`
}

// Logs says how output is kept.
type Logs struct {
	// MaxSize is the size at which a log segment is closed. Default 10MiB.
	MaxSize Size `json:"max_size,omitempty" yaml:"max_size,omitempty"`
	// MaxAge closes and later removes segments older than this. Default 0: no age limit.
	MaxAge Duration `json:"max_age,omitempty" yaml:"max_age,omitempty"`
	// MaxFiles is how many closed segments are kept. Default 5.
	MaxFiles int `json:"max_files,omitempty" yaml:"max_files,omitempty"`
	// Compress packs closed segments with gzip. Default true.
	Compress *bool `json:"compress,omitempty" yaml:"compress,omitempty"`
	// OnFull says what becomes of output that cannot be stored, because the disk is
	// full or fails: "block" (default: it waits, and so does a process that writes
	// more than its pipe holds) or "drop" (it is discarded and counted).
	OnFull string `json:"on_full,omitempty" yaml:"on_full,omitempty"`
}

// Dependency is something that must hold before a process starts. Exactly one
// of Process and File is set.
type Dependency struct {
	// Process is the name of another process.
	Process string `json:"process,omitempty" yaml:"process,omitempty"`
	// Condition is what it must be: "started", "healthy", "ready" or
	// "completed". Default: completed for a oneshot, ready where it has a ready
	// probe, healthy where it has a health probe, else started.
	Condition string `json:"condition,omitempty" yaml:"condition,omitempty"`
	// Restart restarts this process when the other one has been restarted.
	// Default false.
	Restart bool `json:"restart,omitempty" yaml:"restart,omitempty"`

	// File is a path that must exist (a sentinel).
	File string `json:"file,omitempty" yaml:"file,omitempty"`
	// Timeout is for File: how long it may take to appear. Default 1m.
	Timeout Duration `json:"timeout,omitempty" yaml:"timeout,omitempty"`
}

// EnvReload says what a change of an env file does to a process that is active.
// A process that is stopped is never started by it.
type EnvReload struct {
	// Mode is "restart" (default) or "off".
	Mode string `json:"mode,omitempty" yaml:"mode,omitempty"`
	// Debounce is how long the files must be quiet. Default 500ms.
	Debounce Duration `json:"debounce,omitempty" yaml:"debounce,omitempty"`
	// OnlyRestartIfChanged lists variables; when it is set, only a change of
	// the effective value of one of them restarts the process.
	OnlyRestartIfChanged []string `json:"only_restart_if_changed,omitempty" yaml:"only_restart_if_changed,omitempty"`
}

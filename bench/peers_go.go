//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// resolved is the true path of a command, or "".
func resolved(command string) string {
	path, err := exec.LookPath(command)
	if err != nil {
		return ""
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return ""
	}
	return path
}

// perdurePeer is ours: the built binary, through its commands.
type perdurePeer struct{ path string }

func (p *perdurePeer) name() string { return "perdure" }

func (p *perdurePeer) find(ctx context.Context) (string, error) {
	v, err := versionOf(ctx, p.path, "version")
	if err != nil {
		return "", fmt.Errorf("%w at %s (make build)", err, p.path)
	}
	return v, nil
}

// configure writes JSON, which is YAML as well.
func (p *perdurePeer) configure(in *incarnation) error {
	definitions := map[string]any{}
	for _, g := range in.setup.programs {
		d := map[string]any{
			"command": g.argv,
			"backoff": map[string]any{"initial": "0s", "jitter": map[string]any{"mode": "none"}},
			"breaker": map[string]any{"failures": -1},
		}
		if in.setup.logs {
			d["logs"] = map[string]any{"max_size": "4GiB", "compress": false}
		}
		if in.setup.check != "" {
			d["health"] = map[string]any{"http": map[string]any{"url": in.setup.check}, "interval": in.setup.interval.String()}
		}
		definitions[g.name] = d
	}
	text, err := json.MarshalIndent(map[string]any{"processes": definitions}, "", " ")
	if err != nil {
		return err
	}
	return in.write("perdure.yaml", string(text), 0o644)
}

func (p *perdurePeer) state(in *incarnation) string { return filepath.Join(in.dir, "state") }

func (p *perdurePeer) start(ctx context.Context, in *incarnation) error {
	return in.command(ctx, nil, p.path, "up", "-d", "-f", filepath.Join(in.dir, "perdure.yaml"), "--state-dir", p.state(in))
}

func (p *perdurePeer) kills() []kill {
	role := func(name string) func([]string) bool {
		return func(argv []string) bool { return len(argv) > 1 && argv[1] == name }
	}
	return []kill{{"supervisor", role("supervisor")}, {"server", role("server")}, {"both", everything}}
}

func (p *perdurePeer) told(ctx context.Context, in *incarnation, program string, code int) bool {
	text, err := in.ask(ctx, nil, p.path, "events", "process.exited", "--name", program, "--json", "--state-dir", p.state(in))
	return err == nil && strings.Contains(text, fmt.Sprintf(`"code":%d,`, code))
}

func (p *perdurePeer) stop(ctx context.Context, in *incarnation) error {
	return in.command(ctx, nil, p.path, "down", "--state-dir", p.state(in))
}

func (p *perdurePeer) logFiles(in *incarnation, program string) []string {
	files, err := filepath.Glob(filepath.Join(p.state(in), "logs", program, strings.Repeat("?", 16)+".log")) // without current.log, a link
	if err != nil {
		return nil
	}
	return files
}

// pebblePeer is Canonical's Pebble.
type pebblePeer struct{}

func (pebblePeer) name() string { return "pebble" }

func (pebblePeer) find(ctx context.Context) (string, error) {
	return versionOf(ctx, "pebble", "version", "--client")
}

func (pebblePeer) configure(in *incarnation) error {
	var c strings.Builder
	c.WriteString("services:\n")
	for _, g := range in.setup.programs {
		fmt.Fprintf(&c, "  %s:\n    override: replace\n    startup: enabled\n    command: %s\n", g.name, quote(g.argv))
		c.WriteString("    on-failure: restart\n    on-success: restart\n    backoff-delay: 0s\n    backoff-limit: 0s\n")
	}
	if in.setup.check != "" {
		c.WriteString("checks:\n")
		for _, g := range in.setup.programs {
			fmt.Fprintf(&c, "  %s:\n    override: replace\n    period: %s\n    timeout: %s\n    threshold: 3\n    http: {url: %q}\n",
				g.name, in.setup.interval, in.setup.interval/2, in.setup.check)
		}
	}
	return in.write("pebble/layers/001-bench.yaml", c.String(), 0o644)
}

func (pebblePeer) start(_ context.Context, in *incarnation) error {
	argv := []string{"pebble", "run"}
	if in.setup.logs {
		argv = append(argv, "--verbose") // the only way to have its logs in a file
	}
	return in.launch([]string{"PEBBLE=" + filepath.Join(in.dir, "pebble")}, argv...)
}

func (pebblePeer) stop(_ context.Context, in *incarnation) error {
	return in.terminate(syscall.SIGTERM)
}

func (pebblePeer) kills() []kill { return []kill{{"", everything}} }

// told reads Pebble's own log, which start has in this file.
func (pebblePeer) told(_ context.Context, in *incarnation, program string, code int) bool {
	return says(in, "peer.out", fmt.Sprintf(`Service "%s" stopped unexpectedly with code %d\b`, program, code))
}

func (pebblePeer) logFiles(in *incarnation, _ string) []string {
	return []string{filepath.Join(in.dir, "peer.out")}
}

// processComposePeer is process-compose, if it is on the PATH.
type processComposePeer struct{}

func (processComposePeer) name() string { return "process-compose" }

func (processComposePeer) find(ctx context.Context) (string, error) {
	return versionOf(ctx, "process-compose", "version", "--short")
}

func (processComposePeer) configure(in *incarnation) error {
	processes := map[string]any{}
	for _, g := range in.setup.programs {
		d := map[string]any{"command": "exec " + quote(g.argv), "availability": map[string]any{"restart": "always", "backoff_seconds": 0}}
		if in.setup.logs {
			d["log_location"] = filepath.Join(in.dir, g.name+".out")
			// Without rotation it empties the file at each of its starts.
			d["log_configuration"] = map[string]any{"rotation": map[string]any{"max_size_mb": 100_000, "max_backups": 10}}
		}
		if in.setup.check != "" {
			if in.setup.interval < time.Second {
				return errCannot // its intervals are whole seconds
			}
			u, err := url.Parse(in.setup.check)
			if err != nil {
				return err
			}
			d["readiness_probe"] = map[string]any{"period_seconds": int(in.setup.interval.Seconds()), "timeout_seconds": 1,
				"http_get": map[string]any{"host": u.Hostname(), "scheme": "http", "port": u.Port(), "path": "/"}}
		}
		processes[g.name] = d
	}
	text, err := json.Marshal(map[string]any{"version": "0.5", "processes": processes})
	if err != nil {
		return err
	}
	return in.write("pc.yaml", string(text), 0o644)
}

func (processComposePeer) start(_ context.Context, in *incarnation) error {
	return in.launch(nil, "process-compose", "-L", filepath.Join(in.dir, "pc.log"), "up", "-t=false", "-u", filepath.Join(in.dir, "pc.sock"), "-f", filepath.Join(in.dir, "pc.yaml"))
}

func (processComposePeer) stop(_ context.Context, in *incarnation) error {
	return in.terminate(syscall.SIGTERM)
}

func (processComposePeer) kills() []kill { return []kill{{"", everything}} }

func (processComposePeer) told(_ context.Context, in *incarnation, program string, code int) bool {
	const colour = `(\x1b\[\d+m)*`
	return says(in, "pc.log", fmt.Sprintf(`exit_code=%s%d %sprocess=%s%s\b`, colour, code, colour, colour, program))
}

func (processComposePeer) logFiles(in *incarnation, program string) []string {
	return []string{filepath.Join(in.dir, program+".out")}
}

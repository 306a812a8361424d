//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// quote writes an argv for a shell or a configuration that reads like one. The
// arguments of this harness have no blanks.
func quote(argv []string) string { return strings.Join(argv, " ") }

// floorPeer is the least that can be done; it has no abilities at all.
type floorPeer struct{ label, path string }

func (p *floorPeer) name() string { return p.label }

func (p *floorPeer) find(context.Context) (string, error) {
	if p.path == "" {
		return "", errors.New("cannot be built")
	}
	return "(fork, wait, fork again)", nil
}

func (p *floorPeer) configure(in *incarnation) error {
	if in.setup.logs || in.setup.check != "" || len(in.setup.programs[0].argv) > 3 {
		return errCannot
	}
	return nil
}

func (p *floorPeer) start(_ context.Context, in *incarnation) error {
	return in.launch(nil, p.path, strconv.Itoa(len(in.setup.programs)), in.b.tools.child, in.b.world.path, in.prefix()+"p")
}

func (p *floorPeer) stop(_ context.Context, in *incarnation) error {
	return in.terminate(syscall.SIGTERM)
}

func (p *floorPeer) logFiles(*incarnation, string) []string { return nil }

func (p *floorPeer) kills() []kill { return nil }

func (p *floorPeer) told(context.Context, *incarnation, string, int) bool { return false }

// runitPeer is runsvdir with a runsv for each program, from Debian's runit.
type runitPeer struct{}

func (runitPeer) name() string { return "runit" }

func (runitPeer) find(ctx context.Context) (string, error) {
	if _, err := versionOf(ctx, "runsvdir"); err != nil && strings.Contains(err.Error(), "installed") {
		return "", err
	}
	return versionOf(ctx, "dpkg-query", "-W", "-f", "${Version}", "runit")
}

func (runitPeer) configure(in *incarnation) error {
	if in.setup.check != "" {
		return errCannot
	}
	for _, p := range in.setup.programs {
		if err := in.write("sv/"+p.name+"/run", "#!/bin/sh\nexec "+quote(p.argv)+" 2>&1\n", 0o755); err != nil {
			return err
		}
		if in.setup.logs {
			dir := filepath.Join(in.dir, "log", p.name)
			if err := in.write(filepath.Join("log", p.name, "config"), "s4000000000\nn10\n", 0o644); err != nil {
				return err
			}
			if err := in.write("sv/"+p.name+"/log/run", "#!/bin/sh\nexec svlogd -tt "+dir+"\n", 0o755); err != nil {
				return err
			}
		}
		if err := keepExits(in, p.name); err != nil {
			return err
		}
	}
	return nil
}

// keepExits writes the script that runit and s6 run after each end of a
// program, with its exit code.
func keepExits(in *incarnation, program string) error {
	if !in.setup.exits {
		return nil
	}
	return in.write("sv/"+program+"/finish", "#!/bin/sh\necho ended with $1 >>"+filepath.Join(in.dir, program+".exits")+"\n", 0o755)
}

func keptExit(in *incarnation, program string, code int) bool {
	return says(in, program+".exits", fmt.Sprintf(`ended with %d\b`, code))
}

func (runitPeer) start(_ context.Context, in *incarnation) error {
	return in.launch(nil, "runsvdir", filepath.Join(in.dir, "sv"))
}

func (runitPeer) kills() []kill {
	return []kill{{"runsvdir", called("runsvdir")}, {"all of it", everything}}
}

func (runitPeer) told(_ context.Context, in *incarnation, program string, code int) bool {
	return keptExit(in, program, code)
}

// stop: on HUP runsvdir sends TERM to each runsv and ends (runsvdir(8)).
func (runitPeer) stop(_ context.Context, in *incarnation) error { return in.terminate(syscall.SIGHUP) }

func (runitPeer) logFiles(in *incarnation, program string) []string { return rotated(in, program) }

// rotated are the log files of svlogd and of s6-log.
func rotated(in *incarnation, program string) []string {
	old, err := filepath.Glob(filepath.Join(in.dir, "log", program, "@*"))
	if err != nil {
		return nil
	}
	return append(old, filepath.Join(in.dir, "log", program, "current"))
}

// s6Peer is s6-svscan with an s6-supervise for each program.
type s6Peer struct{}

func (s6Peer) name() string { return "s6" }

func (s6Peer) find(ctx context.Context) (string, error) {
	if _, err := versionOf(ctx, "s6-svscan", "--help"); err != nil && strings.Contains(err.Error(), "installed") {
		return "", err
	}
	return versionOf(ctx, "dpkg-query", "-W", "-f", "${Version}", "s6")
}

func (s6Peer) configure(in *incarnation) error {
	if in.setup.check != "" {
		return errCannot
	}
	for _, p := range in.setup.programs {
		if err := in.write("sv/"+p.name+"/run", "#!/bin/sh\nexec "+quote(p.argv)+" 2>&1\n", 0o755); err != nil {
			return err
		}
		if in.setup.logs {
			dir := filepath.Join(in.dir, "log", p.name)
			run := "#!/bin/sh\nmkdir -p " + dir + "\nexec s6-log n10 s268435455 t " + dir + "\n"
			if err := in.write("sv/"+p.name+"/log/run", run, 0o755); err != nil {
				return err
			}
		}
		if err := keepExits(in, p.name); err != nil {
			return err
		}
	}
	return nil
}

func (s6Peer) kills() []kill {
	return []kill{{"s6-svscan", called("s6-svscan")}, {"all of it", everything}}
}

func (s6Peer) told(_ context.Context, in *incarnation, program string, code int) bool {
	return keptExit(in, program, code)
}

func (s6Peer) start(_ context.Context, in *incarnation) error {
	return in.launch(nil, "s6-svscan", "-c", "4000", "-t", "0", filepath.Join(in.dir, "sv"))
}

func (s6Peer) stop(ctx context.Context, in *incarnation) error {
	return in.command(ctx, nil, "s6-svscanctl", "-t", filepath.Join(in.dir, "sv"))
}

func (s6Peer) logFiles(in *incarnation, program string) []string { return rotated(in, program) }

// supervisordPeer is Supervisor.
type supervisordPeer struct{}

func (supervisordPeer) name() string { return "supervisord" }

func (supervisordPeer) find(ctx context.Context) (string, error) {
	return versionOf(ctx, "supervisord", "--version")
}

func (supervisordPeer) configure(in *incarnation) error {
	if in.setup.check != "" {
		return errCannot
	}
	var c strings.Builder
	fmt.Fprintf(&c, "[supervisord]\nnodaemon=true\nuser=root\nminfds=16384\nlogfile=%s/sd.log\npidfile=%s/sd.pid\nchildlogdir=%s\n", in.dir, in.dir, in.dir)
	for _, p := range in.setup.programs {
		fmt.Fprintf(&c, "[program:%s]\ncommand=%s\nautorestart=true\nstartsecs=0\nstartretries=1000000\n", p.name, quote(p.argv))
		fmt.Fprintf(&c, "stdout_logfile=%s/%s.out\nstdout_logfile_maxbytes=0\nredirect_stderr=true\n", in.dir, p.name)
	}
	return in.write("sd.conf", c.String(), 0o644)
}

func (supervisordPeer) kills() []kill { return []kill{{"", everything}} }

func (supervisordPeer) told(_ context.Context, in *incarnation, program string, code int) bool {
	return says(in, "sd.log", fmt.Sprintf(`exited: %s \(exit status %d\b`, program, code))
}

func (supervisordPeer) start(_ context.Context, in *incarnation) error {
	return in.launch(nil, "supervisord", "-c", filepath.Join(in.dir, "sd.conf"))
}

func (supervisordPeer) stop(_ context.Context, in *incarnation) error {
	return in.terminate(syscall.SIGTERM)
}

func (supervisordPeer) logFiles(in *incarnation, program string) []string {
	return []string{filepath.Join(in.dir, program+".out")}
}

// pm2Peer is PM2 with its daemon in the folder.
type pm2Peer struct{}

func (pm2Peer) name() string { return "pm2" }

// find runs nothing: each command of pm2, help included, would leave a daemon
// under the user's home.
func (pm2Peer) find(context.Context) (string, error) {
	if resolved("pm2") == "" {
		return "", errors.New("is not installed")
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(resolved("pm2")), "..", "package.json"))
	if err != nil {
		return "", err
	}
	var about struct {
		Version string `json:"version"`
	}
	return about.Version, json.Unmarshal(text, &about)
}

func (p pm2Peer) configure(in *incarnation) error {
	if in.setup.check != "" {
		return errCannot
	}
	type app struct {
		Name        string   `json:"name"`
		Script      string   `json:"script"`
		Args        []string `json:"args"`
		Interpreter string   `json:"interpreter"`
		MaxRestarts int      `json:"max_restarts"`
		MinUptime   int      `json:"min_uptime"`
		Out         string   `json:"out_file"`
		Err         string   `json:"error_file"`
		PmxOff      bool     `json:"pmx"`
	}
	var apps []app
	for _, g := range in.setup.programs {
		out := "/dev/null"
		if in.setup.logs {
			out = filepath.Join(in.dir, g.name+".out")
		}
		apps = append(apps, app{Name: g.name, Script: g.argv[0], Args: g.argv[1:], Interpreter: "none",
			MaxRestarts: 1_000_000_000, Out: out, Err: out})
	}
	text, err := json.Marshal(map[string]any{"apps": apps})
	if err != nil {
		return err
	}
	return in.write("eco.json", string(text), 0o644)
}

func (pm2Peer) kills() []kill { return []kill{{"", everything}} }

func (pm2Peer) told(_ context.Context, in *incarnation, program string, code int) bool {
	return says(in, "pm2/pm2.log", fmt.Sprintf(`App \[%s:\d+\] exited with code \[%d\]`, program, code))
}

func (p pm2Peer) start(ctx context.Context, in *incarnation) error {
	return in.command(ctx, p.env(in), "pm2", "start", "eco.json", "--silent")
}

func (pm2Peer) env(in *incarnation) []string {
	return []string{"PM2_HOME=" + filepath.Join(in.dir, "pm2"), "PM2_DISABLE_VERSION_CHECK=1"}
}

func (p pm2Peer) stop(ctx context.Context, in *incarnation) error {
	return in.command(ctx, p.env(in), "pm2", "kill", "--silent")
}

func (pm2Peer) logFiles(in *incarnation, program string) []string {
	return []string{filepath.Join(in.dir, program+".out")}
}

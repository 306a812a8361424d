package main

import (
	"context"
	"iter"
	"runtime/debug"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/client"
	"github.com/perdure/perdure/internal/cli"
	"github.com/perdure/perdure/internal/config"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/server"
	"github.com/perdure/perdure/internal/supervisor"
)

// version is set by the linker (-X main.version=1.2.3); otherwise the build's
// own module version or revision is told.
var version string //ok: set by the linker, never written at run time

func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(len(s.Value), 12)]
		}
	}
	return "devel"
}

// seams joins the commands to the parts of Perdure. In is what the program has
// handed over that this process was before; nil if it was none.
func seams(in *server.Inherited) cli.Seams {
	v := buildVersion()
	return cli.Seams{
		Version:    v,
		Dial:       dial,
		StateDir:   server.StateDir,
		SocketPath: server.SocketPath,
		Running:    server.Running,
		Serve: func(ctx context.Context, o cli.ServeOptions, started func(cli.Started)) (int, error) {
			return serve(ctx, v, in, o, started)
		},
		CheckServer: func(ctx context.Context, o cli.ServeOptions) error {
			return server.CheckOptions(ctx, options(v, nil, o))
		},
		Handover:     server.Handover,
		Since:        since(in),
		Supervisor:   func(args []string) int { return supervisor.Main(args, v) },
		Find:         config.Find,
		LoadConfig:   loadConfig,
		Schema:       config.Schema,
		Presets:      definition.Presets,
		Preset:       definition.Preset,
		Complete:     complete,
		NeedsRestart: definition.NeedsRestart,
	}
}

func complete(defs map[string]api.Definition) map[string]api.Definition {
	out := definition.FillAll(defs)
	for name, d := range out {
		out[name] = definition.Redact(d)
	}
	return out
}

// connection gives *client.Client the shape that the commands ask for.
type connection struct{ *client.Client }

// FollowEvents follows without options: it connects again after a loss.
func (c connection) FollowEvents(ctx context.Context, q api.EventQuery) iter.Seq2[api.Event, error] {
	return c.Client.FollowEvents(ctx, q)
}

func dial(o cli.DialOptions) (cli.Client, error) {
	c, err := client.New(client.Options{Socket: o.Socket, URL: o.URL, Token: o.Token})
	if err != nil {
		return nil, err
	}
	return connection{c}, nil
}

func since(in *server.Inherited) time.Time {
	if in == nil {
		return time.Time{}
	}
	return in.Since
}

func options(version string, in *server.Inherited, o cli.ServeOptions) server.Options {
	return server.Options{
		Files: o.Files, Only: o.Only, Definitions: o.Ephemeral, StateDir: o.StateDir,
		Listen: o.Listen, TokenFile: o.TokenFile, Logger: o.Logger, Version: version,
		Again: o.Again, Reaps: true, Resume: o.Resume, Inherited: in,
		Become: server.Become{Args: o.Become.Args, Check: o.Become.Check, Leaving: o.Leaving},
	}
}

func serve(ctx context.Context, version string, in *server.Inherited, o cli.ServeOptions, started func(cli.Started)) (int, error) {
	return server.Run(ctx, options(version, in, o), func(s *server.Server) {
		started(cli.Started{
			Socket: server.SocketPath(o.StateDir), Hurry: s.Hurry, Since: s.Stayed(),
			Reload: func() error {
				_, err := s.Reload(context.WithoutCancel(ctx))
				return err
			},
			Upgrade: func(path string) error {
				_, err := s.Upgrade(context.WithoutCancel(ctx), api.UpgradeRequest{Binary: path})
				return err
			},
		})
	})
}

func loadConfig(files []string) (api.Config, []api.Finding, error) {
	cfg, findings, err := config.Load(files, config.LoadOptions{})
	if err != nil || cfg == nil {
		return api.Config{}, findings, err
	}
	return api.Config{Files: cfg.Files, Definitions: cfg.Definitions,
		Settings: definition.FillSettings(cfg.Settings, cfg.Definitions)}, findings, nil
}

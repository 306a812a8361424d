//go:build linux

package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed c/child.c
var childSource string

//go:embed c/floor.c
var floorSource string

// tools are the helper programs of a run. floorC is empty without a C compiler.
type tools struct {
	child, floorGo, floorC string
}

func buildTools(ctx context.Context, dir string) (tools, error) {
	t := tools{child: filepath.Join(dir, "child"), floorGo: filepath.Join(dir, "floor")}
	if err := goBuild(ctx, t.floorGo, "github.com/perdure/perdure/bench/floor"); err != nil {
		return t, err
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		fmt.Fprintln(os.Stderr, "gcc is not there: the child is a Go program and there is no floor in C")
		return t, goBuild(ctx, t.child, "github.com/perdure/perdure/bench/child")
	}
	t.floorC = filepath.Join(dir, "floorc")
	if err := cc(ctx, dir, t.child, childSource); err != nil {
		return t, err
	}
	return t, cc(ctx, dir, t.floorC, floorSource)
}

func goBuild(ctx context.Context, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w: %s", pkg, err, text)
	}
	return nil
}

func cc(ctx context.Context, dir, out, source string) error {
	file := filepath.Join(dir, filepath.Base(out)+".c")
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		return err
	}
	if text, err := exec.CommandContext(ctx, "gcc", "-O2", "-static", "-o", out, file).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot compile %s: %w: %s", file, err, text)
	}
	return nil
}

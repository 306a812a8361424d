package definition

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/perdure/perdure/api"
)

// image is the part of a definition that a running process cannot follow: it
// was given to it at its start.
type image struct {
	Command     api.Command
	Dir         string
	Env         map[string]string
	InheritEnv  bool
	User, Group string
	Umask       string
	Rlimits     map[string]string
	Nice        *int
	OOMScoreAdj *int
	NoNewPrivs  bool
	// Worker, Notify and FD are how it can speak to Perdure.
	Worker string
	Notify bool
	FD     int
}

// Hash is a digest of what a running process was started with: command, dir,
// env, inherit_env, user, group, umask, rlimits, nice, oom_score_adj,
// no_new_privs, and how it can speak to Perdure. Policies, probes, logs, dependencies, description and metadata
// are not in it, because they are taken over without a restart. Env files count
// by the values that the configuration has merged into Env.
func Hash(d api.Definition) string {
	im := image{Command: d.Command, Dir: d.Dir, Env: d.Env, InheritEnv: d.InheritEnv == nil || *d.InheritEnv,
		User: d.User, Group: d.Group, Umask: d.Umask, Rlimits: d.Rlimits, Nice: d.Nice, OOMScoreAdj: d.OOMScoreAdj,
		NoNewPrivs: d.NoNewPrivs, Worker: Transport(d), Notify: Notifies(d)}
	if d.Ready != nil {
		im.FD = d.Ready.FD
	}
	if len(im.Env) == 0 {
		im.Env = nil
	}
	if len(im.Rlimits) == 0 {
		im.Rlimits = nil
	}
	// Maps are written in the order of their keys.
	data, err := json.Marshal(im)
	if err != nil {
		//ok: strings, numbers and maps of strings always have a JSON form
		panic("definition: cannot marshal an image: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// NeedsRestart says whether a process that was started by old must be started
// anew to follow new.
func NeedsRestart(old, new api.Definition) bool { return Hash(old) != Hash(new) }

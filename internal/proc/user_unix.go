//go:build unix

package proc

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
)

// credential looks the user and the group up. The environment that it returns
// has HOME, USER and LOGNAME of the user, unless it has them already.
func credential(spec *Spec) (*syscall.Credential, []string, error) {
	env := spec.Env
	if env == nil {
		env = []string{} // nil would mean ours
	}
	if spec.User == "" && spec.Group == "" {
		return nil, env, nil
	}
	c := &syscall.Credential{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid()), NoSetGroups: true}
	if spec.User != "" {
		u, err := findUser(spec.User)
		if err != nil {
			return nil, nil, startError(spec, err.Error(), err)
		}
		if err := fillUser(c, u, spec.Group != ""); err != nil {
			return nil, nil, startError(spec, err.Error(), err)
		}
		env = slices.Clip(env)
		for _, kv := range [][2]string{{"HOME", u.HomeDir}, {"USER", u.Username}, {"LOGNAME", u.Username}} {
			if _, has := envValue(env, kv[0]); !has && kv[1] != "" {
				env = append(env, kv[0]+"="+kv[1])
			}
		}
	}
	if spec.Group != "" {
		gid, err := findGroup(spec.Group)
		if err != nil {
			return nil, nil, startError(spec, err.Error(), err)
		}
		c.Gid = gid
	}
	if os.Geteuid() != 0 {
		if int(c.Uid) == os.Geteuid() && int(c.Gid) == os.Getegid() {
			return nil, env, nil // it is us already
		}
		return nil, nil, startError(spec, "only root can run it as another user or group"+forUser(spec), syscall.EPERM)
	}
	return c, env, nil
}

// findUser takes a name or a number; a number need not have an entry.
func findUser(text string) (*user.User, error) {
	u, err := user.Lookup(text)
	if err == nil {
		return u, nil
	}
	if _, notNumber := strconv.ParseUint(text, 10, 32); notNumber == nil {
		if u, err := user.LookupId(text); err == nil {
			return u, nil
		}
		return &user.User{Uid: text}, nil
	}
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return nil, fmt.Errorf("user %q is not known", text)
	}
	return nil, fmt.Errorf("user %q cannot be looked up: %w", text, err)
}

func fillUser(c *syscall.Credential, u *user.User, hasGroup bool) error {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return fmt.Errorf("user %q has no number: %w", u.Username, err)
	}
	c.Uid, c.NoSetGroups = uint32(uid), false
	if u.Username == "" {
		if !hasGroup {
			return fmt.Errorf("user %s has no entry in the user database, so its group must be given", u.Uid)
		}
		return nil
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return fmt.Errorf("user %q has no group: %w", u.Username, err)
	}
	c.Gid = uint32(gid)
	ids, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("the groups of user %q cannot be looked up: %w", u.Username, err)
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			c.Groups = append(c.Groups, uint32(n))
		}
	}
	return nil
}

func findGroup(text string) (uint32, error) {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		return uint32(n), nil
	}
	g, err := user.LookupGroup(text)
	if err != nil {
		var unknown user.UnknownGroupError
		if errors.As(err, &unknown) {
			return 0, fmt.Errorf("group %q is not known", text)
		}
		return 0, fmt.Errorf("group %q cannot be looked up: %w", text, err)
	}
	n, err := strconv.ParseUint(g.Gid, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("group %q has no number: %w", text, err)
	}
	return uint32(n), nil
}

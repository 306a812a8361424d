package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/perdure/perdure/api"
)

// ParseSize reads a number of bytes: a plain number, or one with a unit. K, M,
// G and T, KiB, MiB, GiB and TiB are powers of 1024; kB, MB, GB and TB powers of
// 1000. B is allowed. Fractions ("1.5GiB") are rounded down.
func ParseSize(s string) (api.Size, error) {
	text := strings.TrimSpace(s)
	end := strings.LastIndexAny(text, "0123456789.") + 1
	number, unit := text[:end], strings.ToLower(strings.TrimSpace(text[end:]))
	factor, ok := map[string]float64{"": 1, "b": 1,
		"k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30, "t": 1 << 40, "tib": 1 << 40,
		"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}[unit]
	n, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || n < 0 || strings.ContainsAny(number, "eExX_+-") || n*factor >= math.MaxInt64 {
		return 0, fmt.Errorf("cannot read %q as a size (write it like 512K, 10MiB or 1GB)", clip(s))
	}
	if factor == 1 && n != math.Trunc(n) {
		return 0, fmt.Errorf("cannot read %q as a size: there are no parts of a byte", clip(s))
	}
	return api.Size(n * factor), nil
}

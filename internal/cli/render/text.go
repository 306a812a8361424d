package render

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// Width returns how many columns of a terminal text takes: 2 for wide East
// Asian characters and most emoji, 0 for combining marks, control characters
// and ANSI sequences (Unicode Standard Annex 11).
func Width(text string) int {
	n := 0
	for i := 0; i < len(text); {
		if text[i] == 0x1b {
			i += escapeLen(text[i:])
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		i += size
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch {
	case r < 0x20 || r == 0x7f || r == 0x200d || (r >= 0xfe00 && r <= 0xfe0f):
		return 0
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	default:
		return 1
	}
}

// Truncate returns text cut to at most columns, with "…" at its end if
// anything is left out. Text with ANSI sequences must not be given.
func Truncate(text string, columns int) string {
	if columns <= 0 {
		return ""
	}
	if Width(text) <= columns {
		return text
	}
	n, end := 0, 0
	for end < len(text) {
		r, size := utf8.DecodeRuneInString(text[end:])
		n += runeWidth(r)
		if n > columns-1 {
			break
		}
		end += size
	}
	return text[:end] + "…"
}

// Pad returns text followed by spaces up to columns.
func Pad(text string, columns int) string {
	if missing := columns - Width(text); missing > 0 {
		return text + strings.Repeat(" ", missing)
	}
	return text
}

func padLeft(text string, columns int) string {
	if missing := columns - Width(text); missing > 0 {
		return strings.Repeat(" ", missing) + text
	}
	return text
}

// escapeLen returns the length of the ANSI sequence at the start of s, which
// begins with ESC (ECMA-48: CSI, OSC and two-byte forms); at least 1.
func escapeLen(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	switch s[1] {
	case '[':
		for i := 2; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return i + 1
			}
		}
		return len(s)
	case ']':
		for i := 2; i < len(s); i++ {
			if s[i] == 0x07 {
				return i + 1
			}
			if s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\' {
				return i + 2
			}
		}
		return len(s)
	default:
		return 2
	}
}

// Clean makes a line of a process's output safe to stand beside others on a
// terminal: of what a carriage return has overwritten only the last part stays,
// colour sequences stay when keepColour is set and are closed at the end, every
// other control sequence or character goes (tabs stay).
func Clean(line string, keepColour bool) string {
	if strings.IndexFunc(line, isControl) < 0 {
		return line
	}
	line = strings.TrimRight(line, "\r")
	if i := strings.LastIndexByte(line, '\r'); i >= 0 {
		line = line[i+1:]
	}
	var b strings.Builder
	coloured := false
	for i := 0; i < len(line); {
		if line[i] == 0x1b {
			n := escapeLen(line[i:])
			if seq := line[i : i+n]; keepColour && strings.HasPrefix(seq, "\x1b[") && strings.HasSuffix(seq, "m") {
				b.WriteString(seq)
				coloured = true
			}
			i += n
			continue
		}
		r, size := utf8.DecodeRuneInString(line[i:])
		if !isControl(r) || r == '\t' {
			b.WriteString(line[i : i+size])
		}
		i += size
	}
	if coloured {
		b.WriteString("\x1b[0m")
	}
	return b.String()
}

func isControl(r rune) bool { return r < 0x20 || (r >= 0x7f && r < 0xa0) }

// Duration returns d for people: "820ms", "4.2s", "3m12s", "5h04m", "3d07h", "2m".
// A negative duration is shown as "0s".
func Duration(d time.Duration) string {
	switch {
	case d <= 0:
		return "0s"
	case d < time.Millisecond:
		return "<1ms"
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Truncate(100*time.Millisecond).Seconds()), ".0") + "s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return twoUnits(int(d.Minutes()), "m", int(d.Seconds())%60, "s")
	case d < 24*time.Hour:
		return twoUnits(int(d.Hours()), "h", int(d.Minutes())%60, "m")
	default:
		return twoUnits(int(d.Hours())/24, "d", int(d.Hours())%24, "h")
	}
}

func twoUnits(big int, bigUnit string, small int, smallUnit string) string {
	if small == 0 {
		return fmt.Sprintf("%d%s", big, bigUnit)
	}
	return fmt.Sprintf("%d%s%02d%s", big, bigUnit, small, smallUnit)
}

// Bytes returns a size with a binary unit: "512 B", "1.4 MiB".
func Bytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", max(n, 0))
	}
	value := float64(n)
	for _, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		value /= 1024
		if value < 1023.95 || unit == "TiB" {
			if value < 99.95 {
				return fmt.Sprintf("%.1f %s", value, unit)
			}
			return fmt.Sprintf("%.0f %s", value, unit)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// Percent returns a share of one core as "12%".
func Percent(share float64) string {
	if share > 0 && share < 0.0995 {
		return fmt.Sprintf("%.1f%%", share*100)
	}
	return fmt.Sprintf("%.0f%%", share*100)
}

// Clock returns a time of day in t's zone with milliseconds.
func Clock(t time.Time) string { return t.Format("15:04:05.000") }

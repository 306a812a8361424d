package definition

import "strings"

// Suggest returns the word of from that a person most likely meant by word, or
// "" when none is near. Near means: equal but for case, "-" and "_", or at most
// a third of the letters apart.
func Suggest(word string, from []string) string {
	w := fold(word)
	best, bestAt := "", max(1, len(w)/3)+1
	for _, c := range from {
		f := fold(c)
		if f == w {
			return c
		}
		if d := distance(w, f, bestAt); d < bestAt {
			best, bestAt = c, d
		}
	}
	return best
}

func didYouMean(word string, from []string) string {
	if s := Suggest(word, from); s != "" {
		return " (did you mean " + quote(s) + "?)"
	}
	return ""
}

func fold(s string) string {
	return strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(s))
}

// distance is the number of letters to add, drop, change or swap with a
// neighbour to come from a to b. It gives up with limit. Words longer than 64
// bytes are no typing errors of ours.
func distance(a, b string, limit int) int {
	if len(a) > 64 || len(b) > 64 || len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	var rows [3][66]int
	two, one, row := &rows[0], &rows[1], &rows[2]
	for j := 0; j <= len(b); j++ {
		one[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(one[j]+1, row[j-1]+1, one[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], two[j-2]+1)
			}
		}
		two, one, row = one, row, two
	}
	return one[len(b)]
}

func quote(s string) string { return "\"" + s + "\"" }

func list(words []string) string { return strings.Join(words, ", ") }

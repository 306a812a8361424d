package appendjson

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestMapAndStringAreRead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(rapid.String().AsAny(), rapid.Int().AsAny(), rapid.Int64().AsAny(), rapid.Uint64().AsAny(),
			rapid.Bool().AsAny(), rapid.Just[any](nil), rapid.SliceOf(rapid.String()).AsAny())
		m := rapid.MapOf(rapid.String(), value).Draw(t, "map")
		got, err := Map(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var a, b map[string]any
		if err := json.Unmarshal(got, &a); err != nil {
			t.Fatalf("%v: %s", err, got)
		}
		if err := json.Unmarshal(want, &b); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b, a); diff != "" {
			t.Fatal(diff)
		}
	})
	if _, err := Map(nil, map[string]any{"x": math.Inf(1)}); err == nil {
		t.Error("infinity was written")
	}
}

func TestObject(t *testing.T) {
	t.Parallel()
	o := Begin([]byte("x"))
	o.Text("a", "")
	o.Int("b", -1)
	o.Uint("c", math.MaxUint64)
	o.Bool("d", false)
	o.Bool("e", true)
	o.Time("f", time.Time{})
	o.Time("g", time.Unix(0, 1).UTC())
	o.Raw("h", []byte(`[1]`))
	o.Text("i", "q\"\x00")
	if got, want := string(o.End()), `x{"b":-1,"c":18446744073709551615,"e":true,"g":"1970-01-01T00:00:00.000000001Z","h":[1],"i":"q\"\u0000"}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	empty := Begin(nil)
	if got := string(empty.End()); got != "{}" {
		t.Error(got)
	}
}

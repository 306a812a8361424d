package control

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
)

// fill sets everything within v, so that a field that somebody adds and the
// encoder does not know is missed at once.
func fill(r *rand.Rand, v reflect.Value, sparse bool) {
	if sparse && r.IntN(3) == 0 {
		return
	}
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Unix(r.Int64N(1<<33), r.Int64N(1e9)).UTC()
		return
	case *json.RawMessage:
		*x, _ = json.Marshal(map[string]any{word(r): word(r), "n": r.Int()})
		return
	case **api.Definition:
		*x = &api.Definition{Name: word(r), Env: map[string]string{word(r): word(r)}}
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(word(r))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(r.Int64() - r.Int64())
	case reflect.Float64:
		v.SetFloat(r.Float64() * 100)
	case reflect.Uint64:
		v.SetUint(r.Uint64())
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem(), sparse)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+r.IntN(3), 4))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i), sparse)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("json") != "-" {
				fill(r, v.Field(i), sparse)
			}
		}
	default:
		panic(fmt.Sprint("a field of a kind that this test does not know: ", v.Type()))
	}
}

func word(r *rand.Rand) string {
	letters := []rune("abcXYZ09 _-/.:=\"\\\n\t\x00\x1f\x7f<>&é\u2028\U0001F600")
	var b strings.Builder
	for range 1 + r.IntN(12) {
		b.WriteRune(letters[r.IntN(len(letters))])
	}
	return b.String()
}

// What the encoder writes is what encoding/json writes, for those who read it.
func TestPayloadIsTheEntry(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		var e Entry
		fill(r, reflect.ValueOf(&e).Elem(), seed%4 != 0)
		e.Seq, e.Time = 9, time.Unix(5, 6).UTC() // they are the frame's
		if e.Record != nil {
			e.Record.Seq = e.Seq
		}
		payload, err := e.Payload()
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(payload) {
			t.Fatalf("seed %d: not JSON: %s", seed, payload)
		}
		got, err := Frame{Seq: e.Seq, Time: e.Time, Payload: payload}.Entry()
		if err != nil {
			t.Fatal(err)
		}
		standard, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Frame{Seq: e.Seq, Time: e.Time, Payload: standard}.Entry()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d: %s\n%s", seed, diff, payload)
		}
	}
}

func BenchmarkPayload(b *testing.B) {
	e := sample()
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := e.Payload(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(e); err != nil {
				b.Fatal(err)
			}
		}
	})
}

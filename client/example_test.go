package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/client"
)

// fakePerdure answers as a Perdure with one process would.
func fakePerdure() *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/processes/web/command", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"name":"web","state":"running","generation":2}`)
	})
	mux.HandleFunc("GET /v1/processes/db", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"code":"not_found","message":"cannot find a process named db"}`)
	})
	mux.HandleFunc("GET /v1/events/stream", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "retry: 3000\n\nid: 1\nevent: process.started\ndata: {\"seq\":1,\"type\":\"process.started\",\"name\":\"web\"}\n\n")
	})
	return httptest.NewServer(mux)
}

func Example() {
	server := fakePerdure()
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	// Against a real one: client.Options{Socket: ".perdure/api.sock"}.
	c, err := client.New(client.Options{URL: server.URL, Token: "a token of your own"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	p, err := c.Command(ctx, "web", api.CommandRequest{Verb: "restart", Wait: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(p.Name, "is", p.State, "in generation", p.Generation)

	_, err = c.Process(ctx, "db")
	var e *api.Error
	if errors.As(err, &e) {
		fmt.Println(e.Code)
	}

	for event, err := range c.FollowEvents(ctx, api.EventQuery{Pattern: "process.*"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.Seq, event.Type)
		break
	}
	// Output:
	// web is running in generation 2
	// not_found
	// 1 process.started
}
